"""d3rlpy on the same transitions, network and batch: steps per CPU second, and its greedy actions.

    python benchmarks/peers/d3rlpy_peer.py transitions.npz bc 200 actions.npy SEED

Runs in an environment of its own (d3rlpy pins an old Gymnasium): `dense_levels_compass.py` calls
it with the interpreter that D3RLPY_PYTHON names, and with this package on the path for the network.
Prints one JSON line.
"""

import json
import sys
import time
from dataclasses import dataclass
from typing import Any

import d3rlpy
import numpy as np
import torch
from d3rlpy.models.encoders import EncoderFactory
from torch import nn

from unseen.models.policy import policy_network

HIDDEN = 128
PENALTY = 1.0


class Trunk(nn.Module):
    """Our network without its last layer, as d3rlpy's encoder."""

    def __init__(self, shape: Any) -> None:
        super().__init__()
        self.layers = policy_network(shape, 1, hidden=HIDDEN)[:-1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


@dataclass()
class TrunkFactory(EncoderFactory):
    """Makes the trunk."""

    def create(self, observation_shape: Any) -> Any:
        return Trunk(observation_shape)

    def create_with_action(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError("discrete actions only")

    @staticmethod
    def get_type() -> str:
        return "trunk"


def main() -> None:
    path, name, steps, out = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    torch.set_num_threads(1)
    d3rlpy.seed(int(sys.argv[5]))
    data = np.load(path)
    dataset = d3rlpy.dataset.MDPDataset(
        data["x"], data["y"][:, None], data["reward"], data["terminal"], data["timeout"]
    )
    common = {"batch_size": 128, "encoder_factory": TrunkFactory()}
    if name == "bc":
        config: Any = d3rlpy.algos.DiscreteBCConfig(learning_rate=1e-3, beta=0.0, **common)
    else:
        config = d3rlpy.algos.DiscreteCQLConfig(
            learning_rate=1e-3, alpha=PENALTY, target_update_interval=200, n_critics=1, **common
        )
    learner = config.create(device="cpu:0")
    learner.build_with_dataset(dataset)
    warm = 10
    for _ in range(warm):
        learner.update(dataset_batch(dataset))
    start = time.process_time()
    for _ in range(steps - warm):
        learner.update(dataset_batch(dataset))
    seconds = time.process_time() - start
    parts = np.array_split(data["play"], 20)
    np.save(out, np.concatenate([learner.predict(part) for part in parts]))
    print(json.dumps({"steps_per_second": (steps - warm) / seconds}))


def dataset_batch(dataset: Any) -> Any:
    """A minibatch of its own sampler."""
    return dataset.sample_transition_batch(128)


if __name__ == "__main__":
    main()
