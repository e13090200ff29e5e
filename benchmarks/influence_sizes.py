"""Are the sizes that `unseen influence` prints those of retraining, where training stopped early?

`python benchmarks/influence_sizes.py --json` asks, on heart disease at the default settings, the
worst errors of every held-out hospital for their ten shown examples, and retrains with one more
copy of each by 40 seeds that the command has not used. One entry per hospital:

* `printed`: how many of the ten have a size, by error; of the others the interval stands alone;
* `intervals_meet`: how many of those lie within a factor of 2 of some value in the interval of the
  40 seeds;
* `values_meet`: how many lie within a factor of 2 of their mean;
* `lowest`: the share of the worst of these errors, `intervals_meet` (0.8 is asked);
* `seconds_command`: CPU seconds of what the command does, `seconds_confirm`: those of `--confirm K`
  alone.

`--only NAME …` names hospitals, `--worst` and `--seeds` make it cheaper, `--confirm 0` leaves the
second figure out.
"""

import argparse
import json
import time
from dataclasses import replace
from typing import Any

import torch

from unseen import stats
from unseen.engine.batches import gather
from unseen.lab import Lab
from unseen.questions.influence.job import ErrorRequest, trace_errors
from unseen.questions.influence.procedure import default_influence, negative, query_loss
from unseen.questions.influence.results import QueryInfluence
from unseen.questions.influence.retraining import SEEDS, Removal, Retraining, confirm
from unseen.reading import Reading
from unseen.subjects.session import open_session
from unseen.subjects.sources import read_subjects
from unseen.subjects.subject import Subject
from unseen.subjects.tables import TableColumns


def meets(size: float, interval: Reading) -> bool:
    """Whether the interval holds a value that is at most twice, and at least half, the size."""
    low, high = sorted([size / 2, size * 2])
    return interval.low <= high and low <= interval.high


def compared(answer: QueryInfluence, effects: dict[int, Reading]) -> tuple[int, int, int]:
    """Of the shown examples with a size: how many, intervals that meet it, and values that do."""
    shown = [*answer.helpful, *answer.harmful]
    sized = [one for one in shown if one.has_size and one.retrained]
    pairs = [(one.retrained.value, effects[one.index]) for one in sized if one.retrained]
    by_value = [
        meets(size, Reading(found.value, found.value, found.value)) for size, found in pairs
    ]
    return len(pairs), sum(meets(*pair) for pair in pairs), sum(by_value)


def hospital(subject: Subject, lab: Lab, worst: int, seeds: int, k: int) -> dict[str, Any]:
    start = time.process_time()
    report = trace_errors(subject, lab, ErrorRequest(config=default_influence(), worst=worst))
    command = time.process_time() - start
    session = open_session(subject, lab)
    order = session.worst_examples(session.main_split, worst)
    queries = gather(session.task.splits[session.main_split].data, torch.tensor(order))
    retraining = Retraining(session, queries, negative(query_loss(session)), SEEDS + seeds)
    rows = sorted({one.index for a in report.answers for one in (*a.helpful, *a.harmful)})
    effects = retraining.copies(rows)[:, SEEDS:]
    found = [
        compared(answer, {row: stats.mean(effects[j, :, q].numpy()) for j, row in enumerate(rows)})
        for q, answer in enumerate(report.answers)
    ]
    start = time.process_time()
    if k:
        removals = [
            Removal(q, role, [one.index for one in some[:k]], 0.0)
            for q, answer in enumerate(report.answers)
            for role, some in (("helpful", answer.helpful), ("harmful", answer.harmful))
        ]
        confirm(replace(retraining, seeds=SEEDS), removals)
    return {
        "printed": [n for n, _, _ in found],
        "intervals_meet": [n for _, n, _ in found],
        "values_meet": [n for _, _, n in found],
        "lowest": min((met / n for n, met, _ in found if n), default=None),
        "seeds": seeds,
        "seconds_command": command,
        "seconds_confirm": time.process_time() - start if k else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", nargs="+", metavar="HOSPITAL")
    parser.add_argument("--worst", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--confirm", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lab = Lab(seed=0)
    for subject in read_subjects(None, lab, TableColumns()):
        if options.only is None or subject.held_out in options.only:
            child = lab.child(subject.task.name)
            found = hospital(subject, child, options.worst, options.seeds, options.confirm)
            one = {subject.held_out: found}
            print(json.dumps(one) if options.json else one, flush=True)


if __name__ == "__main__":
    main()
