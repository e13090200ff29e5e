"""DPO: the loss against its definition and against trl's, what it teaches, and refusals."""

import copy
from dataclasses import replace
from math import log

import pytest
import torch
from torch.testing import assert_close

from unseen.engine.program_writing import join_rows
from unseen.engine.response_losses import dpo
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.methods.dpo import DPO, example, pair_log_likelihoods, preference_columns
from unseen.models.response_loss import response_log_likelihood
from unseen.models.tiny_causal import tiny_causal
from unseen.objectives import exact_match
from unseen.task import Axis, Split, Task, Use
from unseen.testing.stand_ins import small_task


def task_of(columns):
    split = Split(columns, Use.TRAIN)
    return Task(name="pairs", axis=Axis.IID, splits={"train": split}, objective=exact_match)


def test_the_loss_begins_at_log_two_without_dropout_and_falls():
    method, subject = example()
    trained = method.fit(subject.model, subject.task, Lab())
    assert trained.curves["loss"][0] == pytest.approx(log(2), abs=1e-6)
    assert trained.curves["loss"][-1] < 0.5


def test_responses_change_places_and_so_does_what_is_learned():
    """The margin of the better response grows; with all pairs swapped it falls."""
    method, subject = example()
    rows = subject.task.splits["train"].data.columns
    swapped = {
        "tokens": rows["worse_tokens"],
        "mask": rows["worse_mask"],
        "worse_tokens": rows["tokens"],
        "worse_mask": rows["mask"],
        "pair": rows["pair"],
    }
    data = subject.task.splits["train"].data
    margins = []
    for columns in (data, type(data)(**swapped)):
        model = copy.deepcopy(subject.model)
        trained = method.fit(model, task_of(columns), Lab())
        better, worse = pair_log_likelihoods(trained.model, rows)
        margins.append((better - worse).mean().item())
    assert margins[0] > 1
    assert margins[1] < -1


def test_likelihoods_are_sums_over_the_responses_whatever_the_padding():
    model = example()[1].model
    prompts, better, worse = [[1, 2], [3]], [[4, 5, 6], [7]], [[8], [1, 2]]
    found = pair_log_likelihoods(model, preference_columns(prompts, better, worse).columns)
    for responses, values in zip((better, worse), found, strict=True):
        for prompt, response, value in zip(prompts, responses, values, strict=True):
            assert_close(response_log_likelihood(model, join_rows([prompt], [response]))[0], value)


# peft asks transformers for names that it is about to give up
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_trl_has_the_same_loss(tmp_path):
    """On the rows that its collator makes: better responses first, then worse ones."""
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    model, before = tiny_causal(seed=0), tiny_causal(seed=1)
    rows = {
        "prompt": ["2 + 2 =", "a short", "x"],
        "chosen": [" 4", " one", "y"],
        "rejected": [" five", " answer, longer", "z"],
    }
    settings = trl.DPOConfig(
        output_dir=str(tmp_path), beta=0.3, use_cpu=True, bf16=False, report_to="none",
        activation_checkpointing=False, per_device_train_batch_size=3,
        dataloader_pin_memory=False,
    )  # fmt: skip
    model.tokenizer.pad_token = model.tokenizer.eos_token = "!"
    trainer = trl.DPOTrainer(
        model=model.model,
        ref_model=before.model,
        args=settings,
        train_dataset=datasets.Dataset.from_dict(rows),
        processing_class=model.tokenizer,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.eval()
    theirs = trainer.compute_loss(trainer.model, batch).item()

    mask = batch["completion_mask"].bool()
    pairs = [
        {"tokens": tokens, "mask": where}
        for tokens, where in zip(batch["input_ids"].split(3), mask.split(3), strict=True)
    ]
    better, worse = (response_log_likelihood(model, one) for one in pairs)
    reference = [response_log_likelihood(before, one) for one in pairs]
    assert dpo(better, worse, *reference, 0.3).mean().item() == pytest.approx(theirs, abs=1e-5)
    assert theirs != pytest.approx(log(2), abs=1e-3)


def test_refusals():
    for beta in (0.0, -0.1, 1.5):
        with pytest.raises(InvalidConfig, match="beta="):
            DPO(beta=beta)
    with pytest.raises(InvalidData, match="holds no pairs of responses"):
        DPO().fit(torch.nn.Linear(2, 2), small_task(Lab()), Lab())
    with pytest.raises(InvalidData, match="There is no pair"):
        preference_columns([], [], [])
    assert replace(DPO(), beta=1.0).beta == 1.0
