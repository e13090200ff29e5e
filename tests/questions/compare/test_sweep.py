"""Sweeps: trained together or alone, interrupted or not, the same scores; what diverges does not
stop the others.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unseen.engine.loop import Budget, train
from unseen.engine.vectorized.choose import Backend, train_looped
from unseen.errors import Divergence, InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.methods.erm import ERM
from unseen.models.mlp import mlp
from unseen.questions.compare import sweep as sweeping
from unseen.questions.compare.candidates import (
    MethodSpec,
    methods_named,
    methods_of_classes,
    standard_methods,
)
from unseen.questions.compare.job import Comparison
from unseen.questions.compare.protocols import Protocol
from unseen.questions.compare.results import AVERAGE, WORST
from unseen.questions.compare.run_groups import Run, RunGroup
from unseen.questions.compare.splits import evaluated_splits, known_splits, training_domains
from unseen.questions.compare.sweep import Sweep
from unseen.search_space import Space, Uniform
from unseen.subjects import stacking
from unseen.subjects.domains import of_domains, of_task
from unseen.subjects.stacking import step_of, train_alone
from unseen.subjects.subject import Subject
from unseen.task import Axis, Task, Use
from unseen.tasks.domains import Domains, shifting_clusters

RUNS = tuple(Run(seed, draw) for seed in range(2) for draw in range(2))


def clusters(steps: int = 6, width: int = 8, **budget: float) -> list[Subject]:
    found = of_domains(Domains(shifting_clusters), Lab(), "clusters")
    short = replace(found[0].budget, steps=steps, batch_size=8, **budget)
    return [replace(one, model=lambda: mlp([2, width, 2]), budget=short) for one in found]


def east() -> Task:
    return next(one.task for one in clusters() if one.held_out == "east")


@dataclass(frozen=True)
class Memory:
    """A keeper in memory that counts what was made."""

    kept: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)

    def __call__(self, key, make):
        if key not in self.kept:
            self.kept[key] = make()
            self.made.append(key)
        return self.kept[key]


@pytest.mark.parametrize(
    ("entrant", "without"),
    [
        *((entrant, "") for entrant in standard_methods()),
        *((entrant, "west") for entrant in methods_named(["erm", "mixup", "sam"])),
    ],
    ids=lambda value: value.name if isinstance(value, MethodSpec) else value or "all",
)
def test_models_trained_together_score_as_those_trained_alone(entrant, without, monkeypatch):
    monkeypatch.setattr(sweeping, "choose_backend", lambda jobs: Backend(True, "forced"))
    block = RunGroup(entrant, "east", without, RUNS)
    together, apart = Sweep(clusters(), Lab()), Sweep(clusters(), Lab(), is_stacked=False)
    (many,), (single,) = together([block]), apart([block])
    assert many["together"].all()
    assert not single["together"].any()
    assert many.keys() == single.keys()
    names = [name for name in many if name.startswith("margin")] if not without else ["select"]
    assert names
    for name in names:
        torch.testing.assert_close(many[name], single[name], rtol=1e-4, atol=1e-4)
    assert len(many["select"]) == len(RUNS)


STEPPED = [
    entrant
    for entrant in methods_of_classes()
    if step_of(entrant.make(Budget(steps=100))) is not None
]


@pytest.mark.parametrize("entrant", STEPPED, ids=lambda entrant: entrant.name)
def test_a_method_with_a_step_trains_as_the_loop_with_that_step(entrant):
    """What `step_of` takes for granted, for every class of `unseen.methods`."""
    held = clusters()
    method, task = entrant.make(held[0].budget), east()
    part = step_of(method)
    assert part is not None
    results = []
    for fit in (lambda m: method.fit(m, task, Lab()), lambda m: train(m, task, *part, Lab())):
        with Lab().child("init").seeded():
            model = held[0].model()
        results.append(fit(model).model)
    for p, q in zip(results[0].parameters(), results[1].parameters(), strict=True):
        assert torch.equal(p, q)


def test_places_of_one_shape_are_trained_together_and_score_as_alone(monkeypatch):
    monkeypatch.setattr(sweeping, "choose_backend", lambda jobs: Backend(True, "forced"))
    job = Comparison(entrants=methods_named(["erm", "mixup"]), seeds=2, draws=2)
    sweep = Sweep(clusters(), Lab())
    groups = sweep.groups(job.blocks(clusters()))
    assert [len(group) for group in groups] == [
        3,
        6,
        3,
        6,
    ]  # by method: three sites, each without two domains
    for group in groups[::2]:
        for kept, block in zip(sweep(group), group, strict=True):
            (single,) = Sweep(clusters(), Lab(), is_stacked=False)([block])
            torch.testing.assert_close(
                kept[f"margin {block.at}"], single[f"margin {block.at}"], rtol=1e-4, atol=1e-4
            )


def test_no_more_models_are_trained_at_once_than_fit(monkeypatch):
    monkeypatch.setattr(stacking, "MOST_MODELS", 3)
    job = Comparison(entrants=methods_named(["erm"]), seeds=5, draws=1)
    sweep, seen = Sweep(clusters(), Lab()), []
    monkeypatch.setattr(
        sweeping, "train_looped", lambda jobs: seen.append(len(jobs.models)) or train_looped(jobs)
    )
    assert [len(group) for group in sweep.groups(job.blocks(clusters()))] == [1, 1, 1]
    assert len(sweep(job.blocks(clusters())[:1])[0]["diverged"]) == 5
    assert seen == [3, 2]


def test_runs_of_a_seed_share_initial_weights_and_order_whatever_the_method_and_draw():
    held, lab = clusters(), Lab()
    made = Sweep(held, lab)
    starts = {}
    for entrant in methods_named(["erm", "sam"]):
        results, _ = made.train_groups([RunGroup(entrant, "east", "", RUNS)])
        for run, result in zip(RUNS, results, strict=True):
            assert isinstance(result, Trained)
            starts.setdefault(run.seed, []).append(result.start["1.weight"])
    for seed in starts:
        assert all(torch.equal(starts[seed][0], other) for other in starts[seed])
    assert not torch.equal(starts[0][0], starts[1][0])


def test_the_scores_of_one_place_do_not_depend_on_what_else_is_compared():
    job = Comparison(entrants=methods_named(["erm"]), seeds=2, draws=2, protocols=[Protocol.ORACLE])
    more = Comparison(
        entrants=methods_named(["sam", "erm"]), seeds=2, draws=2, protocols=[Protocol.ORACLE]
    )
    one, other = (each(clusters(), Lab()) for each in (job, more))
    for column in (*one.sites, AVERAGE, WORST):
        assert one.cell("ERM", column).reading == other.cell("ERM", column).reading


def test_an_interrupted_sweep_goes_on_where_it_stopped():
    entrants = methods_named(["erm", "sam", "v-rex", "mixup"])
    job, memory = (
        Comparison(entrants=entrants, seeds=1, draws=2, protocols=[Protocol.TRAINING]),
        Memory(),
    )
    blocks, lab = job.blocks(clusters()), Lab(keeper=memory)

    class Killed(Sweep):
        def train_groups(self, blocks):
            if len(memory.made) >= 6:
                raise KeyboardInterrupt
            return super().train_groups(blocks)

    with pytest.raises(KeyboardInterrupt):
        job(clusters(), lab, Killed(clusters(), lab))
    assert 6 <= len(memory.made) < len(blocks)
    resumed = job(clusters(), lab)
    assert len(memory.made) == len(blocks) == len(set(memory.made))
    whole = job(clusters(), Lab())
    assert resumed.cells == whole.cells
    assert resumed.choices == whole.choices


def test_another_learning_rate_or_other_data_are_not_mistaken_for_what_is_kept():
    held, block = clusters(), RunGroup(methods_named(["erm"])[0], "east", "", RUNS)
    keys = {
        Sweep(held, Lab()).key(block),
        Sweep(held, Lab(seed=1)).key(block),
        Sweep(clusters(lr=0.5), Lab()).key(block),
        Sweep(held, Lab(), {"lr": Uniform(0.1, 0.2)}).key(block),
        Sweep(held, Lab()).key(replace(block, at="west")),
        Sweep(held, Lab()).key(replace(block, without="west")),
        Sweep(clusters(width=9), Lab()).key(block),
    }
    assert len(keys) == 7
    assert Sweep(clusters(), Lab()).key(block) in keys


@dataclass(frozen=True)
class Explodes:
    """ERM whose every run diverges, but for the first draw of the given seeds."""

    budget: Budget = Budget()
    share: float = 0.0
    search: ClassVar[Space] = {"share": Uniform(1, 1)}

    def fit(self, model, task, lab):
        if self.share or lab.path[-1] == "1":
            raise Divergence("The loss is not finite.")
        return ERM(self.budget).fit(model, task, lab)


def test_diverging_runs_are_reported_and_the_others_continue():
    entrants = [*methods_named(["erm"]), MethodSpec("explodes", lambda budget: Explodes(budget))]
    results = Comparison(entrants=entrants, seeds=3, draws=2)(clusters(), Lab())
    lost, total = results.diverged["explodes"]
    assert (lost, total) == (
        36,
        54,
    )  # 2 of 3 seeds keep draw 0: 4 of 6 runs diverge, on 3 × (1 + 2) tasks
    cell = results.cell("explodes", "east")
    assert cell.seeds == 2
    assert "2 of 3 seeds" in cell.note
    assert results.diverged["ERM"] == (0, 54)
    assert results.cell("ERM", AVERAGE).reading is not None
    assert results.change("explodes", "east") is not None


def test_a_method_that_always_diverges_has_missing_cells_with_the_reason():
    entrants = [
        *methods_named(["erm"]),
        MethodSpec("explodes", lambda budget: Explodes(budget, share=1.0)),
    ]
    results = Comparison(entrants=entrants, seeds=1, draws=2)(clusters(), Lab())
    cell = results.cell("explodes", "east")
    assert (cell.reading, cell.note, cell.best) == (None, "every run diverged", False)
    assert results.cell("explodes", AVERAGE).note.startswith("no value at")
    assert not any(cell.best for cell in results.cells)


def test_a_stacked_run_that_diverges_does_not_take_the_others_with_it(monkeypatch):
    monkeypatch.setattr(sweeping, "choose_backend", lambda jobs: Backend(True, "forced"))
    held = clusters()
    wild = Sweep(held, Lab(), {"lr": Uniform(1e38, 1e38)})
    (kept,) = wild([RunGroup(methods_named(["erm"])[0], "east", "", RUNS)])
    assert kept["diverged"].tolist() == [False, True, False, True]  # draw 0 has the defaults
    assert torch.isfinite(kept["select"]).tolist() == [True, False, True, False]


def no_domains() -> Task:
    made = shifting_clusters(Lab())
    task = east()
    fit, select = task.splits["train:west"], task.splits["select:west"]
    splits = {"train": replace(fit, at=None), "select": replace(select, at=None)}
    splits["held"] = replace(
        splits["select"], data=made["west"].subset(torch.arange(60)), use=Use.EVALUATE
    )
    return Task(name="one", axis=Axis.IID, splits=splits, objective=task.objective)


def test_a_method_that_needs_domains_is_footnoted_on_a_task_without():
    results = Comparison(entrants=methods_named(["erm", "vrex"]), seeds=2, draws=2)(
        [of_task(no_domains())], Lab()
    )
    cell = results.cell("V-REx", "held")
    assert cell.reading is None
    assert "could not be trained" in cell.note
    assert "domains" in results.missing["V-REx · one"]
    assert results.cell("ERM", "held").reading is not None
    assert results.protocols == [Protocol.TRAINING]
    assert "two or more training domains" in results.missing[Protocol.LEFT_OUT]
    assert "no split `oracle`" in results.missing[Protocol.ORACLE]


def test_if_no_method_can_be_trained_the_first_reason_is_the_error():
    with pytest.raises(InvalidData, match="domain"):
        Comparison(entrants=methods_named(["vrex"]), seeds=1, draws=1)(
            [of_task(no_domains())], Lab()
        )


def test_leave_one_domain_out_validation_never_fits_or_judges_the_domain_it_selects_on():
    held = clusters()
    task = Sweep(held, Lab()).task(RunGroup(methods_named(["erm"])[0], "east", "west"))
    assert {split.at for split in task.of(Use.TRAIN).values()} == {"middle"}
    assert {split.at for split in task.of(Use.SELECT).values()} == {"west"}
    assert training_domains(east()) == ["west", "middle"]
    assert evaluated_splits(east()) == {"east": "unseen"}
    assert list(known_splits(east())) == ["seen:west", "seen:middle"]


def test_validation_scores_are_means_over_domains_and_judged_scores_over_examples():
    held = clusters()
    block = RunGroup(methods_named(["erm"])[0], "east", "", RUNS[:1])
    (kept,), task = Sweep(held, Lab())([block]), east()
    (result,), _ = Sweep(held, Lab()).train_groups([block])

    def mean(name: str) -> float:
        data = task.splits[name].data[:]
        return (result.model(data["x"]).argmax(1) == data["y"]).double().mean().item()

    assert kept["select"][0].item() == pytest.approx(
        np.mean([mean("select:west"), mean("select:middle")])
    )
    assert kept["oracle"][0].item() == pytest.approx(mean("oracle"))
    assert kept["score east"][0].double().mean().item() == pytest.approx(mean("unseen"))
    z = result.model(task.splits["unseen"].data[:]["x"])
    torch.testing.assert_close(kept["margin east"][0], (z[:, 1] - z[:, 0]).detach())


def test_positions_may_be_numbers():
    task = east()
    number = {"west": 0.0, "middle": 1.0, "east": 2.0}
    splits = {name: replace(split, at=number[str(split.at)]) for name, split in task.splits.items()}
    held = [replace(clusters()[-1], held_out="2.0", task=replace(task, splits=splits))]
    job = Comparison(
        entrants=methods_named(["erm"]), seeds=1, draws=2, protocols=[Protocol.LEFT_OUT]
    )
    results = job(held, Lab())
    assert results.sites == ["2.0"]
    assert results.protocols == [Protocol.LEFT_OUT]
    assert {block.without for block in job.blocks(held)} == {"", "0.0", "1.0"}


def test_one_draw_runs_no_validation_and_says_so():
    job = Comparison(entrants=methods_named(["erm"]), seeds=2, draws=1)
    assert all(not block.without for block in job.blocks(clusters()))
    results = job(clusters(), Lab())
    assert results.protocols == [Protocol.TRAINING]
    assert "nothing to select" in results.missing["selection"]
    assert all(choice.draw == 0 for choice in results.choices)


def test_a_models_own_fit_may_diverge_alone():
    result = train_alone(Explodes(share=1.0), nn.Linear(2, 2), east(), Lab())
    assert isinstance(result, Divergence)


def test_that_three_sites_are_too_few_for_some_selection_is_known_before_training():
    subjects = clusters()
    job = Comparison(entrants=methods_named(["erm", "irm", "coral", "vrex"]), draws=2)
    (notice,) = job.domain_notices(subjects, Sweep(subjects, Lab()))
    assert notice.startswith("IRM, CORAL and V-REx get no leave-one-domain-out validation")
    assert "4 in all" in notice
    job = replace(job, seeds=1, entrants=methods_named(["erm", "vrex"]))
    why = job(subjects, Lab()).missing
    assert list(why) == ["V-REx · leave-one-domain-out validation"]
    assert "4 in all" in why["V-REx · leave-one-domain-out validation"]
    plain = Comparison(entrants=methods_named(["erm", "sam"]), draws=2)
    assert plain.domain_notices(subjects, Sweep(subjects, Lab())) == []
    quiet = replace(job, protocols=[Protocol.TRAINING])
    assert quiet.domain_notices(subjects, Sweep(subjects, Lab())) == []
