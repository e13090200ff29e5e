"""The command `unseen`: finds the subcommand, turns errors into three lines and an exit code.

Exit codes: 0 fine · 1 a claim is refuted or a bar is missed · 2 usage or input error, a failed
cell, or a bug · 3 undecided only · 130 interrupted. Nothing heavy is imported before a subcommand
needs it.
"""

import codecs
import importlib
import json
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from types import FrameType

from unseen import __version__
from unseen.characters import clean
from unseen.cli import study_options
from unseen.errors import UnknownName, UnseenError

COMMANDS = {
    "audit": (
        "unseen.cli.audit",
        "how well a model holds on data it has not seen, why, and what helps",
    ),
    "influence": ("unseen.cli.influence", "which training examples made the model do this"),
    "explain": (
        "unseen.cli.explain",
        "which inputs the model looked at, by the explanation that fits it best",
    ),
    "compare": (
        "unseen.cli.compare",
        "which training method holds at sites left out, fairly compared",
    ),
    "measure": (
        "unseen.cli.measure",
        "every number about a model: value, interval, direction, cost and meaning",
    ),
    "dense": (
        "unseen.cli.dense",
        "masks, maps or key points from a few labelled images, against baselines",
    ),
    "compass": (
        "unseen.cli.compass",
        "directions in a generator by what a person marks: a page in the browser",
    ),
    "serve": (
        "unseen.cli.serve",
        "stored audits, comparisons and studies, and what changed: a page in the browser",
    ),
    "push": (
        "unseen.cli.push",
        "a stored answer to a model or dataset repository of the Hugging Face hub",
    ),
    "cache": ("unseen.cli.cache", "what is stored, how large and how old; --prune makes room"),
    "run": ("unseen.cli.run", "test the claims of a paper: compute what is missing, judge, report"),
    "report": (
        "unseen.cli.report",
        "write the report of stored results again, or export their rows",
    ),
    "list": (
        "unseen.cli.list",
        "what there is: studies, tasks, methods, measures, attributions, models",
    ),
    "cite": ("unseen.cli.cite", "BibTeX of the papers behind studies, and of Unseen"),
    "check": ("unseen.cli.check", "whether the verdicts in results/ still hold for this code"),
    "doctor": ("unseen.cli.doctor", "what this machine has, lacks and would break on"),
}
# these commands import torch with their module, and help must not wait for it
PARSERS = {
    "run": study_options.run_parser,
    "report": study_options.report_parser,
    "check": study_options.check_parser,
}
HELP = """Unseen: will it work on data it has not seen, why, and what can I change?

usage: unseen COMMAND [options]

{commands}

options:
  --json     the result for machines, on the standard output (every command)
  --debug    show the traceback of an error
  --version  print the version
  --completion bash|zsh|fish   a script of completions: source <(unseen --completion bash)
  --help     this text; `unseen COMMAND --help` for one command

First steps: `unseen audit` (embedded data of four hospitals), `unseen list studies`.
Exit codes: 0 fine, 1 a claim refuted or a bar missed, 2 usage or input error, 3 undecided only."""


OPTION_NAMES = {"groups": "group"}
ARGUMENT = re.compile(
    r"\b(?P<name>target|site|time|entity|groups|drop|encoding|estimator|positive)"
    r'="(?P<value>[^"]*)"'
)
"""An argument of the Python functions that the command has as an option."""


