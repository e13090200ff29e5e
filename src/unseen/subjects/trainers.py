"""A trainer after its work as a subject: of transformers, or of Lightning."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor, nn

from unseen.engine.batches import Columns
from unseen.errors import InvalidData
from unseen.models.sequence_classifier import SequenceClassifier
from unseen.objectives import classify
from unseen.subjects.loaders import subject_of_loaders
from unseen.subjects.subject import Subject

ONLY = "evaluation"
"""The site of the only evaluation data."""
LABELS = ("labels", "label")


@runtime_checkable
class TransformersTrainer(Protocol):
    """What is read of a `transformers.Trainer`."""

    model: Any
    train_dataset: Any
    eval_dataset: Any


@runtime_checkable
class LightningTrainer(Protocol):
    """What is read of a Lightning `Trainer`."""

    lightning_module: Any
    train_dataloader: Any
    val_dataloaders: Any


TrainerLike: TypeAlias = TransformersTrainer | LightningTrainer


def is_trainer(found: object) -> bool:
    return isinstance(found, TransformersTrainer | LightningTrainer)


def of_trainer(trainer: TrainerLike) -> Subject:
    """The trained model with its training data, and its evaluation data as sites: a dictionary
    names them.
    """
    if isinstance(trainer, LightningTrainer):
        return _of_lightning(trainer)
    return _of_transformers(trainer)


def _of_lightning(trainer: LightningTrainer) -> Subject:
    module = trainer.lightning_module
    test = getattr(trainer, "test_dataloaders", None) or trainer.val_dataloaders
    if module is None or trainer.train_dataloader is None or not test:
        raise InvalidData(
            "The Lightning trainer has no model, no training data or no evaluation data.",
            why="they are there after trainer.fit(module, train_dataloader, val_dataloaders).",
            fix="fit first; or unseen.Subject.from_loaders(module, train=loader, test={site: …}).",
        )
    loss = next(
        (
            found
            for name in ("loss", "criterion", "loss_fn")
            if isinstance(found := getattr(module, name, None), nn.Module)
        ),
        None,
    )
    return subject_of_loaders(
        module, train=trainer.train_dataloader, test=_by_site(test), loss=loss
    )


def _of_transformers(trainer: TransformersTrainer) -> Subject:
    tokenizer = getattr(trainer, "processing_class", None) or getattr(trainer, "tokenizer", None)
    if trainer.train_dataset is None or trainer.eval_dataset is None:
        raise InvalidData(
            "The Trainer has no training or no evaluation data.",
            why="a model is evaluated beside what it was trained on.",
            fix="Trainer(…, train_dataset=…, eval_dataset={site: dataset}).",
        )
    model = trainer.model.cpu()  # where the trainer left it may be another device
    classifier = SequenceClassifier(model, tokenizer)
    test = {
        site: _columns(data, classifier) for site, data in _by_site(trainer.eval_dataset).items()
    }
    return subject_of_loaders(
        classifier,
        train=_columns(trainer.train_dataset, classifier),
        test=test,
        loss=classify,
        classes=classifier.classes,
        name=type(model).__name__,
    )


def _by_site(data: Any) -> dict[str, Any]:
    """Evaluation data by site: of a dictionary its keys, of a list their numbers."""
    if isinstance(data, Mapping):
        return {str(site): one for site, one in data.items()}
    if isinstance(data, Sequence) and not isinstance(data, str):
        return (
            {f"{ONLY} {k}": one for k, one in enumerate(data)} if len(data) > 1 else {ONLY: data[0]}
        )
    return {ONLY: data}


def _columns(data: Any, classifier: SequenceClassifier) -> Columns:
    """Token numbers filled up to one length, and labels."""
    rows, labels = list[Tensor](), list[int]()
    for example in data:
        label = next((example[name] for name in LABELS if name in example), None)
        if "input_ids" not in example or label is None:
            raise InvalidData(
                f"An example of the Trainer holds {', '.join(example)}.",
                why="a text classifier reads `input_ids` and `labels`.",
                fix="tokenize the dataset before: dataset.map(tokenizer, …); or give texts with "
                "unseen.Subject.from_texts.",
            )
        rows.append(torch.as_tensor(example["input_ids"], dtype=torch.int64).flatten())
        labels.append(int(label))
    x = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=classifier.pad)
    return Columns(x=x, y=torch.tensor(labels), attention_mask=classifier.real(x))
