"""Weights of token matching as safetensors, with the sizes and tasks that they belong to."""

import json
from dataclasses import asdict, fields
from pathlib import Path

from torch import Tensor

from unseen.data.files import data_file
from unseen.engine.bias_switch import BiasSwitch
from unseen.errors import InvalidData
from unseen.models.token_matching import Shape, TokenMatching, token_matcher
from unseen.runs.tensors import key_of, load_weights, save_weights

SHIPPED = "dense-matcher/matcher.safetensors"


def save_matcher(path: Path, switch: BiasSwitch) -> None:
    """Writes the weights with the sizes and the names of the tasks."""
    assert isinstance(switch.module, TokenMatching)
    about = {"shape": asdict(switch.module.shape), "tasks": switch.tasks}
    save_weights(path, switch.state_dict(), json.dumps(about))


def load_matcher(path: Path) -> BiasSwitch:
    """The network of a file that `save_matcher` wrote. Pickles are refused."""
    weights = load_weights(path)
    try:
        about = json.loads(key_of(path) or "")
        known = {field.name for field in fields(Shape)}
        shape = Shape(**{name: v for name, v in about["shape"].items() if name in known})
        switch = token_matcher(shape, about["tasks"])
        switch.load_state_dict(weights)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise InvalidData(
            f"{path} holds no token matching network ({str(error).splitlines()[0]}).",
            why="its sizes and tasks stand beside the weights, as save_matcher writes them.",
            fix="write it with unseen.questions.dense.checkpoint.save_matcher, or leave --model "
            "out.",
        ) from error
    return switch.eval()


def shipped_matcher() -> BiasSwitch:
    """The network that comes with the package; it has seen drawn scenes only."""
    return load_matcher(data_file(SHIPPED))


def count_parameters(switch: BiasSwitch) -> int:
    tensors: list[Tensor] = list(switch.module.parameters())
    return sum(p.numel() for p in tensors)
