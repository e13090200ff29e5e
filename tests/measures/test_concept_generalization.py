"""Rules and similarity: a posterior by hand, planted concepts, and what is refused."""

import pytest
import torch

from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.measures.concept_generalization import (
    BayesianConcept,
    RuleAdvantage,
    few_shot,
    interaction,
)
from unseen.testing import small_subject


def test_the_size_principle_on_three_nested_intervals():
    """{0, 1}, {0 … 3}, {0 … 7} with equal prior; two examples weigh them 1/4 : 1/16 : 1/64."""
    items = torch.arange(8)
    concept = BayesianConcept(torch.stack([items < 2, items < 4, items < 8]), torch.ones(3) / 3)
    assert concept.posterior([0, 1]) == pytest.approx(torch.tensor([16.0, 4.0, 1.0]) / 21)
    assert concept.rule([0, 1]).tolist() == [True] * 2 + [False] * 6
    assert concept.similarity([0, 1])[[1, 3, 7]] == pytest.approx(torch.tensor([1, 5 / 21, 1 / 21]))
    assert concept.posterior([0, 3]).tolist() == pytest.approx([0, 0.8, 0.2])
    with pytest.raises(InvalidData, match="No hypothesis holds all"):
        BayesianConcept(items[None] < 2, torch.ones(1)).posterior([5])


def planted(seed: int, common: float) -> tuple[torch.Tensor, ...]:
    """Ten concepts of 20 items; concept c has attribute c always, 40 noisy ones are anyone's."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(10).repeat_interleave(20)
    noise = (torch.rand(200, 40, generator=draw) < common).float()
    activations = torch.cat([torch.eye(10)[labels], noise], 1)
    members = labels[None] == torch.arange(10)[:, None]
    means = torch.stack([activations[row].mean(0) for row in members])
    return activations, members, means


def test_a_rule_finds_a_planted_attribute_that_similarity_drowns_in_noise():
    activations, members, means = planted(0, common=0.5)
    usable = torch.ones(10, 50, dtype=torch.bool)
    found = few_shot(activations, members, means, usable, Lab().generator(), attributes=1)
    assert found.rule == pytest.approx(torch.ones(10))
    assert found.similarity.mean() < 0.8
    usable[:, :10] = False  # without what gives the concept away, neither is better than chance
    blind = few_shot(activations, members, means, usable, Lab().generator(), attributes=1)
    assert abs(blind.rule.mean() - 0.5) < 0.1
    again = few_shot(3 * activations, members, 3 * means, usable, Lab().generator(), attributes=1)
    assert torch.equal(again.rule, blind.rule)  # scale does not matter


def test_interaction_is_the_gain_of_complex_concepts_over_the_others():
    complexity = torch.arange(8.0)
    rule = torch.where(complexity > 3, 0.9, 0.6) + 0.01 * torch.arange(8) % 3
    reading = interaction(rule, torch.full((8,), 0.7), complexity)
    assert reading.low > 0.2
    with pytest.raises(InvalidData, match="more complex than the median"):
        interaction(rule, rule, torch.ones(8))


def test_few_shot_refuses_what_it_cannot_ask():
    activations, members, means = planted(0, common=0.5)
    usable = torch.ones(10, 50, dtype=torch.bool)
    with pytest.raises(InvalidConfig, match="shots=1"):
        few_shot(activations, members, means, usable, Lab().generator(), shots=1)
    with pytest.raises(InvalidData, match="Concept 0 has 20 members"):
        few_shot(activations, members, means, usable, Lab().generator(), shots=20)


def test_the_measure_reads_a_trained_model():
    reading = RuleAdvantage(draws=3)(small_subject(), Lab())
    assert -1 <= reading.low <= reading.value <= reading.high <= 1
    assert reading.n == 2
