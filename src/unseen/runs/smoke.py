"""Cells computed here and now as a witness: their rows, and which definitions ran to make them."""

import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

from unseen.lab import Lab
from unseen.runs.definitions import ENTRY, LOOSE, Definition, Node
from unseen.runs.store import Value
from unseen.runs.tensors import TensorCache
from unseen.runs.worker import validate_rows
from unseen.study import Scale, Study


@dataclass(frozen=True)
class WitnessRun:
    """The rows of some cells, computed here and now, and the functions that were called."""

    rows: tuple[Mapping[str, Value], ...]
    called: frozenset[CodeType]


def smoke_run(study: Study[Any, Any]) -> WitnessRun:
    """The smoke scale."""
    return compute(study, study.cells(study.scales[Scale.SMOKE]))


def compute(study: Study[Any, Any], cells: Iterable[Any]) -> WitnessRun:
    """Computes cells on the CPU, without the store: what they keep is thrown away."""
    rows: list[Mapping[str, Value]] = []
    with tempfile.TemporaryDirectory() as folder, calls() as called:
        for n, cell in enumerate(cells):
            lab = Lab(seed=cell.seed, keeper=TensorCache(Path(folder, str(n)))).child(study.name)
            rows += validate_rows(study.run(cell, lab), study.name)
    return WitnessRun(tuple(rows), frozenset(called))


@contextmanager
def calls() -> Iterator[set[CodeType]]:
    """The functions that are called within the block, in this thread and those that it starts."""
    found: set[CodeType] = set()

    def note(frame: Any, event: str, _: Any) -> None:
        if event == "call":
            found.add(frame.f_code)

    before = sys.getprofile()
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield found
    finally:
        sys.setprofile(before)
        threading.setprofile(None)


def executed_labels(found: Mapping[Node, Definition], called: frozenset[CodeType]) -> set[str]:
    """Labels of the definitions that ran: functions and methods that were called; constants, fields
    and classes if something that ran names them."""
    files = {str(node.file): node.file for node in found}
    names: dict[Node, set[str]] = {}
    for code in called:
        file = files.get(code.co_filename)
        if file is not None:
            name, _, method = code.co_qualname.split(".<locals>")[0].partition(".")
            names.setdefault(Node(file, name), set()).add(method)
    labels: set[str] = set()
    waiting = [node for node in found if node in names or node.name in (ENTRY, LOOSE)]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        definition = found[node]
        labels.add(definition.label)
        labels |= {
            f"{definition.label}.{part}"
            for part in definition.digests
            if part and part in names.get(node, ())
        }
        news = [
            other
            for other in definition.reaches
            if other not in seen and not found[other].is_function
        ]
        waiting += news
        seen |= set(news)
    return labels
