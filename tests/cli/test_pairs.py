"""A file of pairs is split from the command line."""

import json

import pytest
from language import llama

from unseen.cli.main import main
from unseen.engine.token_pairs import Vocabulary, encode_pairs, pair
from unseen.errors import InvalidData
from unseen.models.encoder_decoder import load_encoder_decoder
from unseen.questions.compare.pairs import encode_texts, repeat_single_words
from unseen.tasks.scan import clauses, commands
from unseen.tasks.token_pairs import read_pairs


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "pairs.tsv"
    lines = [f"{' '.join(s)}\t{' '.join(t)}" for s, t in commands()[:400]]
    path.write_text("\n".join(["input\toutput", *lines]) + "\n")
    return path


def run(file, *options):
    return main(["compare", str(file), "--source", "input", "--target", "output", *options])


def test_parts_are_written_with_rule_counts_and_overlap(file, tmp_path, capsys):
    folder = tmp_path / "parts"
    assert run(file, "--by", "length", "--split-only", str(folder)) == 0
    train, test = (read_pairs(folder / f"{p}.tsv", "input", "output") for p in ("train", "test"))
    assert len(train) + len(test) == 400
    assert max(len(o.target) for o in train) < min(len(o.target) for o in test)
    facts = json.loads((folder / "split.json").read_text())
    assert (facts["train"], facts["test"], facts["overlap"]) == (len(train), len(test), 0)
    assert "training targets have at most" in capsys.readouterr().out


def test_the_split_as_json(file, tmp_path, capsys):
    assert run(file, "--by", "primitive", "--split-only", str(tmp_path / "p"), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["by"] == "primitive"
    assert "is trained alone" in found["rule"]


def train(file, tmp_path, *options):
    report = tmp_path / "report.html"
    small = ("--seeds", "2", "--steps", "20", "--report", str(report))
    return run(file, "--by", "length", *small, *options), report


def test_methods_are_trained_on_the_split_and_reported(file, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path / "home"))
    code, report = train(file, tmp_path, "--method", "rotary", "--method", "no positions", "--json")
    assert code == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["methods"]) == {"rotary", "no positions"}
    for method in found["methods"].values():
        assert 0 <= method["like training"]["value"] <= 1
        assert method["unseen"]["n"] == 2
    assert 0 <= found["chance"]["unseen"] < 0.5
    page = report.read_text()
    assert "Exact match on unseen pairs by tokens" in page
    assert "Below 0.9 on pairs like training" in page
    assert "No method answers half of the unseen pairs" in page
    # what was trained is read again: the same numbers, without training
    monkeypatch.setattr("unseen.questions.compare.pairs.ERM", None)
    code, _ = train(file, tmp_path, "--method", "rotary", "--method", "no positions", "--json")
    assert code == 0
    assert json.loads(capsys.readouterr().out)["methods"] == found["methods"]


def test_a_hint_is_a_file_of_easier_pairs(file, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path / "home"))
    easy = tmp_path / "easy.tsv"
    easy.write_text("input\toutput\n" + "\n".join(f"{x}\tI_{x.upper()}" for x in ("run", "walk")))
    methods = (
        "--method",
        "no positions + hint",
        "--method",
        "no positions + one length per minibatch",
    )
    assert train(file, tmp_path, *methods)[0] == 2
    assert "no method for pairs" in capsys.readouterr().err
    assert train(file, tmp_path, *methods, "--hint", str(easy))[0] == 0
    assert "no positions + hint" in capsys.readouterr().out


def test_columns_of_other_names_are_said_with_the_options_that_name_them(file, tmp_path, capsys):
    assert main(["compare", str(file), "--by", "length", "--split-only", str(tmp_path / "p")]) == 2
    said = capsys.readouterr().err
    assert "no `source` in line 2 of pairs.tsv" in said
    assert "--source input --target output" in said


def test_a_hint_may_be_longer_and_shows_no_pair_that_is_asked(file, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path / "home"))
    hint = tmp_path / "hint.tsv"
    hint.write_text("input\toutput\n" + "run " * 90 + "\tI_RUN\n")
    methods = ("--method", "no positions + hint", "--method", "random offsets + hint")
    assert train(file, tmp_path, *methods, "--hint", str(hint))[0] == 0
    capsys.readouterr()
    hint.write_text(file.read_text())
    assert train(file, tmp_path, *methods, "--hint", str(hint))[0] == 2
    assert "of the hint are test pairs" in capsys.readouterr().err


def test_unknown_methods_and_missing_files_are_refused(file, tmp_path, capsys):
    assert train(file, tmp_path, "--method", "rotery")[0] == 2
    assert "did you mean rotary" in capsys.readouterr().err
    assert run(file, "--split-only", str(tmp_path / "p")) == 2
    assert "--by" in capsys.readouterr().err


