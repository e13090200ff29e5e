"""`unseen compare` as a person uses it: tables, Python files, tasks, exports, and everything that
can be wrong.
"""

import csv
import json
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from unseen.cli.compare import main
from unseen.errors import InvalidConfig, InvalidData, MissingFile, UnknownName
from unseen.questions.compare import parallel
from unseen.questions.compare.sweep import Sweep
from unseen.runs.clusters import EXECUTORS
from unseen.runs.executors import InProcess
from unseen.tasks.table import clinics

FAST = ["--seeds", "2", "--draws", "2", "--steps", "15", "--jobs", "1", "--quiet"]
SHORT = ["--protocol", "training"]
TABLE = ["table.csv", "--target", "ill", "--site", "clinic"]
SUBJECT = """
import torch
from unseen import Budget, Lab, Subject
from unseen.models.mlp import mlp
from unseen.tasks.domains import Domains, shifting_clusters

spec = Domains(shifting_clusters)
number = 3


def subject():
    budget = Budget(steps=12, batch_size=8)
    return Subject(task=spec.build(Lab()), model=lambda: mlp([2, 6, 2]), name="mine", budget=budget)


def labelled():
    task = spec.build(Lab())
    from dataclasses import replace
    from unseen.task import Split, Use
    adapt = Split(task.splits["seen:west"].data, Use.ADAPT, "west")
    return replace(task, splits={**task.splits, "free": adapt})


def nameless():
    # a loss that reads the environment decides results, but no key can say how
    import os
    from dataclasses import replace
    from unseen.objectives import classify, correct, cross_entropy

    task = spec.build(Lab())
    loss = lambda model, batch: cross_entropy(model, batch) * float(os.environ.get("SCALE", "1"))
    return replace(task, objective=replace(classify, loss=loss))


def broken():
    raise KeyError("x")
"""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path / "home"))
    clinics().to_csv("table.csv", index=False)
    Path("mine.py").write_text(SUBJECT)


def run(*arguments: str, fast: list[str] = FAST) -> int:
    return main([*arguments, *fast])


def said(capsys, *arguments: str) -> dict:
    assert run(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)["results"]


def test_every_site_of_a_table_is_left_out_and_every_export_is_written(capsys):
    exports = [f"out{suffix}" for suffix in (".tex", ".md", ".csv", ".json")]
    results = said(
        capsys,
        *TABLE,
        "erm",
        "--method",
        "v-rex",
        *(x for name in exports for x in ("--table", name)),
    )
    assert results["sites"] == ["east", "north", "west"]
    assert results["methods"] == ["ERM", "V-REx"]
    assert len(results["protocols"]) == 3
    assert results["metrics"] == ["accuracy", "AUC"]
    known = [cell["reading"] for cell in results["cells"] if cell["reading"]]
    assert all(r["low"] <= r["value"] <= r["high"] for r in known if r["low"] is not None)
    page = Path("unseen-comparison.html").read_text()
    assert "<html" in page
    assert "leave-one-domain-out" in page
    tex, text = Path("out.tex").read_text(), Path("out.md").read_text()
    assert (
        tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == 7
    )  # the summary; 2 metrics × 3 protocols
    assert text.count("| method |") == 7
    rows = list(csv.DictReader(Path("out.csv").read_text().splitlines()))
    assert len(rows) == len(results["cells"]) == 2 * 3 * 2 * 5
    assert {row["column"] for row in rows} == {"east", "north", "west", "average", "worst site"}
    assert json.loads(Path("out.json").read_text())["methods"] == ["ERM", "V-REx"]


def test_subgroups_of_a_table_have_a_table_of_their_own(capsys):
    results = said(capsys, *TABLE, "erm", "--group", "sex", "--table", "out.md")
    assert len(results["subgroups"]["sex"]) >= 2
    assert "by sex, average over sites" in Path("out.md").read_text()
    assert "Subgroups" in Path("unseen-comparison.html").read_text()


def test_what_is_kept_is_not_trained_again(capsys, monkeypatch):
    from unseen.questions.compare import sweep

    first = said(capsys, *TABLE, "erm", *SHORT)

    def trained(self, blocks):
        raise AssertionError("trained again")

    monkeypatch.setattr(sweep.Sweep, "train_groups", trained)
    again = said(capsys, *TABLE, "erm", *SHORT)
    assert again["cells"] == first["cells"]


