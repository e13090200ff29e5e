"""Networks with loaders of their own, text classifiers with a DataFrame, and trainers."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset, WeightedRandomSampler

import unseen
from unseen import Subject
from unseen.errors import InvalidConfig, InvalidData, MissingFile, UnknownName
from unseen.lab import Lab
from unseen.objectives import binary, classify, regress
from unseen.questions.audit.job import Audit
from unseen.subjects.loaders import reset
from unseen.subjects.sources import read_subjects
from unseen.task import Use

G = torch.Generator().manual_seed(0)
QUICK = Audit(seeds=1, remedies={}, measures={})


def images(n: int, brightness: float = 0.0) -> TensorDataset:
    y = torch.randint(2, (n,), generator=G)
    x = brightness + 0.3 * torch.randn(n, 1, 6, 6, generator=G)
    x[y == 1, :, :3, :3] += 0.8
    return TensorDataset(x, y)


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2))


TRAIN, GENEVA = images(120), images(60, 0.2)


class Pairs(Dataset):
    """Tuples of an image and a plain number."""

    def __len__(self):
        return len(TRAIN)

    def __getitem__(self, index):
        x, y = TRAIN[index]
        return x, int(y)


def subject(model=network, **options):
    settings = {"train": DataLoader(TRAIN, 16, shuffle=True), "test": {"Geneva": GENEVA}}
    return Subject.from_loaders(model, **settings | options)


def test_a_function_is_trained_beside_a_fifth_that_is_set_apart():
    one = subject()
    assert {name: len(split.data) for name, split in one.task.splits.items()} == {
        "train": 96,
        "known": 24,
        "Geneva": 60,
    }
    assert one.trained is None
    assert any("24 of 120 training examples" in text for text in one.decisions)
    found = QUICK(one, Lab())
    assert found.score("Geneva", "AUC").value > 0.8
    assert found.unseen == ["Geneva"]
    assert found.known == ["known"]
    assert one.show("Geneva", 0).shape == (6, 6)


@pytest.mark.parametrize("form", ["module", "state dict", "pt", "safetensors", "trained module"])
def test_trained_weights_are_audited_as_they_are(form, tmp_path):
    from safetensors.torch import save_file

    model = network()
    with torch.no_grad():
        expected = model(GENEVA.tensors[0]).argmax(1) == GENEVA.tensors[1]
    torch.save(model.state_dict(), tmp_path / "w.pt")
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    given = {
        "module": {"model": model},
        "state dict": {"model": network, "trained": model.state_dict()},
        "pt": {"model": network, "trained": tmp_path / "w.pt"},
        "safetensors": {"model": network(), "trained": str(tmp_path / "w.safetensors")},
        "trained module": {"model": network, "trained": model},
    }[form]
    one = subject(**given)
    assert "known" not in one.task.splits
    with torch.no_grad():
        found = one.trained(GENEVA.tensors[0]).argmax(1) == GENEVA.tensors[1]
    assert (found == expected).all()
    fresh = one.model()
    assert not torch.equal(fresh[0].weight, one.trained[0].weight)


@pytest.mark.parametrize("data", [TRAIN, Pairs(), TRAIN.tensors, DataLoader(Pairs(), 4)])
def test_data_come_in_any_form(data):
    one = subject(train=data)
    assert len(one.task.splits["train"].data) == 96
    assert set(one.task.splits["train"].data[0]) >= {"x", "y"}


def test_the_objective_follows_from_the_loss_or_the_targets():
    numbers = TensorDataset(torch.randn(40, 3, generator=G), torch.randn(40, generator=G))
    of = {"train": numbers, "test": {"B": numbers}}
    assert subject().task.objective is classify
    assert subject(loss=nn.CrossEntropyLoss()).task.objective is classify
    assert subject(lambda: nn.Linear(3, 1), **of).task.objective is regress
    bits = TensorDataset(numbers.tensors[0], (numbers.tensors[1] > 0).float())
    logistic = subject(
        lambda: nn.Linear(3, 1), train=bits, test={"B": bits}, loss=nn.BCEWithLogitsLoss()
    )
    assert logistic.task.objective is binary


@pytest.mark.parametrize(
    "loss", [nn.CrossEntropyLoss(label_smoothing=0.1), nn.functional.cross_entropy]
)
def test_other_losses_are_taken_example_by_example(loss):
    one = subject(loss=loss)
    model = network()
    batch = {"x": GENEVA.tensors[0], "y": GENEVA.tensors[1]}
    losses = one.task.objective.loss(model, batch)
    assert losses.shape == (60,)
    torch.testing.assert_close(losses.mean(), loss(model(batch["x"]), batch["y"]))


def test_a_loss_of_a_column_of_numbers():
    x, y = torch.randn(40, 3, generator=G), torch.randn(40, generator=G)
    of = {"train": (x, y), "test": {"B": (x, y)}}
    model = nn.Linear(3, 1)
    losses = subject(model, loss=nn.HuberLoss(), **of).task.objective.loss(model, {"x": x, "y": y})
    torch.testing.assert_close(losses.mean(), nn.HuberLoss()(model(x)[:, 0], y))


class Scaled(nn.Module):
    """Has a parameter that knows no beginning."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))


