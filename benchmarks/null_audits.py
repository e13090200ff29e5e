"""How often an audit or a comparison says that something is wrong, or better, where nothing is; and
how often it finds what is planted.

`python benchmarks/null_audits.py --json` prints one entry per situation: the rate with its interval
(Wilson, over repeats), the rate that is promised, and what is counted. Null data are

* calibration: outcomes drawn from the probabilities themselves (planted: twice too confident);
* remedies: six trainings of the audited model with other random numbers, on heart disease;
* worst site: equal sites; counted is how often the quoted interval misses the common truth, and
  how often some site is called worse;
* subgroups: equal subgroups of equal sites;
* copies: eight methods that are all ERM, compared on heart disease.

Nothing here is a copy of the rules: outcomes go through the functions that `unseen audit` and
`unseen compare` call, and what is counted are the sentences that they write. The networks of heart
disease are trained once (`POOL` per hospital, half a minute) and drawn without replacement.
"""

import argparse
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit, log_expit
from torch import Tensor

from unseen import stats
from unseen.engine.batches import Columns
from unseen.lab import Lab
from unseen.method import Method
from unseen.methods.erm import ERM
from unseen.objectives import classify
from unseen.questions.audit.advice import advice as audit_advice
from unseen.questions.audit.document import document as audit_document
from unseen.questions.audit.performance import calibration
from unseen.questions.audit.results import Findings, Gap, Outcome, Score
from unseen.questions.compare.advice import advice as compare_advice
from unseen.questions.compare.candidates import MethodSpec
from unseen.questions.compare.job import Comparison
from unseen.questions.compare.protocols import Protocol
from unseen.questions.compare.results import WORST, Results
from unseen.questions.compare.run_groups import Run, RunGroup, RunScores
from unseen.questions.compare.splits import evaluated_splits
from unseen.reading import Reading
from unseen.subjects.predictions import SplitPredictions
from unseen.subjects.session import open_session
from unseen.subjects.sources import read_subjects
from unseen.subjects.subject import Subject
from unseen.subjects.tables import TableColumns
from unseen.task import Axis, Split, Task, Use

POOL, SEEDS, REMEDIES = 126, 3, 6


@dataclass(frozen=True)
class Rate:
    """How often something was said in `repeats` audits or comparisons."""

    situation: str
    counted: str
    promised: str
    hits: int
    repeats: int
    seconds: float

    @property
    def reading(self) -> Reading:
        return stats.proportion(self.hits, self.repeats)


def count(
    situation: str,
    counted: str,
    promised: str,
    repeats: int,
    happens: Callable[[np.random.Generator], bool],
) -> Rate:
    start, hits = time.process_time(), 0
    for k in range(repeats):
        hits += happens(np.random.default_rng([20261129, k]))
    return Rate(situation, counted, promised, hits, repeats, time.process_time() - start)


def findings_of(
    scores: Mapping[str, Reading],
    site: str = "site",
    gaps: Sequence[Gap] = (),
    outcomes: Sequence[Outcome] = (),
) -> Findings:
    """An audit of one held-out site that read these scores there."""
    return Findings(
        name="network",
        task="null",
        score_name="accuracy",
        seeds=SEEDS,
        sizes={"unseen": 100},
        sites={"unseen": site},
        unseen=["unseen"],
        known=["seen"],
        scores=[
            Score(model="network", split="unseen", metric=metric, reading=reading)
            for metric, reading in scores.items()
        ],
        gaps=gaps,
        outcomes=outcomes,
    )


# calibration ------------------------------------------------------------------------------------


def is_called_miscalibrated(
    rng: np.random.Generator, n: int, sites: int, confidence: float
) -> bool:
    """An audit of a model whose log odds are `confidence` times the true ones, at every site."""
    found = []
    for k in range(sites):
        z = rng.normal(0, 1.5, n)
        y = torch.tensor(rng.random(n) < expit(z)).long()
        logits = torch.tensor(np.stack([np.zeros(n), confidence * z], 1), dtype=torch.float32)
        splits = {
            "train": Split(Columns(x=logits, y=y), Use.TRAIN, at="home"),
            "unseen": Split(Columns(x=logits, y=y), Use.EVALUATE, at=f"site {k}"),
        }
        task = Task(name="logits", axis=Axis.SITE, splits=splits, objective=classify)
        subject = Subject(task=task, model=torch.nn.Identity, trained=torch.nn.Identity())
        session = open_session(subject, Lab(seed=int(rng.integers(2**31))))
        read = calibration(session)
        one = replace(
            findings_of(session.predictions("unseen").metrics(), f"site {k}"),
            readings=read.readings,
        )
        if hasattr(read, "p_values"):
            one = replace(one, calibration_p_values=read.p_values)
        found.append(one)
    return any("as probabilities" in note.text for note in audit_advice(found))


