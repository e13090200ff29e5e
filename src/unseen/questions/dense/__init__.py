"""`unseen dense images/ labels/ --shots 10`: a new dense task from a few labelled images."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from unseen.lab import Lab
from unseen.measures.segmentation import peak
from unseen.questions.answer import Answer
from unseen.questions.dense.checkpoint import load_matcher, shipped_matcher
from unseen.questions.dense.document import dense_document, machine
from unseen.questions.dense.inputs import DenseData, Kind
from unseen.questions.dense.job import DenseResult, Setting, adapt_to
from unseen.runs.store import check_writable, write_atomic


def few_shot_answer(
    data: DenseData,
    setting: Setting,
    lab: Lab,
    on_fold: Callable[[object], None] = lambda _: None,
    *,
    model: Path | None = None,
    source: str = "images",
) -> Answer[DenseResult]:
    """Adaptation to the labelled images, errors against the baselines, and maps of the others.

    Without a `model` the shipped network is adapted.
    """
    switch = shipped_matcher() if model is None else load_matcher(model)
    found = adapt_to(data, switch, setting, lab, on_fold)
    document = dense_document(found, source, shipped=model is None)
    return Answer(results=found, document=document, machine=machine(found))


def write_predictions(found: DenseResult, folder: Path) -> list[Path]:
    """One PNG per image and channel, grey from 0 to 1; of classes one with their indices, of key
    points also a table.
    """
    if not found.predictions:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    check_writable(folder / "prediction.png")
    written = []
    for name, maps in found.predictions.items():
        if found.data.kind is Kind.CLASSES:
            values = [int(channel.rpartition(" ")[2]) for channel in found.data.channels]
            chosen = np.array(values, dtype=np.uint8)[maps.argmax(0).numpy()]
            written.append(_write_png(folder / f"{name}.png", chosen))
            continue
        for channel, one in zip(found.data.channels, maps, strict=True):
            ending = "" if len(maps) == 1 else f"_{channel.replace('/', '-')}"
            written.append(_write_png(folder / f"{name}{ending}.png", _grey(one)))
        if found.data.kind is Kind.POINTS:
            written.append(_write_points(folder / f"{name}.csv", maps, found.data.channels))
    return written


def _grey(one: Tensor) -> np.ndarray:
    return (255 * one).round().byte().numpy()


def _write_png(path: Path, pixels: np.ndarray) -> Path:

    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    write_atomic(path, buffer.getvalue())
    return path


def _write_points(path: Path, maps: Tensor, channels: tuple[str, ...]) -> Path:
    lines = ["name,x,y"]
    for name, (row, column) in zip(channels, peak(maps[None])[0].tolist(), strict=True):
        lines.append(f"{name},{column:.1f},{row:.1f}")
    write_atomic(path, "\n".join(lines) + "\n")
    return path
