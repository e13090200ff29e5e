"""Training labels that are probably wrong: which, how many at each site, and how sure that is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median_low

import torch
from torch import Tensor

from unseen.document import Block, Note, Table, Tone, Value
from unseen.engine.batches import Columns, gather, whole
from unseen.engine.evaluate import outputs, per_example
from unseen.engine.loop import Budget, erm_step, train
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.measures.site_shift.label_noise import LEAST_BELIEF, MOST_RATED, label_noise
from unseen.methods.fit_estimator import FitEstimator
from unseen.questions.audit import training_data, trial_sample
from unseen.questions.audit.check import CheckResult, Code
from unseen.questions.audit.checks.site_shift import misleading_sites
from unseen.questions.audit.results import Findings
from unseen.reading import Reading
from unseen.subjects.examples import Example
from unseen.subjects.fresh_models import untrained_model
from unseen.subjects.session import Session
from unseen.task import Split, Use
from unseen.text import count_noun, join_words

WRONG = Code("U103", "wrong training labels", "suspected labels", rank=70)
FOLDS = 3
LEVEL, LEAST_RATE = 0.002, 0.02
"""A site is named where no wrong label is less likely than that (times the number of sites), and
where so many of its labels are: with 900 rows 1 of 120 null tables is.
"""
FAR = 5.0
"""A number is suspected where it is missed by so many times the median error."""


@dataclass(frozen=True, kw_only=True)
class SuspectedLabels:
    """The training labels of one held-out site's audit."""

    n: int
    suspects: Sequence[Example] = ()
    """All of them, most suspicious first; `value`: the probability to be wrong (numbers: the
    loss).
    """
    rates: Mapping[str, Reading] = field(default_factory=dict)
    """Estimated share of wrong labels by site ("": no sites)."""
    p_values: Mapping[str, float] = field(default_factory=dict)
    detail: Mapping[int, float] = field(default_factory=dict, repr=False)
    """Probability to be wrong by row, of every row."""


class LabelCheck:
    """Out-of-fold models that are trained as long as the model itself."""

    part = WRONG.part
    codes = (WRONG,)
    section = "The training data"

    def find(self, session: Session) -> SuspectedLabels:
        """Of the training examples."""
        session.require_model()
        split = session.training_split
        n = session.require_length(split)
        session.require_columns(split, "x", "y")
        if session.classifies:
            return _of_classes(session, split, n)
        if session.predictions(split).unit is None:
            raise InvalidData(
                "The target is neither a class nor a number.",
                why="how surprising a label is depends on what it is.",
                fix="nothing to do.",
            )
        losses = _out_of_fold(session, split, n, _losses).double()
        least = float(losses.median()) * FAR**2
        order = [int(k) for k in losses.argsort(descending=True) if losses[k] > least]
        return SuspectedLabels(
            n=n, suspects=[session.example(split, k, float(losses[k])) for k in order]
        )

    def notes(self, found: Sequence[CheckResult[SuspectedLabels]]) -> list[Note]:
        """One on all sites whose labels are wrong beyond chance."""
        named = noisy_sites(found)
        if not named:
            return []
        suspects = merged_suspects([one.findings for one in found])
        parts = [
            f"{_in_percent(rate)} of {rate.n} labels{f' at {site}' if site else ''}"
            for site, rate in named.items()
        ]
        return [
            Note(
                f"Labels look wrong: about {join_words(parts)}.",
                Tone.CAUTION,
                f"Check the {count_noun(len(suspects), 'listed label')} first"
                f"{_about_precision(suspects, misleading_sites([one.findings for one in found]))} "
                "Models that never saw them were sure of another answer, more often than they are "
                "elsewhere. Where the relation to the target differs at a site, its labels look "
                "wrong, too: ask how they were recorded.",
                code=WRONG.code,
            )
        ]

    def evidence(self, found: Sequence[CheckResult[SuspectedLabels]]) -> list[Block]:
        """The rates by site, and every suspect."""
        suspects = merged_suspects([one.findings for one in found])
        rates: list[dict[str, Value]] = [
            {"site": site or "all", "labels": rate.n, "wrong, %": _percent(rate), "p": p}
            for site, (rate, p) in site_rates(found).items()
        ]
        blocks: list[Block] = []
        if rates:
            caption = (
                "Estimated share of wrong labels by site, with 95 % interval; p: how often no "
                "wrong label would look so."
            )
            blocks.append(Table(rows=rates, caption=caption))
        rows: list[dict[str, Value]] = [
            {
                "row": one.index if one.row is None else one.row,
                "label": one.label,
                "probability to be wrong" if rates else "loss out of fold": round(one.value, 2),
                "example": one.shown if isinstance(one.shown, str) else "",
            }
            for one in suspects
        ]
        if rows:
            caption = f"All {count_noun(len(rows), 'suspected label')}, most suspicious first."
            blocks.append(Table(rows=rows, caption=caption))
        return blocks


