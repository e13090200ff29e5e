"""Pairs of texts under a harder split: which way of training answers what training did not show.

Every method gets the same training pairs, seeds and number of steps: decoders from scratch with
each kind of positions, minibatches of one target length each, copies of primitives or tokens,
curricula, and a hint beside the task where a file with easier pairs is given; encoder–decoders from
scratch or fine-tuned, also with contrast. Exact match of the
whole answer with its end, on training-like pairs that were held out and on the split's test pairs,
by length.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unseen import stats
from unseen.engine.batches import Columns
from unseen.engine.evaluate import per_example
from unseen.engine.example_sampling import WeightedColumns
from unseen.engine.loop import Budget, Schedule
from unseen.engine.mixture import Mixture
from unseen.engine.program_writing import join_rows
from unseen.engine.token_pairs import Pair, Vocabulary, cut_padding, encode_pairs, refuse_empty
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.identity import identify
from unseen.lab import Lab
from unseen.method import Method
from unseen.methods.claps import CLAPS, Perturbation
from unseen.methods.erm import ERM
from unseen.methods.novelty_curriculum import NoveltyCurriculum
from unseen.methods.task_hinting import TaskHinting
from unseen.methods.zipf_sampling import ZipfSampling
from unseen.models.encoder_decoder import EncoderDecoder, t5
from unseen.models.transformer import Decoder, Positions, Transformer
from unseen.objectives import exact_match
from unseen.reading import Reading
from unseen.task import Axis, Split, Task, Use
from unseen.tasks.token_pairs.augmentation import (
    copy_primitives,
    copy_tokens,
    find_primitives,
)
from unseen.tasks.token_pairs.rules import PairSplit

INSIDE, UNSEEN = "like training", "unseen"
DEFAULT_STEPS, FINE_TUNING_STEPS = 1_000, 300
DEFAULT_COPIES = 20
ALONE_SHARE = 0.1
"""Of what is drawn, where words that stand alone are repeated: as many as in SCAN's Jump split."""
MOST_INSIDE = 300
"""Training pairs that are held out at most."""
ENOUGH = 0.9
"""Exact match inside below which nothing is concluded from failures on unseen pairs."""


POSITION_NAMES = {Positions.NONE: "no positions", Positions.OFFSET: "random offsets"}
"""Where the positions' own name says too little beside those of other methods."""


class Training(StrEnum):
    """How a decoder is trained, beyond its positions."""

    PLAIN = "plain"
    LENGTHS = "one length per minibatch"
    """Target lengths equally often, however many pairs they have."""
    HINT = "hint"
    """Half of the minibatches are of the hint's pairs."""
    ALONE = "words alone repeated"
    """Sources of one word are a tenth of what is drawn."""
    PRIMITIVES = "primitive copies"
    """The same, and words that stand alone get copies in every place (`walk3`, `I_WALK3`)."""
    TOKENS = "token copies"
    """The pairs again and again with every token renamed (AugZero)."""
    NOVELTY = "growing set"
    """A fifth of the pairs first, all of them after four fifths of the steps."""
    ZIPF = "short answers more often"
    """The r-th shortest target length is drawn in proportion to 1 / r."""
    CONTRAST = "in-batch contrast"
    """Encoder–decoders: a source is nearer to its target than to the batch's others."""
    CLAPS = "CLAPS"
    """The same, with imposters and distant targets."""


CONTRASTS = {
    Training.CONTRAST: Perturbation.NONE,
    Training.CLAPS: Perturbation.ADVERSARIAL,
}
ENCODER_DECODER = "encoder-decoder"


@dataclass(frozen=True)
class PairMethod:
    """A decoder with these positions, and how it is trained."""

    positions: Positions | None
    """None: an encoder–decoder, which knows distances."""
    training: Training = Training.PLAIN

    @property
    def name(self) -> str:
        name = ENCODER_DECODER
        if self.positions is not None:
            name = POSITION_NAMES.get(self.positions, self.positions.value)
        return name if self.training is Training.PLAIN else f"{name} + {self.training.value}"


def known_methods(hinted: bool, fine_tuned: bool = False) -> dict[str, PairMethod]:
    """Every kind of positions, and encoder–decoders, with every way of training that is for them;
    encoder–decoders alone where one is given to be fine-tuned.
    """
    decoders = (
        PairMethod(positions, training)
        for training in Training
        if training not in CONTRASTS and (hinted or training is not Training.HINT)
        for positions in Positions
    )
    both = (PairMethod(None, training) for training in Training if training is not Training.HINT)
    found = both if fine_tuned else (*decoders, *both)
    return {method.name: method for method in found}


