"""What `unseen dense` found, as a document."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from unseen.document import Document, Note, Paragraph, Section, Table, Tone
from unseen.document import Value as Cell
from unseen.figure import Curves, Images
from unseen.questions.answer import LIMITS
from unseen.questions.dense.inputs import Kind
from unseen.questions.dense.job import CONSTANT, FOREST, MATCHING, UNET, DenseResult
from unseen.reading import Reading
from unseen.text import count_noun, format_reading

NOTHING = 0.98
"""1 − IoU above which an image's mask counts as missed."""
SHOWN = 72
"""Side of the images in the report."""


def dense_document(found: DenseResult, source: str, *, shipped: bool) -> Document:
    sections = [
        Section("Errors on images that were not learned from", [_table(found), *_notes(found)]),
        Section("How many labelled images", _curve(found)),
        Section("Examples", _examples(found)),
        Section(LIMITS, [Paragraph(text) for text in _limits(found, shipped)]),
    ]
    return Document(
        title="A new dense task from a few labelled images",
        kicker=source,
        lead=_lead(found),
        sections=[section for section in sections if section.blocks],
    )


def _lead(found: DenseResult) -> str:
    error = format_reading(found.error(found.adapted))
    constant = format_reading(found.error(CONSTANT))
    best = min(found.errors, key=lambda arm: found.error(arm).value)
    count = len(found.predictions)
    lines = [
        f"{found.quantity[0].upper()}{found.quantity[1:]}: {error} after adaptation to "
        f"{count_noun(found.shots, 'labelled image')}, against {constant} of the constant (over "
        f"{len(found.evaluated)} images, each held out).",
        f"The smallest error: {best}, {format_reading(found.error(best))}." + _advice(best, found),
        f"{count} images without a label were predicted."
        if count
        else "Every image has a label: there was nothing to predict.",
    ]
    return "\n".join(lines)


def _advice(best: str, found: DenseResult) -> str:
    """What to do where another arm has the smallest error."""
    if best == found.adapted:
        return ""
    difference = found.difference(best, found.adapted)
    if isfinite(difference.high) and difference.high < 0:
        return " Consider that instead."
    words = format_reading(difference, "+")
    return f" Whether it errs less than adapted matching is undecided ({words} in pairs)."


def _table(found: DenseResult) -> Table:
    rows: list[dict[str, Cell]] = []
    for arm in found.errors:
        same = arm == found.adapted
        rows.append(
            {
                "learned by": arm,
                found.quantity: found.error(arm),
                "minus adapted matching": None if same else found.difference(arm, found.adapted),
            }
        )
    return Table(
        rows=rows,
        caption=f"Mean over {len(found.evaluated)} images in {_folds(found)} blocks, each held out "
        f"in turn; {count_noun(found.shots, 'labelled image')} of the other blocks teach. Smaller "
        "is better, and a positive difference speaks for adapted matching.",
        footnotes=[
            "Intervals are over images and hold for other images like these, drawn independently. "
            "Images of one block share what was learned, and neighbouring frames of a film are "
            "alike: then they are too narrow."
        ],
    )


def _folds(found: DenseResult) -> int:
    return min(found.setting.folds, len(found.data.labelled))


def _notes(found: DenseResult) -> list[Note]:
    notes = []
    if found.data.kind is Kind.MASK and min(found.errors[found.adapted]) > NOTHING:
        notes.append(
            Note(
                "Adapted matching finds next to nothing of the masks: its probabilities stay below "
                "one half. Where masks are thin, a larger --side may help.",
                Tone.BAD,
            )
        )
    for arm in (CONSTANT, FOREST, UNET, MATCHING):
        if arm != found.adapted:
            notes.append(_note(arm, found.difference(arm, found.adapted)))
    return notes


SENTENCE = {CONSTANT: "the constant", FOREST: "a random forest", UNET: "a small U-Net",
            MATCHING: "matching without adaptation"}  # fmt: skip


def _note(arm: str, difference: Reading) -> Note:
    words, arm = format_reading(difference), SENTENCE[arm]
    if isfinite(difference.low) and difference.low > 0:
        return Note(f"Adapted matching errs less than {arm}, by {words}.", Tone.GOOD)
    if isfinite(difference.high) and difference.high < 0:
        return Note(f"Adapted matching errs more than {arm}: {words}.", Tone.BAD)
    return Note(f"Whether {arm} errs more or less is undecided: {words}.", Tone.NEUTRAL)


def _curve(found: DenseResult) -> list[Any]:
    shared = sorted(set.intersection(*(set(by) for by in found.curve.values())))
    if len(shared) < 2:
        return []
    means = {arm: [sum(by[n]) / len(by[n]) for n in shared] for arm, by in found.curve.items()}
    return [
        Curves(
            title="Error by the number of labelled images",
            x=[float(n) for n in shared],
            y=means,
            x_label="labelled images",
            y_label=found.quantity,
            log_x=True,
        )
    ]


def _examples(found: DenseResult) -> list[Images]:
    pixels, captions = [], []
    for name, image, label, maps in found.examples:
        if found.data.kind is Kind.POINTS:  # a point is the highest pixel, however low
            maps = maps / maps.max().clamp_min(1e-6)
        for what, one in (("image", image), ("label", label), ("predicted", maps)):
            pixels.append(_small(one).tolist())
            captions.append(f"{name}: {what}")
    title = "Held-out images, their labels and predictions"
    if len(found.data.channels) > 1:
        title += " (the highest of all channels at each pixel)"
    return [Images(title=title, pixels=pixels, captions=captions)] if pixels else []


def _small(image: Tensor) -> Tensor:
    height, width = image.shape
    factor = min(1.0, SHOWN / max(height, width))
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    return F.interpolate(image[None, None], size=size, mode="area")[0, 0].clamp(0, 1)


def _limits(found: DenseResult, shipped: bool) -> list[str]:
    first = (*found.data.labelled, *found.data.unlabelled)[0]
    height, width = first.image.shape[-2:]
    texts = [
        f"All methods saw images of {width} × {height} pixels (files: {first.size[1]} × "
        f"{first.size[0]}), matching in tiles: what is larger than a tile it cannot see, and finer "
        "detail was averaged away (--side).",
        f"{100 * found.share:.2g} % of the network's numbers were adapted.",
        "One training run per block: other random numbers would give other errors, which the "
        "intervals do not hold.",
    ]
    if shipped:
        texts.insert(
            0,
            "The shipped network has only ever seen drawn scenes: discs, squares and triangles. "
            "Where it loses against a baseline, use the baseline, or give --model a network that "
            "was trained on images like these.",
        )
        if found.data.inputs > 1:
            texts.insert(1, "It never saw a second image in training, and may make little of it.")
    if found.data.kind is Kind.POINTS:
        texts.append("A point is the highest pixel of its map, and is taken to be seen.")
    return texts


def machine(found: DenseResult) -> Mapping[str, Any]:
    """For --json."""
    return {
        "quantity": found.quantity,
        "kind": str(found.data.kind),
        "channels": list(found.data.channels),
        "shots": found.shots,
        "adapted": found.adapted,
        "adapted_share": found.share,
        "errors": {arm: found.error(arm) for arm in found.errors},
        "minus_adapted": {
            arm: found.difference(arm, found.adapted)
            for arm in found.errors
            if arm != found.adapted
        },
        "per_image": {
            arm: dict(zip(found.evaluated, values, strict=True))
            for arm, values in found.errors.items()
        },
        "curve": {
            arm: {str(n): sum(v) / len(v) for n, v in by.items()} for arm, by in found.curve.items()
        },
        "predicted": list(found.predictions),
    }
