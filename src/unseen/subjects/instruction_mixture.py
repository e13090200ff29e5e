"""Target examples and, in every step, a share of general ones: the same target examples are seen in
the same order whatever the share.
"""

from collections.abc import Iterator

from unseen.engine.batches import Columns, forever
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.task import Batch

TARGET, GENERAL = "target", "general"


class ShareOfBatch(Columns):
    """Columns whose minibatches are `share` of a step, beside target examples that are the rest.

    With half, as many as the target's; training by `loop.train` takes one minibatch of each.
    """

    def __init__(self, data: Columns, share: float) -> None:
        super().__init__(**data.columns)
        if not 0 < share < 1:
            raise InvalidConfig(
                f"General data have a share of {share} of a step.",
                why="the target needs a part, and without general data there is no mixture.",
                fix="--share 0.5",
            )
        self.share = share

    def batches(self, batch_size: int, lab: Lab) -> Iterator[Batch]:
        """Minibatches without end beside `batch_size` target examples."""
        plain = Columns(**self.columns)
        yield from forever(plain, count_beside(batch_size, self.share), lab)


def count_beside(batch_size: int, share: float) -> int:
    """General examples beside so many of the target: at least one."""
    return max(1, round(batch_size * share / (1 - share)))


def mix(target: Columns, general: Columns | None, share: float) -> dict[str, Columns]:
    """The parts of a training: with no general data, or a share of 0, the specialist's."""
    if general is None or share == 0:
        return {TARGET: target}
    return {TARGET: target, GENERAL: ShareOfBatch(general, share)}