def standard_methods(hinted: bool, copied: bool) -> list[PairMethod]:
    """Every kind of positions; without positions also one length per minibatch; with the hint, and
    with copies of primitives beside what they add to.
    """
    found = [PairMethod(positions) for positions in Positions]
    found.append(PairMethod(Positions.NONE, Training.LENGTHS))
    if hinted:
        found += [PairMethod(p, Training.HINT) for p in (Positions.NONE, Positions.OFFSET)]
    if copied:
        found += [PairMethod(Positions.ROTARY, t) for t in (Training.ALONE, Training.PRIMITIVES)]
    return found


def choose_methods(
    names: Sequence[str], hinted: bool, by: str, split: PairSplit, fine_tuned: bool = False
) -> tuple[PairMethod, ...]:
    """The methods of these names; the standard ones where none is given."""
    known = known_methods(hinted, fine_tuned)
    for name in names:
        if name not in known:
            raise UnknownName.near("method for pairs", name, known)
    if names:
        return tuple(known[name] for name in names)
    if fine_tuned:
        return tuple(PairMethod(None, one) for one in (Training.PLAIN, *CONTRASTS))
    copied = by == "primitive" and bool(find_primitives(split.train))
    return tuple(standard_methods(hinted, copied))


@dataclass(frozen=True)
class PairComparison:
    """What is compared: a split, the hint's pairs, sizes and seeds."""

    split: PairSplit
    hint: tuple[Pair, ...] = ()
    methods: tuple[PairMethod, ...] = ()
    seeds: int = 3
    steps: int = DEFAULT_STEPS
    width: int = 64
    layers: int = 2
    copies: int = DEFAULT_COPIES
    """Of every primitive or token, for the methods that add them."""
    model: EncoderDecoder | None = None
    """Fine-tuned; None: from scratch."""

    def __post_init__(self) -> None:
        if min(self.seeds, self.steps, self.copies) < 1:
            raise InvalidConfig(
                f"{self.seeds} seeds of {self.steps} steps, {self.copies} copies.",
                why="something has to be trained, and copies are counted from 1.",
                fix="--seeds 3 --steps 1000 --copies 20",
            )
        if any(m.training is Training.HINT for m in self.methods) and not self.hint:
            raise InvalidConfig(
                "A hint was asked for, and no file with its pairs was given.",
                why="the hint is a task of its own, easier than the main one.",
                fix="--hint easier.tsv, with the same columns.",
            )
        if shown := set(self.hint) & set(self.split.test):
            raise InvalidData(
                f"{len(shown)} pairs of the hint are test pairs.",
                why="training would show the answers that the test asks for.",
                fix="leave them out of the hint.",
            )

    @property
    def budget(self) -> Budget:
        return Budget(
            steps=self.steps,
            batch_size=64 if self.model is None else 32,
            lr=2e-3 if self.model is None else 3e-4,
            schedule=Schedule.COSINE,
            warmup=min(100, self.steps // 10),
            clip=1.0,
        )


@dataclass(frozen=True)
class PairParts:
    """Training pairs, held-out ones like them, and those of the test."""

    train: tuple[Pair, ...]
    inside: tuple[Pair, ...]
    unseen: tuple[Pair, ...]
    words: Vocabulary


def hold_out(split: PairSplit, hint: Sequence[Pair], lab: Lab) -> PairParts:
    """A tenth of the different training pairs, at most `MOST_INSIDE`, held out; words that stand
    alone are nowhere else explained and stay.
    """
    # what the hint shows is no test of what was learned
    shown = set(hint)
    every = [one for one in dict.fromkeys(split.train) if one not in shown]
    distinct = [one for one in every if len(one.source) > 1] or every
    if len(distinct) < 2:
        besides = " that the hint does not hold" if shown & set(split.train) else ""
        raise InvalidData(
            f"Training has {len(distinct)} different pairs{besides}.",
            why="one at least is trained on, and one is held out to see what was learned.",
            fix="give more pairs, or a smaller share to the test.",
        )
    n = min(MOST_INSIDE, max(1, len(distinct) // 10))
    order = lab.child("inside").numpy().permutation(len(distinct))
    inside = {distinct[k] for k in order[:n]}
    return PairParts(
        train=tuple(one for one in split.train if one not in inside),
        inside=tuple(one for one in distinct if one in inside),
        unseen=split.test,
        words=Vocabulary.of([*split.train, *split.test, *hint]),
    )


@dataclass(frozen=True)
class MethodResult:
    """Exact match of every pair by seed, inside and on the test."""

    name: str
    hits: Mapping[str, Float[Tensor, "seed pair"]]

    def reading(self, part: str, chosen: Tensor | None = None) -> Reading:
        """Mean over seeds, seeds counting once."""
        hits = self.hits[part] if chosen is None else self.hits[part][:, chosen]
        n = [hits.shape[1]] * len(hits)
        return stats.mean_proportion(hits.sum(1).tolist(), n)


@dataclass(frozen=True)
class PairResults:
    """The methods' results, and what an answer by heart would reach."""

    split: PairSplit
    methods: tuple[MethodResult, ...]
    lengths: Mapping[str, tuple[int, ...]]
    """Tokens of every target, by part."""
    chance: Mapping[str, float]
    """Exact match of the most frequent training answer, by part."""
    seeds: int
    steps: int
    fine_tuned: bool = False


def evaluate_pairs(
    asked: PairComparison, lab: Lab, on_finish: Callable[[object], None]
) -> PairResults:
    """Trains every method with every seed; what was trained before is read from the cache."""
    found: dict[str, list[dict[str, Tensor]]] = {m.name: [] for m in asked.methods}
    for seed in range(asked.seeds):
        own = replace(lab, seed=lab.seed + seed)
        parts = hold_out(asked.split, asked.hint, own)
        for method in asked.methods:
            found[method.name].append(hits_of(asked, method, parts, own.child(method.name)))
            on_finish(method)
    # parts differ by seed in which pairs are held out, not in how many
    parts = hold_out(asked.split, asked.hint, lab)
    results = tuple(
        MethodResult(name, {part: torch.stack([run[part] for run in runs]) for part in runs[0]})
        for name, runs in found.items()
    )
    sides = {INSIDE: parts.inside, UNSEEN: parts.unseen}
    lengths = {name: tuple(len(one.target) for one in side) for name, side in sides.items()}
    ((common, _),) = Counter(one.target for one in parts.train).most_common(1)
    chance = {
        name: sum(one.target == common for one in side) / len(side) for name, side in sides.items()
    }
    fine_tuned = asked.model is not None
    return PairResults(asked.split, results, lengths, chance, asked.seeds, asked.steps, fine_tuned)


def hits_of(
    asked: PairComparison, method: PairMethod, parts: PairParts, lab: Lab
) -> dict[str, Tensor]:
    """1 for every pair that the trained model answers exactly, by part."""
    shown = training_pairs(asked, method, parts)
    words = parts.words
    if shown is not parts.train:  # copies are words of their own
        words = Vocabulary.of([*shown, *parts.inside, *parts.unseen, *asked.hint])
    sides = {"train": shown, INSIDE: parts.inside, UNSEEN: parts.unseen}
    encode = partial(encode_pairs, vocabulary=words)
    if asked.model is not None:
        encode = partial(encode_texts, asked.model)
    data = {name: encode(pairs) for name, pairs in sides.items()}
    hint = encode(asked.hint) if asked.hint else None

    def make() -> dict[str, Tensor]:
        return train_and_score(asked, method, data, hint, len(words), lab)

    used = {name: columns.columns for name, columns in data.items()}
    key = identify(
        "comparison of pairs",
        method=method,
        budget=asked.budget,
        sizes=(asked.width, asked.layers),
        model=asked.model,
        data=used,
        hint=hint.columns if hint and method.training is Training.HINT else {},
        lab=lab.signature,
        code=train_and_score,
    )
    return lab.keep(key, make)


def training_pairs(asked: PairComparison, method: PairMethod, parts: PairParts) -> Sequence[Pair]:
    """The training pairs, with copies where the method adds them."""
    if method.training is Training.TOKENS:
        return copy_tokens(parts.train, asked.copies)
    if method.training is not Training.PRIMITIVES:
        return parts.train
    # as many variants of every pair: those with several primitives would crowd out the others
    primitives = find_primitives(parts.train)
    return copy_primitives(parts.train, primitives, asked.copies, most=asked.copies + 1)


@dataclass(frozen=True)
class FixedTask:
    """A task that is there already, as a hint."""

    task: Task

    def build(self, lab: Lab) -> Task:
        return self.task


def train_and_score(
    asked: PairComparison,
    method: PairMethod,
    data: Mapping[str, Columns],
    hint: Columns | None,
    vocabulary: int,
    lab: Lab,
) -> dict[str, Tensor]:
    objective = cut_padding(exact_match)
    make_task = partial(Task, axis=Axis.LENGTH, objective=objective)
    stream = training_stream(data["train"], method.training)
    task = make_task(name="pairs", splits={"train": Split(stream, Use.TRAIN)})
    is_hinted = method.training is Training.HINT and hint is not None
    read = [*data.values(), *([hint] if is_hinted and hint is not None else [])]
    context = max(part.columns["tokens"].shape[1] for part in read)
    model = new_model(asked, method, vocabulary, context, lab)
    learning: Method = ERM(asked.budget)
    if is_hinted and hint is not None:
        aside = make_task(name="hint", splits={"train": Split(hint, Use.TRAIN)})
        learning = TaskHinting(FixedTask(aside), budget=asked.budget)
    elif method.training is Training.NOVELTY:
        learning = NoveltyCurriculum(budget=asked.budget)
    elif method.training is Training.ZIPF:
        learning = ZipfSampling(column="length", budget=asked.budget)
    elif method.training in CONTRASTS:
        learning = CLAPS(CONTRASTS[method.training], budget=asked.budget)
    trained = learning.fit(model, task, lab.child("fit"))
    return {
        name: per_example(trained.model, data[name], objective.score, lab, 256)
        for name in (INSIDE, UNSEEN)
    }


def new_model(
    asked: PairComparison, method: PairMethod, vocabulary: int, context: int, lab: Lab
) -> nn.Module:
    """The given model anew, or one with random weights."""
    if asked.model is not None:
        return copy.deepcopy(asked.model)
    with lab.child("init").seeded():
        if method.positions is None:
            return t5(vocabulary, asked.width, asked.layers)
        shape = Decoder(
            vocabulary=vocabulary,
            width=asked.width,
            layers=asked.layers,
            context=context,
            positions=method.positions,
        )
        return Transformer(shape)


def encode_texts(model: EncoderDecoder, pairs: Sequence[Pair]) -> Columns:
    """The columns of `encode_pairs` in the tokens of a model's own tokenizer."""
    refuse_empty(pairs)
    encode = partial(model.tokenizer.encode, add_special_tokens=False)
    prompts = [[*encode(" ".join(one.source)), model.divider] for one in pairs]
    answers = [[*encode(" ".join(one.target)), model.closing] for one in pairs]
    context = getattr(model.model.config, "max_position_embeddings", None)  # T5 has no limit
    for k, (prompt, answer) in enumerate(zip(prompts, answers, strict=True), 1):
        if context is not None and max(len(prompt), len(answer)) > context:
            raise InvalidData(
                f"Pair {k} has {max(len(prompt), len(answer))} tokens on a side.",
                why=f"{type(model.model).__name__} reads {context}.",
                fix="leave it out, or give a model that reads more.",
            )
    return Columns(
        **join_rows(prompts, answers),
        length=torch.tensor([len(one.target) for one in pairs]),
    )


def training_stream(data: Columns, training: Training) -> Columns | Mixture:
    """The pairs as they are drawn."""
    if training is Training.LENGTHS:
        return by_length(data)
    if training in (Training.ALONE, Training.PRIMITIVES):
        return repeat_single_words(data)
    return data


def repeat_single_words(data: Columns) -> WeightedColumns:
    """The pairs, of which those with one word as source make a tenth of what is drawn."""
    alone = data.columns["mask"].long().argmax(1) == 2  # the word, then <to>
    n = int(alone.sum())
    if n in (0, len(alone)):
        raise InvalidData(
            f"{n} of {len(alone)} training pairs have a source of one word.",
            why="words that stand alone are to be a tenth of what is drawn.",
            fix="choose another method, or add such pairs and others.",
        )
    weights = torch.where(alone, ALONE_SHARE / n, (1 - ALONE_SHARE) / (len(alone) - n))
    return WeightedColumns(weights, data)


def by_length(data: Columns) -> Mixture:
    """The pairs as a mixture of their target lengths, equally often."""
    lengths = data.columns["length"]
    return Mixture(
        {str(int(n)): data.subset((lengths == n).nonzero().flatten()) for n in lengths.unique()}
    )


def length_bands(lengths: Sequence[int], most: int = 6) -> Iterator[tuple[int, int]]:
    """Ranges of lengths (first, last) with about equally many pairs."""
    ordered = sorted(lengths)
    start = 0
    for k in range(most):
        end = max(start, len(ordered) * (k + 1) // most)
        while 0 < end < len(ordered) and ordered[end] == ordered[end - 1]:
            end += 1  # a length is in one band
        if end > start:
            yield ordered[start], ordered[end - 1]
            start = end
