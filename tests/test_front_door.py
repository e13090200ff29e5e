"""`import unseen` is free and has everything; the five questions answer for every kind of input."""

import ast
import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pandas as pd
import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn

import unseen
from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.lazy import exports
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use
from unseen.tasks.table import clinics

QUESTIONS = ("audit", "compare", "explain", "influence", "measure")
FOLDERS = ("tasks", "methods", "measures", "attributions", "models")


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout


def small_table() -> pd.DataFrame:
    return clinics().query("clinic != 'north'").head(90)


def small_subject() -> unseen.Subject:
    x = torch.randn(90, 4, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    splits = {
        "train": Split(Columns(x=x[:60], y=y[:60]), Use.TRAIN),
        "test": Split(Columns(x=x[60:], y=y[60:]), Use.EVALUATE),
    }
    task = Task(name="toy", axis=Axis.IID, splits=splits, objective=classify)
    budget = unseen.Budget(steps=5, batch_size=16)
    return unseen.Subject(
        task=task, model=lambda: nn.Linear(4, 2), classes=("low", "high"), budget=budget
    )


def ask(question: str, source: object, **columns: str) -> unseen.Answer:
    """The question in its cheapest form."""
    match question:
        case "audit":
            return unseen.audit(
                source, **columns, seeds=1, steps=5, remedies={}, measures={}, progress=False
            )
        case "compare":
            return unseen.compare(
                source, ["erm"], **columns, seeds=1, draws=1, steps=5, jobs=1, progress=False
            )
        case "explain":
            return unseen.explain(
                source, **columns, steps=5, examples=2, sample=4, draws=40, progress=False
            )
        case "measure":
            return unseen.measure(
                source, **columns, measures=["oddness"], seeds=1, steps=5, progress=False
            )
    return unseen.influence(source, **columns, steps=5, worst=1, top=2, progress=False)


@pytest.fixture(scope="module")
def imported() -> list[str]:
    """Every submodule, imported: none may take the place of a function."""
    names = [module.name for module in pkgutil.walk_packages(unseen.__path__, "unseen.")]
    for name in names:
        importlib.import_module(name)
    return names


@pytest.fixture(scope="module")
def answers(imported, tmp_path_factory) -> dict[str, unseen.Answer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNSEEN_HOME", str(tmp_path_factory.mktemp("home")))
        return {question: ask(question, small_table(), target="ill") for question in QUESTIONS}


def test_the_list_for_editors_is_the_list_of_the_interpreter():
    tree = ast.parse(Path(unseen.__file__).read_text("utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {(node.module, alias.name) for node in block.body for alias in node.names}
    assert typed == {(module, name) for module, names in unseen._HOMES.items() for name in names}
    assert {*unseen._HOME_OF} <= {*dir(unseen)}
    for name in unseen._HOME_OF:
        assert getattr(unseen, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'adit'"):
        unseen.adit  # noqa: B018


@pytest.mark.parametrize("name", [*QUESTIONS, "influence_of_text", "measure_of_text"])
def test_the_questions_are_typed_functions_without_open_arguments(name):
    function = getattr(unseen, name)
    signature = inspect.signature(function)
    assert all(
        one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
        for one in signature.parameters.values()
    )
    assert all(one.annotation is not one.empty for one in signature.parameters.values())
    assert signature.return_annotation is not signature.empty
    shared = {"target", "site", "time", "entity", "groups", "drop"}
    assert name.endswith("_of_text") or shared <= {*signature.parameters}


@pytest.mark.parametrize("question", QUESTIONS)
def test_no_submodule_takes_the_place_of_a_question(
    question, answers, imported, tmp_path, monkeypatch
):
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path))
    assert f"unseen.questions.{question}" in imported
    again = ask(
        question, small_table(), target="ill"
    )  # the second call: the fixture made the first one
    assert isinstance(again, unseen.Answer)
    assert again.document.title == answers[question].document.title


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_subject_and_a_path_are_asked_about_like_a_table(
    question, answers, tmp_path, monkeypatch
):
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path))
    assert type(ask(question, small_subject()).results) is type(answers[question].results)
    small_table().to_csv(tmp_path / "table.csv", index=False)
    found = ask(question, tmp_path / "table.csv", target="ill")
    assert type(found.results) is type(answers[question].results)


@pytest.mark.parametrize("question", QUESTIONS)
def test_what_cannot_be_asked_about_is_refused(question):
    # the suite's type checks refuse it first; without them the functions do
    with pytest.raises((InvalidData, TypeCheckError)):
        ask(question, 3)
    with pytest.raises(InvalidConfig, match="no table, but site was given"):
        ask(question, small_subject(), site="clinic")
    with pytest.raises(InvalidConfig, match="No target column"):
        ask(question, small_table())


@pytest.mark.parametrize("question", QUESTIONS)
def test_an_answer_is_short_in_a_session_and_a_frame_in_a_notebook(question, answers):
    answer = answers[question]
    assert len(repr(answer).splitlines()) <= 20
    assert max(map(len, repr(answer).splitlines())) <= 100
    assert answer.document.title[:20] in repr(answer)
    assert answer.document.lead.split(".")[0][:40] in answer.summary()
    page = answer._repr_html_()
    assert page.startswith("<iframe srcdoc=")
    # what is outside of the frame's own document cannot style the notebook
    assert "<style" not in page
    assert "&lt;style" in page


@pytest.mark.parametrize("suffix", [".html", ".md", ".json", ".tex"])
def test_an_answer_is_written_in_the_format_of_the_suffix(suffix, answers, tmp_path):
    path = answers["audit"].report(tmp_path / f"page{suffix}")
    text = path.read_text("utf-8")
    title = answers["audit"].document.title
    assert title.split(" on ")[0] in text
    starts = {".html": "<!doctype", ".md": "# ", ".json": "{", ".tex": r"\documentclass"}
    assert text.lower().startswith(starts[suffix])
    if suffix == ".json":
        assert json.loads(text)["title"] == title
    if suffix == ".tex":
        assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") > 0


@pytest.mark.parametrize("question", QUESTIONS)
def test_an_unknown_format_is_refused_before_any_work(question, monkeypatch, tmp_path):
    home = importlib.import_module(f"unseen.api.{question}")
    for reader in {"read_subjects", "compute"} & set(vars(home)):  # nothing may be read
        monkeypatch.setattr(home, reader, None)
    with pytest.raises(InvalidConfig, match="unknown suffix"):
        getattr(unseen, question)("absent.csv", target="ill", report=tmp_path / "page.docx")
    with pytest.raises(InvalidConfig, match="unknown suffix"):
        unseen.compare("absent.csv", target="ill", tables=["page.docx"])


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_plug_is_found_by_its_name_alone(folder, imported):
    package = importlib.import_module(f"unseen.{folder}")
    names = [name for name in dir(package) if not isinstance(getattr(package, name), ModuleType)]
    assert names
    for name in names:
        found = getattr(package, name)
        assert found is getattr(importlib.import_module(found.__module__), name)
        assert found.__module__.startswith(f"unseen.{folder}.")


def test_the_file_of_a_plug_and_its_name_are_the_same_class():
    code = (
        "import sys; import unseen.methods; before = 'torch' in sys.modules;"
        "from unseen.methods import SAM, sam; from unseen.methods.sam import SAM as same;"
        "print(before, SAM is same, sam.__name__, 'unseen.methods.udim' in sys.modules)"
    )
    assert python(code) == "False True unseen.methods.sam False\n"


def test_a_name_in_two_files_is_refused_with_both_paths(tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text(
            f"class Both:\n    pass\n\n\nclass {name.title()}:\n    pass\n"
        )
    lookup, listing = exports("folder", str(tmp_path / "__init__.py"))
    assert listing() == ["One", "Two", "one", "two"]
    with pytest.raises(UnknownName, match=r"folder\.one and in folder\.two") as caught:
        lookup("Both")
    assert caught.value.fix == "name the file: from folder.one import Both."
    for name in ("Absent", "one", "__wrapped__"):
        with pytest.raises(AttributeError):
            lookup(name)


def test_a_notebook_shows_progress_without_an_extra(monkeypatch):
    from unseen.runs import progress

    shown: list[dict] = []
    handle = SimpleNamespace(update=lambda bundle, raw: shown.append(bundle))

    def display(bundle, raw, display_id):
        shown.append(bundle)
        return handle

    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    watch = progress.watcher()
    assert isinstance(watch.view, progress.Notebook)
    watch.begin("<audit>", 2, 0, "sites")
    watch.on_finish(None)
    watch.end()
    assert [bundle["text/plain"].split(" · ")[0] for bundle in shown] == [
        "<audit> 0/2 sites",
        "<audit> 1/2 sites",
        "<audit> 1/2 sites",
    ]
    assert "&lt;audit&gt;" in shown[-1]["text/html"]
    assert 'value="1.000" max="2"' in shown[-1]["text/html"]
    monkeypatch.delattr(shell, "kernel")  # IPython on a terminal
    assert not isinstance(progress.watcher().view, progress.Notebook)


@pytest.mark.parametrize(
    "before", ["", "import unseen.models.mlp", "import unseen.models.mlp as file"]
)
def test_a_function_named_like_its_file_is_what_the_package_gives(before: str):
    code = f"""
{before}
from unseen.models import mlp
from unseen.models.mlp import mlp as same
import unseen.models
assert mlp is same is unseen.models.mlp, mlp
assert callable(mlp)
assert "mlp" in dir(unseen.models)
import unseen.models.transformer  # a file of another name stays a file
assert unseen.models.transformer.Transformer is unseen.models.Transformer
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
