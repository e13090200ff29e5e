"""Command lines: a parser whose complaints are typed errors, and flags over the fields of a dataclass."""

import argparse
from typing import NoReturn, TypeVar

from unseen.errors import InvalidConfig

T = TypeVar("T")


class Arguments(argparse.ArgumentParser):
    """A parser that knows no abbreviations (they would shadow a study's own flags) and raises `InvalidConfig`."""

    def __init__(self, prog: str, description: str, epilog: str = "", add_help: bool = True) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            add_help=add_help,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_argument("--json", action="store_true", help="the result as JSON on the standard output")

    def error(self, message: str) -> NoReturn:
        raise InvalidConfig(
            f"`{self.prog}` cannot be called like this: {message}.",
            why=" ".join(self.format_usage().split()),
            fix=f"see {self.prog} --help.",
        )
