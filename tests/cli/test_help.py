"""Help pages: free of heavy imports, in groups, and the same shared options in all four
questions.
"""

import json
import subprocess
import sys

import pytest

from unseen.attributions.explanation import eight
from unseen.attributions.explanation.guide import Question
from unseen.attributions.influence import Curvature, Fisher, Precision
from unseen.cli import (
    audit,
    compare,
    explain,
    influence,
    main,
    pairs,
    serve,
    study_options,
    subject_options,
)
from unseen.questions.compare.candidates import methods_named, methods_of_classes
from unseen.questions.compare.inputs import PROTOCOLS
from unseen.questions.explain.options import METHODS
from unseen.runs import catalog
from unseen.study import Scale
from unseen.tasks.text_corpus import Cut
from unseen.tasks.token_pairs import RULES

PARSERS = {
    module.__name__.rpartition(".")[2]: module.parser()
    for module in (audit, compare, explain, influence)
}


def test_no_help_page_imports_torch():
    code = (
        "import contextlib, io, json, sys; from unseen.cli.main import COMMANDS, main\n"
        "loaded = {}\n"
        "for name in COMMANDS:\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as text:\n"
        "        assert main([name, '--help']) == 0\n"
        "    assert 'usage: unseen ' + name in text.getvalue(), name\n"
        "    loaded[name] = [m for m in ('torch', 'numpy', 'pandas') if m in sys.modules]\n"
        "print(json.dumps(loaded))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == {name: [] for name in main.COMMANDS}


@pytest.mark.parametrize("name", PARSERS)
def test_the_options_of_a_table_and_of_the_output_are_the_same_everywhere(name):
    shared = (
        "--target",
        "--site",
        "--time",
        "--entity",
        "--group",
        "--drop",
        "--steps",
        "--seed",
        "--device",
    )
    options = PARSERS[name]._option_string_actions
    reference = PARSERS["audit"]._option_string_actions
    for option in (*shared, "--quiet", "--json"):
        assert (options[option].help, options[option].default) == (
            reference[option].help,
            reference[option].default,
        )
    assert "--report" in options


@pytest.mark.parametrize("name", [*PARSERS, "run", "report", "check", "serve"])
def test_help_is_in_groups_and_says_what_can_be_repeated(name):
    parsers = {
        **PARSERS,
        "run": study_options.run_parser(),
        "report": study_options.report_parser(),
        "check": study_options.check_parser(),
        "serve": serve.parser(),
    }
    parser = parsers[name]
    titles = [group.title for group in parser._action_groups if group._group_actions]
    assert titles[-1] == "output"
    assert len(titles) >= 2
    for action in parser._actions:
        assert action.help
        is_repeatable = type(action).__name__ == "_AppendAction"
        assert is_repeatable == action.help.endswith("(repeatable)")


def test_what_may_be_typed_is_what_the_code_knows():
    assert tuple(METHODS) == explain.METHODS
    assert tuple(RULES) == pairs.RULES
    assert {*METHODS.values()} == {*eight()}
    assert {*explain.QUESTIONS} == {*Question}
    assert {*influence.CURVATURES} == {*Curvature}
    assert {*influence.FISHERS} == {*Fisher}
    assert {*influence.PRECISIONS} == {*Precision}
    assert {*subject_options.CUTS} == {*Cut}
    assert tuple(PROTOCOLS) == compare.PROTOCOLS
    assert tuple(Scale) == study_options.SCALES


def test_listed_methods_are_those_that_compare_takes(capsys):
    assert main.main(["list", "methods", "--names"]) == 0
    names = capsys.readouterr().out.split()
    assert {*names} == {one.name for one in methods_of_classes()}
    assert len(methods_named(names)) == len(names)
    assert main.main(["list", "methods"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in names)
    entries = {entry.name: entry.compared_as for entry in catalog.entries("methods")}
    assert entries["sam"] == ("SAM",)