def test_workers_give_the_results_of_one_process(capsys, monkeypatch):
    # spawning is tested where it is defined
    monkeypatch.setitem(EXECUTORS, "processes", lambda resources: InProcess())
    fast = ["--seeds", "1", "--draws", "1", "--steps", "10", "--quiet", "--json"]
    assert run(*TABLE, "erm", "--jobs", "1", fast=fast) == 0
    one = json.loads(capsys.readouterr().out)["results"]
    for path in Path("home").rglob("*.safetensors"):
        path.unlink()
    clock = iter([10.0, 17.5])  # the start, and the end after the workers and the job itself
    monkeypatch.setattr(parallel, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert run(*TABLE, "erm", "--jobs", "2", fast=fast) == 0
    two = json.loads(capsys.readouterr().out)["results"]
    assert two["seconds"] == 7.5
    assert one["cells"] == two["cells"]
    assert one["trained"] == two["trained"]


def test_a_worker_that_is_killed_does_not_lose_the_comparison(capsys, monkeypatch, caplog):
    class Killed(InProcess):
        def submit(self, fn, /, *args, **kwargs):
            future = super().submit(int)
            future._exception = BrokenProcessPool("A process was terminated abruptly.")
            return future

    monkeypatch.setitem(EXECUTORS, "processes", lambda resources: Killed())
    assert (
        run(
            *TABLE, "erm", *SHORT, "--jobs", "2", fast=[x for x in FAST if x not in ("--jobs", "1")]
        )
        == 0
    )
    assert "A worker process ended" in caplog.text


def test_what_cannot_be_kept_is_computed_once(capsys, monkeypatch):
    monkeypatch.setitem(EXECUTORS, "processes", lambda resources: InProcess())
    trained = []

    def count(self, blocks):
        trained.append(blocks)
        return train(self, blocks)

    train = Sweep.train_groups
    monkeypatch.setattr(Sweep, "train_groups", count)
    fast = ["--seeds", "2", "--draws", "2", "--steps", "10", "--jobs", "2", "--quiet", "--json"]
    assert run("mine.py:nameless", "erm", "sam", fast=fast) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert all(cell["reading"] for cell in results["cells"])
    names = [block.says for blocks in trained for block in blocks]
    assert len(names) == len({*names}) == 6
    assert not list(Path("home").rglob("*.safetensors"))


def test_executors(capsys):
    fast = [x for x in FAST if x not in ("--jobs", "1")]
    with pytest.raises(UnknownName, match="slurm"):
        run(*TABLE, "erm", "--executor", "slrum", fast=fast)
    with pytest.raises(InvalidConfig, match="--executor dask was given with --by"):
        run("pairs.csv", "--by", "length", "--executor", "dask", fast=fast)
    with pytest.raises(InvalidConfig, match="only clusters have an address"):
        run(*TABLE, "erm", "--address", "tcp://host:8786", fast=fast)


def test_a_number_as_target_is_in_its_own_unit(capsys):
    clinics().dropna().to_csv("table.csv", index=False)
    results = said(capsys, "table.csv", "--target", "pressure", "--site", "clinic", "erm", *SHORT)
    assert results["metrics"] == ["mean absolute error"]
    value = results["cells"][0]["reading"]["value"]
    assert 3 < value < 60  # blood pressure has a deviation of about 16


def test_a_table_without_sites_is_one_task(capsys):
    results = said(capsys, "table.csv", "--target", "ill", "erm", "coral")
    assert len(results["sites"]) == 1
    assert any("CORAL" in what for what in results["missing"])


def test_a_subject_keeps_its_model_and_budget(capsys):
    assert (
        main(["mine.py:subject", "erm", "--seeds", "1", "--draws", "1", "--json", "--quiet"]) == 0
    )
    results = json.loads(capsys.readouterr().out)["results"]
    assert (results["name"], results["sites"]) == ("mine", ["east"])
    assert "steps=12" in results["choices"][0]["values"]


def test_a_spec_of_ones_own_is_left_out_in_turn(capsys):
    assert said(capsys, "mine.py:spec", "erm", *SHORT)["sites"] == ["west", "middle", "east"]


def test_labels_of_an_unlabelled_split_are_ignored_and_said(capsys):
    results = said(capsys, "mine.py:labelled", "erm", *SHORT)
    assert any("they are ignored" in text for text in results["warnings"])


def test_a_task_of_this_package_takes_its_fields_as_flags(capsys):
    few, many = (
        said(capsys, "domains", "--division.oracle", share, "erm", *SHORT)
        for share in ("0.2", "0.5")
    )
    assert few["sites"] == many["sites"] == ["west", "middle", "east"]
    assert {*few["sizes"].values()} == {96}
    assert {*many["sizes"].values()} == {60}


def test_fields_that_no_flag_can_write_are_said():
    with pytest.raises(InvalidConfig, match="cannot be set by flags"):
        run("sensitive", "erm", "--no-visible")


def test_one_site_only_is_refused():
    clinics().assign(clinic="east").to_csv("table.csv", index=False)
    with pytest.raises(InvalidData, match="one site only"):
        run(*TABLE)


def test_a_site_of_one_class_is_named_and_not_held_out(capsys):
    frame = clinics()
    frame.loc[frame.clinic == "east", "ill"] = 1
    frame.to_csv("table.csv", index=False)
    results = said(capsys, *TABLE, "erm", *SHORT)
    assert any("`east` (" in text and "not held out" in text for text in results["warnings"])
    assert {c["column"] for c in results["cells"] if c["metric"] == "AUC"} == {
        "north",
        "west",
        "average",
        "worst site",
    }
    assert "not held out" in Path("unseen-comparison.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "kind", "match"),
    [
        (["table.csv"], InvalidConfig, "No target column"),
        (["table.csv", "--target", "il"], UnknownName, "no column `il`"),
        (["heart", "--target", "ill"], InvalidConfig, "is no table"),
        (["hearts"], UnknownName, "did you mean heart"),
        ([*TABLE, "ermm"], UnknownName, "did you mean erm"),
        ([*TABLE, "erm", "ERM"], InvalidConfig, "named twice"),
        ([*TABLE, "sam", "--range", "rho=-1:0.1"], InvalidConfig, "rho=-1"),
        ([*TABLE, "sam", "--range", "rho=low:high"], InvalidConfig, "is no range"),
        ([*TABLE, "erm", "--range", "rho=0.1"], UnknownName, "no hyperparameter `rho`"),
        ([*TABLE, "erm", "--draws", "0"], InvalidConfig, "0 draws"),
        ([*TABLE, "erm", "--steps", "-1"], InvalidConfig, "steps=-1"),
        ([*TABLE, "erm", "--protocol", "best"], InvalidConfig, "invalid choice"),
        ([*TABLE, "erm", "--table", "out.docx"], InvalidConfig, "unknown suffix"),
        ([*TABLE, "erm", "--colour", "red"], UnknownName, "no option `--colour`"),
        (["absent.py:subject"], MissingFile, "There is no"),
        (["mine.py:number"], InvalidData, "is a int"),
        (["mine.py:broken"], InvalidData, "raised KeyError"),
    ],
)
def test_what_cannot_be_compared_is_said_with_its_fix(arguments, kind, match):
    fast = (
        [*FAST]
        if "--draws" not in arguments and "--steps" not in arguments
        else ["--jobs", "1", "--quiet"]
    )
    with pytest.raises(kind, match=match) as caught:
        run(*arguments, fast=fast)
    assert caught.value.why
    assert caught.value.fix


def test_the_summary_fits_a_screen_and_the_report_has_the_rest(capsys):
    assert main([*TABLE, "erm", "sam", *FAST[:-1], *SHORT, "--report", "out.md"]) == 0
    shown = capsys.readouterr().out
    assert "What to do next" in shown
    assert len(shown.splitlines()) < 50
    assert "report: out.md" in shown
    assert "Hyperparameters that were selected" in Path("out.md").read_text()


def test_names_with_markup_stay_text():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"x": rng.normal(size=90), "site": np.repeat(["<b>a</b>", "b|c & 50%", "d_e"], 30)}
    )
    frame["y"] = (frame.x + rng.normal(size=90) > 0).astype(int)
    frame.to_csv("table.csv", index=False)
    run(
        "table.csv",
        "--target",
        "y",
        "--site",
        "site",
        "erm",
        *SHORT,
        "--table",
        "out.tex",
        "--table",
        "out.md",
    )
    assert "<b>a</b>" not in Path("unseen-comparison.html").read_text()
    assert r"b\textbar{}c \& 50\%" in Path("out.tex").read_text()
    assert r"b\|c" in Path("out.md").read_text()
