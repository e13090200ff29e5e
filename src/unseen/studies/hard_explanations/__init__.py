"""Hard examples are also harder to explain: rules of people and of GPT-3 for sentences of
WinoGrande by their hardness, with proxies in the place of judges.

Saha et al. (2022), arXiv:2211.07517. Supportiveness scores the option, the same one with and
without the rule: scored on the rest of the sentence even the right answer in words fails.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from unseen import stats
from unseen.engine.choice_likelihood import Precision
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.models.embedders import find_embedder
from unseen.models.pretrained import CausalLM
from unseen.models.smollm import smollm2
from unseen.models.tiny_causal import tiny_causal
from unseen.reading import Reading
from unseen.studies.hard_explanations.proxies import (
    grammaticality,
    nearest,
    option_margin,
    overlap,
    prompt_for_rule,
    rest_margin,
    write_rules,
)
from unseen.study import Claim, Effect, Row, Rows, Scale, Study, Unit, average, column, gap, rate
from unseen.study.effects import highest, restrict, worst
from unseen.study.figures import bars, stack, summary
from unseen.study.grid import Cell, Grid, resize
from unseen.study.source import reference
from unseen.study.trial import label
from unseen.tasks.graded_questions.winogrande import (
    ExplainedSentence,
    Level,
    explained_sentences,
    generated_rules,
)

HUMAN, GPT3 = "human", "GPT-3"
POOLS = (Level.EASY, Level.HARD)
FEWEST_CONTROLS = 30
CONTROL = 0.8
"""Share of items whose option must become likelier when the answer is named."""


class Scorer(StrEnum):
    """The language model behind the proxies."""

    SMOLLM2 = "SmolLM2-135M-Instruct"
    TINY = "untrained bytes"


@dataclass(frozen=True)
class Config:
    scorer: Scorer = Scorer.SMOLLM2
    embedder: str = "minilm"
    precision: Precision = Precision.BFLOAT16
    margins: int = 100
    """Sentences per level whose margin is taken, the first ones."""
    items: int = 60
    """Per level, drawn, whose rules are scored."""
    general: int = 30
    """Of these, whose rules are tried on neighbours."""
    neighbours: int = 5
    shuffles: int = 5
    own: int = 20
    """Hard items that the model explains itself, from neighbours of either pool."""
    length: int = 30
    """Tokens of such an explanation."""
    seeds: int = 1


class Part(StrEnum):
    """A cell's work: the rules of a level, or the model's own."""

    EASY = "easy"
    MEDIUM = "medium"
    HARD = "hard"
    OWN = "own rules"


def run(cell: Cell[Config, Part], lab: Lab) -> Iterator[Row]:
    config, model = cell.setting, load_scorer(cell.setting.scorer)
    rows = (
        own_rules(model, config, lab)
        if cell.arm is Part.OWN
        else score_level(model, Level(cell.arm), config, lab)
    )
    return label(rows, seed=cell.seed)


@functools.lru_cache(1)
def load_scorer(scorer: Scorer) -> CausalLM:
    """Read once per process: unpacking takes seconds."""
    return smollm2() if scorer is Scorer.SMOLLM2 else tiny_causal()


def score_level(model: CausalLM, level: Level, config: Config, lab: Lab) -> Iterator[Row]:
    """Margins without a rule, then both writers' rules, then the controls."""
    sentences = explained_sentences(level)
    rules = {HUMAN: [one.rule for one in sentences], GPT3: generated_rules(level)}
    margins = rest_margin(model, sentences[: config.margins], config.precision)
    for k, margin in enumerate(margins):
        yield {"part": "margin", "level": level, "rank": list(Level).index(level), "item": k,
               "margin": margin, "right": int(margin > 0)}  # fmt: skip
    for source, texts in rules.items():
        for k, (text, one) in enumerate(zip(texts, sentences, strict=True)):
            yield {"part": "overlap", "level": level, "source": source, "item": k,
                   "overlap": overlap(text, one.sentence)}  # fmt: skip
    order = lab.child("items", level).numpy().permutation(len(sentences))
    chosen = [int(k) for k in order[: config.items]]
    asked = [sentences[k] for k in chosen]
    plain = option_margin(model, asked, [""] * len(asked), config.precision)
    generality = measure_generality(model, asked[: config.general], config)
    support: dict[str, list[float]] = {}
    for source, texts in rules.items():
        here = [texts[k] for k in chosen]
        grammar = grammaticality(model, here, config.shuffles, config.precision, lab)
        support[source] = gains(model, asked, here, plain, config.precision)
        masked = mask_gains(model, asked, here, support[source], plain, config.precision)
        general = generality(here[: config.general])
        for i, k in enumerate(chosen):
            yield {"part": "rule", "level": level, "source": source, "item": k,
                   "grammar": grammar[i], "support": support[source][i], "masked": masked[i],
                   **({"general": general[i]} if i < config.general else {})}  # fmt: skip
    yield from label(controls(model, asked, support[HUMAN], plain, config, lab), level=level)


