"""Flags over the fields of a dataclass: `--task.dim 4000 --seeds 3`."""

import contextlib
import io
import re
from collections.abc import Sequence
from typing import Any, TypeVar

from unseen.errors import InvalidConfig, UnknownName

T = TypeVar("T")


def apply_flags(config: T, flags: Sequence[str], command: str) -> T:
    """The dataclass with fields replaced by flags: `--task.dim 4000 --seeds 3`, checked against the
    fields' types.
    """
    if not flags:
        return config
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            changed, unknown = _tyro(config, flags, command)
    except SystemExit as stop:
        raise InvalidConfig(
            f"{' '.join(flags)} does not fit the fields of {type(config).__name__}: "
            f"{_message(text.getvalue())}",
            why="every flag is a field of the study's configuration and has its type.",
            fix=f"see {command} --help.",
        ) from stop
    if unknown:
        known = set(re.findall(r"--[A-Za-z][\w.\-]*", fields_help(config, command))) - {"--help"}
        raise UnknownName.near("option", unknown[0].split("=")[0], known)
    return changed


def fields_help(config: Any, command: str) -> str:
    """What can be set, with the values of this configuration as defaults."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        _tyro(config, ["--help"], command)
    return text.getvalue().split("\n\n", 1)[-1]


def _tyro(config: T, flags: Sequence[str], command: str) -> tuple[T, list[str]]:
    """The overlaid dataclass and the words that are no flag of it."""
    import tyro  # 0.3 s that only calls with flags need

    markers = (
        tyro.conf.AvoidSubcommands,
        tyro.conf.EnumChoicesFromValues,
        tyro.conf.SuppressFixed,
        tyro.conf.HelptextFromCommentsOff,
    )
    return tyro.cli(
        type(config),
        prog=command,
        description="",
        default=config,
        args=list(flags),
        config=markers,
        return_unknown_args=True,
    )


def _message(printed: str) -> str:
    """What tyro complains about, without its box and the help that follows."""
    words = " ".join(re.sub(r"[╭╮╰╯│─]+|-{3,}", " ", printed).split())
    return re.sub(r"^(Value|Parsing) error ", "", words).split(" Argument helptext:")[0][:300]
