"""`--config FILE.toml`: options of a command from a file. Imports nothing heavy."""

import argparse
import math
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unseen.errors import InvalidConfig, MissingFile, UnknownName

FLAG = "--config"
ARGUMENTS = "arguments"
"""The key whose values stand without an option's name: a table, a subject, methods."""


def with_configuration(
    words: Sequence[str], actions: Sequence[argparse.Action], command: str, more: bool
) -> list[str]:
    """The words of a command line with those of the file that `--config` names put before them, so
    that what is typed wins over the file. Of the file count the entries above all tables and then
    those of the table `[command]`; tables of other commands are left alone.

    `actions` are the parser's; `more` is whether the command takes options that they do not list
    (flags of a study). A missing file is a `MissingFile`, an unknown key an `UnknownName`, and a
    value that no command line could hold an `InvalidConfig`.
    """
    path, typed = _split_off(list(words))
    if path is None:
        return list(words)
    known = {name: action for action in actions for name in action.option_strings}
    entries = _entries(path, command)
    values = entries.pop(ARGUMENTS, [])
    said = [_word(v, ARGUMENTS, path) for v in (values if isinstance(values, list) else [values])]
    lists: list[str] = []  # at the end, where they cannot take a typed argument for a value
    for key, value in entries.items():
        option = f"--{key.replace('_', '-')}"
        if option not in known and not more:
            names = [name.removeprefix("--") for name in known if name.startswith("--")]
            raise UnknownName.near(f"option in {path}", key, names)
        action = known.get(option)
        if action is None or action.nargs not in ("*", "+"):
            said += _as_words(option, value, action, path)
        elif option not in typed:
            values = value if isinstance(value, list) else [value]
            lists += [option, *(_word(one, option, path) for one in values)]
    words = [*said, *typed, *lists]
    _show_in_reports(words)
    return words


def _split_off(words: list[str]) -> tuple[Path | None, list[str]]:
    """The file that is named, and the words without it."""
    for i, word in enumerate(words):
        if word.startswith(f"{FLAG}="):
            return Path(word.removeprefix(f"{FLAG}=")), words[:i] + words[i + 1 :]
        if word == FLAG and i + 1 < len(words):
            return Path(words[i + 1]), words[:i] + words[i + 2 :]
    return None, words


def _entries(path: Path, command: str) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise MissingFile(
            f"the configuration {path} cannot be read.",
            why=f"{error.strerror or error}.",
            fix=f"name a file of options: {FLAG} {command}.toml",
        ) from None
    except ValueError as error:  # no TOML, or no UTF-8
        raise InvalidConfig(
            f"{path} is no TOML file.", why=f"{error}.", fix='a line reads: target = "ill"'
        ) from None
    shared = {k: v for k, v in content.items() if not isinstance(v, dict)}
    own = content.get(command, {})
    return shared | (own if isinstance(own, dict) else {})


def _as_words(option: str, value: Any, action: argparse.Action | None, path: Path) -> list[str]:
    takes_value = action is None or action.nargs != 0
    if isinstance(value, bool):
        if takes_value and action is not None:
            raise _refusal(option, value, path, "the option takes a value.")
        return [option] if value else []
    if not takes_value:
        raise _refusal(option, value, path, "it is a switch: true or false.")
    if not isinstance(value, list):
        return [f"{option}={_word(value, option, path)}"]
    if action is not None and not isinstance(action, argparse._AppendAction):
        raise _refusal(option, value, path, "the option is given once, with one value.")
    return [f"{option}={_word(one, option, path)}" for one in value]


def _word(value: Any, option: str, path: Path) -> str:
    if isinstance(value, bool | dict | list) or (
        isinstance(value, float) and not math.isfinite(value)
    ):
        raise _refusal(option, value, path, "a text, a number or a date is expected.")
    return str(value)


def _refusal(option: str, value: Any, path: Path, why: str) -> InvalidConfig:
    return InvalidConfig(
        f"{path}: {option.removeprefix('--')} = {value!r} is no value of {option}.",
        why=why,
        fix="`unseen COMMAND --help` says what each option takes.",
    )


def _show_in_reports(words: Sequence[str]) -> None:
    """A report quotes the command; with the file's options in it, it can be run without the
    file.
    """
    if FLAG in sys.argv or any(word.startswith(f"{FLAG}=") for word in sys.argv):
        sys.argv[2:] = [*words]
