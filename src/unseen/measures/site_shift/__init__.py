"""How a site differs from the others, in arrays: what a gap there may come from.

`covariates`: features that are distributed otherwise; `relations`: features that tell the target
otherwise; `prevalence`: a target that is commoner than the features explain; `recording`: units,
codes for "unknown", empty columns; `copies`: rows that stand at several sites; `classifier`: what
tells the sites apart; `decomposition`: how much of a gap each kind of shift makes;
`expected_performance`: what to expect without labels; `label_noise`: how many labels are wrong at
each; `slices`: in which part of them a model errs most.
"""

from dataclasses import dataclass

import numpy as np

from unseen.engine.batches import whole
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.measures.site_shift.classifier import site_classifier
from unseen.reading import Reading
from unseen.task import Task


@dataclass(frozen=True)
class SiteAUC:
    """AUC of a classifier between the inputs of two splits on the half of their rows that it was
    not fitted on: 0.5 if nothing tells them apart.
    """

    reference: str = "train"
    split: str = "test"

    def __call__(self, subject: Task, lab: Lab) -> Reading:
        samples = []
        for name in (self.reference, self.split):
            batch = whole(subject.split(name).data, lab)
            if "x" not in batch or not batch["x"].is_floating_point():
                raise InvalidData(
                    f"Split `{name}` has no numbers `x`.",
                    why="the classifier reads them.",
                    fix="name a split whose examples have inputs of numbers.",
                )
            samples.append(batch["x"].flatten(1).double().cpu().numpy())
        here = np.repeat([False, True], [len(sample) for sample in samples])
        rng = lab.child("site classifier").numpy()
        x = np.concatenate(samples)
        inputs = {str(k): [k] for k in range(x.shape[1])}
        return site_classifier(x, here, inputs, rng, draws=1).auc


def example() -> SiteAUC:
    """Between two splits of the contract battery's task."""
    return SiteAUC(split="shifted")
