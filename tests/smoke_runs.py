"""The smoke scale of every study, run once per session and shared by all tests that read it."""

import fcntl
import importlib
import pickle
import time
from pathlib import Path
from typing import Any


class SmokeRuns:
    """Rows of the smoke scales, kept as files in a folder that all workers of a session share.

    A worker that asks for a study at which another one is at work waits for it, so that no cell is
    run twice; tests of one study are given to one worker where pytest-xdist can do so (conftest).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir(exist_ok=True)
        self.loaded: dict[str, list[tuple[Any, list[dict[str, Any]]]]] = {}

    def rows(self, name: str) -> list[dict[str, Any]]:
        """All rows of the smoke scale of a study, in the order of its cells; a copy."""
        return [dict(row) for _, rows in self._cells(name) for row in rows]

    def rows_of(self, name: str, cell: Any) -> list[dict[str, Any]]:
        """The rows of one cell of the smoke scale; a copy."""
        (rows,) = (rows for other, rows in self._cells(name) if other == cell)
        return [dict(row) for row in rows]

    def _cells(self, name: str) -> list[tuple[Any, list[dict[str, Any]]]]:
        if name not in self.loaded:
            file = self.folder / f"{name}.pickle"
            with open(self.folder / f"{name}.lock", "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not file.is_file():
                    # renamed when it is whole: a worker may be killed while it writes
                    part = file.with_suffix(".part")
                    part.write_bytes(pickle.dumps(run_smoke(name)))
                    part.rename(file)
            self.loaded[name] = pickle.loads(file.read_bytes())
        return self.loaded[name]


def run_smoke(name: str) -> list[tuple[Any, list[dict[str, Any]]]]:
    """Each cell of the smoke scale with its rows."""
    # here, not above: shape checks reach only what is imported after pytest has started
    from unseen.lab import Lab
    from unseen.study import Scale

    study = importlib.import_module(f"unseen.studies.{name}").study
    start = time.process_time()
    cells = [
        (cell, [dict(row) for row in study.run(cell, Lab(seed=cell.seed))])
        for cell in study.cells(study.scales[Scale.SMOKE])
    ]
    # printed, not judged: benchmarks/smoke.py judges it where the machine is known
    print(f"The smoke scale of `{name}` took {time.process_time() - start:.1f} CPU s.")
    return cells
