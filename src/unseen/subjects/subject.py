"""The subject of an audit: data with splits, a model, and how its examples are grouped and
shown.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from torch import Tensor, nn

from unseen.engine.batches import length
from unseen.engine.labels import drop_unlabelled
from unseen.engine.loop import Budget
from unseen.errors import InvalidData
from unseen.objectives import IGNORED
from unseen.subjects.examples import Shown
from unseen.subjects.user_data import examples_by_name
from unseen.task import Batch, Task

if TYPE_CHECKING:
    from unseen.subjects.loaders import Data, Loss, Network, Weights


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What `path/to/file.py:name` returns. Only `task` and `model` are needed."""

    task: Task
    model: Callable[[], nn.Module | BaseEstimator] | BaseEstimator
    """A fresh, untrained model, for seeds and remedies; a scikit-learn estimator also as it is."""
    trained: nn.Module | BaseEstimator | None = None
    """The model to audit; trained here with `budget` when absent."""
    name: str = "network"
    """What the model is called."""
    dataset: str = ""
    """What the data are called; subjects that hold out one site each of the same data share it."""
    held_out: str = ""
    """The site that the task leaves out of training, where there are several subjects of the same
    data.
    """
    mode: str = ""
    """Whether a model of a table is audited as it is or trained again without the site
    (`subjects.table_models.Mode`).
    """
    budget: Budget = Budget(steps=600, batch_size=64, lr=1e-3)
    """How the model is trained; remedies get the same."""
    groups: Mapping[str, Callable[[Batch], Tensor]] = field(default_factory=dict)
    """Subgroups by name: a function of a batch that returns an integer per example (negative: in
    none).
    """
    levels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Names of the integers of each group."""
    classes: Sequence[str] = ()
    """Names of the classes."""
    positive: str = ""
    """The class that a decision threshold calls (its number where classes have no names); of two
    classes the second where none is named.
    """
    threshold: float | None = None
    """The probability above which it is called; None: chosen on held-out examples of known sites.
    """
    site_names: Sequence[str] = ()
    """Names of the integers in the column `site`, where the examples have one."""
    features: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Input features by name: their positions in the flattened input `x`."""
    columns: Callable[[str], Mapping[str, NDArray[np.float64]]] | None = None
    """Numbers of a split by column, in the table's own unit and NaN where a cell is empty: units
    and codes for "unknown" are told from them.
    """
    show: Callable[[str, int], Shown] | None = None
    """Example `index` of a split, as text or as a grey image."""
    cells: Callable[[str], Mapping[str, NDArray[Any]]] | None = None
    """Columns of a split's examples as a person wrote them, also those that are no input: numbers
    (NaN where missing) or words ("").
    """
    unit: float = 1.0
    """A number as target is `centre` + `unit` · y in its own unit."""
    centre: float = 0.0
    inputs: int | None = None
    """The model reads the first so many inputs of an example; what follows is for the comparison
    models. None: all.
    """
    is_costly: bool = False
    """Whether a training, or the gradient of one example, costs so much that the audit leaves out
    the parts that need many of them.
    """
    references: Mapping[str, Callable[[], nn.Module]] = field(default_factory=dict)
    """Models to compare with, wrapped as `models.estimator.Estimator`."""
    decisions: Sequence[str] = ()
    """How the data were treated, for the report."""
    conversions: Sequence[str] = ()
    """Those of the decisions that say what was read otherwise than it is written."""
    warnings: Sequence[str] = ()
    """What the reader should beware of in the data."""

    @classmethod
    def from_loaders(
        cls,
        model: "Network",
        *,
        train: "Data",
        test: Mapping[str, "Data"],
        known: "Data | None" = None,
        loss: "Loss | None" = None,
        trained: "Weights | None" = None,
        classes: Sequence[str] = (),
        train_site: str = "training site",
        name: str = "",
    ) -> "Subject":
        """A network with its data: `train` and, for each site, `test` are loaders or datasets of
        (input, target).

        `model` is a trained module, audited as it is, or a function that makes a fresh one, which
        is trained here unless `trained` has its weights (a module, a state dict or a file of one).
        `known` are new examples of the training site (None: a fifth of `train` is set apart where
        the model is trained here). `loss` is torch's, of outputs and targets (None: by the type of
        the targets).
        """
        from unseen.subjects.loaders import subject_of_loaders  # it makes subjects

        return subject_of_loaders(
            model,
            train=train,
            test=test,
            known=known,
            loss=loss,
            trained=trained,
            classes=classes,
            train_site=train_site,
            name=name,
        )

    @classmethod
    def from_texts(
        cls,
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
    ) -> "list[Subject]":
        """A text classifier of transformers, audited as it is at every site of a DataFrame.

        `text`, `target` and `site` are columns; the target holds classes as the model names or
        numbers them. `length` tokens of a text are read. `untrained` makes the model before
        fine-tuning, for the parts that train one.
        """
        from unseen.subjects.texts import subjects_of_texts  # it makes subjects

        return subjects_of_texts(
            model,
            tokenizer,
            frame,
            text=text,
            target=target,
            site=site,
            length=length,
            untrained=untrained,
            name=name,
        )

    @property
    def data_name(self) -> str:
        """What the data are called, by the task where nothing else is said."""
        return self.dataset or self.task.name

    @property
    def label(self) -> str:
        """What tells the subject from others of the same data."""
        return self.held_out or self.task.name


def validate(subject: Subject) -> Subject:
    """The subject with its examples by name and without those whose label is to be ignored; refuses
    an empty split.
    """
    task, positions, decisions = subject.task, dict[str, Tensor](), list[str]()
    splits = dict(task.splits)
    for name, split in task.splits.items():
        data = examples_by_name(split.data, name)
        n = length(data)
        if n != 0:
            data, kept = drop_unlabelled(data, task.objective)
            if kept is not None and n is not None:
                positions[name] = kept
                decisions.append(
                    f"{n - len(kept):,} of {n:,} examples of split `{name}` have the label "
                    f"{IGNORED}: they are ignored."
                )
        if length(data) == 0:
            raise InvalidData(
                f"Split `{name}` is empty." if n == 0 else f"Split `{name}` has no label.",
                why="nothing can be done with it.",
                fix="leave it out.",
            )
        splits[name] = split if data is split.data else replace(split, data=data)
    if all(splits[name] is split for name, split in task.splits.items()):
        return subject
    return replace(
        subject,
        task=replace(task, splits=splits),
        show=_show_kept(subject.show, positions),
        cells=_cells_kept(subject.cells, positions),
        decisions=[*subject.decisions, *decisions],
    )


def _cells_kept(
    cells: Callable[[str], Mapping[str, NDArray[Any]]] | None, positions: Mapping[str, Tensor]
) -> Callable[[str], Mapping[str, NDArray[Any]]] | None:
    """The cells of the examples whose label counts."""
    if cells is None or not positions:
        return cells

    def labelled_cells(split: str) -> Mapping[str, NDArray[Any]]:
        kept = positions.get(split)
        return {
            name: column if kept is None else column[kept.numpy()]
            for name, column in cells(split).items()
        }

    return labelled_cells


def _show_kept(
    show: Callable[[str, int], Shown] | None, positions: Mapping[str, Tensor]
) -> Callable[[str, int], Shown] | None:
    """Shows examples by their position among those whose label counts."""
    if show is None or not positions:
        return show

    def show_by_position(split: str, index: int) -> Shown:
        kept = positions.get(split)
        return show(split, index if kept is None else int(kept[index]))

    return show_by_position
