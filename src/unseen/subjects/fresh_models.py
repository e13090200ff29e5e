"""Untrained models of a subject: seeds, remedies and folds start from what has seen nothing."""

from torch import nn

from unseen.engine.parameters import has_weights_of, shares_weights
from unseen.errors import InvalidData
from unseen.subjects.subject import Subject

MAKE_FRESH = (
    "make it inside the function: model=lambda: nn.Linear(…), and give a trained one as trained=…."
)


def fresh_model(subject: Subject) -> nn.Module:
    """The subject's model as its function makes it; refused where it is, or shares weights with,
    the trained one, which training would change.
    """
    model = subject.model()
    if isinstance(subject.trained, nn.Module) and shares_weights(model, subject.trained):
        raise InvalidData(
            "The subject's function `model` returned the trained model itself.",
            why="what is trained from there would change your model, and has seen every example.",
            fix=f"{MAKE_FRESH} Without a fresh one: audit without remedies (--no-remedies).",
        )
    return model


def untrained_model(subject: Subject) -> nn.Module:
    """`fresh_model`, refused also where it is a copy of the trained one: a model of a fold must not
    have seen the examples that it is tested on.
    """
    model = fresh_model(subject)
    if isinstance(subject.trained, nn.Module) and has_weights_of(model, subject.trained):
        raise InvalidData(
            "The subject's function `model` returned a model with the trained weights.",
            why="a model that starts there has seen the examples that it is to be tested on.",
            fix="let it return an untrained model, or the checkpoint before fine-tuning.",
        )
    return model
