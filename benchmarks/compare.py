"""A whole comparison at once against one process per trial, and against one model after the other.

`python benchmarks/compare.py --json` prints a list with one entry per network on rotated digits (8
methods × 4 angles left out × 5 seeds) and one for the heart-disease sweep (8 methods × 4 hospitals
× 20 draws): `speedup_vs_loop` (the same losses, `engine.loop.train`), `speedup_vs_processes` (the
field's habit: a process per trial, which starts, prepares its data, trains and scores one model),
both in CPU seconds, so that a busy neighbour does not decide; `by_method` (speed-up over the loop,
and whether the probe chose to stack). `sam_vs_two_steps` is the time of a SAM step over that of two
ERM steps, `udim_passes` the time of a UDIM step in ERM steps; both alone and `_evaluate_stacked`.

`largest_difference` is that of the mean loss at an evaluated place between a stacked model and the
same one trained alone, in float64; `equal` says whether all are at most 1e-4.
`largest_difference_float32` is the same in the arithmetic that is timed: stacked and single
products round differently (1e-7), and Adam and the sign of adversarial training turn a gradient of
rounding size into a step of full size.

Loops and processes are sampled evenly (`--every`) and scaled: every trial of a method costs the
same. `--small` is a quick check of the benchmark itself; its ratios mean little.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn

from unseen.engine.evaluate import per_example
from unseen.engine.loop import Budget, train
from unseen.engine.vectorized.loop import TrainingRuns, train_stacked
from unseen.lab import Lab
from unseen.method import Trained
from unseen.methods.sam import SAM
from unseen.methods.udim import UDIM
from unseen.models.mlp import mlp
from unseen.questions.compare.candidates import MethodSpec, standard_methods
from unseen.questions.compare.job import Comparison
from unseen.questions.compare.protocols import Protocol
from unseen.questions.compare.run_groups import Run, RunGroup
from unseen.questions.compare.splits import evaluated_splits
from unseen.questions.compare.sweep import Sweep, align_split_names, network_of
from unseen.subjects.domains import of_domains
from unseen.subjects.stacking import visible_to_training
from unseen.subjects.subject import Subject
from unseen.subjects.tables import of_table_by_site
from unseen.task import Task
from unseen.tasks.rotated_digits import RotatedDigits
from unseen.tasks.table_domains import heart_sites

ANGLES = (0.0, 25.0, 50.0, 75.0)
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Case:
    """Subjects with a network, and how many runs each method gets at each place."""

    name: str
    hidden: tuple[int, ...]
    seeds: int = 5
    draws: int = 1
    n: int = 4_000
    steps: int = 300

    def subjects(self) -> list[Subject]:
        if self.name == "heart":
            found = of_table_by_site(heart_sites().table, Lab().child("data"), "heart")
            return [replace(one, budget=replace(one.budget, steps=self.steps)) for one in found]
        found = of_domains(RotatedDigits(angles=ANGLES, n=self.n), Lab(), self.name)
        budget = Budget(steps=self.steps, batch_size=32, lr=1e-3)
        return [
            replace(one, model=partial(network, hidden=self.hidden), budget=budget) for one in found
        ]

    def job(self) -> Comparison:
        return Comparison(seeds=self.seeds, draws=self.draws, protocols=[Protocol.TRAINING])


def network(hidden: Sequence[int]) -> nn.Sequential:
    return mlp([196, *hidden, 10])


CASES = (
    Case("rotated digits", (32,)),
    Case("rotated digits", (64, 32)),
    Case("rotated digits", (256, 128)),
    Case("heart", (64, 32), seeds=1, draws=20, steps=150),
)
SMALL = (
    Case("rotated digits", (64, 32), n=800, steps=60),
    Case("heart", (64, 32), seeds=1, draws=20, steps=60),
)


def cpu(run: Callable[[], object]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


def of_children(run: Callable[[], object]) -> float:
    """CPU seconds of the processes that `run` starts and waits for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def trial(case: Case, method: str, at: str, seed: int, draw: int) -> None:
    """What one process of the field's habit does."""
    entrant = next(each for each in standard_methods() if each.name == method)
    Sweep(case.subjects(), Lab(), is_stacked=False)([RunGroup(entrant, at, "", (Run(seed, draw),))])


