"""The contract of studies."""

import math
import pickle
import time
from collections.abc import Sequence
from typing import Any

from unseen.lab import Lab
from unseen.reading import Reading
from unseen.study import Row, Scale, Study
from unseen.testing.contract import require, scramble_global_rng


def check_study(study: Study[Any, Any], smoke_rows: Sequence[Row] | None = None) -> None:
    """Cells pickle and carry a seed; rows of the smoke scale are flat finite scalars and pure;
    every claim, figure and table can be made from them.

    `smoke_rows`: the rows of all cells in their order, where a test session has them already; then
    only the first cell is run, to see that it gives the same rows again. How long the smoke scale
    takes is printed, not judged: a busy machine is no bug.
    """
    for scale in (Scale.SMOKE, Scale.LAPTOP):
        require(
            scale in study.scales,
            f"Study `{study.name}` has no {scale} scale.",
            "CI runs smoke, people run laptop.",
        )
    cells = list(study.cells(study.scales[Scale.SMOKE]))
    require(bool(cells), f"Study `{study.name}` has no cells at smoke scale.", "nothing would run.")
    for cell in cells:
        require(
            pickle.loads(pickle.dumps(cell)) == cell,
            f"Cell {cell} changes when pickled.",
            "cells travel to workers.",
        )
        hash(cell)
        require(
            hasattr(cell, "seed"), f"Cell {cell} has no `seed`.", "differences are paired by seed."
        )
    rows: list[Row] = (
        _smoke_rows(study, cells) if smoke_rows is None else [dict(row) for row in smoke_rows]
    )
    for row in rows:
        for name, value in row.items():
            flat = isinstance(value, float | int | str | bool) and not (
                isinstance(value, float) and not math.isfinite(value)
            )
            require(
                flat,
                f"`{study.name}` has {name}={value!r} ({type(value).__name__}) in a row.",
                "rows are flat scalars; what does not exist is left out.",
                "use .item(), or leave the key out.",
            )
    with scramble_global_rng():
        again = [dict(row) for row in study.run(cells[0], Lab(seed=cells[0].seed))]
    require(
        bool(again) and again == rows[: len(again)],
        f"The first cell of `{study.name}` gave other rows the second time.",
        "run is pure.",
    )
    require(bool(study.claims), f"Study `{study.name}` claims nothing.", "a study tests claims.")
    for claim in study.claims:
        claim.judge(rows, Scale.SMOKE)
        if claim.option:  # its rows are not among these
            continue
        reading = claim.effect(rows)
        require(
            isinstance(reading, Reading),
            f"“{claim.says}” has no reading at smoke scale.",
            "claims are effects.",
        )
    for figure in study.figures:
        figure(rows)
    if study.table:
        study.table(rows)


def _smoke_rows(study: Study[Any, Any], cells: Sequence[Any]) -> list[Row]:
    start = time.process_time()
    rows: list[Row] = [dict(row) for cell in cells for row in study.run(cell, Lab(seed=cell.seed))]
    print(f"The smoke scale of `{study.name}` took {time.process_time() - start:.1f} CPU s.")
    return rows