def _about_precision(suspects: Sequence[Example], misleading: Sequence[str]) -> str:
    """The share of the suspects that is wrong, which assumes one relation to the target at all
    sites.
    """
    if misleading:
        return (
            "; how many of them are wrong cannot be told, since a feature has another relation to "
            f"the target at {join_words(list(misleading))} (U206): right labels there look wrong, "
            "and those of other sites may."
        )
    precision = sum(one.value for one in suspects) / len(suspects) if suspects else 0.0
    return f": about {100 * precision:.0f} % of them are expected to be wrong."


def noisy_sites(found: Sequence[CheckResult[SuspectedLabels]]) -> dict[str, Reading]:
    """The sites with wrong labels beyond chance and beyond the number of sites."""
    rates = site_rates(found)
    return {
        site: rate
        for site, (rate, p) in rates.items()
        if p * len(rates) < LEVEL and rate.value >= LEAST_RATE
    }


def site_rates(
    found: Sequence[CheckResult[SuspectedLabels]],
) -> dict[str, tuple[Reading, float]]:
    """Rate and p of every site: of the audits that trained on it the one in the middle."""
    table: dict[str, list[tuple[float, Reading]]] = {}
    for one in found:
        for site, rate in one.result.rates.items():
            table.setdefault(site, []).append((one.result.p_values[site], rate))
    middle = {site: median_low(sorted(p for p, _ in pairs)) for site, pairs in table.items()}
    return {
        site: (next(rate for p, rate in pairs if p == middle[site]), middle[site])
        for site, pairs in table.items()
    }


def merged_suspects(findings: Sequence[Findings]) -> list[Example]:
    """The suspects over all held-out sites, each row once: by the mean of its probability over the
    audits that trained on it.
    """
    results = [one.checked[WRONG.part] for one in findings if WRONG.part in one.checked]
    merged: dict[int, Example] = {}
    for one in (one for result in results for one in result.suspects):
        row = one.index if one.row is None else one.row
        known = [result.detail[row] for result in results if row in result.detail]
        value = sum(known) / len(known) if known else one.value
        if not known or value >= LEAST_BELIEF:
            merged.setdefault(row, replace(one, value=value))
    return sorted(merged.values(), key=lambda one: -one.value)


def _in_percent(rate: Reading) -> str:
    """ "10 % [4, 16]"."""
    low, high = 100 * rate.low, 100 * rate.high
    return f"{100 * rate.value:.0f} % [{low:.0f}, {high:.0f}]"


def _percent(rate: Reading) -> Reading:
    return replace(rate, value=100 * rate.value, low=100 * rate.low, high=100 * rate.high)


def _of_classes(session: Session, split: str, n: int) -> SuspectedLabels:
    p = _out_of_fold(session, split, n, _probabilities).double().cpu().numpy()
    batch = whole(session.task.splits[split].data, session.lab)
    y = batch["y"].flatten().cpu().numpy()
    codes = batch["site"].cpu() if "site" in batch else torch.zeros(n, dtype=torch.int64)
    present, site = torch.unique(codes, return_inverse=True)
    noise = label_noise(p, y, site.numpy(), session.lab.child("label noise").numpy())
    if n > MOST_RATED:
        session.note_cap(
            f"Rates of wrong labels are estimated from {MOST_RATED:,} of the {n:,} examples of "
            f"`{split}`, drawn at random within site and class; every label is then rated by them."
        )
    names = session.subject.site_names
    sites = [str(names[int(k)]) if names and k >= 0 else "" for k in present]
    rows = batch["index"].flatten().tolist() if "index" in batch else range(n)
    return SuspectedLabels(
        n=n,
        suspects=[session.example(split, int(k), float(noise.wrong[k])) for k in noise.suspects],
        rates=dict(zip(sites, noise.rates, strict=True)),
        p_values=dict(zip(sites, noise.p_values, strict=True)),
        detail=dict(zip(rows, noise.wrong.tolist(), strict=True)),
    )