def calibrations(repeats: int) -> Iterator[Rate]:
    for n in (30, 100, 200, 800):
        yield count(
            f"calibrated model, one site of {n}",
            "called miscalibrated",
            "≤ 5 %",
            repeats,
            lambda rng, n=n: is_called_miscalibrated(rng, n, 1, 1.0),
        )
    yield count(
        "calibrated model, four sites of 100",
        "called miscalibrated",
        "≤ 5 %",
        repeats,
        lambda rng: is_called_miscalibrated(rng, 100, 4, 1.0),
    )
    for sites in (1, 4):
        yield count(
            f"planted: slope 0.5, {sites} × 100 examples",
            "called miscalibrated",
            "≥ 80 %",
            repeats,
            lambda rng, sites=sites: is_called_miscalibrated(rng, 100, sites, 2.0),
        )


# remedies ---------------------------------------------------------------------------------------


@cache
def heart_disease() -> list[tuple[Subject, SplitPredictions]]:
    """Of each held-out hospital, `POOL` networks' predictions."""
    lab = Lab(seed=0)
    found = []
    for subject in read_subjects(None, lab.child("data"), TableColumns()):
        session = open_session(subject, lab.child(subject.task.name), seeds=POOL)
        found.append((subject, session.predictions("unseen")))
    return found


def choose(pool: SplitPredictions, rows: NDArray[np.int64]) -> SplitPredictions:
    assert pool.margin is not None
    return replace(pool, loss=pool.loss[rows], score=pool.score[rows], margin=pool.margin[rows])


def planted(pool: SplitPredictions, gain: float) -> SplitPredictions:
    """The predictions with `gain` more log odds for the true class."""
    assert pool.margin is not None
    assert pool.y is not None
    sign = 2 * pool.y - 1
    margin = pool.margin + gain * sign
    return replace(
        pool,
        margin=margin,
        score=(margin * sign > 0).astype(float),
        loss=-log_expit(margin * sign),
    )


def judge_remedies(
    rng: np.random.Generator, hospitals: Sequence[int], metric: str, gain: float = 0.0
) -> str:
    """What an audit writes of six remedies, of which the first has `gain`."""
    found = []
    for k in hospitals:
        subject, pool = heart_disease()[k]
        draws = rng.permutation(POOL)[: SEEDS * (REMEDIES + 1)].reshape(-1, SEEDS)
        base, outcomes = choose(pool, draws[0]), []
        for number, rows in enumerate(draws[1:]):
            remedy = planted(choose(pool, rows), gain if number == 0 else 0.0)
            outcomes += [
                Outcome(remedy=f"remedy {number}", split="unseen", metric=name, change=change)
                for name, change in remedy.changes(base).items()
            ]
        read = base.metrics()
        scores = {name: read[name] for name in dict.fromkeys(("accuracy", metric))}
        found.append(findings_of(scores, subject.held_out, outcomes=outcomes))
    return " ".join(note.text for note in audit_advice(found))


def is_clear(text: str) -> bool:
    return "Try remedy" in text or "made " in text


def remedies(repeats: int) -> Iterator[Rate]:
    places = {"four hospitals": range(4)} | {
        subject.held_out: [k] for k, (subject, _) in enumerate(heart_disease())
    }
    for metric in ("AUC", "accuracy"):
        for place, hospitals in places.items():
            yield count(
                f"six copies as remedies, {place}, {metric}",
                "one called better or worse",
                "≤ 5 %",
                repeats,
                lambda rng, h=hospitals, m=metric: is_clear(judge_remedies(rng, h, m)),
            )
        for place, gain in (("four hospitals", 0.5), ("Cleveland", 0.5), ("Cleveland", 1.0)):
            yield count(
                f"planted: one of six with {gain:g} more log odds, {place}, {metric}",
                "recommended",
                "",
                repeats,
                lambda rng, h=places[place], m=metric, g=gain: (
                    "Try remedy 0" in judge_remedies(rng, h, m, g)
                ),
            )


# worst site and subgroups -----------------------------------------------------------------------


def draw_predictions(
    rng: np.random.Generator, n: int, strength: float = 1.5, seeds: int = SEEDS
) -> SplitPredictions:
    """Log odds of n examples by models that differ by a third of their spread."""
    y = (rng.random(n) < 0.5).astype(float)
    sign = 2 * y - 1
    margin = strength * sign + rng.normal(0, 2, n) + rng.normal(0, 0.7, (seeds, n))
    return SplitPredictions(
        loss=-log_expit(margin * sign),
        score=(margin * sign > 0).astype(float),
        y=y,
        margin=margin,
    )


