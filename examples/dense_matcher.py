"""Makes weights for `unseen dense --model`: token matching trained on drawn scenes.

    python examples/dense_matcher.py matcher.safetensors

The training of the study `dense_generalist`, shortened to 250 steps of pretraining and 250 of
episodes: about half a minute of one free core.
"""

import sys
from pathlib import Path

from unseen.identity.tensors import digest_of
from unseen.lab import Lab
from unseen.questions.dense.checkpoint import save_matcher
from unseen.studies.dense_generalist import LAPTOP, study, train_generalist
from unseen.study.grid import resize

SEED = 0
SHORT = resize(LAPTOP, pretraining={"steps": 250}, episodes={"steps": 250})


def main(path: str) -> None:
    switch = train_generalist(SHORT, Lab(SEED).child(study.name)).switch
    save_matcher(Path(path), switch)
    print(f"{path}: seed {SEED}, weights {digest_of(switch.state_dict())}")


if __name__ == "__main__":
    main(sys.argv[1])
