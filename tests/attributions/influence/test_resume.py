"""A corpus read in stretches: the same answer as in one go, after any interruption."""

from dataclasses import dataclass, replace

import pytest
import torch

from unseen.attributions.influence import Curvature, Influence, sequence_nats
from unseen.attributions.influence.resume import identity, top
from unseen.engine.batches import once
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab, SingleProcess
from unseen.method import Trained
from unseen.models.transformer import Decoder, Transformer
from unseen.objectives import sequence_log_probability
from unseen.tasks.text_corpus import TextCorpus

CONFIG = Influence(loss=sequence_nats, batch_size=4)


class Memory:
    """State in memory; raises instead of the save after next `stop`."""

    def __init__(self, stop: int = 10**9) -> None:
        self.state, self.saves, self.stop = None, 0, stop

    def load(self):
        return self.state

    def save(self, state):
        self.state, self.saves = {name: t.clone() for name, t in state.items()}, self.saves + 1
        if self.saves == self.stop:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "a.txt").write_text("the quick brown fox jumps over the lazy dog and so on; " * 9)
    corpus = TextCorpus((str(folder / "a.txt"),), length=12, folder=str(folder / "kept"))
    torch.manual_seed(0)
    model = Transformer(Decoder(vocabulary=128, width=16, layers=1, heads=2, context=16)).eval()
    task = corpus.build(Lab())
    found = CONFIG.prepare(Trained(model, task), Lab())
    queries = next(once(task.splits["corpus"].data, 3, Lab()))
    return found, queries, corpus, model


def equal(a, b):
    return all(
        torch.equal(getattr(a, n), getattr(b, n))
        for n in ("index", "scores", "worst_index", "worst_scores")
    )


def test_stretches_give_the_top_of_all_scores(setting):
    found, queries, _, _ = setting
    got = top(found, queries, sequence_log_probability, 5, Memory(), every=2)
    scores = found(queries, sequence_log_probability).scores
    assert torch.allclose(got.scores, scores.topk(5).values, rtol=1e-4)
    assert torch.allclose(got.worst_scores, (-scores).topk(5).values.neg(), rtol=1e-4)
    assert torch.allclose(scores.gather(1, got.index), got.scores, rtol=1e-4)
    assert scores.shape[1] > 40


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_an_interrupted_run_ends_with_the_same_scores(setting, stop):
    found, queries, _, _ = setting
    whole = top(found, queries, sequence_log_probability, 4, Memory(), every=2)
    saved = Memory(stop)
    with pytest.raises(KeyboardInterrupt):
        top(found, queries, sequence_log_probability, 4, saved, every=2)
    assert int(saved.state["done"]) == stop * 2 * CONFIG.batch_size
    assert equal(top(found, queries, sequence_log_probability, 4, saved, every=2), whole)
    before = saved.saves
    assert equal(top(found, queries, sequence_log_probability, 4, saved, every=2), whole)
    assert saved.saves == before  # what is finished is not computed again


@dataclass(frozen=True)
class BesideAnother(SingleProcess):
    """This process and one that is so far; its share of other sums is none."""

    other: int = 0
    size: int = 2

    def sum(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape != (2,):
            return x
        return x + torch.tensor([self.other, self.other**2], dtype=x.dtype)


@pytest.mark.parametrize(("other", "first"), [(16, 32), (0, 16)], ids=["equally far", "apart"])
def test_processes_that_solve_together_go_on_together_or_anew(setting, other, first):
    found, queries, _, _ = setting
    lab = replace(found.lab, ranks=BesideAnother(other=other))
    config = replace(found.config, curvature=Curvature.EKFAC_CG, iterations=0)
    both = replace(found, config=config, lab=lab, stream=replace(found.stream, lab=lab))
    saved = Memory(1)
    saved.state = {"done": torch.tensor(16)}
    with pytest.raises(KeyboardInterrupt):
        top(both, queries, sequence_log_probability, 4, saved, every=2)
    assert int(saved.state["done"]) == first


def test_candidates_alone_are_looked_at(setting):
    found, queries, _, _ = setting
    few = torch.tensor([2, 3, 5, 7, 11, 13])
    given = torch.cat([few, few[:2]])  # twice is once
    got = top(found, queries, sequence_log_probability, 9, Memory(), candidates=given, every=1)
    scores = found(queries, sequence_log_probability).scores[:, few]
    assert got.index.shape == (3, 6)
    assert torch.allclose(got.scores, scores.sort(descending=True).values, rtol=1e-4)


def test_the_identity_is_of_everything_that_decides(setting):
    found, queries, corpus, model = setting

    def name(of=found, asked=queries, **more):
        given = {"behaviour": sequence_log_probability, "k": 3, "candidates": None} | more
        return identity(of, asked, *given.values()).digest

    torch.manual_seed(1)
    other = Transformer(Decoder(vocabulary=128, width=16, layers=1, heads=2, context=16)).eval()
    trained = Trained(other, corpus.build(Lab()))
    names = [
        name(),
        name(k=4),
        name(of=CONFIG.prepare(Trained(model, replace(corpus, length=8).build(Lab())), Lab())),
        name(behaviour=sequence_nats),
        name(candidates=torch.tensor([1, 2])),
        name(asked={**queries, "tokens": queries["tokens"].flip(0)}),
        name(of=replace(CONFIG, damping=0.2).prepare(Trained(model, trained.task), Lab())),
        name(of=CONFIG.prepare(trained, Lab())),
        name(of=CONFIG.prepare(Trained(model, trained.task), Lab(seed=1))),  # other drawn labels
    ]
    assert [names.index(one) for one in names] == list(range(len(names)))
    assert name(of=CONFIG.prepare(Trained(model, trained.task), Lab())) == names[0]


def test_refusals(setting):
    found, queries, corpus, model = setting
    with pytest.raises(InvalidConfig, match="every=0"):
        top(found, queries, sequence_log_probability, 3, Memory(), every=0)
    stream = CONFIG.prepare(Trained(model, replace(corpus, folder="").build(Lab())), Lab())
    with pytest.raises(InvalidData, match="cannot be taken up"):
        top(stream, queries, sequence_log_probability, 3, Memory())
