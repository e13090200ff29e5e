"""Influence in a model whose parameters are spread over processes, beside the same model whole.

    torchrun --nproc-per-node 2 examples/sharded_influence.py

Every process holds a part of each parameter and reads its own part of the corpus. The model here is
small and its weights are random, so that the script takes seconds on a CPU: put yours in its place.
"""

import copy
import tempfile
from pathlib import Path

import torch
from torch.distributed.fsdp import fully_shard

from unseen.attributions.influence import Influence, sequence_nats
from unseen.engine.batches import once
from unseen.engine.ranks import process_group, ranks
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.transformer import Decoder, Transformer
from unseen.objectives import sequence_log_probability
from unseen.tasks.text_corpus import TextCorpus


def main() -> None:
    """Scores of sixty windows for two queries, by the whole model and by the sharded one."""
    with process_group(), tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)  # the same weights in every process
        model = Transformer(Decoder(vocabulary=128, width=64, layers=4, heads=4, context=32)).eval()
        whole = copy.deepcopy(model)
        text = Path(folder, "text.txt")
        text.write_text(" ".join(f"{n} times {n} is {n * n}." for n in range(100)))
        lab = Lab(ranks=ranks())
        task = TextCorpus((str(text),), length=32).build(lab)
        queries = next(once(task.splits["corpus"].data, 2, lab))

        for block in model.blocks:  # a block's weights are gathered while it runs, then freed
            fully_shard(block)
        fully_shard(model)
        held = sum(p.to_local().numel() for p in model.parameters())
        config = Influence(loss=sequence_nats, batch_size=8)
        found = config.prepare(Trained(model, task), lab)
        scores = found(queries, sequence_log_probability).scores

        alone = config.prepare(Trained(whole, task), Lab())
        expected = alone(queries, sequence_log_probability).scores
        error = float((scores - expected).norm() / expected.norm())
        total = sum(p.numel() for p in whole.parameters())
        if lab.ranks.rank == 0:
            print(f"each of {lab.ranks.size} processes holds {held:,} of {total:,} parameters")
            print(f"scores of {scores.shape[1]} windows: relative difference {error:.1e}")


if __name__ == "__main__":
    main()