def gains(
    model: CausalLM, asked: Sequence[ExplainedSentence], texts: Sequence[str],
    plain: Sequence[float], precision: Precision,
) -> list[float]:  # fmt: skip
    """Supportiveness: by how much each text in front raises the margin of the right option."""
    found = option_margin(model, asked, texts, precision)
    return [b - a if text else 0.0 for a, b, text in zip(plain, found, texts, strict=True)]


def mask_gains(
    model: CausalLM, asked: Sequence[ExplainedSentence], texts: Sequence[str],
    support: Sequence[float], plain: Sequence[float], precision: Precision,
) -> list[float]:  # fmt: skip
    """The same with the options' names in the text replaced by X and Y; most rules hold none."""
    masked = [one.mask(text) for one, text in zip(asked, texts, strict=True)]
    found = list(support)
    if rows := [k for k, (a, b) in enumerate(zip(masked, texts, strict=True)) if a != b]:
        some = gains(model, [asked[k] for k in rows], [masked[k] for k in rows],
                     [plain[k] for k in rows], precision)  # fmt: skip
        for k, gain in zip(rows, some, strict=True):
            found[k] = gain
    return found


def measure_generality(
    model: CausalLM, asked: Sequence[ExplainedSentence], config: Config
) -> Callable[[Sequence[str]], list[float]]:
    """Of rules, one per sentence: the mean gain on the sentences of the pools that are nearest to
    its own.
    """
    pool = [one for level in POOLS for one in explained_sentences(level, "pool_400")]
    rows = find_neighbours(pool, asked, config)
    near = sorted({k for row in rows for k in row})
    margins = option_margin(model, [pool[k] for k in near], [""] * len(near), config.precision)
    plain = dict(zip(near, margins, strict=True))

    def read(rules: Sequence[str]) -> list[float]:
        pairs = [(rule, k) for rule, row in zip(rules, rows, strict=True) for k in row]
        found = gains(
            model,
            [pool[k] for _, k in pairs],
            [rule for rule, _ in pairs],
            [plain[k] for _, k in pairs],
            config.precision,
        )
        size = config.neighbours
        return [sum(found[i : i + size]) / size for i in range(0, len(found), size)]

    return read


def find_neighbours(
    pool: Sequence[ExplainedSentence], asked: Sequence[ExplainedSentence], config: Config
) -> list[list[int]]:
    """Of each sentence, filled rightly; never itself."""
    texts = [one.sentence_with_answer for one in pool]
    embedder = find_embedder(config.embedder).fit(texts)
    vectors, queries = (
        embedder.embed(texts),
        embedder.embed([one.sentence_with_answer for one in asked]),
    )
    return [
        nearest(vectors, query, config.neighbours,
                [k for k, other in enumerate(pool) if other.sentence == one.sentence])
        for one, query in zip(asked, queries, strict=True)
    ]  # fmt: skip


def controls(
    model: CausalLM, asked: Sequence[ExplainedSentence], support: Sequence[float],
    plain: Sequence[float], config: Config, lab: Lab,
) -> Iterator[Row]:  # fmt: skip
    """What must raise the margin: the answer named, the sentence filled; and another item's
    rule.
    """
    shift = int(lab.child("other").numpy().integers(1, len(asked)))
    texts = {
        "named": [f"The answer is {one.options[one.answer]}." for one in asked],
        "filled": [one.sentence_with_answer for one in asked],
        "other": [asked[(k + shift) % len(asked)].rule for k in range(len(asked))],
    }
    found = {name: gains(model, asked, text, plain, config.precision)
             for name, text in texts.items()}  # fmt: skip
    for k, own in enumerate(support):
        yield {"part": "control", "item": k, "support": own, "n": 1,
               "passes": int(found["named"][k] > 0),
               **{name: values[k] for name, values in found.items()}}  # fmt: skip


