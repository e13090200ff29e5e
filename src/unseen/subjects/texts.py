"""A text classifier of transformers with a DataFrame: evaluated at every site as it is."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from unseen.engine.batches import Columns
from unseen.errors import InvalidData, UnknownName
from unseen.lab import Lab
from unseen.models.sequence_classifier import SequenceClassifier
from unseen.objectives import classify
from unseen.subjects.examples import Shown
from unseen.subjects.networks import budget_for_rows
from unseen.subjects.subject import Subject
from unseen.subjects.table_models import Mode
from unseen.task import Axis, Split, Task, Use

KNOWN_SHARE = 0.5
"""Of the rows of the other sites, evaluated beside those of the site; nothing is trained."""
SHOWN = 300
"""Characters of a text that are shown."""
FEWEST = 2


def subjects_of_texts(
    model: Any,
    tokenizer: Any,
    frame: pd.DataFrame,
    *,
    text: str,
    target: str,
    site: str,
    length: int = 128,
    untrained: Callable[[], Any] | None = None,
    name: str = "texts",
) -> list[Subject]:
    """The subjects that `Subject.from_texts` describes."""
    for column in (text, target, site):
        if column not in frame:
            raise UnknownName.near("column", column, frame.columns)
    is_used = frame[[text, target, site]].notna().all(axis=1).to_numpy()
    used = frame[is_used]
    if len(used) < FEWEST:
        raise InvalidData(
            f"{len(used)} rows have a text, a label and a site.",
            why="there is nothing to evaluate.",
            fix="fill these columns.",
        )
    classifier = SequenceClassifier(model, tokenizer)
    labels = [_label(one, classifier.classes) for one in used[target]]
    texts = [str(one) for one in used[text]]
    data = Columns(
        **classifier.columns(texts, labels, length).columns,
        index=torch.from_numpy(np.flatnonzero(is_used)),
    )
    sites = [str(one) for one in used[site]]
    return [
        _subject_of(one, sites, data, texts, classifier, untrained, name)
        for one in dict.fromkeys(sorted(sites))
    ]


def _label(cell: Any, classes: Sequence[str]) -> str | int:
    """A class by its name, or by its number."""
    if str(cell) in classes:
        return str(cell)
    try:
        return int(cell)
    except (TypeError, ValueError):
        raise UnknownName.near("class", str(cell), classes) from None


def _subject_of(
    site: str,
    sites: Sequence[str],
    data: Columns,
    texts: Sequence[str],
    classifier: SequenceClassifier,
    untrained: Callable[[], Any] | None,
    name: str,
) -> Subject:
    is_here = torch.tensor([one == site for one in sites])
    others = (~is_here).nonzero().flatten()
    if not len(others):
        raise InvalidData(
            f"All rows are of site `{site}`.",
            why="a site is compared with the others.",
            fix="give rows of several sites.",
        )
    order = others[torch.randperm(len(others), generator=Lab().child(site).generator())]
    cut = max(1, int(len(order) * KNOWN_SHARE))
    elsewhere = f"all but {site}"
    rows = {
        "train": order[cut:].sort().values,
        "seen": order[:cut].sort().values,
        "unseen": is_here.nonzero().flatten(),
    }
    at = {"train": elsewhere, "seen": elsewhere, "unseen": site}
    splits = {
        key: Split(data.subset(of), Use.TRAIN if key == "train" else Use.EVALUATE, at=at[key])
        for key, of in rows.items()
        if len(of)
    }

    def new_model() -> nn.Module:
        if untrained is None:
            raise InvalidData(
                f"{type(classifier.model).__name__} was given trained, and nothing untrained.",
                why="this part trains a model that has not seen the labels.",
                fix="give the checkpoint before fine-tuning: untrained=lambda: "
                "AutoModelForSequenceClassification.from_pretrained(…).",
            )
        return SequenceClassifier(untrained(), classifier.tokenizer)

    def show(split: str, index: int) -> Shown:
        return texts[int(rows[split][index])][:SHOWN]

    task = Task(name=f"{name}: {site}", axis=Axis.SITE, splits=splits, objective=classify)
    return Subject(
        task=task,
        model=new_model,
        trained=classifier,
        name=type(classifier.model).__name__,
        dataset=name,
        held_out=site,
        mode=str(Mode.AS_IT_IS),
        budget=budget_for_rows(len(splits["train"].data)),  # type: ignore[arg-type]
        classes=classifier.classes,
        show=show,
        decisions=[
            f"Audited as it is: {type(classifier.model).__name__} was trained before. If it was "
            "trained on texts that are evaluated here, the numbers are in-sample."
        ],
    )
