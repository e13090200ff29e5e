"""`unseen run --all` and `unseen report --all`: every study in turn, also where one fails."""

import json
import sys
from pathlib import Path

import pytest

from unseen.cli.main import main
from unseen.runs import catalog, ledger
from unseen.runs.answers import Answers
from unseen.runs.catalog import Entry

FAILING = '''
"""A study of which one cell does not end well."""
from dataclasses import replace
from fake_counting import Config, study as counting
from unseen.study import Scale

study = replace(
    counting, name="failing_counting", system="01", scales={Scale.SMOKE: Config(trouble="TROUBLE")}
)
'''


def name_studies(monkeypatch, trouble: str, *more: str) -> None:
    """The studies are one in trouble, the fake one, and others that cannot be imported."""
    Path("failing_counting.py").write_text(FAILING.replace("TROUBLE", trouble))
    for name in more:
        Path(f"{name}.py").write_text("import nowhere_to_be_found\n")
    monkeypatch.syspath_prepend(Path.cwd())
    catalog.source.cache_clear()  # of a test before this one, in another folder
    names = ["failing_counting", *more, "fake_counting"]
    files = [f"{name}={Path(f'{name}.py').resolve()}:study" for name in names[:-1]]
    monkeypatch.setenv(catalog.FILES, "\n".join(files))
    found = [Entry("studies", name, "", system=f"{k:02}") for k, name in enumerate(names)]
    monkeypatch.setattr(catalog, "entries", lambda kind: found)


@pytest.fixture
def troubled(store, monkeypatch):
    name_studies(monkeypatch, "diverging", "damaged_counting")
    return store


@pytest.fixture(autouse=True)
def _no_module_of_another_test():
    yield
    for name in ("failing_counting", "damaged_counting"):
        sys.modules.pop(name, None)


def said(capsys) -> dict:
    return json.loads(capsys.readouterr().out)


RUN = ["run", "--all", "--scale", "smoke"]


def test_the_others_run_where_one_fails_and_the_second_time_nothing_is_computed(
    troubled, capsys, marks
):
    assert main([*RUN, "--json"]) == 2
    found = said(capsys)
    studies = {one["study"]: one for one in found["studies"]}
    assert list(studies) == ["failing_counting", "fake_counting", "damaged_counting"]
    assert studies["fake_counting"]["problem"] == ""
    assert [one["verdict"] for one in studies["fake_counting"]["claims"]] == ["supported"]
    assert studies["failing_counting"]["problem"].startswith(
        "2 of 3 cells are finished, 1 failed. Divergence"
    )
    assert "nowhere_to_be_found" in studies["damaged_counting"]["problem"]
    page = Path(found["report"]).read_text()
    assert found["report"] == "reports/all/smoke.html"
    assert "The draws are shifted." in page
    assert "means" in page, "the figure of the central claim"
    assert Path("reports/fake_counting/smoke.html").exists()
    before = marks.counts()
    assert main([*RUN, "--report", "all.md"]) == 2
    printed = capsys.readouterr()
    assert marks.counts() == before
    assert "01 failing_counting" in printed.out.split("Not complete")[-1]
    assert "2 of 3 cells are finished" in Path("all.md").read_text()
    assert "report: all.md" in printed.out


def test_the_page_is_made_again_from_the_store(troubled, capsys):
    main([*RUN, "--no-report"])
    assert not Path("reports").exists()
    stored = {one.title for one in Answers(troubled.root).listing()}
    assert stored == {"failing_counting", "fake_counting", "All studies at smoke scale"}
    assert main(["report", "--all", "--scale", "smoke", "--report", "all.json"]) == 2
    assert "The draws are shifted." in Path("all.json").read_text()


def test_ctrl_c_leaves_the_page_and_the_same_command_goes_on(store, capsys, marks, monkeypatch):
    name_studies(monkeypatch, "interrupted")
    assert main([*RUN, "--report", "all.md"]) == 130
    assert "the same command goes on" in capsys.readouterr().err
    page = Path("all.md").read_text()
    assert "1 of 3 cells are finished" in page
    assert "0 of 3 cells are finished" in page, "the study that did not begin"
    monkeypatch.setenv("FAKE_HEALED", "1")
    assert main([*RUN, "--report", "all.md"]) == 0
    assert marks.counts()[0] == 2, "once for each study"
    assert "Not complete" not in Path("all.md").read_text()


@pytest.mark.parametrize(
    "words",
    [
        ["fake_counting"],
        ["--task.dim", "3"],
        ["--report", "page.docx"],
        ["--jobs", "0"],
        ["--executor", "dsk"],
        ["--device", "nowhere"],
    ],
)
def test_what_does_not_go_with_all_is_refused_before_any_work(words, troubled, capsys, marks):
    assert main([*RUN, *words]) == 2
    assert marks.counts() == {}
    assert "fix: " in capsys.readouterr().err


def test_the_page_of_the_ledgers_counts_as_they_do(capsys, tmp_path, monkeypatch):
    results = Path(__file__).parents[2] / "results"
    names = ["xor_grokking", "simplicity_bias", "self_sampled"]
    monkeypatch.setattr(
        catalog, "entries", lambda kind: [Entry(kind, name, "", system="07") for name in names]
    )
    path = tmp_path / "all.html"
    command = ["report", "--all", "--kept", "--results", str(results), "--report", str(path)]
    assert main([*command, "--json"]) in (0, 1, 3)
    studies = {one["study"]: one for one in said(capsys)["studies"]}
    for name in names[:2]:
        text = ledger.read(results / f"{name}.json")
        assert [line["verdict"] for line in studies[name]["claims"]] == [
            line["verdict"] for line in text["claims"]
        ]
        assert studies[name]["seconds"] == text["seconds"]
    study = catalog.load("xor_grokking")
    page = path.read_text()
    assert study.differs[:60] in page
    assert page.count('<svg class="plot"') >= 1
    if not (results / "self_sampled.json").exists():
        assert "There is no ledger" in studies["self_sampled"]["problem"]
