"""Two processes that share a corpus (gloo) find what one process finds."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from unseen.attributions.influence import Influence, sequence_nats
from unseen.attributions.influence.bm25 import candidates
from unseen.attributions.influence.resume import top
from unseen.engine.batches import once
from unseen.engine.ranks import ranks
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.transformer import Decoder, Transformer
from unseen.objectives import sequence_log_probability
from unseen.tasks.text_corpus import TextCorpus


class Nowhere:
    def load(self):
        return None

    def save(self, state): ...


def found(folder: str, lab: Lab) -> dict[str, Tensor]:
    """Everything that processes share: factors, all scores, own scores, the top, candidates;
    streamed and mapped.
    """
    torch.manual_seed(0)
    model = (
        Transformer(Decoder(vocabulary=128, width=16, layers=1, heads=2, context=16))
        .double()
        .eval()
    )
    made: dict[str, Tensor] = {}
    for name, kept in (("streamed", ""), ("mapped", f"{folder}/kept{lab.ranks.rank}")):
        task = TextCorpus((f"{folder}/a.txt",), length=12, folder=kept).build(lab)
        queries = next(once(task.splits["corpus"].data, 3, lab))
        disk = 1 << 24 if kept else 0
        config = Influence(loss=sequence_nats, batch_size=4, memory=1 << 16, disk=disk)
        each = config.prepare(Trained(model, task), lab)
        made[f"{name} factors"] = torch.cat(
            [block.values.flatten() for block in each.factors.blocks.values()]
        )
        made[f"{name} scores"] = each(queries, sequence_log_probability).scores
        made[f"{name} own"] = each.self_influence()
        best = each.top(queries, sequence_log_probability, 5)
        made |= {
            f"{name} {part}": getattr(best, part)
            for part in ("scores", "index", "worst_scores", "worst_index")
        }
        wide = each.top(queries, sequence_log_probability, 1000)
        made |= {f"{name} all scores": wide.scores, f"{name} worst": wide.worst_scores}
        few = candidates(queries, task, 7, lab, batch_size=4)
        made |= {f"{name} words": few.scores, f"{name} candidates": few.index}
        if kept:
            best = top(
                each, queries, sequence_log_probability, 5, Nowhere(), candidates=few.union, every=1
            )
            made |= {"resumable index": best.index, "resumable scores": best.scores}
    return made


def member(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    lab = Lab(dtype=torch.float64, ranks=ranks())
    assert lab.ranks.size == 2
    torch.save(found(folder, lab), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def all_three():
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "a.txt").write_text(
            "the quick brown fox jumps over the lazy dog and so on; " * 5
        )
        both = [
            subprocess.Popen([sys.executable, __file__, str(rank), folder]) for rank in range(2)
        ]
        alone = found(folder, Lab(dtype=torch.float64))
        assert [process.wait(timeout=1_200) for process in both] == [0, 0]
        yield alone, *(torch.load(Path(folder) / f"{rank}.pt") for rank in range(2))


def test_every_process_has_what_one_alone_finds(all_three):
    alone, *both = all_three
    assert len(alone["mapped own"]) > 20
    for one in both:
        assert one.keys() == alone.keys()
        for name, wanted in alone.items():
            if wanted.is_floating_point():
                # sums over processes are added in another order
                assert torch.allclose(
                    one[name], wanted, rtol=1e-8, atol=1e-10 * float(wanted.abs().max())
                ), name
            else:
                assert torch.equal(one[name], wanted), name


def test_streamed_and_mapped_agree(all_three):
    alone = all_three[0]
    for name, value in alone.items():
        if name.startswith("streamed"):
            assert torch.allclose(value, alone[name.replace("streamed", "mapped")], rtol=1e-9), name


if __name__ == "__main__":
    torch.set_num_threads(1)
    member(int(sys.argv[1]), sys.argv[2])
