"""`unseen influence` as a person uses it: subjects, tables, a language model; killed and resumed;
factors in a file.
"""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from language import letters, llama
from torch.distributed import TCPStore
from waiting import PATIENCE

from unseen.api.influence import _influence
from unseen.cli.influence import main
from unseen.errors import InvalidConfig, InvalidData, MissingFile, UnknownName, UnsupportedLayer
from unseen.questions.influence.saving import TopFile
from unseen.tasks.table import clinics

SUBJECT = """
import torch
from unseen import Subject
from unseen.engine.batches import Columns
from unseen.engine.loop import Budget
from unseen.models.mlp import mlp
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use

g = torch.Generator().manual_seed(0)
x = torch.rand(60, 1, 4, 4, generator=g)
y = (x.flatten(1).mean(1) > 0.5).long()
fit, judge = Columns(x=x[:40], y=y[:40]), Columns(x=x[40:], y=y[40:])
task = Task(name="grey", axis=Axis.IID, objective=classify,
            splits={"train": Split(fit, Use.TRAIN), "test": Split(judge, Use.EVALUATE)})
model = lambda: torch.nn.Sequential(torch.nn.Flatten(), mlp([16, 8, 2]))
images = Subject(task=task, model=model, budget=Budget(steps=60), classes=["dark", "light"],
                 show=lambda split, i: task.splits[split].data[i]["x"][0])
plain = Subject(task=task, model=model, budget=Budget(steps=60))
"""


CLASSIFIER = """
from unseen import Subject
from unseen.models.sequence_classifier import load_classifier
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use

model = load_classifier("bert")
texts = [f"text number {k}" for k in range(12)]
fit = model.columns(texts[:8], [k % 2 for k in range(8)])
judge = model.columns(texts[8:], ["bad", "bad", "good", "good"])
task = Task(name="texts", axis=Axis.IID, objective=classify,
            splits={"train": Split(fit, Use.TRAIN), "test": Split(judge, Use.EVALUATE)})
subject = Subject(task=task, model=lambda: load_classifier("bert"), trained=model,
                  classes=model.classes, show=lambda split, i: texts[i + 8 * (split == "test")])
"""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def text(tmp_path):
    """Arguments for a tiny language model, a corpus of 50 windows and two queries."""
    pytest.importorskip("transformers")
    llama(tmp_path / "model")
    Path("a.txt").write_text("".join(f"Line {k}: to be or not to be.\n" for k in range(58)))
    Path("q.jsonl").write_text('{"prompt": "Line 3", "completion": ": to be"}\n{"prompt": "not"}\n')
    return [
        "--model",
        "model",
        "--corpus",
        "a.txt",
        "--queries",
        "q.jsonl",
        "--length",
        "32",
        "--batch",
        "4",
        "--layers",
        "*.mlp.*",
        "--top",
        "3",
        "--write",
        "4",
    ]


def said(capsys, *arguments: str):
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)["answers"]


def scores(answers):
    return [
        [(e["index"], e["score"]) for e in answer[side]]
        for one in answers
        for answer in one["answers"]
        for side in ("helpful", "harmful")
    ]


def test_a_language_model_names_its_windows(capsys, text):
    (found,) = said(capsys, *text)
    first, second = found["answers"]
    assert (found["examples"], found["scored"]) == (
        len("".join(f"Line {k}: to be or not to be.\n" for k in range(58))) // 32 + 1,
    ) * 2
    assert first["completion"] == ": to be"
    assert not first["is_written"]
    assert second["is_written"]
    assert len(second["completion"]) == 4
    corpus = Path("a.txt").read_text()
    for answer in found["answers"]:
        helpful = [e["score"] for e in answer["helpful"]]
        assert helpful == sorted(helpful, reverse=True)
        assert helpful[-1] > 0
        assert all(e["score"] < 0 for e in answer["harmful"])
        for e in (*answer["helpful"], *answer["harmful"]):
            assert e["source"].endswith(f"a.txt, window {e['index'] + 1}")
            assert (
                e["shown"].replace("?", "\n") == corpus[32 * e["index"] :][:32]
            )  # the tokenizer knows no newline
            assert sum(weight for _, weight in e["pieces"]) == pytest.approx(
                e["score"], rel=1e-3, abs=1e-7
            )
    page = Path("unseen-influence.html").read_text()
    assert 'class="up" style="--w:55%"' in page  # the strongest token
    assert "nats per added copy" not in page  # nothing is retrained here: an order, no sizes
    assert "no sizes are given" in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_iterative_solves_start_from_the_same_factors_and_go_elsewhere(
    capsys, caplog, text, tmp_path
):
    plain, start, solved = (
        said(capsys, *text, "--curvature", kind, "--iterations", n)
        for kind, n in (("ekfac", "10"), ("ekfac+cg", "0"), ("ekfac+cg", "3"))
    )
    for a, b in zip(scores(start), scores(plain), strict=True):
        assert [k for k, _ in a] == [k for k, _ in b]
        assert [v for _, v in a] == pytest.approx([v for _, v in b], rel=1e-4)
    assert scores(solved) != scores(plain)
    assert any("did not converge: after 3 passes" in one for one in solved[0]["decisions"])
    assert not any("did not converge" in one for one in plain[0]["decisions"])
    # the shares of tokens are of the same solve
    messages = [record.getMessage() for record in caplog.get_records("call")]
    assert sum("Conjugate gradients did not converge" in one for one in messages) == 1
    assert len(list((tmp_path / "home" / "influence").glob("curvature-*"))) == 1
    page = Path("unseen-influence.html").read_text()
    assert "that share most words with the query (BM25)" in page
    assert "by words #" in page
    helpful = solved[0]["answers"][0]["helpful"]
    assert all(1 <= one["surface"]["words"] <= one["surface"]["of"] for one in helpful)


