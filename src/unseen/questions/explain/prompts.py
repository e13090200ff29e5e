"""Prompts whose answer is followed through a language model, read from a file and cut into
tokens.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from unseen.characters import find_half
from unseen.engine.trace import output_head
from unseen.errors import InvalidConfig, InvalidData
from unseen.models.pretrained import CausalLM
from unseen.tasks.text_corpus.queries import read_utf8, refuse_long

Text = str | Sequence[int]
"""A text, or token numbers."""
MOST_PROMPTS = 200


@dataclass(frozen=True)
class PromptPair:
    """A prompt with its answer, and the same with another prompt that has another answer."""

    prompt: Text
    answer: Text | None = None
    """None: what the model finds most likely. Its first token is followed."""
    counterfactual: Text | None = None
    """A prompt with as many tokens; None: this one is not traced."""
    counterfactual_answer: Text | None = None
    intermediate: Text | None = None
    """What has to be found on the way, such as the entity in the middle of two hops."""
    at: str = "prompt"
    """Where it stands, for messages."""


FIELDS = tuple(PromptPair.__dataclass_fields__)[:-1]


def read_prompts(path: str | Path) -> list[PromptPair]:
    """The lines of a .jsonl file with the fields of a `PromptPair`."""
    path = Path(path)
    text = read_utf8(path, "prompts")
    # not splitlines: U+2028 and others may stand inside a JSON string
    lines = [(k, line) for k, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise InvalidData(
            f"{path} holds no prompt.",
            why="there is nothing to explain.",
            fix='write {"prompt": "…", "answer": "…"} on each line.',
        )
    return [_parse_line(line, f"{path}, line {k}") for k, line in lines]


def _parse_line(line: str, at: str) -> PromptPair:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise InvalidData(
            f"{at}, is no JSON: {error.msg} at column {error.colno}.",
            why="every line of a .jsonl file is one object.",
            fix='write {"prompt": "…", "answer": "…"}.',
        ) from None
    if not isinstance(row, Mapping) or "prompt" not in row:
        raise InvalidData(
            f"{at}, has no prompt.",
            why="there is nothing that the model could read.",
            fix='write {"prompt": "…", "answer": "…"}.',
        )
    if wrong := [name for name in row if name not in FIELDS]:
        raise InvalidData(
            f"{at}, has a field `{wrong[0]}`.",
            why=f"known are {', '.join(FIELDS)}.",
            fix="rename or remove it.",
        )
    for name, value in row.items():
        is_text = isinstance(value, str)
        is_numbers = isinstance(value, list) and all(type(one) is int for one in value)
        if value is not None and not is_text and not is_numbers:
            raise InvalidData(
                f"{at}: `{name}` is {json.dumps(value)[:40]}.",
                why="it is a text, or a list of token numbers.",
                fix="put it in quotes.",
            )
        if half := find_half(value if isinstance(value, str) else ""):
            raise InvalidData(
                f"{at}: `{name}` holds half a character, {half}.",
                why="the text was cut through an emoji or another sign of two parts.",
                fix="remove it.",
            )
    return PromptPair(**row, at=at)


@dataclass(frozen=True)
class TokenPair:
    """A prompt pair in tokens."""

    tokens: Sequence[int]
    pieces: Sequence[str]
    """The tokens as text."""
    answer: int | None
    counterfactual: Sequence[int] | None
    counterfactual_answer: int | None
    intermediate: int | None
    at: str


def encode_prompts(pairs: Sequence[PromptPair], model: nn.Module, most: int) -> list[TokenPair]:
    """All pairs in tokens, or the first thing that is wrong with one."""
    if len(pairs) > most:
        raise InvalidConfig(
            f"There are {len(pairs)} prompts, and at most {most} are explained.",
            why="each takes one run of the model per layer and position.",
            fix=f"give fewer, or raise the limit: --most {len(pairs)}.",
        )
    return [_encode_pair(pair, model) for pair in pairs]


def _encode_pair(pair: PromptPair, model: nn.Module) -> TokenPair:
    tokens = _open(pair.prompt, model, pair.at, "prompt")
    other = None
    if pair.counterfactual is not None:
        other = _open(pair.counterfactual, model, pair.at, "counterfactual")
        _refuse_unequal(tokens, other, model, pair.at)
    elif pair.counterfactual_answer is not None:
        raise InvalidData(
            f"{pair.at}, has a counterfactual_answer and no counterfactual.",
            why="it answers the counterfactual prompt.",
            fix="give that prompt, too.",
        )

    def first(answer: Text | None, prompt: Text | None, kind: str) -> int | None:
        if answer is None or prompt is None:
            return None
        return _first_token(answer, prompt, model, pair.at, kind)

    answer = first(pair.answer, pair.prompt, "answer")
    other_answer = first(pair.counterfactual_answer, pair.counterfactual, "counterfactual_answer")
    if answer is not None and answer == other_answer:
        raise InvalidData(
            f"{pair.at}: answer and counterfactual_answer begin with the same token, "
            f"“{show_token(answer, model)}”.",
            why="answers are followed by their first token, and these are not told apart.",
            fix="choose a counterfactual whose answer begins otherwise.",
        )
    return TokenPair(
        tokens=tokens,
        pieces=[show_token(token, model) for token in tokens],
        answer=answer,
        counterfactual=other,
        counterfactual_answer=other_answer,
        intermediate=first(pair.intermediate, pair.prompt, "intermediate"),
        at=pair.at,
    )


def _refuse_unequal(tokens: Sequence[int], other: Sequence[int], model: nn.Module, at: str) -> None:
    if len(tokens) != len(other):
        one, two = ("|".join(show_token(t, model) for t in side) for side in (tokens, other))
        raise InvalidData(
            f"{at}: the prompt has {len(tokens)} tokens, the counterfactual one {len(other)}.",
            why="the state at a position is replaced by that at the same position: "
            f"“{one}” against “{two}”.",
            fix="exchange a word for one of as many tokens.",
        )
    if list(tokens) == list(other):
        raise InvalidData(
            f"{at}: the counterfactual prompt is the prompt.",
            why="nothing would change.",
            fix="change what the answer depends on.",
        )


def _open(text: Text, model: nn.Module, at: str, kind: str) -> list[int]:
    """A prompt's tokens, of a text behind those with which the tokenizer begins every text."""
    start = model.start if isinstance(text, str) and isinstance(model, CausalLM) else []
    tokens = [*start, *_encode(text, model, at, kind)]
    if isinstance(model, CausalLM):
        refuse_long(len(tokens), model, at)
    return tokens