def _probabilities(session: Session, model: torch.nn.Module, data: Columns, lab: Lab) -> Tensor:
    """Class probabilities of every example."""
    with torch.no_grad():
        z = outputs(model, data, lab).float()
    if z.dim() == 1 or z.shape[1] == 1:
        z = torch.stack([-z.flatten(), z.flatten()], 1) / 2
    if z.dim() != 2:
        raise InvalidData(
            f"The model returns {tuple(z.shape)}.",
            why="labels are compared with one probability per class.",
            fix="nothing to do.",
        )
    return z.softmax(1)


def _losses(session: Session, model: torch.nn.Module, data: Columns, lab: Lab) -> Tensor:
    return per_example(model, data, session.task.objective.loss, lab)


def _out_of_fold(
    session: Session,
    split: str,
    n: int,
    read: Callable[[Session, torch.nn.Module, Columns, Lab], Tensor],
) -> Tensor:
    """What models of the other folds say of every example; each is trained as the audited model
    is, with its budget.
    """
    task, lab = session.task, session.lab.child("suspicion")
    if n < 2 * FOLDS:
        raise InvalidData(
            f"Split `{split}` has {n} examples.",
            why=f"models of {FOLDS} folds are trained on the others.",
            fix="use more examples.",
        )
    data, budget = task.splits[split].data, session.subject.budget
    most = training_data.MOST_STEPS
    if session.has_gradients and budget.steps > most:
        budget = replace(budget, steps=most)
        session.note_cap(
            f"Suspected labels come from models that were trained for {most} steps, the audited "
            f"one for {session.subject.budget.steps}."
        )
    folds = torch.randperm(n, generator=lab.child("folds").generator()).tensor_split(FOLDS)
    budget = _tell_sample(session, split, n - len(folds[0]), budget)
    selection = trial_sample.sample_splits(task.of(Use.SELECT), lab) if budget.select_every else {}
    found: list[Tensor] = []
    for k, held in enumerate(folds):
        own = lab.child("fold", k)
        with own.child("init").seeded():
            model = untrained_model(session.subject)
        rest = torch.cat([fold for j, fold in enumerate(folds) if j != k])
        fitted = Split(Columns(**gather(data, rest)), Use.TRAIN)
        part = replace(
            task, splits={**trial_sample.sample_splits({"train": fitted}, own), **selection}
        )
        if session.has_gradients:
            trained = train(model, part, erm_step, budget, own.child("fit"))
        else:
            trained = FitEstimator().fit(model, part, own.child("fit"))
        found.append(read(session, trained.model, Columns(**gather(data, held)), lab))
    values = torch.cat(found)
    if not values.isfinite().all():
        raise InvalidData(
            "Models of the folds give values that are not finite.",
            why="labels are compared with them.",
            fix="look for non-finite inputs or targets.",
        )
    return values[torch.cat(list(folds)).argsort()]


def _tell_sample(session: Session, split: str, rows: int, budget: Budget) -> Budget:
    """The budget of models of so many rows, shorter where they are trained on a sample only."""
    most = trial_sample.MOST_ROWS
    if rows <= most:
        return budget
    if session.has_gradients:
        budget = trial_sample.shorter_budget(budget, most, rows)
    steps = f" for {budget.steps:,} steps" if session.has_gradients else ""
    session.note_cap(
        f"The models that suspect labels are trained{steps} on {most:,} of {rows:,} examples "
        f"of `{split}`, drawn at random within site and class; every label is compared with them."
    )
    return budget


check = LabelCheck()