def test_candidates_are_said_and_keep_the_scores(capsys, text):
    (all_,), (few,) = said(capsys, *text), said(capsys, *text, "--candidates", "10")
    assert few["scored"] < all_["scored"] == few["examples"]
    assert any("TF-IDF, 10 per query" in text for text in few["decisions"])
    known = {
        e["index"]: e["score"]
        for e in (*all_["answers"][0]["helpful"], *all_["answers"][0]["harmful"])
    }
    shared = [e for e in few["answers"][0]["helpful"] if e["index"] in known]
    assert all(e["score"] == pytest.approx(known[e["index"]], rel=1e-4) for e in shared)


KILLED = """
import os, signal, sys
from unseen.questions.influence.saving import TopFile
from unseen.api.influence import _influence
from unseen.cli.influence import main
save = TopFile.save
def counted(self, state):
    save(self, state)
    if int(state["done"]) >= 32:
        os.kill(os.getpid(), signal.SIGKILL)
TopFile.save = counted
main(sys.argv[1:])
"""


def test_a_killed_run_goes_on_and_ends_with_the_same_scores(capsys, text, tmp_path, monkeypatch):
    wanted = scores(said(capsys, *text))
    elsewhere = {"UNSEEN_HOME": str(tmp_path / "second"), "OMP_NUM_THREADS": "1"}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *text], env=os.environ | elsewhere, timeout=PATIENCE
    )
    assert killed.returncode == -signal.SIGKILL
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path / "second"))
    (state,) = (tmp_path / "second" / "influence").glob("top-*")
    fitted = list((tmp_path / "second" / "influence").glob("curvature-*"))
    written, unfinished = fitted[0].stat().st_mtime_ns, state.read_bytes()
    saved, save = list[int](), TopFile.save
    monkeypatch.setattr(
        TopFile, "save", lambda self, now: (saved.append(int(now["done"])), save(self, now))[1]
    )
    assert scores(said(capsys, *text)) == wanted
    assert saved[0] == 48  # four batches after the kill, not after the start
    assert len(fitted) == 1
    assert fitted[0].stat().st_mtime_ns == written  # the curvature was kept, too
    assert state.read_bytes() != unfinished