def own_rules(model: CausalLM, config: Config, lab: Lab) -> Iterator[Row]:
    """Rules that the model writes for hard items, after easy and after hard neighbours."""
    order = lab.child("items", Level.HARD).numpy().permutation(100)[: config.own]
    sentences = explained_sentences(Level.HARD)
    asked = [sentences[k] for k in order]
    plain = option_margin(model, asked, [""] * len(asked), config.precision)
    for level in POOLS:
        pool = explained_sentences(level, "pool_400")
        near = find_neighbours(pool, asked, config)
        prompts = [
            prompt_for_rule([pool[k] for k in reversed(row)], one)
            for row, one in zip(near, asked, strict=True)
        ]
        rules = write_rules(model, prompts, config.length, config.precision)
        support = gains(model, asked, rules, plain, config.precision)
        written = [rule for rule in rules if rule]
        scores = grammaticality(model, written, config.shuffles, config.precision, lab)
        grammar = dict(zip(written, scores, strict=True))
        for k, (rule, one) in enumerate(zip(rules, asked, strict=True)):
            yield {"part": "own rule", "source": f"SmolLM2 after {level} examples",
                   "pool": level, "item": int(order[k]),
                   "overlap": overlap(rule, one.sentence), "support": support[k],
                   "words": len(rule.split()), "xy": int("X" in rule.split()),
                   **({"grammar": grammar[rule]} if rule else {})}  # fmt: skip


def margin_trend(rows: Rows) -> Reading:
    """Spearman's ρ of margin and level over the sentences."""
    ranks, margins = (column(rows, name, part="margin") for name in ("rank", "margin"))
    return stats.rank_correlation(ranks, margins)


def writers(name: str, part: str = "rule", **where: str) -> Effect:
    """People's rules minus GPT-3's for the same items."""
    return gap(name, {"part": part, "source": HUMAN, **where},
               {"part": part, "source": GPT3, **where}, pair=("seed", "item"))  # fmt: skip


def own_minus_other(rows: Rows) -> Reading:
    """Gain by an item's own rule minus that by another item's."""
    own, other = (column(rows, name, part="control") for name in ("support", "other"))
    return stats.difference(own, other, "nats")


answer_named = rate("passes", "n", part="control")


def if_measurable(effect: Effect) -> Effect:
    """The effect, where the controls of supportiveness hold: the answer in words supports, and an
    item's own rule more than another's. Of too few items no control can fail.
    """

    def read(rows: Rows) -> Reading:
        found, named, own = effect(rows), answer_named(rows), own_minus_other(rows)
        if named.n >= FEWEST_CONTROLS and (named.value < CONTROL or not own.low > 0):
            raise InvalidData(
                "supportiveness is not measurable with this model (the answer named supports in "
                f"{named.value:.0%} of {named.n} items; own rule − another's {own})",
                why="a rule must move the option, and its own item's more than another's.",
                fix="use a larger language model.",
            )
        return found

    return read


def is_medium_or_hard(row: Row) -> bool:
    """Levels of which the difference was expected at p < .01 beforehand."""
    return row.get("level") in (Level.MEDIUM, Level.HARD)


BY_LEVEL = highest(writers("overlap", part="overlap"), over="level")
PROXY = "By proxy: "
SIGN = "the paper's judges say which of the two is better, and the proxy has another scale"

