"""More seeds for claims near their margin, and the cells that they need."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from unseen import stats
from unseen.reading import Reading
from unseen.runs import repeat, seeds
from unseen.runs.repeat import Coverage, Repetition
from unseen.runs.runner import Result
from unseen.runs.store import Run
from unseen.study import Claim, Scale, Study, Verdict, average, gap
from unseen.study.source import Source


@dataclass(frozen=True)
class Cell:
    arm: str
    seed: int


def study_of(*claims, arms=("a", "b", "c"), n=4):
    return Study(
        name="many_seeds",
        source=Source(key="a", title="A", authors=("Doe, Jane",), year=2026),
        scales={Scale.LAPTOP: n},
        cells=lambda n: [Cell(arm, seed) for seed in range(n) for arm in arms],
        run=lambda cell, lab: (),
        claims=claims,
    )


def compute_by(value, log=None):
    """Runs a study at once; `log` hears of its cells."""

    def compute(study):
        cells = list(study.cells(study.scales[Scale.LAPTOP]))
        if log is not None:
            log.append(cells)
        runs = tuple(
            Run(
                study=study.name,
                key=str(cell),
                cell={},
                rows=({"arm": cell.arm, "seed": cell.seed, "y": value(cell)},),
                facts={},
            )
            for cell in cells
        )
        return Result(study=study.name, total=len(cells), runs=runs)

    return compute


def judge(study, compute, **options):
    base = compute(study)
    judgements = [claim.judge(base.rows, Scale.LAPTOP) for claim in study.claims]
    cells = list(study.cells(study.scales[Scale.LAPTOP]))
    return seeds.decide_with_more_seeds(
        study, Scale.LAPTOP, cells, base, judgements, compute, **options
    )


def noise(cell):
    rng = np.random.default_rng([ord(cell.arm), cell.seed])
    return rng.normal() + {"a": 0.0, "b": 0.0, "c": 9.0}[cell.arm]


def near_margin(compute, study, name):
    """A margin from which the effect's interval ends by a hundredth of its width."""
    reading = average("y", arm=name)(compute(study).rows)
    return reading.low + 0.01 * (reading.high - reading.low)


def test_a_claim_near_its_margin_gets_twice_the_seeds_of_the_cells_it_needs():
    log, plain = [], study_of(Claim("…", average("y"), above=1))
    margin = near_margin(compute_by(noise), plain, "a")
    near = Claim("Near.", average("y", arm="a"), above=margin)
    far = Claim("Far.", gap("y", {"arm": "c"}, {"arm": "b"}), above=2.0)
    found = judge(study_of(near, far), compute_by(noise, log))
    assert log[1] == [Cell("a", seed) for seed in range(4, 8)]
    assert found.doublings["Near."] in (1, 2)
    assert "Far." not in found.doublings
    assert found.judgements[0].reading.n == 4 * 2 ** found.doublings["Near."]
    assert found.judgements[1].reading.n == 4  # the rows of added seeds are for the near claim only
    assert found.judgements[1].verdict is Verdict.SUPPORTED
    none = judge(study_of(near, far), compute_by(noise), most=0)
    assert none.judgements[0].is_near
    assert not none.extra
    rows = [*compute_by(noise)(study_of(near, far)).rows, *found.rows]
    kept = seeds.decide_kept(study_of(near, far), Scale.LAPTOP, rows, 4, found.doublings)
    assert kept == found.judgements


def test_a_cell_without_which_an_effect_of_pairs_fails_is_needed():
    def pairs(rows):
        a, b = ([row["y"] for row in rows if row["arm"] == arm] for arm in "ab")
        return stats.mean([one - other for one, other in zip(a, b, strict=True)])

    claim = Claim("In pairs.", pairs, above=0.1)
    study = study_of(claim)
    cells = list(study.cells(4))
    needed = seeds.needed_cells([claim], cells, compute_by(noise)(study))
    assert needed == [cell for cell in cells if cell.arm in "ab"]


