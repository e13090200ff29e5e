"""What is measured of an explanation where no person judges it. None of these is a person's
judgement, and every report calls them proxies.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unseen.engine.choice_likelihood import Precision, choice_likelihoods
from unseen.engine.decode import evaluating, greedy
from unseen.lab import Lab
from unseen.models.pretrained import CausalLM
from unseen.tasks.graded_questions.winogrande import ExplainedSentence

Likelihoods = Callable[[Sequence[str], Sequence[Sequence[str]]], list[Float[Tensor, " choice"]]]

WITHOUT_CONTENT = """
a about after again all also am an and any are as at be because been before being but by can could
did do does doing for from get gets had has have having he her here hers him his how i if in into is
it its itself just me more most my no nor not of off on once only or other our out over own s same
she should so some such t than that the their theirs them then there these they this those through
to too under until up very was we were what when where which while who whom why will with would you
your x y
"""
STOP_WORDS = frozenset(WITHOUT_CONTENT.split())
"""Words without content; the placeholders X and Y of a rule are among them."""


def content_words(text: str) -> list[str]:
    return [word for word in words(text) if word not in STOP_WORDS]


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def overlap(rule: str, sentence: str) -> float:
    """Share of the rule's content words that occur in the sentence: low is general. A rule without
    content words shares none.
    """
    found, there = content_words(rule), set(words(sentence))
    return sum(word in there for word in found) / len(found) if found else 0.0


def option_margin(
    model: CausalLM,
    sentences: Sequence[ExplainedSentence],
    before: Sequence[str],
    precision: Precision,
) -> list[float]:
    """log p(right option) − log p(other option) as answers to "the blank stands for", with a text
    before the sentence.
    """
    items = [one.item(text) for one, text in zip(sentences, before, strict=True)]
    found = choice_likelihoods(
        model,
        [item.prompt for item in items],
        [item.continuations for item in items],
        precision=precision,
    )
    return [
        float(one.total[item.answer] - one.total[1 - item.answer])
        for one, item in zip(found, items, strict=True)
    ]


def rest_margin(
    model: CausalLM, sentences: Sequence[ExplainedSentence], precision: Precision
) -> list[float]:
    """log p(rest | … right option) − log p(rest | … other option): which option the model holds
    right, whatever the options' own frequency.
    """
    prompts = [one.parts[0] + option for one in sentences for option in one.options]
    rests = [[one.parts[1]] for one in sentences for _ in one.options]
    found = choice_likelihoods(model, prompts, rests, precision=precision)
    pairs = torch.stack([one.total[0] for one in found]).view(-1, 2)
    return [
        float(pair[one.answer] - pair[1 - one.answer])
        for pair, one in zip(pairs, sentences, strict=True)
    ]


def grammaticality(
    model: CausalLM, rules: Sequence[str], shuffles: int, precision: Precision, lab: Lab
) -> list[float]:
    """Log-probability per token of a rule minus the mean of those of its words in random order."""
    rng = lab.child("shuffles").numpy()
    texts = [
        [f" {text}" for text in (rule, *(_shuffle(rule, rng) for _ in range(shuffles)))]
        for rule in rules
    ]
    found = choice_likelihoods(model, ["Rule:"] * len(rules), texts, precision=precision)
    return [float(one.per_token[0] - one.per_token[1:].mean()) for one in found]


def _shuffle(text: str, rng: np.random.Generator) -> str:
    return " ".join(rng.permutation(text.split()))


def nearest(
    vectors: Float[Tensor, "pool d"],
    query: Float[Tensor, " d"],
    k: int,
    without: Sequence[int] = (),
) -> list[int]:
    """The k most similar by cosine, the most similar first."""
    similar = torch.nn.functional.cosine_similarity(vectors, query[None])
    similar[list(without)] = -torch.inf
    return similar.topk(k).indices.tolist()


def prompt_for_rule(examples: Sequence[ExplainedSentence], asked: ExplainedSentence) -> str:
    """The paper's prompt: neighbours from the least to the most similar, each with its rule."""
    header = "Explain the answer by a general rule about X and Y.\n"
    return (
        header + "".join(f"{_explain(one)} {one.rule}\n###\n" for one in examples) + _explain(asked)
    )


def _explain(one: ExplainedSentence) -> str:
    first, second = one.options
    return (
        f"Sentence: {one.sentence}\nOptions: {first} or {second}\n"
        f"Answer: {one.options[one.answer]}\nWhy?"
    )


def write_rules(
    model: CausalLM, prompts: Sequence[str], length: int, precision: Precision
) -> list[str]:
    """The model's most likely line after each prompt."""
    stop = model.encode("\n")[-1]
    with evaluating(model) as (_, device), precision.on(device):
        found = greedy(model, [model.encode(text) for text in prompts], length, stop, batch_size=8)
    return [model.tokenizer.decode(tokens).partition("\n")[0].strip() for tokens in found]
