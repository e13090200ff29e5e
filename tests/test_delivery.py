"""The action for GitHub and the container: their commands are those of README and parsers."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from unseen.cli.audit import parser
from unseen.tasks.hospitals import write_heart_csv

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
ACTION = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
AUDIT = next(step for step in ACTION["runs"]["steps"] if step.get("name") == "Audit")


def run_audit_step(tmp_path, command: str, **inputs: str) -> subprocess.CompletedProcess:
    """The step as GitHub runs it, with a stand-in for the command."""
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    (folder / "unseen").write_text(f"#!/usr/bin/env bash\n{command}\n")
    (folder / "unseen").chmod(0o755)
    given = {name: str(entry.get("default", "")) for name, entry in ACTION["inputs"].items()}
    given |= inputs
    variables = {
        name: re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda found: given[found[1]], value)
        for name, value in AUDIT["env"].items()
    }
    path = os.pathsep.join([str(folder), os.environ["PATH"]])
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", AUDIT["run"]],
        env={**os.environ, **variables, "PATH": path, "RUNNER_TEMP": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )


def test_the_action_passes_words_as_they_are(tmp_path):
    found = run_audit_step(
        tmp_path,
        'printf "%s|" "$@"',
        arguments="table.csv --target 'heart rate' --site $(touch hacked)",
        **{"fail-on": "U101,U202", "bar": "0.7"},
    )
    words = found.stdout.split("|")[:-1]
    assert words == [
        *("audit", "table.csv", "--target", "heart rate", "--site", "$(touch", "hacked)"),
        *("--fail-on", "U101,U202", "--bar", "0.7", "--report", "unseen-report.html"),
    ]
    assert not (tmp_path / "hacked").exists()
    options = parser().parse_args([words[1], *words[2:4], *words[7:]])
    assert (options.target, options.fail_on, options.bar) == ("heart rate", "U101,U202", 0.7)


def test_the_action_without_inputs_and_with_an_open_quote(tmp_path):
    found = run_audit_step(tmp_path, 'printf "%s|" "$@"')
    assert found.stdout == "audit|--report|unseen-report.html|"
    assert run_audit_step(tmp_path, "true", arguments="it's").returncode != 0


@pytest.mark.parametrize("codes", ["U101", "U999"])
def test_the_action_fails_with_the_audit(tmp_path, codes):
    """The real command: an audit of embedded data, or a code that does not exist."""
    command = f'exec "{sys.executable}" -m unseen.cli.main "$@"'
    write_heart_csv(tmp_path / "heart.csv")
    quick = "--estimator sklearn.naive_bayes:GaussianNB --seeds 1 --no-remedies --quiet"
    named = "heart.csv --target disease --site hospital --holdout 'VA Long Beach'"
    found = run_audit_step(tmp_path, command, arguments=f"{named} {quick}", **{"fail-on": codes})
    if codes == "U999":
        assert found.returncode == 2
        assert "U999" in found.stderr
    else:
        assert found.returncode == int("raised: U101" in found.stderr), found.stderr
        assert (tmp_path / "unseen-report.html").exists()


def test_no_expression_of_the_action_is_run_as_a_command():
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step.get("run", "")


def test_the_container_installs_as_the_readme_says():
    lines = (ROOT / "Containerfile").read_text("utf-8").splitlines()
    keywords = {"FROM", "WORKDIR", "RUN", "COPY", "ENV", "USER", "ENTRYPOINT", "CMD"}
    steps = [line.split(" ", 1) for line in lines if line and not line.startswith("#")]
    assert {keyword for keyword, _ in steps} == keywords
    torch = re.search(r"pip install (torch==[\d.]+ --index-url \S+?)`", README)
    assert torch is not None
    runs = [value.replace("--no-cache-dir ", "") for keyword, value in steps if keyword == "RUN"]
    assert runs[0] == f"pip install {torch[1]}"
    assert runs[1].startswith("pip install -c constraints.txt .")
    assert "-c constraints.txt" in README
    assert f"torch=={torch[1].split()[0].partition('==')[2]}" in (
        ROOT / "constraints.txt"
    ).read_text("utf-8")
    copied = [word for keyword, value in steps if keyword == "COPY" for word in value.split()[:-1]]
    assert all((ROOT / word).exists() for word in copied)
    allowed = (ROOT / ".containerignore").read_text("utf-8").splitlines()
    assert {f"!{word}" for word in copied} <= {*allowed}
    version = re.search(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert steps[0] == ["FROM", f"python:{version[1]}-slim"]
    assert ["ENTRYPOINT", '["unseen"]'] in steps