def test_what_is_refused(tmp_path):
    with pytest.raises(InvalidData, match="No site"):
        subject(test={})
    with pytest.raises(InvalidData, match="do not fit"):
        subject(trained={"a": torch.zeros(1)})
    with pytest.raises(MissingFile):
        subject(trained="weights.pt")
    with pytest.raises(InvalidData, match="sampler"):
        subject(train=DataLoader(TRAIN, sampler=WeightedRandomSampler([1.0] * 120, 120)))
    with pytest.raises(InvalidConfig, match="one number per batch"):
        subject(loss=lambda outputs, targets: outputs.mean())
    with pytest.raises(InvalidData, match="cannot be drawn anew"):
        reset(Scaled())
    assert isinstance(reset(nn.MultiheadAttention(4, 2)), nn.Module)


def classifier():
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["[PAD]", "[UNK]", "good", "bad", "the", "film", "was"]
    tokens = Tokenizer(models.WordLevel({w: k for k, w in enumerate(words)}, unk_token="[UNK]"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokens, pad_token="[PAD]", unk_token="[UNK]"
    )
    config = transformers.BertConfig(
        vocab_size=7,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        id2label={0: "neg", 1: "pos"},
    )
    torch.manual_seed(0)
    return transformers.BertForSequenceClassification(config).eval(), tokenizer


def texts() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"text": ["the film was " + w for w in rng.choice(["good", "bad"], 60)]})
    frame["label"] = np.where(frame.text.str.contains("good"), "pos", "neg")
    frame["shop"] = np.repeat(["a", "b", "c"], 20)
    frame.loc[3, "text"] = None
    return frame


def test_a_text_classifier_with_a_frame():
    model, tokenizer = classifier()
    frame = texts()
    found = Subject.from_texts(model, tokenizer, frame, text="text", target="label", site="shop")
    assert [one.held_out for one in found] == ["a", "b", "c"]
    first = found[0]
    here = first.task.splits["unseen"].data
    assert here.columns["index"].tolist() == [k for k in range(20) if k != 3]
    assert first.show("unseen", 3) == frame.text[4]
    report = QUICK(first, Lab())
    with torch.no_grad():
        rows = tokenizer(list(frame.text[[k for k in range(20) if k != 3]]), return_tensors="pt")
        right = model(rows["input_ids"]).logits.argmax(1).numpy() == (
            frame.label[[k for k in range(20) if k != 3]] == "pos"
        )
    assert report.score("unseen", "accuracy").value == pytest.approx(right.mean())
    assert "nothing untrained" in report.skipped["suspected labels"]
    assert report.mode == "as-it-is"


def test_texts_that_are_refused():
    model, tokenizer = classifier()
    names = {"text": "text", "target": "label", "site": "shop"}
    with pytest.raises(UnknownName, match="column `body`"):
        Subject.from_texts(model, tokenizer, texts(), **names | {"text": "body"})
    with pytest.raises(UnknownName, match="class"):
        Subject.from_texts(model, tokenizer, texts().assign(label="perhaps"), **names)
    with pytest.raises(InvalidData, match="All rows are of site"):
        Subject.from_texts(model, tokenizer, texts().assign(shop="a"), **names)


def test_a_trainer_of_transformers_with_named_sites(tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    model, tokenizer = classifier()
    frame = texts().dropna()
    rows = [
        {"input_ids": tokenizer(text)["input_ids"], "labels": int(label == "pos")}
        for text, label in zip(frame.text, frame.label, strict=True)
    ]
    trainer = transformers.Trainer(
        model,
        transformers.TrainingArguments(
            str(tmp_path), max_steps=2, use_cpu=True, report_to=[], save_strategy="no"
        ),
        train_dataset=rows[:30],
        eval_dataset={"b": rows[30:40], "c": rows[40:]},
        processing_class=tokenizer,
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
    )
    trainer.train()
    (one,) = read_subjects(trainer, Lab())
    assert set(one.task.splits) == {"train", "b", "c"}
    assert list(one.classes) == ["neg", "pos"]
    assert set(one.task.unseen) == {"b", "c"}
    assert len(QUICK(one, Lab()).scores) >= 6


def test_a_trainer_of_lightning():
    """By what is read of it: Lightning is no dependency."""
    trainer = SimpleNamespace(
        lightning_module=network(),
        train_dataloader=DataLoader(TRAIN, 16, shuffle=True),
        val_dataloaders={"Geneva": DataLoader(GENEVA), "Basel": DataLoader(images(30))},
    )
    (one,) = read_subjects(trainer, Lab())
    assert set(one.task.unseen) == {"Geneva", "Basel"}
    assert one.trained is not None
    trainer.lightning_module = None
    with pytest.raises(InvalidData, match="Lightning trainer has no model"):
        read_subjects(trainer, Lab())
    with pytest.raises(InvalidData, match="a trainer") as error:
        unseen.audit(network(), progress=False)
    assert "from_loaders" in error.value.fix
    assert one.task.of(Use.TRAIN)
