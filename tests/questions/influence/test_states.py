"""The running best of several processes that were killed at different places."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from unseen import Lab
from unseen.identity import identify
from unseen.questions.influence.of_text import forget_if_apart
from unseen.questions.influence.saving import TopFile
from unseen.runs.tensors import TensorCache


@dataclass(frozen=True)
class WithAnother:
    """This process and one that is so far."""

    other: int
    rank: int = 0
    size: int = 2

    def sum(self, x: Tensor) -> Tensor:
        return x + torch.tensor([self.other, self.other**2], dtype=x.dtype)

    def gather(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize(("other", "stays"), [(32, True), (64, False), (0, False)])
def test_a_state_is_kept_where_all_processes_are_equally_far(tmp_path: Path, other, stays):
    state = TopFile(TensorCache(tmp_path), identify("running best", k=1))
    state.save({"done": torch.tensor(32)})
    forget_if_apart(state, Lab(ranks=WithAnother(other)))
    assert (state.load() is not None) == stays


def test_one_process_keeps_its_state(tmp_path: Path):
    state = TopFile(TensorCache(tmp_path), identify("running best", k=1))
    state.save({"done": torch.tensor(32)})
    forget_if_apart(state, Lab())
    assert state.load() is not None