@pytest.mark.parametrize(
    ("alone", "together"),
    [((), ("--shard",)), (("--curvature", "ekfac+cg", "--iterations", "2"), ())],
    ids=["weights", "solves"],
)
def test_processes_of_torchrun_share_the_corpus_and_the_weights(
    capsys, text, tmp_path, monkeypatch, alone, together
):
    text = [*text, *alone]
    (wanted,) = said(capsys, *text)
    # as torchrun does it: its own store serves the port, which thus nobody else can take in between
    meeting = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(meeting.port)}
    shared |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    shared["UNSEEN_HOME"] = str(tmp_path / "both")
    program = [
        sys.executable,
        "-c",
        "import sys; from unseen.cli.influence import main; main(sys.argv[1:])",
    ]
    other = subprocess.Popen(
        [*program, *text, *together, "--json", "--report", "1.html"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | shared | {"RANK": "1", "LOCAL_RANK": "1", "OMP_NUM_THREADS": "1"},
    )
    for name, value in {**shared, "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    (found,) = said(capsys, *text, *together)  # this process is the first
    out, err = other.communicate(timeout=PATIENCE)
    assert out == b""  # which speaks for all
    assert b"did not converge" not in err
    assert other.returncode == 0
    assert not Path("1.html").exists()
    for a, b in zip(scores([found]), scores([wanted]), strict=True):
        assert [k for k, _ in a] == [k for k, _ in b]
        assert [v for _, v in a] == pytest.approx([v for _, v in b], rel=1e-4)
    assert len(list((tmp_path / "both" / "influence").glob("top-*"))) == 2


def test_factors_are_read_back_and_refused_for_another_model(capsys, text, tmp_path):
    wanted = scores(said(capsys, *text, "--factors", "f.safetensors"))
    made = Path("f.safetensors").stat().st_mtime_ns
    assert scores(said(capsys, *text, "--factors", "f.safetensors")) == wanted
    assert Path("f.safetensors").stat().st_mtime_ns == made
    with pytest.raises(InvalidData, match=r"damping=0\.1; asked is damping=0\.2"):
        main([*text, "--factors", "f.safetensors", "--damping", "0.2"])
    llama(tmp_path / "other", seed=1)
    with pytest.raises(InvalidData, match="fitted to another checkpoint"):
        main(["--model", "other", *text[2:], "--factors", "f.safetensors"])
    with pytest.raises(InvalidData, match="holds no factors"):
        main([*text, "--factors", "model/model.safetensors"])
    with pytest.raises(InvalidConfig, match=r"suffix `\.pt`"):
        main([*text, "--factors", "f.pt"])


def test_gradients_that_may_wait_on_disk_change_no_score(capsys, text, monkeypatch):
    wanted = scores(said(capsys, *text))
    monkeypatch.setenv("UNSEEN_HOME", "another")
    monkeypatch.setattr(
        "unseen.api.influence._influence", lambda *given: replace(_influence(*given), memory=0)
    )
    (found,) = said(capsys, *text, "--disk", "0.5")
    assert scores([found]) == wanted
    assert "waited in a temporary file (`disk`)" in " ".join(found["decisions"])
    with pytest.raises(InvalidConfig, match="not a number of GiB"):
        main([*text, "--disk", "-1"])


def test_the_worst_errors_of_images_are_drawn(capsys):
    Path("mine.py").write_text(SUBJECT)
    (found,) = said(capsys, "mine.py:images", "--worst", "2", "--top", "3")
    assert found["settings"]["Fisher matrix"] == "exact"
    assert found["examples"] == 40
    assert [len(answer["helpful"]) for answer in found["answers"]] == [3, 3]
    assert {answer["label"] for answer in found["answers"]} <= {"dark", "light"}
    page = Path("unseen-influence.html").read_text()
    assert page.count("data:image/png") == 2 * (1 + 3 + 3)
    (again,) = said(capsys, "mine.py:images", "--worst", "2", "--top", "3")
    for a, b in zip(
        scores([again]), scores([found]), strict=True
    ):  # screening sums in bfloat16: last digits may differ
        assert [k for k, _ in a] == [k for k, _ in b]
        assert [v for _, v in a] == pytest.approx([v for _, v in b], rel=1e-5)
    (fitted,) = said(capsys, "mine.py:plain", "--split", "train", "--worst", "1", "--top", "1")
    assert (
        fitted["answers"][0]["title"] == f"Error 1: train[{fitted['answers'][0]['title'][15:-1]}]"
    )


def test_a_text_classifier_of_transformers_is_a_subject(capsys, tmp_path):
    transformers = pytest.importorskip("transformers")
    letters(tmp_path / "bert")
    config = transformers.BertConfig(
        vocab_size=95,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
        pad_token_id=0,
        id2label={0: "bad", 1: "good"},
    )
    transformers.BertForSequenceClassification(config).save_pretrained("bert")
    Path("mine.py").write_text(CLASSIFIER)
    (found,) = said(
        capsys,
        "mine.py:subject",
        "--worst",
        "1",
        "--top",
        "2",
        "--layers",
        "*classifier",
        "--layers",
        "*dense",
    )
    (answer,) = found["answers"]
    assert (answer["label"], answer["predicted"]) in [("good", "bad"), ("bad", "good")]
    for one in (*answer["helpful"], *answer["harmful"]):
        assert one["shown"] == f"text number {one['index']}"
    alike = [one["label"] == answer["label"] for one in answer["helpful"]]
    assert any(alike)  # the last layer's bias alone pulls towards the same label


def test_rows_of_a_table_are_shown(capsys):
    clinics().query("clinic != 'north'").head(100).to_csv("table.csv", index=False)
    found = said(
        capsys,
        "table.csv",
        "--target",
        "ill",
        "--site",
        "clinic",
        "--steps",
        "30",
        "--worst",
        "1",
        "--report",
        "r.md",
    )
    assert len(found) == 2
    text = Path("r.md").read_text()
    assert "age" in text
    assert "Helped most" in text
    row = found[0]["answers"][0]["helpful"][0]["source"]
    assert row.startswith("row ")


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (["--corpus", "a.txt"], InvalidConfig, "--model and --queries is missing"),
        (["--length", "65"], InvalidConfig, "longer than the 64"),
        (["--corpus", "b.txt"], MissingFile, r"b\.txt"),
        (["--layers", "*.nothing"], UnknownName, "nothing"),
        (["--damping", "-1"], InvalidConfig, "damping=-1"),
        (["--queries", "empty.jsonl"], InvalidData, "no completion"),
        (["--queries", "long.jsonl"], InvalidData, "has 73 tokens"),
        (["--corpus", "cut.jsonl"], InvalidData, "middle of line 2"),
        (["--corpus", "empty.txt"], InvalidData, "holds no text"),
        (["--model", "nowhere"], MissingFile, "no transformers model"),
        (["--top", "0"], InvalidConfig, "top=0"),
        (["--batch", "0"], InvalidConfig, "batch_size=0"),
        (["--write", "-1"], InvalidConfig, "write=-1"),
        (["--windows", "-1"], InvalidConfig, "windows=-1"),
        (["--candidates", "-1"], InvalidConfig, "candidates=-1"),
        (["--target", "y"], InvalidConfig, "--target and a language model"),
    ],
)
def test_bad_input(text, arguments, error, match):
    Path("empty.jsonl").write_text('{"prompt": "a", "completion": ""}')
    Path("long.jsonl").write_text(json.dumps({"prompt": "a" * 72, "completion": "b"}))
    Path("cut.jsonl").write_text('{"text": "one"}\n{"text": "tw')
    Path("empty.txt").write_text("")
    with pytest.raises(error, match=match):
        main(arguments if arguments[1] == "a.txt" else [*text, *arguments])


