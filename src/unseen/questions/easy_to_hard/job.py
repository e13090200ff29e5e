"""Methods on a file of items: trained on easy or on hard ones, evaluated on both."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial

import numpy as np
import torch
from torch import Tensor

from unseen import stats
from unseen.engine.batches import Columns
from unseen.engine.choice_likelihood import Precision
from unseen.errors import InvalidConfig, UnknownName
from unseen.identity import Identity, identify
from unseen.lab import Lab
from unseen.measures.hardness import choice_loss, probe_losses
from unseen.measures.supervision_gap import SupervisionGap, accuracy, supervision_gap
from unseen.methods.choice_head import LinearChoiceHead
from unseen.methods.response_finetune import ResponseFinetune
from unseen.models.embedders import Embedder
from unseen.models.pretrained import CausalLM
from unseen.reading import Reading
from unseen.subjects.easy_to_hard import (
    ALL,
    Hits,
    ItemDraw,
    ItemReadings,
    answers,
    draw_train_and_test,
    fine_tuned,
    guessing,
    in_context,
    linear_head,
    read_by_embedder,
    read_by_model,
    refuse_long_examples,
    refuse_unread_items,
    spread_readings,
    zero_shot,
)
from unseen.tasks.graded_questions import (
    Item,
    Strata,
    Stratum,
    chance,
    contradictions,
    hardness_of,
    remove_repeats,
    stratify,
)
from unseen.text import count_noun

LIKELIHOOD, PROBE = "likelihood", "probe"
DRAWS = 4_000


class ItemMethod(StrEnum):
    """How items are answered."""

    ZERO_SHOT = "zero_shot"
    IN_CONTEXT = "in_context"
    LINEAR_HEAD = "linear_head"
    FINE_TUNE = "fine_tune"


def item_methods(names: Sequence[str], has_model: bool) -> tuple[ItemMethod, ...]:
    """The methods of these names; by default all but fine-tuning, without a language model the
    head alone.
    """
    if not names:
        first = (ItemMethod.ZERO_SHOT, ItemMethod.IN_CONTEXT) if has_model else ()
        return (*first, ItemMethod.LINEAR_HEAD)
    known = [method.value for method in ItemMethod]
    found = []
    for name in names:
        key = name.replace("-", "_").lower()
        if key not in known:
            raise UnknownName.near("method for items", name, known)
        found.append(ItemMethod(key))
    asking = [method for method in found if method is not ItemMethod.LINEAR_HEAD]
    if asking and not has_model:
        raise InvalidConfig(
            f"The method {asking[0]} needs a language model.",
            why="it reads the likelihood of each choice.",
            fix="add --model FOLDER (from Python model=…), or use linear_head on embeddings.",
        )
    return tuple(dict.fromkeys(found))


@dataclass(frozen=True, kw_only=True)
class ItemRequest:
    """What is compared on which items."""

    name: str
    items: tuple[Item, ...]
    hardness: str
    cuts: tuple[float, float] | None = None
    train: Stratum = Stratum.EASY
    evaluate: Stratum = Stratum.HARD
    methods: tuple[ItemMethod, ...] = (ItemMethod.LINEAR_HEAD,)
    n_train: int = 160
    n_test: int = 300
    runs: int = 5
    shots: int = 5
    model: CausalLM | None = None
    embedder: Embedder
    """Of the features, where there is no language model, and of the `probe` behind a hardness."""
    hardness_model: CausalLM | None = None
    """Behind `likelihood` as a hardness; None: the evaluated model."""
    precision: Precision = Precision.FLOAT32
    fine_tuning: ResponseFinetune = ResponseFinetune()

    def __post_init__(self) -> None:
        if self.train is self.evaluate:
            raise InvalidConfig(
                f"Both --train and --evaluate are {self.train}.",
                why="what is asked is whether training on one stratum carries over to another.",
                fix="use --train easy --evaluate hard.",
            )
        if self.shots < 1 or self.n_test < 2:
            raise InvalidConfig(
                f"shots={self.shots}, n_test={self.n_test}.",
                why="an example in context is one at least, and an interval needs two items.",
                fix="use --shots 5 --n-test 300.",
            )


@dataclass(frozen=True, kw_only=True)
class MethodOnItems:
    """A method after training on one source: its accuracy on every stratum."""

    method: str
    source: str
    """A stratum, `all`, or "nothing"."""
    accuracies: Mapping[Stratum, Reading]


@dataclass(frozen=True, kw_only=True)
class ItemResults:
    """Every method on every stratum, and what easy training is worth."""

    request: ItemRequest
    repeats: int
    """Items left out because an earlier one has the same question and choices."""
    strata: Strata
    draw: ItemDraw
    chance: float
    """On the items to evaluate."""
    methods: Sequence[MethodOnItems]
    gaps: Mapping[str, SupervisionGap]
    """By method, over `baseline`."""
    baseline: Mapping[str, str]
    harder: Reading | None
    """Accuracy on easy items minus that on those to evaluate, by the method named in
    `harder_by`.
    """
    harder_by: str = ""
    decisions: Sequence[str] = field(default_factory=list)


def about_contradictions(items: Sequence[Item]) -> list[str]:
    """A sentence about copies whose right choice is another; none where there are none."""
    found = contradictions(items)
    if not found:
        return []
    return [
        f"{count_noun(len(found), 'item')} repeat{'s' * (len(found) == 1)} an earlier one with "
        f"another right choice (the first: {found[0].title}); the earlier choice counts. One of "
        "the two is wrong: correct it."
    ]


def compare_items(
    request: ItemRequest, lab: Lab, on_finish: Callable[[object], None] = lambda method: None
) -> ItemResults:
    """Divides the items, runs every method from every source, and compares. What a language model
    read is kept, a run at a time.
    """
    items = remove_repeats(request.items)
    decisions = about_contradictions(request.items)
    for model in (request.model, request.hardness_model):
        if model is not None:
            refuse_unread_items(model, items)
    strata = stratify(_hardness(request, items, lab, decisions), request.cuts)
    most = dict.fromkeys(Stratum, request.n_test)
    draw = draw_train_and_test(strata, request.n_train, most, request.runs, lab.child("items"))
    if request.model is not None and ItemMethod.IN_CONTEXT in request.methods:
        sources = [stratum.value for stratum in _pair(request)]
        refuse_long_examples(request.model, items, draw, sources, request.shots)
    hits = _answers(request, items, draw, lab, on_finish)
    guess = guessing(items, draw)
    gaps, baseline = dict[str, SupervisionGap](), dict[str, str]()
    for method in request.methods:
        if (method, request.train.value) not in hits:
            continue
        easy, hard = (hits[method, source.value][request.evaluate] for source in _pair(request))
        free = hits.get((ItemMethod.ZERO_SHOT, ""), guess)
        # heads start from nothing, and are compared with guessing
        without = guess if method is ItemMethod.LINEAR_HEAD else free
        baseline[method] = "zero-shot" if without is not guess else "guessing"
        gaps[method] = supervision_gap(
            easy, hard, without[request.evaluate], lab.child("gap"), draws=DRAWS
        )
    harder, by = _harder(request, hits, lab)
    return ItemResults(
        request=request,
        repeats=len(request.items) - len(items),
        strata=strata,
        draw=draw,
        chance=chance([items[k] for k in draw.test[request.evaluate]]),
        methods=[
            MethodOnItems(
                method=method,
                source=source or "nothing",
                accuracies={name: _accuracy(table, lab) for name, table in found.items()},
            )
            for (method, source), found in hits.items()
        ],
        gaps=gaps,
        baseline=baseline,
        harder=harder,
        harder_by=by,
        decisions=decisions,
    )


def _pair(request: ItemRequest) -> tuple[Stratum, Stratum]:
    return request.train, request.evaluate


def _accuracy(table: object, lab: Lab) -> Reading:
    rng = lab.child("accuracy").numpy()
    return stats.grid_bootstrap(accuracy, np.asarray(table), rng=rng, draws=DRAWS, unit="fraction")


def _hardness(
    request: ItemRequest, items: Sequence[Item], lab: Lab, decisions: list[str]
) -> Sequence[float | None]:
    right = [item.answer for item in items]
    if request.hardness == PROBE:
        decisions.append(
            "Hardness is the loss of a linear probe on the vectors of question and choice that did "
            "not train on the item (5 folds)."
        )
        columns = _embedding_columns(request, items).columns
        features = [x[here] for x, here in zip(columns["x"], columns["present"], strict=True)]
        return probe_losses(features, right, lab.child("probe")).tolist()
    if request.hardness != LIKELIHOOD:
        return hardness_of(items, request.hardness)
    model = request.hardness_model or request.model
    if model is None:
        raise InvalidConfig(
            "The hardness `likelihood` needs a language model.",
            why="it is the loss of the right choice among the choices.",
            fix="add --hardness-model FOLDER, or use --hardness probe.",
        )
    if model is request.model:
        decisions.append(
            "Hardness is read from the evaluated model itself: hard means what it gets wrong, and "
            "its zero-shot accuracy on hard items is low by construction. --hardness-model names "
            "another one."
        )
    read = read_by_model(model, items, request.precision, lab.child("hardness"), layers=False)
    return [choice_loss(total, k) for total, k in zip(read.score, right, strict=True)]


def _embedding_columns(request: ItemRequest, items: Sequence[Item]) -> Columns:
    return read_by_embedder(request.embedder.fit([item.question for item in items]), items)


def _answers(
    request: ItemRequest,
    items: Sequence[Item],
    draw: ItemDraw,
    lab: Lab,
    on_finish: Callable[[object], None],
) -> dict[tuple[ItemMethod, str], Hits]:
    """Right answers by method and source; only items that are needed are read."""
    found: dict[tuple[ItemMethod, str], Hits] = {}
    # before anything is read: reading leaves buffers in a model that decide no answer
    about = identify("language model", model=request.model)
    readings = _readings(request, items, draw, about, lab)
    for method in request.methods:
        if method is ItemMethod.ZERO_SHOT and readings is not None:
            found[method, ""] = zero_shot(readings, items, draw)
            on_finish(method)
            continue
        run = _runner(method, request, items, draw, readings, about, lab)
        sources = [stratum.value for stratum in _pair(request)]
        if method is ItemMethod.LINEAR_HEAD:  # cheap: every source there is
            sources = [*(stratum.value for stratum in draw.train), ALL]
        for source in sources:
            found[method, source] = run(source)
        on_finish(method)
    return found


def _readings(
    request: ItemRequest, items: Sequence[Item], draw: ItemDraw, about: Identity, lab: Lab
) -> ItemReadings | None:
    """Of all items, those that no method needs left empty."""
    if request.model is None:
        return None
    model, few = request.model, [items[k] for k in draw.indices]
    key = identify(
        "readings of items",
        model=about,
        items=_decides(few),
        precision=str(request.precision),
        code=read_by_model,
    )

    def make() -> dict[str, Tensor]:
        read = read_by_model(model, few, request.precision, lab.child("items"))
        columns = {name: read.columns.columns[name] for name in ("x", "present")}
        tokens = torch.tensor(read.tokens)
        return {"score": read.score, "per_token": read.per_token, "tokens": tokens, **columns}

    stored = lab.keep(key, make)
    readings = ItemReadings(
        score=stored["score"],
        per_token=stored["per_token"],
        columns=Columns(x=stored["x"], present=stored["present"], y=answers(few)),
        tokens=int(stored["tokens"]),
    )
    return spread_readings(readings, draw.indices, items)


def _decides(items: Sequence[Item]) -> list[tuple[str, list[str], int]]:
    """What answers to items depend on."""
    return [(item.prompt, list(item.continuations), item.answer) for item in items]


def _runner(
    method: ItemMethod,
    request: ItemRequest,
    items: Sequence[Item],
    draw: ItemDraw,
    readings: ItemReadings | None,
    about: Identity,
    lab: Lab,
) -> Callable[[str], Hits]:
    if method is ItemMethod.LINEAR_HEAD or request.model is None:
        columns = _embedding_columns(request, items) if readings is None else readings.columns
        return lambda source: linear_head(columns, draw, source, lab, LinearChoiceHead())
    return lambda source: _stored_runs(method, request, items, draw, source, about, lab)


def _stored_runs(
    method: ItemMethod,
    request: ItemRequest,
    items: Sequence[Item],
    draw: ItemDraw,
    source: str,
    about: Identity,
    lab: Lab,
) -> Hits:
    """Right answers run by run, each stored as soon as it is there."""
    found = []
    for run in range(draw.runs):
        alone = replace(draw, train={name: (runs[run],) for name, runs in draw.train.items()})
        here = lab.child("run", run)
        key = identify(
            "answers to items",
            method=str(method),
            model=about,
            items=_decides(items),
            train=alone.train_indices(source, 0),
            test={str(name): list(test) for name, test in draw.test.items()},
            settings=(request.shots, str(request.precision), request.fine_tuning),
            source=source,
            lab=here.signature,
            code=(in_context, fine_tuned),
        )
        make = partial(_one_run, method, request, items, alone, source, here)
        found.append(lab.keep(key, make))
    return {name: torch.cat([one[name.value] for one in found]) for name in draw.test}


def _one_run(
    method: ItemMethod,
    request: ItemRequest,
    items: Sequence[Item],
    draw: ItemDraw,
    source: str,
    lab: Lab,
) -> dict[str, Tensor]:
    model, precision = request.model, request.precision
    assert model is not None
    if method is ItemMethod.IN_CONTEXT:
        hits = in_context(model, items, draw, source, draw.test, request.shots, precision, lab)
    else:
        hits = fine_tuned(model, items, draw, source, request.fine_tuning, precision, lab)
    return {name.value: table for name, table in hits.items()}


def _harder(
    request: ItemRequest, hits: Mapping[tuple[ItemMethod, str], Hits], lab: Lab
) -> tuple[Reading | None, str]:
    """By the zero-shot answers, else by heads trained on all strata."""
    for key, by in (
        ((ItemMethod.ZERO_SHOT, ""), "zero-shot"),
        ((ItemMethod.LINEAR_HEAD, ALL), "a linear head trained on items of every hardness"),
    ):
        if key in hits:
            easy, hard = (hits[key][stratum].mean(0).numpy() for stratum in _pair(request))
            return stats.welch(easy, hard, unit="fraction"), by
    return None, ""