def test_a_folder_with_other_files_is_refused_and_an_earlier_split_replaced(file, tmp_path, capsys):
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "train.tsv").write_text("mine")
    ask = ("--by", "length", "--split-only", str(folder))
    assert run(file, *ask) == 2
    assert "holds other files (train.tsv)" in capsys.readouterr().err
    assert [one.name for one in folder.iterdir()] == ["train.tsv"]
    assert (folder / "train.tsv").read_text() == "mine"
    (folder / "train.tsv").unlink()
    assert run(file, *ask) == 0
    first = {one.name: one.read_text() for one in folder.iterdir()}
    assert run(file, *ask) == 0
    assert {one.name: one.read_text() for one in folder.iterdir()} == first
    (folder / "notes.txt").write_text("x")
    assert run(file, *ask) == 2
    assert "(notes.txt)" in capsys.readouterr().err


def test_a_split_by_primitive_compares_copies_of_primitives(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path / "home"))
    file = tmp_path / "clauses.tsv"
    lines = [f"{' '.join(s)}\t{' '.join(t)}" for s, t in clauses()]
    file.write_text("\n".join(["input\toutput", *lines]) + "\n")
    ask = ("--by", "primitive", "--seeds", "2", "--steps", "4", "--copies", "2", "--json")
    report = ("--report", str(tmp_path / "report.html"))
    assert run(file, *ask, *report) == 0
    found = json.loads(capsys.readouterr().out)["methods"]
    assert {"rotary", "rotary + words alone repeated", "rotary + primitive copies"} <= set(found)
    assert "no positions + growing set" not in found
    named = (
        "no positions + growing set",
        "no positions + short answers more often",
        "rotary + token copies",
    )
    assert run(file, *ask, *report, *(part for name in named for part in ("--method", name))) == 0
    assert set(json.loads(capsys.readouterr().out)["methods"]) == set(named)
    assert "Copies add pairs, not steps" in (tmp_path / "report.html").read_text().replace(
        "\n", " "
    )


def test_words_alone_are_a_tenth_of_what_is_drawn():
    pairs = [pair("walk", "W"), pair("run", "R"), *(pair(f"walk {k}", "W") for k in range(7))]
    found = repeat_single_words(encode_pairs(pairs, Vocabulary.of(pairs)))
    assert found.weights[:2].sum().item() == pytest.approx(0.1)
    assert found.weights.sum().item() == pytest.approx(1)
    with pytest.raises(InvalidData, match="0 of 7 training pairs"):
        repeat_single_words(encode_pairs(pairs[2:], Vocabulary.of(pairs)))


FEW = ("--steps", "4", "--json")
BOTH = ("--method", "encoder-decoder", "--method", "encoder-decoder + CLAPS", *FEW)


def test_encoder_decoders_from_scratch(file, tmp_path, capsys, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path / "home"))
    code, report = train(file, tmp_path, *BOTH)
    assert code == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["methods"]) == {"encoder-decoder", "encoder-decoder + CLAPS"}
    assert "is a T5, which knows distances" in report.read_text()


def t5_folder(path, words):
    """A T5 with random weights and one token per word."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    known = {"<pad>": 0, "</s>": 1, "<unk>": 2}
    known |= {word: k for k, word in enumerate(words, 3)}
    plain = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"unk_token": "<unk>", "eos_token": "</s>", "pad_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=plain, **special).save_pretrained(path)
    config = T5Config(
        vocab_size=len(known),
        d_model=16,
        d_kv=8,
        d_ff=16,
        num_layers=1,
        num_heads=2,
        decoder_start_token_id=0,
    )
    T5ForConditionalGeneration(config).save_pretrained(path)
    return path


def test_an_encoder_decoder_of_ones_own_is_fine_tuned(file, tmp_path, capsys, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path / "home"))
    pairs = read_pairs(file, "input", "output")
    words = sorted({word for one in pairs for side in one for word in side})
    folder = t5_folder(tmp_path / "t5", words)
    ask = ("--model", str(folder))
    code, report = train(file, tmp_path, *ask, *FEW)
    assert code == 0
    found = json.loads(capsys.readouterr().out)["methods"]
    assert set(found) == {
        "encoder-decoder",
        "encoder-decoder + in-batch contrast",
        "encoder-decoder + CLAPS",
    }
    assert "fine-tunes the given encoder–decoder" in report.read_text()
    assert train(file, tmp_path, *ask, "--method", "rotary")[0] == 2
    assert "no method for pairs" in capsys.readouterr().err


def test_texts_in_a_models_own_tokens(tmp_path):
    pytest.importorskip("transformers")
    model = load_encoder_decoder(t5_folder(tmp_path / "t5", ["a", "b", "c"]))
    columns = encode_texts(model, [pair("a b", "c"), pair("c", "b a")]).columns
    assert columns["tokens"].tolist() == [[3, 4, 0, 5, 1], [5, 0, 4, 3, 1]]
    assert columns["mask"].long().tolist() == [[0, 0, 0, 1, 1], [0, 0, 1, 1, 1]]
    rows = model.divide(columns["tokens"])
    assert rows.source.tolist() == [[3, 4, 1], [5, 1, 0]]  # T5 was trained with closed sources
    assert rows.source_real.long().tolist() == [[1, 1, 1], [1, 1, 0]]


def test_a_folder_of_another_kind_of_model_is_refused(file, tmp_path, capsys):
    pytest.importorskip("transformers")
    folder = llama(tmp_path / "llama")
    assert train(file, tmp_path, "--model", str(folder))[0] == 2
    assert "is no encoder–decoder" in capsys.readouterr().err
