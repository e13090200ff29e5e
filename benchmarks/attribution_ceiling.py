"""What is between an attribution and retraining: the models of the study `attribution_leaderboard`,
asked with fewer and fewer examples left out.

    python benchmarks/attribution_ceiling.py [--json] [--seeds 2] [--only text] [--rate 0.2]

* `foretold`: the datamodeling score (mean over seeds with its interval) on subsets that keep a
  half, nine tenths and 98 % of the examples, trained on the minibatches of the model asked about,
  so that chance of training is no part of it. Exact differentiation through the descent is the
  ceiling of what a derivative can say: where its score is below 1, the effect of leaving out is no
  straight line; where others are below it, they approximate the derivative.
* `smoothness`: the last subsets with the left-out examples 1 % lighter instead, too little for any
  bend of a smooth descent: correlation of what happened with what the derivative says, and how many
  times as far outputs moved (both 1 where the descent is smooth).
* `cpu_seconds`: per query, of each arm with its factors, in this process with one thread; the first
  seed. Each arm fits its factors anew.

`--rate` is the learning rate as a share of the study's.
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from nested_table import lines

from unseen import stats
from unseen.lab import Lab
from unseen.measures.datamodeling_score import datamodeling_score, random_subsets
from unseen.studies.attribution_leaderboard import (
    LAPTOP,
    Arm,
    Config,
    Data,
    Trial,
    arms,
    ask,
    retrained_outputs,
)

KEPT = (0.5, 0.9, 0.98)
LIGHTER = 0.01
ASKED = (Arm.COSINE, Arm.EKFAC, Arm.SEGMENTS, Arm.ASTRA, Arm.CG, Arm.DAMPED_CG, Arm.UNROLLED)


def costs(trial: Trial) -> dict[str, Any]:
    """(scores, CPU seconds per query) of every arm."""
    found = {}
    for arm in arms(trial.data):
        start = time.process_time()
        scores = trial.scores(arm).detach().double()
        found[arm] = scores, (time.process_time() - start) / len(scores)
    return found


def subsets(trial: Trial, n: int, share: float) -> torch.Tensor:
    """Random subsets that keep this share."""
    lab = trial.lab.child("kept", round(100 * share))
    return random_subsets(n, trial.config.subsets, lab, share)


def foretold(trial: Trial, scores: dict[Arm, torch.Tensor], share: float) -> dict[Arm, float]:
    """The score of every arm on subsets that keep this share."""
    n = scores[Arm.EKFAC].shape[1]
    kept = subsets(trial, n, share)
    once = replace(trial, config=replace(trial.config, repeats=1))
    outputs = retrained_outputs(once, kept)[:, 0]
    return {arm: datamodeling_score(table, kept, outputs).value for arm, table in scores.items()}


def smoothness(trial: Trial, scores: torch.Tensor) -> tuple[float, float]:
    """(correlation, how many times as far) of outputs with examples that are a little lighter."""
    n = scores.shape[1]
    dropped = ~subsets(trial, n, KEPT[-1])
    once = replace(trial, config=replace(trial.config, repeats=1))
    start = trial.behaviour(trial.descent.trained.model, trial.queries).detach().double()
    moved = retrained_outputs(once, 1 - LIGHTER * dropped)[:, 0].double() - start
    said = -LIGHTER * dropped.double() @ scores.T
    both = torch.stack([moved.flatten(), said.flatten()])
    further = moved.std(0) / said.std(0)
    return float(torch.corrcoef(both)[0, 1]), float(further.median())


def slower(rate: float) -> Config:
    """The study at a share of its learning rates."""
    setting = LAPTOP.setting
    seen, read = (replace(one, lr=rate * one.lr) for one in (setting.seen, setting.read))
    return replace(LAPTOP, setting=replace(setting, seen=seen, read=read))


def interval(values: list[float]) -> list[float]:
    """Mean over seeds with its interval; one seed has none."""
    if len(values) == 1:
        return values
    found = stats.mean(np.array(values))
    return [found.value, found.low, found.high]


def measured(data: Data, seeds: int, rate: float) -> dict[str, Any]:
    found: dict[float, list[dict[Arm, float]]] = {share: [] for share in KEPT}
    spent: dict[str, float] = {}
    smooth = []
    for seed in range(seeds):
        trial = ask(slower(rate), data, Lab(seed))
        if seed == 0:
            by_arm = costs(trial)
            spent = {arm: seconds for arm, (_, seconds) in by_arm.items()}
            scores = {arm: by_arm[arm][0] for arm in ASKED}
        else:
            scores = {arm: trial.scores(arm).detach().double() for arm in ASKED}
        for share in KEPT:
            found[share].append(foretold(trial, scores, share))
        smooth.append(smoothness(trial, scores[Arm.UNROLLED]))
    return {
        "foretold": {
            f"{100 * share:g} % kept": {arm: interval([one[arm] for one in rows]) for arm in ASKED}
            for share, rows in found.items()
        },
        "smoothness": {
            "correlation": interval([one for one, _ in smooth]),
            "times as far": interval([one for _, one in smooth]),
        },
        "cpu_seconds": spent,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", choices=[*Data])
    parser.add_argument("--rate", type=float, default=1.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [data for data in Data if options.only in (None, data)]
    found = {data: measured(data, options.seeds, options.rate) for data in chosen}
    print(json.dumps(found, indent=2) if options.json else "\n".join(lines(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