def test_seeds_are_doubled_at_most_twice_and_from_any_first_seed():
    """A value that mocks the rule: the interval ends near the margin whatever is added."""
    claim = Claim("Near.", lambda rows: Reading(0.6, 0.1, 1.1, len(rows)), above=0.1)
    log = []
    found = judge(study_of(claim, arms=("a",)), compute_by(noise, log))
    assert [len(cells) for cells in log] == [4, 4, 8]
    assert [cell.seed for cells in log for cell in cells] == list(range(16))
    assert found.doublings == {"Near.": 2}
    assert found.judgements[0].verdict is Verdict.UNDECIDED
    assert "another processor" in found.judgements[0].because
    moved = seeds.from_seed(study_of(claim, arms=("a",)), 100)
    log.clear()
    judge(moved, compute_by(noise, log), first=100)
    assert [cell.seed for cells in log for cell in cells] == list(range(100, 116))


def test_cells_that_fail_leave_the_claim_undecided():
    claim = Claim("Near.", lambda rows: Reading(0.6, 0.1, 1.1, len(rows)), above=0.1)
    study = study_of(claim, arms=("a",))

    def compute(part):
        result = compute_by(noise)(part)
        return result if part is study else replace(result, runs=result.runs[1:])

    found = judge(study, compute)
    assert not found.doublings
    assert found.judgements[0].is_near


@pytest.mark.parametrize("n", [3, 6])
def test_doubling_near_the_margin_keeps_false_verdicts_rare(n):
    """At the margin itself each side stays below 2.5 %, with up to three looks: the tenth of the
    width that is asked for outweighs the looks."""
    rng, false = np.random.default_rng(0), 0
    draws = 4_000
    for _ in range(draws):
        y = rng.normal(size=4 * n)
        for size in (n, 2 * n, 4 * n):
            claim = Claim("…", lambda _, x=y[:size]: stats.mean(x), above=0.0, sign_because="…")
            found = claim.judge([], Scale.LAPTOP)
            if not found.is_near:
                break
        false += found.verdict is Verdict.SUPPORTED
    assert false / draws <= 0.025 + 2 * (0.025 * 0.975 / draws) ** 0.5


def recorded_line(reading, says="It is so.", **more):
    return {
        "says": says,
        "value": reading.value,
        "low": reading.low,
        "high": reading.high,
        "freedom": reading.freedom,
        "n": reading.n,
        **more,
    }


def repeat_study(claims, text, words=(), log=None, first=2_000):
    study = study_of(*claims)
    chosen = repeat.repeatable_claims(study, text, words)
    return repeat.run_again(study, text, first, chosen, bool(words), compute_by(noise, log))


def test_a_repetition_has_seeds_that_nobody_used_and_only_the_cells_of_the_named_claims():
    claims = (
        Claim("It is so.", average("y", arm="a"), above=-9),
        Claim("It differs.", gap("y", {"arm": "c"}, {"arm": "b"}), above=1),
    )
    rows = compute_by(noise)(study_of(*claims)).rows
    lines = [recorded_line(claim.effect(rows), claim.says) for claim in claims]
    text = {"scale": "laptop", "claims": lines, "seeds": 4}
    log = []
    found = repeat_study(claims, text, log=log)
    assert {cell.seed for cells in log for cell in cells} == set(range(2_000, 2_004))
    assert [one.says for one in found] == ["It is so.", "It differs."]
    log.clear()
    (one,) = repeat_study(claims, text, ["differs"], log)
    assert one.says == "It differs."
    assert {cell.arm for cell in log[1]} == {"b", "c"}  # the first seed shows which are needed
    doubled = {**text, "claims": [{**lines[0], "doublings": 1}, lines[1]]}
    log.clear()
    found = repeat_study(claims, doubled, log=log)
    assert [one.fresh.n for one in found] == [8, 4]
    assert log[1] == [Cell("a", seed) for seed in range(2_004, 2_008)]
    assert repeat.first_fresh_seed({"seeds": 600}) == 3_000


@pytest.mark.parametrize("n", [3, 10])
def test_the_expected_share_of_repetitions_is_what_a_simulation_gives(n):
    rng = np.random.default_rng(0)
    found = [
        Repetition("s", "…", "", stats.mean(rng.normal(size=n)), stats.mean(rng.normal(size=n)))
        for _ in range(4_000)
    ]
    coverage = Coverage.of(found)
    assert coverage.inside / coverage.total == pytest.approx(coverage.expected, abs=0.02)
    assert coverage.expected == pytest.approx({3: 0.907, 10: 0.856}[n], abs=2e-3)
    many = Repetition("s", "…", "", Reading(0, -1.96, 1.96, 99, freedom=1e6), Reading(0, -1, 1))
    assert many.chance == pytest.approx(0.834, abs=1e-3)
