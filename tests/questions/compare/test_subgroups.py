"""Subgroups of evaluation examples against a loop over the examples, and what is said of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from questions.compare.results_by_hand import by_hand

from unseen.engine.batches import whole
from unseen.engine.evaluate import per_example
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.mlp import mlp
from unseen.questions.compare.advice import advice
from unseen.questions.compare.candidates import methods_named
from unseen.questions.compare.job import Comparison
from unseen.questions.compare.protocols import Protocol
from unseen.questions.compare.results import AVERAGE, Cell
from unseen.questions.compare.splits import evaluated_splits
from unseen.questions.compare.subgroups import SMALLEST, Subgroup, subgroups_of
from unseen.questions.compare.sweep import Sweep
from unseen.reading import Reading
from unseen.subjects.domains import of_domains
from unseen.tasks.domains import Domains, shifting_clusters


def side(batch):
    """Left and right of zero; the far right belongs to neither."""
    x = batch["x"][:, 0]
    return torch.where(x > 3, -1, (x > 0).long())


def clusters(group=side):
    found = of_domains(Domains(shifting_clusters), Lab(), "clusters")
    short = replace(found[0].budget, steps=6, batch_size=8)
    sides = {"groups": {"side": group}, "levels": {"side": ["left", "right"]}}
    return [replace(one, model=lambda: mlp([2, 8, 2]), budget=short, **sides) for one in found]


def test_subgroups_are_means_over_their_own_examples():
    given, lab = clusters(), Lab()
    job = Comparison(
        entrants=methods_named(["erm"]), seeds=2, draws=1, protocols=[Protocol.TRAINING]
    )
    results = job(given, lab)
    assert set(results.subgroups) == {"side"}
    blocks = job.blocks(given)
    checked = 0
    for block in blocks:
        trained, _ = Sweep(given, lab).train_groups([block])
        task = next(one.task for one in given if one.label == block.at)
        split = task.splits[evaluated_splits(task)[block.at]]
        codes = side(whole(split.data, lab))
        for code, level in enumerate(["left", "right"]):
            cell = results.cell("ERM", block.at, f"accuracy: side {level}")
            n = int((codes == code).sum())
            if n < SMALLEST:
                assert cell.reading is None
                continue
            models = [each.model for each in trained if isinstance(each, Trained)]
            right = [
                per_example(model, split.data, task.objective.score, lab)[codes == code]
                for model in models
            ]
            assert cell.reading is not None
            assert cell.reading.value == pytest.approx(float(torch.stack(right).mean()), abs=1e-6)
            checked += 1
    assert checked >= 4


def test_places_with_few_examples_and_examples_in_no_group_are_left_out():
    def by_site(group):
        return {site: one for one in clusters(group) for site in evaluated_splits(one.task)}

    few = by_site(lambda batch: (torch.arange(len(batch["x"])) >= SMALLEST - 1).long())
    (left,) = subgroups_of(few)["side"]
    assert left.name.endswith("side right")
    assert subgroups_of(by_site(lambda batch: torch.full((len(batch["x"]),), -1))) == {}


def test_a_part_of_everything_is_the_mean_and_ignores_what_is_outside():
    values = {0: np.array([1.0, 0.0, 1.0, 1.0]), 1: np.array([0.0, 0.0, 1.0, 1.0])}
    first = Subgroup("p", {"a": np.array([True, True, False, False])})
    changed = {
        seed: np.where([True, True, False, False], each, 7.0) for seed, each in values.items()
    }
    assert first.reading("a", values) == first.reading("a", changed)
    assert first.reading("a", values).value == pytest.approx(0.25)
    assert not first.exists("b")


def test_a_clearly_lower_subgroup_is_told_and_one_read_elsewhere_is_not():
    results = by_hand()
    values = {"sex female": 0.6, "sex male": 0.8, "sex unknown": 0.1}
    cells = [
        Cell(
            metric=f"accuracy: {level}",
            protocol=Protocol.TRAINING,
            method=method,
            column=column,
            seeds=3,
            reading=Reading(value, value - 0.05, value + 0.05, 50),
        )
        for level, value in values.items()
        for method in results.methods
        for column in (("west", "east", AVERAGE) if level != "sex unknown" else ("west",))
    ]
    names = [f"accuracy: {level}" for level in values]
    told = " ".join(
        n.text
        for n in advice(replace(results, cells=[*results.cells, *cells], subgroups={"sex": names}))
    )
    assert (
        "sex female has the lowest accuracy: 0.60 (in truth the lowest of the 2 lies in "
        "[0.55, 0.66]); sex male has 0.80 [0.75, 0.85]" in told
    )
    assert "unknown" not in told
    near = [replace(c, reading=Reading(0.7, 0.6, 0.8, 50)) for c in cells]
    quiet = " ".join(
        n.text
        for n in advice(replace(results, cells=[*results.cells, *near], subgroups={"sex": names}))
    )
    assert "sex" not in quiet