BEGIN_AGAIN = {"dense"}
"""Commands that keep no part of their work when they are interrupted."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    debug, given = "--debug" in given, [word for word in given if word != "--debug"]
    _spell_for_narrow_streams(as_json="--json" in given)
    try:
        with _termination_as_interrupt():
            code = _dispatch(given)
            sys.stdout.flush()
            return code
    except SystemExit as stop:  # argparse, after --help or its own message
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None) * 2
    except KeyboardInterrupt:
        kept = not BEGIN_AGAIN.intersection(given[:1])
        print("interrupted; finished parts are kept." if kept else "interrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `unseen list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        # of the processes of torchrun the first one alone has the standard output
        is_first = os.environ.get("RANK", "0") == "0"
        return _report_error(error, debug, as_json="--json" in given and is_first)


PLAIN = {"−": "-", "–": "-", "·": "-", "×": "x", "…": "...", "≤": "<=", "≥": ">="}
"""ASCII for the signs of a summary where the terminal has no others; a minus must stay one."""


def _spell_for_narrow_streams(as_json: bool) -> None:
    """What the encoding of a stream lacks is spelled (an ASCII pipe, a surrogate of a file name)
    and never ends a command whose work is done. JSON stays JSON, with the same strings.
    """
    plain = {} if as_json else PLAIN

    def spell(error: UnicodeError) -> tuple[str, int]:
        if not isinstance(error, UnicodeEncodeError):
            raise error
        text = error.object[error.start : error.end]
        return "".join(plain.get(c) or json.dumps(c)[1:-1] for c in text), error.end

    codecs.register_error("unseen-spell", spell)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="unseen-spell")


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """SIGTERM (`kill`, a batch system's limit) and SIGHUP (a closed terminal, unless `nohup`
    ignores it) end a command as Ctrl-C does: with a word and without parts half written.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # which alone may set handlers
        yield
        return
    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has one
    before = {getattr(signal, name): signal.getsignal(getattr(signal, name)) for name in names}
    ending = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in ending:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in ending:
            signal.signal(number, before[number] or signal.SIG_DFL)


def _dispatch(given: list[str]) -> int:
    if not given or given[0] in ("--help", "-h", "help"):
        width = max(map(len, COMMANDS))
        print(
            HELP.format(
                commands="\n".join(
                    f"  {name:<{width}}  {says}" for name, (_, says) in COMMANDS.items()
                )
            )
        )
        return 0
    if given[0] in ("--version", "-V"):
        print(
            json.dumps({"version": __version__}) if "--json" in given else f"unseen {__version__}"
        )
        return 0
    if given[0].split("=")[0] == "--completion":
        from unseen.cli import completion  # only where it is asked for

        return completion.main([*given[0].split("=")[1:], *given[1:]], COMMANDS, PARSERS)
    if given[0] not in COMMANDS:
        raise UnknownName.near("command", given[0], COMMANDS)
    command, rest = given[0], given[1:]
    if command in PARSERS and {"--help", "-h"} & {*rest} and {*rest} <= {"--help", "-h", "--json"}:
        text = PARSERS[command]().format_help()
        print(json.dumps({"help": text}) if "--json" in rest else text)
        return 0
    return importlib.import_module(COMMANDS[command][0]).main(rest)


def _report_error(error: Exception, debug: bool, as_json: bool) -> int:
    if debug:
        traceback.print_exception(error)
    known = isinstance(error, UnseenError)
    why = (
        error.why
        if isinstance(error, UnseenError)
        else "this was not expected: a bug in Unseen, a plug or a library."
    )
    fix = (
        error.fix
        if isinstance(error, UnseenError)
        else "run the same command with --debug and report the traceback."
    )
    what = error.what if isinstance(error, UnseenError) else str(error) or "(no message)"
    what, why, fix = (_for_command_line(text) for text in (what, why, fix))
    print(f"{type(error).__name__}: {_line(what)}", file=sys.stderr)
    for name, text in (("why", why), ("fix", fix)):
        if text:
            print(f"  {name}: {_line(text)}", file=sys.stderr)
    if as_json:
        told = {
            "kind": type(error).__name__,
            "what": what,
            "why": why,
            "fix": fix,
            "expected": known,
        }
        print(json.dumps({"error": told}, ensure_ascii=False))
    return 2


def _line(text: str) -> str:
    return " ".join(clean(text).split())


def _as_option(found: re.Match[str]) -> str:
    """`target="COLUMN"` as `--target COLUMN`: an error is written for Python, and read here."""
    name, value = found["name"], found["value"]
    return f"--{OPTION_NAMES.get(name, name)} {value}"


def _for_command_line(text: str) -> str:
    return ARGUMENT.sub(_as_option, text)


if __name__ == "__main__":
    sys.exit(main())
