"""Command lines: a parser whose complaints are typed errors and whose help is in groups. Imports
nothing heavy.
"""

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from unseen.errors import InvalidConfig

OUTPUT = "output"


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
        self._named = {title: self.add_argument_group(title) for title in (*groups, OUTPUT)}
        self.option(
            OUTPUT, "--json", action="store_true", help="the result as JSON on the standard output"
        )

    def option(self, group: str, *names: str, **settings: Any) -> None:
        """An option under one of the headings."""
        self._named[group].add_argument(*names, **settings)

    def repeatable(self, group: str, name: str, help: str, **settings: Any) -> None:
        """An option that may be given several times, and whose help says so."""
        self.option(
            group, name, action="append", default=[], help=f"{help} (repeatable)", **settings
        )

    def error(self, message: str) -> NoReturn:
        raise InvalidConfig(
            f"`{self.prog}` cannot be called like this: {message}.",
            why=" ".join(self.format_usage().split()),
            fix=f"see {self.prog} --help.",
        )
