"""Where to compute."""

import torch

from unseen.errors import InvalidConfig


def device(name: str) -> torch.device:
    """The named device, if this machine has it."""
    try:
        found = torch.device(name)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InvalidConfig(
            f"The device `{name}` cannot be used: {str(error).splitlines()[0]}",
            why="models and data are put there.",
            fix="use --device cpu, or look at `unseen doctor`.",
        ) from error
    return found
