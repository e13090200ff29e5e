"""Another processor: today's rows against those that the ledger's own code gives here."""

import shutil
import subprocess
from pathlib import Path

import pytest

from unseen.runs import baseline, catalog, rows
from unseen.runs.ledger import Files, Stamp
from unseen.runs.smoke import smoke_run
from unseen.study import Scale

NAME = "nested_systems"


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> tuple[Path, str]:
    """The package in a repository whose last commit no longer computes anything."""
    top = tmp_path_factory.mktemp("repository")
    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(baseline.PACKAGE, top / "src" / "unseen", ignore=unwanted)
    git(top, "init", "--quiet")
    git(top, "add", "--all")
    git(top, "commit", "--quiet", "--message", "As it is")
    commit = git(top, "rev-parse", "HEAD")
    (top / "src" / "unseen" / "task.py").write_text("")
    git(top, "commit", "--quiet", "--all", "--message", "Broken")
    return top, commit


def test_the_code_of_a_ledger_computes_its_rows_in_a_tree_of_its_own(repository, monkeypatch):
    top, commit = repository
    monkeypatch.setattr(baseline, "PACKAGE", top / "src" / "unseen")
    study = catalog.load(NAME)
    code = Stamp.of(study, Scale.LAPTOP).code
    text = {"scale": "laptop", "code": code, "compared": f"smoke rows at {commit}+"}
    files = Files(top / "results", NAME)
    found = baseline.rows_here(files, text)
    assert found is not None
    assert not rows.difference(found, smoke_run(study).rows)
    assert len(git(top, "worktree", "list").splitlines()) == 1
    # the commit has other code; the repository lacks it; it computes nothing
    for other in ({"code": "another"}, {"compared": f"smoke rows at {'0' * 40}"}):
        assert baseline.rows_here(files, {**text, **other}) is None
    head = git(top, "rev-parse", "HEAD")
    assert baseline.rows_here(files, {**text, "compared": f"smoke rows at {head}"}) is None
    assert len(git(top, "worktree", "list").splitlines()) == 1


def test_outside_a_repository_there_is_nothing_to_compare_with(tmp_path, monkeypatch):
    monkeypatch.setattr(baseline, "PACKAGE", tmp_path)
    text = {"scale": "laptop", "code": "a", "commit": "0" * 40}
    assert baseline.rows_here(Files(tmp_path, NAME), text) is None