@cache
def true_accuracy() -> float:
    return float(draw_predictions(np.random.default_rng(0), 400_000).score.mean())


def audit_of_sites(
    rng: np.random.Generator, sites: int, n: int, bad: float = 1.5
) -> list[Findings]:
    """Equal sites, or the first one with a weaker relation; as many examples of known sites."""
    found = []
    for k in range(sites):
        there = draw_predictions(rng, n, bad if k == 0 else 1.5).metrics()["accuracy"]
        here = draw_predictions(rng, n).metrics()["accuracy"]
        worse = stats.independent_difference(here, there)
        gap = Gap(metric="accuracy", reference="seen", split="unseen", worse=worse)
        found.append(findings_of({"accuracy": there}, f"site {k}", gaps=[gap]))
    return found


def misses_truth(rng: np.random.Generator, sites: int, n: int) -> bool:
    lead = audit_document(audit_of_sites(rng, sites, n)).lead
    found = re.search(r"it lies in \[(\S+), (\S+)\]", lead)
    assert found is not None, lead
    low, high = (float(text) for text in found.groups())
    # half a unit of the last digit that is printed
    return not low - 0.0051 <= true_accuracy() <= high + 0.0051


def is_called_worse(rng: np.random.Generator, sites: int, n: int, bad: float = 1.5) -> bool:
    notes = audit_advice(audit_of_sites(rng, sites, n, bad))
    return any(note.text.startswith("Expect") for note in notes)


def worst_sites(repeats: int) -> Iterator[Rate]:
    for sites, n in ((4, 100), (12, 50)):
        yield count(
            f"{sites} equal sites of {n}",
            "interval of the audit's worst site misses the truth",
            "≤ 5 %",
            repeats,
            lambda rng, s=sites, n=n: misses_truth(rng, s, n),
        )
        yield count(
            f"{sites} equal sites of {n}",
            "some site called worse",
            "≤ 5 %",
            repeats,
            lambda rng, s=sites, n=n: is_called_worse(rng, s, n),
        )
    yield count(
        "planted: one of 4 sites of 200 is 0.16 worse",
        "called worse",
        "",
        repeats,
        lambda rng: is_called_worse(rng, 4, 200, 0.5),
    )


class Predictions:
    """Stands where a sweep trains: gives predictions drawn elsewhere, by method and site."""

    def __init__(self, drawn: Mapping[tuple[str, str], SplitPredictions]) -> None:
        self.drawn = drawn

    def groups(self, blocks: Sequence[RunGroup]) -> list[list[RunGroup]]:
        return [list(blocks)]

    def __call__(self, blocks: Sequence[RunGroup]) -> list[RunScores]:
        return [self.scores(block) for block in blocks]

    def scores(self, block: RunGroup) -> dict[str, Tensor]:
        found = self.drawn[block.entrant.name, block.at]
        assert found.margin is not None
        runs = torch.zeros(len(block.runs), dtype=torch.bool)
        return {
            "diverged": runs,
            "together": runs,
            f"score {block.at}": torch.tensor(found.score),
            f"margin {block.at}": torch.tensor(found.margin),
        }

    def method(self, entrant: MethodSpec, at: str, run: Run) -> Method:
        return ERM()


def comparison(
    subjects: Sequence[Subject], drawn: Mapping[tuple[str, str], SplitPredictions]
) -> Results:
    names = list(dict.fromkeys(method for method, _ in drawn))
    job = Comparison(
        entrants=[MethodSpec(name, ERM) for name in names],
        seeds=SEEDS,
        draws=1,
        protocols=[Protocol.TRAINING],
    )
    return job(subjects, Lab(), Predictions(drawn))  # type: ignore[arg-type]


def equal_sites(rng: np.random.Generator, n: int, low: float) -> Results:
    """One method at four sites with a grouping of six and one of three; subgroup 0 has a relation
    of strength `low` (1.5: all are equal).
    """
    subjects, drawn = [], {}
    for k in range(4):
        site = f"site {k}"
        group = rng.integers(0, 6, n)
        weak = draw_predictions(rng, n, low)
        rest = draw_predictions(rng, n)
        found = SplitPredictions(
            loss=np.where(group == 0, weak.loss, rest.loss),
            score=np.where(group == 0, weak.score, rest.score),
            y=np.where(group == 0, weak.y, rest.y),
            margin=np.where(group == 0, weak.margin, rest.margin),
        )
        columns = Columns(
            x=torch.zeros(n, 1),
            y=torch.tensor(found.y).long(),
            six=torch.tensor(group),
            three=torch.tensor(rng.integers(0, 3, n)),
        )
        splits = {
            "train": Split(columns, Use.TRAIN, at="home"),
            "unseen": Split(columns, Use.EVALUATE, at=site),
        }
        task = Task(name=f"null: {site}", axis=Axis.SITE, splits=splits, objective=classify)
        subjects.append(
            Subject(
                task=task,
                model=torch.nn.Identity,
                held_out=site,
                dataset="null",
                groups={name: lambda batch, name=name: batch[name] for name in ("six", "three")},
            )
        )
        drawn["ERM", site] = found
    return comparison(subjects, drawn)