CLAIMS = (
    Claim("People's rules share fewer content words with their sentence than GPT-3's, on medium "
          "and on hard items.", restrict(BY_LEVEL, is_medium_or_hard), below=0, unit=Unit.ITEM,
          sign_because="overlap says that a rule is general, not how much that is worth"),
    Claim("Hardness carries over: SmolLM2's margin falls from easy to hard.", margin_trend,
          below=0, unit=Unit.ITEM,
          sign_because="levels are those of another, much larger model"),
    Claim("Control: “The answer is …” raises the right option in at least 80 % of the items.",
          answer_named, above=CONTROL, unit=Unit.ITEM),
    Claim("Control: an item's own rule supports its answer more than another item's rule.",
          own_minus_other, above=0, unit=Unit.ITEM,
          sign_because="without a difference nothing of the rule's meaning is measured"),
    Claim(PROXY + "people's and GPT-3's rules are equally grammatical, whatever the hardness "
          "(within 0.3 nats per token).",
          worst(writers("grammar"), "level", 0.0, part="rule"), above=-0.3, below=0.3,
          unit=Unit.ITEM),
    Claim(PROXY + "on easy items people's rules hold more generally than GPT-3's.",
          if_measurable(writers("general", level=Level.EASY)), above=0, unit=Unit.ITEM,
          sign_because=SIGN),
    Claim(PROXY + "on hard items people's rules support the answer more than GPT-3's.",
          if_measurable(writers("support", level=Level.HARD)), above=0, unit=Unit.ITEM,
          sign_because=SIGN),
    Claim(PROXY + "on hard items people's rules hold more generally than GPT-3's.",
          if_measurable(writers("general", level=Level.HARD)), above=0, unit=Unit.ITEM,
          sign_because=SIGN),
)  # fmt: skip

READ = {
    "margin": "margin",
    "right": "right",
    "overlap": "overlap",
    "grammaticality": "grammar",
    "support": "support",
    "names masked": "masked",
    "on neighbours": "general",
    "words": "words",
    "uses X": "xy",
}
CONTROLS = {"own rule": "support", "another's rule": "other", "sentence filled": "filled",
            "answer named": "named", "share raised by the answer": "passes"}  # fmt: skip
shared_words = bars(
    writers("overlap", part="overlap"),
    by="level",
    title="Content words shared with the sentence: people − GPT-3",
    label="share of the rule's content words",
    where={"part": "overlap"},
)
support_gap = bars(
    writers("support"),
    by="level",
    title="Proxy of supportiveness: people − GPT-3",
    label="nats",
    where={"part": "rule"},
)
gain_of = bars(
    {
        name: average(name_of_column, part="control", pair=("seed", "level", "item"))
        for name, name_of_column in CONTROLS.items()
        if name_of_column != "passes"
    },
    title="What raises the right option",
    label="nats",
)
table = stack(
    summary(("part", "level"), READ, where={"part": "margin"}),
    summary(("part", "level", "source"), READ, where={"part": "overlap"}),
    summary(("part", "level", "source"), READ, where={"part": "rule"}),
    summary(("part", "level"), CONTROLS, where={"part": "control"}),
    summary(("part", "source"), READ, where={"part": "own rule"}),
)

LAPTOP = Config()
study = Study(
    name="hard_explanations",
    system="10",
    differs=(
        "The paper's crowd workers compare explanations in pairs; their judgements are not "
        "released, so three proxies by SmolLM2-135M stand in their place, on 60 of the 100 items "
        "of each level (30 for neighbours), drawn once, with 1 seed, in bfloat16 (a sum of "
        "log-probabilities moves by up to 0.3 nats). The intervals are over these items of one "
        "scoring model; pool sentences that are neighbours of several items are counted for each. "
        "The levels are the authors' Data Maps of RoBERTa-large: at this size no model learns "
        "WinoGrande, so no map is drawn. Neighbours are found by MiniLM instead of "
        "paraphrase-mpnet. SmolLM2's own rules (20 hard items, with easy or with hard examples "
        "before them) are reported."
    ),
    not_tested=(
        "Every claim of the abstract about judgements: what people hold grammatical, supportive "
        "and general. The impact of the in-context examples' hardness is reported, not judged, "
        "and of GPT-3 only the released rules are read; whether people's rules fall less than "
        "GPT-3's with hardness is not judged."
    ),
    source=reference("saha2022explain"),
    scales={
        Scale.SMOKE: resize(
            LAPTOP,
            scorer=Scorer.TINY,
            embedder="tfidf",
            precision=Precision.FLOAT32,
            margins=4,
            items=4,
            general=2,
            neighbours=2,
            shuffles=2,
            own=2,
            length=5,
        ),
        Scale.LAPTOP: LAPTOP,
        Scale.PAPER: resize(LAPTOP, items=100, general=100, own=100, length=50),
    },
    cells=lambda config: Grid((config,), tuple(Part), config.seeds),
    run=run,
    claims=CLAIMS,
    figures=(shared_words, support_gap, gain_of),
    table=table,
)