def _encode(text: Text, model: nn.Module, at: str, kind: str) -> list[int]:
    encode: Any = getattr(model, "encode", None)
    if not isinstance(text, str):
        tokens, size = list(text), _vocabulary(model)
        if wrong := [token for token in tokens if not 0 <= token < size]:
            raise InvalidData(
                f"{at}: the {kind} holds token {wrong[0]}.",
                why=f"the model knows 0 to {size - 1}.",
                fix="correct the number.",
            )
    elif encode is None:
        raise InvalidData(
            f"{at}: the {kind} is a text, and the model has no tokenizer.",
            why="texts are cut into tokens by it.",
            fix="give token numbers, or wrap the model: CausalLM(model, tokenizer).",
        )
    else:
        tokens = encode(text)
        unknown = getattr(model.tokenizer, "unk_token_id", None)
        end = getattr(model.tokenizer, "eos_token_id", None)
        # GPT-2 and its kin know every byte and name the end of a text here
        if unknown is not None and unknown != end and unknown in tokens:
            raise InvalidData(
                f"{at}: the {kind} holds a token that the model does not know: “{text}”.",
                why="it would be read as the token for anything unknown.",
                fix="write it otherwise, or use another model.",
            )
    if not tokens:
        raise InvalidData(
            f"{at}: the {kind} is empty.",
            why="it has no token.",
            fix="write it, or leave the field out." if kind != "prompt" else "write a prompt.",
        )
    return tokens


def _first_token(answer: Text, prompt: Text, model: nn.Module, at: str, kind: str) -> int:
    """The token of an answer that follows the prompt."""
    if not isinstance(answer, str) or not isinstance(prompt, str):
        return _encode(answer, model, at, kind)[0]
    _encode(answer, model, at, kind)
    before = _encode(prompt, model, at, "prompt")
    whole = _encode(prompt + answer, model, at, kind)
    if whole[: len(before)] != before or len(whole) == len(before):
        raise InvalidData(
            f"{at}: “{answer}” joins the last token of its prompt.",
            why="no token of its own follows the prompt.",
            fix=f"begin it with a space, “ {answer.lstrip()}”, or end the prompt without one.",
        )
    return whole[len(before)]


def _vocabulary(model: nn.Module) -> int:
    head: Any = output_head(model)
    return int(head.weight.shape[0])


def show_token(token: int, model: nn.Module) -> str:
    """A token as text, with marks for spaces and line ends, or its number."""
    tokenizer = getattr(model, "tokenizer", None)
    text = str(token) if tokenizer is None else tokenizer.decode([token])
    return text.replace("\n", "⏎").replace(" ", "␣") or f"#{token}"