def has_lowest_subgroup(rng: np.random.Generator, n: int, low: float = 1.5) -> bool:
    notes = compare_advice(equal_sites(rng, n, low))
    return any("has the lowest" in note.text for note in notes)


def compared_worst_misses(rng: np.random.Generator, n: int) -> bool:
    reading = equal_sites(rng, n, 1.5).cell("ERM", WORST, "accuracy").reading
    assert reading is not None
    return not reading.low <= true_accuracy() <= reading.high


def subgroups(repeats: int) -> Iterator[Rate]:
    yield count(
        "two groupings of 6 and 3 equal subgroups, 4 sites of 200",
        "a subgroup called the lowest",
        "≤ 5 %",
        repeats,
        lambda rng: has_lowest_subgroup(rng, 200),
    )
    yield count(
        "planted: one of six subgroups is 0.2 worse, 4 sites of 200",
        "a subgroup called the lowest",
        "",
        repeats,
        lambda rng: has_lowest_subgroup(rng, 200, 0.3),
    )
    yield count(
        "one method at 4 equal sites of 100",
        "interval of the comparison's worst site misses the truth",
        "≤ 5 %",
        repeats,
        lambda rng: compared_worst_misses(rng, 100),
    )


# copies -----------------------------------------------------------------------------------------


def compare_copies(rng: np.random.Generator, metric: str, gain: float = 0.0) -> str:
    """What a comparison of eight ERMs writes, of which the second has `gain`."""
    subjects, drawn = [], {}
    for subject, pool in heart_disease():
        (site,) = evaluated_splits(subject.task)
        draws = rng.permutation(POOL)[: 8 * SEEDS].reshape(8, SEEDS)
        for k, rows in enumerate(draws):
            found = planted(choose(pool, rows), gain if k == 1 else 0.0)
            if metric != "AUC":  # a margin of one class only has no area
                found = replace(found, margin=np.zeros_like(found.score))
            drawn["ERM" if k == 0 else f"copy {k}", subject.label] = found
        subjects.append(replace(subject, groups={}))
        assert subject.label == site
    results = comparison(subjects, drawn)
    if metric != "AUC":
        kept = [cell for cell in results.cells if cell.metric == metric]
        results = replace(results, cells=kept, metrics=[metric])
    return " ".join(note.text for note in compare_advice(results))


def copies(repeats: int) -> Iterator[Rate]:
    for metric in ("AUC", "accuracy"):
        texts: list[str] = []

        def recommends(rng: np.random.Generator, m: str = metric, texts: list[str] = texts) -> bool:
            texts.append(compare_copies(rng, m))
            return "Train with" in texts[-1]

        situation = f"eight ERMs, 3 seeds, heart disease, {metric}"
        yield count(situation, "“Train with …”", "≤ 2.5 %", repeats, recommends)
        worst = sum("If the worst site matters most" in text for text in texts)
        yield Rate(
            situation, "“If the worst site matters most, consider …”", "≤ 2.5 %", worst, repeats, 0
        )
        yield count(
            f"planted: one of eight with 0.5 more log odds, {metric}",
            "“Train with” it",
            "",
            repeats,
            lambda rng, m=metric: "Train with copy 1" in compare_copies(rng, m, 0.5),
        )


SITUATIONS = {
    "calibration": calibrations,
    "remedies": remedies,
    "worst": worst_sites,
    "subgroups": subgroups,
    "copies": copies,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--only", choices=SITUATIONS, action="append")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rates = []
    for name in options.only or SITUATIONS:
        for rate in SITUATIONS[name](options.repeats):
            rates.append(rate)
            if not options.json:
                r = rate.reading
                print(
                    f"{rate.situation:66s} {rate.counted:58s} {rate.promised:8s}"
                    f"{r.value:6.3f} [{r.low:.3f}, {r.high:.3f}] {rate.seconds:6.1f} s",
                    flush=True,
                )
    if options.json:
        rows = [
            asdict(rate)
            | {"rate": rate.reading.value, "low": rate.reading.low, "high": rate.reading.high}
            for rate in rates
        ]
        print(json.dumps({"repeats": options.repeats, "rates": rows}, ensure_ascii=False, indent=1))


if __name__ == "__main__":
    main()