def losses(result: Trained, task: Task, lab: Lab) -> Tensor:
    """The mean loss at every evaluated place."""
    places = evaluated_splits(task).values()
    each = [
        per_example(result.model, task.splits[name].data, task.objective.loss, lab).mean()
        for name in places
    ]
    return torch.stack(each)


def exact_difference(
    subjects: Sequence[Subject], group: Sequence[RunGroup], samples: int = 2
) -> float:
    """Between stacked and single models in float64, for some of a group's runs."""
    lab = Lab(dtype=torch.float64)
    pairs = [(block, run) for block in group for run in block.runs]
    together, _ = Sweep(subjects, lab).train_groups(group)
    alone, worst = Sweep(subjects, lab, is_stacked=False), 0.0
    for k in range(0, len(pairs), -(-len(pairs) // samples)):
        (block, run), stack = pairs[k], together[k]
        (single,), _ = alone.train_groups([replace(block, runs=(run,))])
        assert isinstance(single, Trained)
        assert isinstance(stack, Trained)
        task = alone.subject(block.at).task
        worst = max(
            worst, float((losses(single, task, lab) - losses(stack, task, lab)).abs().max())
        )
    return worst


def compared(
    case: Case, subjects: Sequence[Subject], entrant: MethodSpec, every: int
) -> dict[str, float | bool]:
    """CPU seconds of all runs of one method, stacked (measured) and looped (sampled and scaled),
    and their difference.
    """
    job = replace(case.job(), entrants=[entrant])
    sweep, alone = Sweep(subjects, Lab()), Sweep(subjects, Lab(), is_stacked=False)
    groups = sweep.groups(job.blocks(subjects))
    found: dict[tuple[RunGroup, Run], Trained] = {}
    together = []

    def stacks() -> None:
        for group in groups:
            results, is_stacked = sweep.train_groups(group)
            together.append(is_stacked)
            pairs = [(block, run) for block in group for run in block.runs]
            found.update(
                {pair: r for pair, r in zip(pairs, results, strict=True) if isinstance(r, Trained)}
            )

    fast = cpu(stacks)
    runs = list(found)
    sampled = runs[::every]
    slow, difference = 0.0, 0.0
    for block, run in sampled:
        single: list[Trained] = []
        one = replace(block, runs=(run,))
        slow += cpu(lambda: single.extend(alone.train_groups([one])[0]))  # type: ignore[arg-type]  # noqa: B023
        task = alone.subject(block.at).task
        difference = max(
            difference,
            float(
                (losses(single[0], task, Lab()) - losses(found[block, run], task, Lab()))
                .abs()
                .max()
            ),
        )
    return {
        "seconds": fast,
        "loop_seconds": slow * len(runs) / max(1, len(sampled)),
        "stacked": all(together),
        "largest_difference": exact_difference(subjects, groups[0]),
        "largest_difference_float32": difference,
    }


def measured(
    number: int, case: Case, every: int, processes: int, is_small: bool
) -> dict[str, object]:
    subjects, job = case.subjects(), case.job()
    entrants = list(job.entrants)
    warm = Sweep(subjects, Lab())
    warm.train_groups(warm.groups(replace(job, seeds=1, draws=1).blocks(subjects))[0])
    rows = {entrant.name: compared(case, subjects, entrant, every) for entrant in entrants}
    blocks = job.blocks(subjects)
    trials = [(block.entrant.name, block.at, run) for block in blocks for run in block.runs]
    sampled = trials[:: -(-len(trials) // processes)]
    flags = ["--small"] if is_small else []
    apart = 0.0
    for method, at, run in sampled:
        words = [
            sys.executable,
            __file__,
            *flags,
            "--trial",
            str(number),
            method,
            at,
            str(run.seed),
            str(run.draw),
        ]
        apart += of_children(partial(subprocess.run, words, check=True))
    fast, slow = (
        sum(float(row[name]) for row in rows.values()) for name in ("seconds", "loop_seconds")
    )
    different, rounded = (
        {name: row[key] for name, row in rows.items()}
        for key in ("largest_difference", "largest_difference_float32")
    )
    parameters = sum(p.numel() for p in network_of(subjects[0]).parameters())
    return {
        "case": case.name,
        "network": "-".join(map(str, case.hidden)),
        "parameters": parameters,
        "runs": len(trials),
        "speedup_vs_loop": round(slow / fast, 2),
        "speedup_vs_processes": round(apart / len(sampled) * len(trials) / fast, 2),
        "seconds": round(fast, 2),
        "loop_seconds": round(slow, 2),
        "process_seconds": round(apart / len(sampled) * len(trials), 2),
        "by_method": {
            name: {
                "speedup_vs_loop": round(float(row["loop_seconds"]) / float(row["seconds"]), 2),
                "stacked": row["stacked"],
            }
            for name, row in rows.items()
        },
        "largest_difference": different,
        "largest_difference_float32": rounded,
        "equal": all(float(value) <= TOLERANCE for value in different.values()),
        **steps(subjects),
    }


def steps(subjects: Sequence[Subject], models: int = 20, n: int = 30) -> dict[str, float]:
    """Step times of SAM and UDIM in steps of ERM, alone and stacked, in turns (medians)."""
    task = visible_to_training(align_split_names(subjects[0].task))
    budget = replace(subjects[0].budget, steps=n)
    methods = {
        "ERM": standard_methods()[0].make(budget),
        "SAM": SAM(budget=budget),
        "UDIM": UDIM(budget=budget),
    }
    seconds: dict[str, list[float]] = {}

    def fresh() -> nn.Module:
        with Lab().child("init").seeded():
            return network_of(subjects[0])

    for _ in range(5):
        for name, method in methods.items():
            step = method.step  # type: ignore[attr-defined]
            alone = cpu(lambda: train(fresh(), task, step, budget, Lab()))  # noqa: B023
            labs = [Lab(k) for k in range(models)]
            jobs = TrainingRuns(
                [fresh() for _ in labs], [task] * models, [step] * models, [budget] * models, labs
            )
            seconds.setdefault(name, []).append(alone)
            seconds.setdefault(f"{name}_stacked", []).append(cpu(lambda: train_stacked(jobs)))  # noqa: B023
    found = {name: median(times) for name, times in seconds.items()}
    return {
        "sam_vs_two_steps": round(found["SAM"] / found["ERM"] / 2, 2),
        "sam_vs_two_steps_stacked": round(found["SAM_stacked"] / found["ERM_stacked"] / 2, 2),
        "udim_passes": round(found["UDIM"] / found["ERM"], 2),
        "udim_passes_stacked": round(found["UDIM_stacked"] / found["ERM_stacked"], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--small", action="store_true", help="a quick check, not a measurement")
    parser.add_argument("--every", type=int, default=4, help="one of so many runs is looped")
    parser.add_argument(
        "--processes", type=int, default=16, help="trials that are run as processes"
    )
    parser.add_argument("--trial", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cases = SMALL if options.small else CASES
    if options.trial:
        number, method, at, seed, draw = options.trial
        trial(cases[int(number)], method, at, int(seed), int(draw))
        return
    rows = [
        measured(k, case, options.every, options.processes, options.small)
        for k, case in enumerate(cases)
    ]
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        print("\n".join(f"{key}: {value}" for key, value in row.items()), end="\n\n")


if __name__ == "__main__":
    main()
