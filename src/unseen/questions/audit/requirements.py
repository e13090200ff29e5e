"""What a part needs of the subject, refused with a reason where it is missing."""

from unseen.errors import InvalidData, UnsupportedLayer
from unseen.models.estimator import Estimator
from unseen.subjects.session import Scene


def needs_gradients(scene: Scene) -> None:
    """Refuses estimators."""
    if isinstance(scene.first.model, Estimator):
        name = type(scene.first.model.estimator).__name__
        raise UnsupportedLayer(
            f"{name} has no gradients.",
            why="this part is computed from, or trained by, gradients of the loss.",
            fix="audit a network (without an estimator) to see it.",
        )


def needs_columns(scene: Scene, split: str, *columns: str) -> None:
    """Refuses examples without these tensors."""
    missing = [column for column in columns if not scene.has(split, column)]
    if missing:
        raise InvalidData(
            f"The examples of `{split}` have no `{'` and no `'.join(missing)}`.",
            why="this part reads " + " and ".join(f"`{column}`" for column in columns) + ".",
            fix="add them to the dataset if this kind of data has them; otherwise this part does not apply.",
        )
