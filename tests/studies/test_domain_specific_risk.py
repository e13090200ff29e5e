"""The study of domain-specific risks: streams and controls by loops, claims on made-up rows."""

import pytest
import torch
from made_rows import add_noise

from unseen.engine.batches import whole
from unseen.engine.evaluate import scores
from unseen.lab import Lab
from unseen.measures.adaptivity_gap import head_accuracy_matrix
from unseen.method import Trained
from unseen.methods.drm import DRM
from unseen.methods.erm import ERM
from unseen.models.ensemble_model import Committee, SingleMember
from unseen.models.test_time_weighting import EntropySteering, Granularity
from unseen.studies.domain_specific_risk import (
    Data,
    HeadOutputs,
    Heads,
    Stream,
    Way,
    accuracies,
    gain_near_sources,
    head_outputs,
    hits,
    on_sources,
    position,
    rows_of,
    shuffle_domains,
    study,
    untrained_network,
    widest,
)
from unseen.study import Scale, Verdict, pick
from unseen.task import Use

LAB = Lab(seed=5)
SMOKE = study.scales[Scale.SMOKE]
CELL = next(iter(study.cells(SMOKE)))
SETTING = CELL.setting
TASK = SETTING.spec.build(LAB.child("data"))


def trained_heads() -> Committee:
    model = (
        DRM(budget=SETTING.budget)
        .fit(untrained_network(TASK, 16, LAB), TASK, LAB.child("fit"))
        .model
    )
    assert isinstance(model, Committee)
    return model


def test_random_sources_hold_the_same_examples_in_parts_of_equal_size():
    mixed = shuffle_domains(TASK, LAB)
    before, after = (
        [whole(s.data, LAB)["index"] for s in t.of(Use.TRAIN).values()] for t in (TASK, mixed)
    )
    assert sorted(torch.cat(before).tolist()) == sorted(torch.cat(after).tolist())
    sizes = [len(part) for part in after]
    assert max(sizes) - min(sizes) <= 1
    domains = [whole(s.data, LAB)["domain"].double().mean() for s in mixed.of(Use.TRAIN).values()]
    assert max(domains) - min(domains) < 0.3  # no part is one source
    assert all(
        mixed.splits[name] is split
        for name, split in TASK.splits.items()
        if split.use is not Use.TRAIN
    )


def test_one_hypothesis_has_the_accuracy_of_evaluation_in_every_stream():
    model = ERM(SETTING.budget).fit(untrained_network(TASK, 16, LAB), TASK, LAB.child("fit")).model
    single = Committee([model], SingleMember())
    found = scores(Trained(model, TASK), LAB)
    rows = {
        row["stream"]: row["accuracy"]
        for row in accuracies({Way.ERM: SingleMember()}, single, TASK, LAB)
    }
    assert rows[Stream.TARGET] == pytest.approx(found["unseen"].value)
    assert rows[Stream.MIXED] == pytest.approx(found["unseen"].value)
    seen = [reading.value for name, reading in found.items() if name.startswith("seen:")]
    assert rows[Stream.SOURCES] == pytest.approx(sum(seen) / len(seen))


def test_a_batch_of_one_example_is_the_example():
    model = trained_heads()
    found = head_outputs(model, [TASK.split("unseen")], LAB)
    one, other = (
        hits(rule, model, found)
        for rule in (EntropySteering(size=1), EntropySteering(Granularity.SAMPLE))
    )
    assert torch.equal(one, other)


def test_other_examples_in_a_batch_change_its_head():
    certain, wrong = torch.tensor([4.0, 0.0]), torch.tensor([0.0, 3.0])
    # head 0 is right and sure of class 0, head 1 is surer of two other examples
    outputs = torch.stack(
        [
            torch.stack([certain, 0 * certain, 0 * certain]),
            torch.stack([wrong, 9 * wrong, 9 * wrong]),
        ]
    )
    found = HeadOutputs(torch.zeros(3, 1), torch.tensor([0, 1, 1]), torch.zeros(3, 1), outputs)
    model = Committee([torch.nn.Identity(), torch.nn.Identity()], EntropySteering())
    assert hits(EntropySteering(), model, found[torch.tensor([0])]).tolist() == [1]
    assert hits(EntropySteering(), model, found).tolist() == [0, 1, 1]