def test_a_cut_off_line_can_be_skipped(capsys, text):
    Path("cut.jsonl").write_text(
        json.dumps({"text": "one thing and another " * 9}) + '\n{"text": "tw'
    )
    (found,) = said(capsys, *text, "--corpus", "cut.jsonl", "--cut-off", "skip")
    assert any("middle of line 2" in text for text in found["decisions"])
    assert "middle of line 2" in Path("unseen-influence.html").read_text()


def test_confirm_retrains_once_and_is_kept(capsys, tmp_path):
    Path("mine.py").write_text(SUBJECT)
    arguments = ["mine.py:plain", "--worst", "1", "--top", "2", "--confirm", "3"]
    (found,) = said(capsys, *arguments)
    (answer,) = found["answers"]
    kept = sorted((tmp_path / "home" / "influence").glob("retrained*"))
    assert [c["role"] for c in answer["confirmations"]] == ["helpful", "harmful"]
    assert [len(c["rows"]) for c in answer["confirmations"]] == [3, 3]
    assert len(answer["helpful"]) == 2
    assert all(one["retrained"]["n"] == 8 for one in answer["helpful"])
    assert "Retrained without them" in Path("unseen-influence.html").read_text()
    assert len(kept) == 2  # one stack for the sizes, one for the removals
    written = [path.stat().st_mtime_ns for path in kept]
    (again,) = said(capsys, *arguments)
    effects = [[c["effect"] for c in one["answers"][0]["confirmations"]] for one in (found, again)]
    assert effects[0] == effects[1]
    assert [path.stat().st_mtime_ns for path in kept] == written


def test_a_language_model_is_not_retrained(text):
    with pytest.raises(InvalidConfig, match="not retrained here"):
        main([*text, "--confirm", "3"])


def test_one_process_is_not_sharded(text):
    with pytest.raises(InvalidConfig, match="no process group to shard"):
        main([*text, "--shard"])


def test_other_refusals(capsys):
    Path("mine.py").write_text(SUBJECT)
    with pytest.raises(UnknownName, match="tset"):
        main(["mine.py:images", "--split", "tset"])
    with pytest.raises(InvalidConfig, match="worst=0"):
        main(["mine.py:images", "--worst", "0"])
    with pytest.raises(InvalidConfig, match="batch_size=0"):
        main(["mine.py:images", "--batch", "0"])
    with pytest.raises(InvalidConfig, match="--shard is for a language model"):
        main(["mine.py:images", "--shard"])
    Path("tree.py").write_text(
        SUBJECT + "from sklearn.tree import DecisionTreeClassifier\n"
        "from dataclasses import replace\ntree = replace(plain, model=DecisionTreeClassifier(), "
        "classes=['a', 'b'])\n"
    )
    with pytest.raises(UnsupportedLayer, match="has no gradients"):
        main(["tree.py:tree"])
    with pytest.raises(InvalidConfig, match=r"`mine\.py:images` is a subject"):
        main(["mine.py:images", "--model", "m", "--corpus", "a", "--queries", "q"])
