"""Command lines: a parser whose complaints are typed errors and whose help is in groups. Imports
nothing heavy.
"""

import argparse
import difflib
from collections.abc import Sequence
from typing import Any, NoReturn

from unseen.cli.configuration import FLAG, with_configuration
from unseen.errors import InvalidConfig
from unseen.runs.trackers import TRACKERS, check_tracker

OUTPUT = "output"
SHORT = 300
"""Characters of a usage line that a person reads."""


class Arguments(argparse.ArgumentParser):
    """A parser that knows no abbreviations (they would shadow a study's own flags) and raises
    `InvalidConfig`.
    """

    def __init__(
        self,
        prog: str,
        description: str,
        epilog: str = "",
        add_help: bool = True,
        groups: Sequence[str] = (),
    ) -> None:
        """`groups` are the headings of the help, in order; "output" is always the last."""
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            add_help=add_help,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        # the name under which an answer is stored
        self.set_defaults(question=prog.split()[-1])
        self._named = {title: self.add_argument_group(title) for title in (*groups, OUTPUT)}
        self.option(
            OUTPUT, "--json", action="store_true", help="the result as JSON on the standard output"
        )
        self.option(
            OUTPUT,
            FLAG,
            metavar="FILE.toml",
            help="options from a file; what is typed wins (docs/command_line.md)",
        )

    def option(self, group: str, *names: str, **settings: Any) -> None:
        """An option under one of the headings."""
        self._named[group].add_argument(*names, **settings)

    def repeatable(self, group: str, name: str, help: str, **settings: Any) -> None:
        """An option that may be given several times, and whose help says so."""
        self.option(
            group, name, action="append", default=[], help=f"{help} (repeatable)", **settings
        )

    # argparse's own signature is wider (a namespace to fill), which no command uses
    def parse_args(self, words: Sequence[str]) -> argparse.Namespace:  # type: ignore[override]
        """The options, also those of a file (`--config`)."""
        return super().parse_args(self._with_file(words, more=False))

    def parse_known_args(  # type: ignore[override]
        self, words: Sequence[str], namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """The options and the words that are none of this parser's."""
        return super().parse_known_args(self._with_file(words, more=True), namespace)

    def _with_file(self, words: Sequence[str], more: bool) -> list[str]:
        return with_configuration(words, self._actions, self.prog.split()[-1], more)

    def error(self, message: str) -> NoReturn:
        usage = " ".join(self.format_usage().split())
        raise InvalidConfig(
            f"`{self.prog}` cannot be called like this: {message}.",
            why=usage if len(usage) <= SHORT else "its options and their values are fixed.",
            fix=f"{self._near(message)}see {self.prog} --help.",
        )

    def _near(self, message: str) -> str:
        """The options that are spelled nearly as one that is not known."""
        _, found, unknown = message.partition("unrecognized arguments: ")
        known = [name for action in self._actions for name in action.option_strings]
        close = [
            name
            for word in unknown.split()
            if found and word.startswith("--")
            for name in difflib.get_close_matches(word.partition("=")[0], known, n=1)
        ]
        return f"did you mean {' and '.join(close)}? Else " if close else ""


def add_tracker(p: Arguments) -> None:
    """The tracker that gets an answer; a missing one is named before any work."""
    p.option(
        OUTPUT,
        "--track",
        type=check_tracker,
        metavar="NAME",
        help=f"also write the answer to {', '.join(TRACKERS)} (docs/trackers.md)",
    )
