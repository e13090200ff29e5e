"""How a concept is carried to new examples: by a rule, or by similarity.

Tenenbaum & Griffiths (2001, doi:10.1017/S0140525X01000061): P(y ∈ C | X) = Σ_{h ∋ y} P(h|X) with
P(h|X) ∝ P(h) Π_i P(x_i|h) and the size principle P(x|h) = 1/|h|. A rule is the hypothesis of
highest posterior, similarity the whole average. `few_shot` is the comparison of Shi et al. (2023,
arXiv:2211.11033) on activations, with both thresholds set by the same examples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cosine_similarity

from unseen import stats
from unseen.engine.attributes import concept_means, layer_outputs, representativeness
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.reading import Reading
from unseen.task import Use


@dataclass(frozen=True)
class BayesianConcept:
    """Hypotheses as sets of items, with a prior; answers what else a concept holds."""

    extensions: Bool[Tensor, "hypothesis item"]
    prior: Float[Tensor, " hypothesis"]

    def posterior(self, examples: Sequence[int]) -> Float[Tensor, " hypothesis"]:
        """∝ P(h) / |h|^n for hypotheses that hold all n examples."""
        consistent = self.extensions[:, list(examples)].all(1)
        sizes = self.extensions.sum(1).clamp_min(1).to(self.prior.dtype)
        weights = torch.where(consistent, self.prior / sizes ** len(examples), 0)
        if not weights.sum() > 0:
            raise InvalidData(
                f"No hypothesis holds all of the examples {list(examples)}.",
                why="the posterior would be 0/0.",
                fix="add a hypothesis that holds them, such as that of all items.",
            )
        return weights / weights.sum()

    def rule(self, examples: Sequence[int]) -> Bool[Tensor, " item"]:
        """The hypothesis of highest posterior."""
        return self.extensions[self.posterior(examples).argmax()]

    def similarity(self, examples: Sequence[int]) -> Float[Tensor, " item"]:
        """P(y ∈ C | X): the average over all hypotheses."""
        posterior = self.posterior(examples)
        return posterior @ self.extensions.to(posterior.dtype)


@dataclass(frozen=True)
class FewShot:
    """Balanced accuracy (mean of both rates) of every concept, over draws of its examples."""

    rule: Float[Tensor, " concept"]
    similarity: Float[Tensor, " concept"]


def few_shot(
    activations: Float[Tensor, "n attribute"],
    members: Bool[Tensor, "concept n"],
    means: Float[Tensor, "concept attribute"],
    usable: Bool[Tensor, "concept attribute"],
    generator: torch.Generator,
    *,
    shots: int = 4,
    attributes: int = 3,
    draws: int = 20,
) -> FewShot:
    """Who else is a member, from `shots` examples of a concept.

    Rule: at least as active as the least active example in each of the `attributes` of highest
    RoA. Similarity: cosine to the examples' mean at least that of the example that is farthest
    from the mean of the others. RoA sets the examples' mean against `means` of the other concepts;
    `usable` leaves attributes out that would give the concept away.
    """  # fmt: skip
    if shots < 2 or attributes < 1 or draws < 1:
        raise InvalidConfig(
            f"shots={shots}, attributes={attributes}, draws={draws} are out of range.",
            why="a threshold of similarity needs an example and another one.",
            fix="use at least two shots, one attribute and one draw.",
        )
    found = []
    for concept, member in enumerate(members):
        rows = member.nonzero()[:, 0]
        if len(rows) <= shots or bool(member.all()):
            raise InvalidData(
                f"Concept {concept} has {len(rows)} members of {len(member)}.",
                why=f"{shots} are shown; further ones and others are asked about.",
                fix="leave the concept out, or lower `shots`.",
            )
        columns = usable[concept]
        others = torch.arange(len(members)) != concept
        rates = []
        for _ in range(draws):
            shown = rows[torch.randperm(len(rows), generator=generator)[:shots]]
            asked = torch.ones(len(member), dtype=torch.bool)
            asked[shown] = False
            examples, queries = activations[shown][:, columns], activations[asked][:, columns]
            table = torch.cat([examples.mean(0, keepdim=True), means[others][:, columns]])
            order = representativeness(table.double())[0].argsort(descending=True, stable=True)
            rule = _holds_rule(queries, examples, order[:attributes])
            near = _is_similar(queries, examples)
            rates.append([_balanced_accuracy(says, member[asked]) for says in (rule, near)])
        found.append(torch.tensor(rates).mean(0))
    rule, similarity = torch.stack(found).unbind(1)
    return FewShot(rule, similarity)


def _holds_rule(
    queries: Float[Tensor, "q attribute"],
    examples: Float[Tensor, "shot attribute"],
    chosen: Int[Tensor, " k"],
) -> Bool[Tensor, " q"]:
    return (queries[:, chosen] >= examples[:, chosen].amin(0)).all(1)


def _is_similar(
    queries: Float[Tensor, "q attribute"], examples: Float[Tensor, "shot attribute"]
) -> Bool[Tensor, " q"]:
    without = (examples.sum(0) - examples) / (len(examples) - 1)
    threshold = cosine_similarity(examples, without, dim=1).min()
    return cosine_similarity(queries, examples.mean(0, keepdim=True), dim=1) >= threshold - 1e-6


def _balanced_accuracy(says: Bool[Tensor, " q"], true: Bool[Tensor, " q"]) -> float:
    return float(says[true].double().mean() + (~says[~true]).double().mean()) / 2


def interaction(
    rule: Float[Tensor, " concept"],
    similarity: Float[Tensor, " concept"],
    complexity: Float[Tensor, " concept"],
) -> Reading:
    """(rule − similarity) of concepts above the median complexity less that of the others, with
    Welch's interval over concepts. Positive: complex concepts are carried better by rules.
    """
    high = complexity > complexity.median()
    if high.sum() < 2 or (~high).sum() < 2:
        raise InvalidData(
            f"{int(high.sum())} of {len(high)} concepts are more complex than the median.",
            why="two groups of at least two are compared.",
            fix="use more concepts, or a finer measure of complexity.",
        )
    gain = rule - similarity
    return stats.welch(gain[high].tolist(), gain[~high].tolist())


@dataclass(frozen=True)
class RuleAdvantage:
    """Balanced accuracy of rules less that of similarity, mean over the classes of a split: who
    else belongs to a class, from a few examples, by the activations of a layer. `detail` holds
    each class's difference. Fair where the model was trained without these classes.
    """

    split: str = ""
    """By default the first evaluation split."""
    layer: str = ""
    shots: int = 4
    attributes: int = 3
    draws: int = 20
    batch_size: int = 256

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        name = self.split or next(iter(subject.task.of(Use.EVALUATE)))
        data = subject.task.split(name).data
        outputs = layer_outputs(subject.model, self.layer, data, lab, batch_size=self.batch_size)
        concepts, activations = outputs.labels.unique(), outputs.activations()
        means = concept_means(activations, outputs.labels, concepts)
        members = outputs.labels[None] == concepts[:, None]
        found = few_shot(
            activations, members, means, torch.ones_like(means, dtype=torch.bool),
            lab.child("shots").generator(), shots=self.shots, attributes=self.attributes,
            draws=self.draws,
        )  # fmt: skip
        gain = found.rule - found.similarity
        reading = stats.mean(gain.tolist(), within=(-1.0, 1.0))
        return Reading(
            reading.value, reading.low, reading.high, reading.n, "balanced accuracy", gain,
            reading.freedom,
        )  # fmt: skip


def example() -> RuleAdvantage:
    return RuleAdvantage()
