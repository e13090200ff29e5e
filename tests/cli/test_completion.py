"""Completion: the scripts come from the parsers, and bash really completes by them."""

import json
import shutil
import subprocess
import sys

import pytest

from unseen.cli.completion import completions, fish
from unseen.cli.main import COMMANDS, PARSERS, main

BASH = shutil.which("bash")
KNOWN = completions(COMMANDS, PARSERS)


@pytest.fixture(scope="module")
def bash_script(tmp_path_factory):
    """As `unseen --completion bash` prints it, in a process that imports nothing heavy."""
    code = (
        "import sys; from unseen.cli.main import main\n"
        "assert main(['--completion', 'bash']) == 0\n"
        "assert not {'torch', 'numpy', 'pandas'} & {*sys.modules}"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    path = tmp_path_factory.mktemp("completion") / "unseen.bash"
    path.write_text(run.stdout)
    return path


def complete(script, *words: str) -> list[str]:
    """What bash offers for the last word."""
    line = " ".join(f"'{word}'" for word in words)
    program = (
        f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _unseen; "
        'printf "%s\\n" "${COMPREPLY[@]}"; complete -p unseen >&2'
    )
    run = subprocess.run(
        [BASH, "--norc", "-c", program], capture_output=True, text=True, check=True
    )
    assert "-F _unseen unseen" in run.stderr
    return run.stdout.split()


@pytest.mark.skipif(BASH is None, reason="bash is not installed")
def test_bash_completes_commands_options_and_values(bash_script):
    assert complete(bash_script, "unseen", "me") == ["measure"]
    assert {*complete(bash_script, "unseen", "")} == {
        *COMMANDS, "--help", "--version", "--completion",
    }  # fmt: skip
    assert complete(bash_script, "unseen", "audit", "--fail") == ["--fail-on"]
    assert complete(bash_script, "unseen", "run", "--scale", "") == ["smoke", "laptop", "paper"]
    assert complete(bash_script, "unseen", "--completion", "z") == ["zsh"]
    # studies and folders stand without an option; what follows an option is its own
    assert complete(bash_script, "unseen", "run", "grok") == ["grokked_reasoning"]
    assert complete(bash_script, "unseen", "check", "cross_task", "xor") == ["xor_grokking"]
    assert complete(bash_script, "unseen", "list", "me") == ["methods", "measures"]
    assert complete(bash_script, "unseen", "run", "--report", "grok") == []
    # a file is wanted: bash's own completion takes over
    assert complete(bash_script, "unseen", "audit", "table") == []


@pytest.mark.skipif(BASH is None, reason="bash is not installed")
@pytest.mark.parametrize("known", KNOWN, ids=lambda one: one.command)
def test_every_option_of_every_command_is_offered(known, bash_script):
    assert {*complete(bash_script, "unseen", known.command, "-")} == {*known.options}


def test_fish_quotes_what_help_says():
    text = fish(KNOWN)
    assert "__fish_seen_subcommand_from audit' -l fail-on" in text
    assert "__fish_seen_subcommand_from list' -a 'studies tasks" in text
    assert all(line.count("'") % 2 == 0 for line in text.replace("\\'", "").splitlines())


def test_zsh_has_a_script_and_other_shells_are_refused(capsys):
    assert main(["--completion=zsh"]) == 0
    assert "bashcompinit" in capsys.readouterr().out
    assert main(["--completion", "fish", "--json"]) == 0
    assert "complete -c unseen" in json.loads(capsys.readouterr().out)["script"]
    assert main(["--completion", "ksh"]) == 2
    assert "There is no shell `ksh`" in capsys.readouterr().err