def test_the_oracle_is_the_best_source_head():
    rows = list(study.run(CELL, LAB))
    task = SETTING.spec.build(LAB.child("data"))
    trained = DRM(budget=SETTING.budget).fit(
        untrained_network(task, SETTING.width, LAB), task, LAB.child("fit")
    )
    best = head_accuracy_matrix(trained, ["unseen"], LAB)[:-1, 0].max()
    (row,) = pick(rows, way=Way.BEST, heads=Heads.DOMAINS)
    (any_head,) = pick(rows, way=Way.ANY, heads=Heads.DOMAINS)
    assert row["accuracy"] == pytest.approx(float(best))
    assert any_head["accuracy"] >= row["accuracy"]


def test_positions_of_targets():
    places = [position(cell.setting.spec) for cell in study.cells(SMOKE) if cell.seed == 0]
    turned = [place for place in places if place["target"] in ("0", "30", "60")][:3]
    assert [place["place"] for place in turned] == ["end", "inside", "end"]
    assert {place["distance"] for place in turned} == {30}
    tinted = {
        place["target"]: place["distance"]
        for place in places
        if place["target"] in ("0.9", "0.8", "0.1")
    }
    assert tinted == {"0.9": 0.1, "0.8": 0.1, "0.1": 0.7}
    assert next(place for place in places if place["target"] == "west") == {"target": "west"}


def made_up(batch: float, other: float, spread: float = 0.0):
    """Rows of all claims: steering per batch scores `batch`, all else and mixed streams `other`."""
    rows = []
    for seed in range(5):
        noise = spread * (seed - 2)
        for data in Data:
            for target, place, distance in (("0.1", "end", 0.7), ("15", "inside", 0.1)):
                for stream in Stream:
                    for way in (Way.ERM, Way.CORAL, Way.SAMPLE, Way.ONLINE, Way.BEST):
                        rows.append({**rows_of(way, data, {}, stream), "accuracy": other})
                    steered = other if stream is Stream.MIXED else batch + noise
                    rows.append({**rows_of(Way.BATCH, data, {}, stream), "accuracy": steered})
                    rows.append(
                        {**rows_of(Way.BATCH, data, {}, stream, Heads.RANDOM), "accuracy": other}
                    )
                for row in rows:
                    facts = {"target": target, "place": place, "distance": distance, "seed": seed}
                    row.update({key: value for key, value in facts.items() if key not in row})
    return add_noise(rows, "accuracy")


def verdicts(rows):
    return [claim.judge(rows, Scale.LAPTOP).verdict for claim in study.claims]


def test_claims_can_hold_fail_and_stay_open():
    yes, no, open_ = Verdict.SUPPORTED, Verdict.REFUTED, Verdict.UNDECIDED
    better = [yes, yes, no, no, yes, yes, yes, yes, no, yes, yes, yes, yes, no]
    assert verdicts(made_up(0.15, 0.1)) == better
    worse = [no, no, yes, no, no, no, no, no, yes, no, no, no, no, yes]
    assert verdicts(made_up(0.5, 0.6)) == worse
    assert verdicts(made_up(0.53, 0.5, spread=0.05))[:2] == [open_, open_]


def test_effects_read_the_rows_they_name():
    paired = made_up(0.7, 0.6)
    for effect in (gain_near_sources, widest, on_sources):
        assert effect(paired).value == pytest.approx(0.1, abs=1e-3)  # the rows have noise
        assert effect(paired).n == 5


def test_equal_cells_give_equal_rows(smoke_runs):
    cell = list(study.cells(SMOKE))[4]
    assert list(study.run(cell, Lab(seed=cell.seed))) == smoke_runs.rows_of(study.name, cell)
