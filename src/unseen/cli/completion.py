"""`unseen --completion bash|zsh|fish`: a script of completions, made from the parsers. Imports
nothing heavy.
"""

import argparse
import importlib
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from unseen.cli.arguments import Arguments
from unseen.errors import UnknownName
from unseen.runs import catalog

Parsers = Mapping[str, Callable[[], Arguments]]

NAMES = ("name", "names")
"""Places in a command line that take studies."""


@dataclass(frozen=True)
class Completion:
    """What may follow a command."""

    command: str
    help: str
    options: Mapping[str, str]
    """Every option with its help."""
    values: Mapping[str, tuple[str, ...]]
    """What an option with choices takes."""
    words: tuple[str, ...]
    """What may stand without an option: choices, or the studies."""


def completions(
    commands: Mapping[str, tuple[str, str]], parsers: Parsers
) -> tuple[Completion, ...]:
    """Of every command, by its own parser."""
    found = []
    for name, (module, says) in commands.items():
        make = parsers.get(name) or importlib.import_module(module).parser
        shown = [a for a in make()._actions if a.help != argparse.SUPPRESS]
        actions = [a for a in shown if a.option_strings]
        options = {option: str(a.help) for a in actions for option in a.option_strings}
        values = {
            option: tuple(map(str, a.choices))
            for a in actions
            for option in a.option_strings
            if a.choices
        }
        places = [a for a in shown if not a.option_strings]
        words = [word for place in places for word in _words(place)]
        found.append(Completion(name, says, options, values, tuple(words)))
    return tuple(found)


def _words(place: argparse.Action) -> list[str]:
    if place.choices:
        return [str(choice) for choice in place.choices]
    return catalog.names() if place.dest in NAMES else []


def script(shell: str, known: tuple[Completion, ...]) -> str:
    """The script for a shell."""
    if shell not in SHELLS:
        raise UnknownName.near("shell", shell, SHELLS)
    return SHELLS[shell](known)


def bash(known: tuple[Completion, ...]) -> str:
    """For `source <(unseen --completion bash)`; files are offered where nothing else fits."""
    names = " ".join(one.command for one in known)
    return f"""# bash completion of unseen
_unseen() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}"
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{names} --help --version --completion" -- "$word"))
    return
  fi
  case "${{COMP_WORDS[1]}} $before" in
{_cases(known)}
  esac
  if [[ "$word" == -* ]]; then
    case "${{COMP_WORDS[1]}}" in
{_options(known)}
    esac
  elif [[ "$before" != -* ]]; then
    case "${{COMP_WORDS[1]}}" in
{_places(known)}
    esac
  fi
}}
complete -o default -F _unseen unseen
"""


def _cases(known: tuple[Completion, ...]) -> str:
    lines = [
        f"    {shlex.quote(f'{one.command} {option}')}) "
        f'COMPREPLY=($(compgen -W {shlex.quote(" ".join(values))} -- "$word")); return ;;'
        for one in known
        for option, values in one.values.items()
    ]
    shells = f'COMPREPLY=($(compgen -W {shlex.quote(" ".join(SHELLS))} -- "$word")); return'
    return "\n".join([*lines, f"    '--completion --completion') {shells} ;;"])


def _options(known: tuple[Completion, ...]) -> str:
    return _by_command({one.command: [*one.options] for one in known})


def _places(known: tuple[Completion, ...]) -> str:
    return _by_command({one.command: one.words for one in known if one.words})


def _by_command(words: Mapping[str, Sequence[str]]) -> str:
    return "\n".join(
        f'    {command}) COMPREPLY=($(compgen -W {shlex.quote(" ".join(offered))} -- "$word")) ;;'
        for command, offered in words.items()
    )


def zsh(known: tuple[Completion, ...]) -> str:
    """For `source <(unseen --completion zsh)`: zsh reads completions of bash."""
    return "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n" + (
        bash(known)
    )


def fish(known: tuple[Completion, ...]) -> str:
    """For `unseen --completion fish | source`."""
    lines = ["# fish completion of unseen"]
    for one in known:
        lines.append(
            f"complete -c unseen -f -n __fish_use_subcommand -a {one.command} "
            f"-d {_fish_text(one.help)}"
        )
        if one.words:
            lines.append(
                f"complete -c unseen -f -n '__fish_seen_subcommand_from {one.command}' "
                f"-a {_fish_text(' '.join(one.words))}"
            )
        for option, says in one.options.items():
            letter = "l" if option.startswith("--") else "s"
            values = one.values.get(option)
            takes = f" -x -a {_fish_text(' '.join(values))}" if values else ""
            lines.append(
                f"complete -c unseen -n '__fish_seen_subcommand_from {one.command}' "
                f"-{letter} {option.lstrip('-')}{takes} -d {_fish_text(says)}"
            )
    return "\n".join(lines) + "\n"


def _fish_text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SHELLS: Mapping[str, Callable[[tuple[Completion, ...]], str]] = {
    "bash": bash,
    "zsh": zsh,
    "fish": fish,
}


def main(given: list[str], commands: Mapping[str, tuple[str, str]], parsers: Parsers) -> int:
    """Prints the script of the shell that is named."""
    words = [word for word in given if word != "--json"]
    text = script(words[0] if words else "", completions(commands, parsers))
    print(json.dumps({"script": text}) if "--json" in given else text, end="")
    return 0
