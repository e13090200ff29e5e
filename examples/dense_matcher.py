"""Makes the weights that `unseen dense` ships: token matching trained on drawn scenes.

    python examples/dense_matcher.py matcher.safetensors

The training of the study `dense_generalist` at laptop scale, 400 steps of pretraining and 600 of
episodes: about a minute and a half of one free core. The file also serves `unseen dense --model`.
"""

import sys
from pathlib import Path

from unseen.identity.tensors import digest_of
from unseen.lab import Lab
from unseen.questions.dense.checkpoint import save_matcher
from unseen.studies.dense_generalist import LAPTOP, study, train_generalist

SEED = 0


def main(path: str) -> None:
    switch = train_generalist(LAPTOP, Lab(SEED).child(study.name)).switch
    save_matcher(Path(path), switch)
    print(f"{path}: seed {SEED}, weights {digest_of(switch.state_dict())}")


if __name__ == "__main__":
    main(sys.argv[1])
