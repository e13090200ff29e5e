"""`unseen --completion bash|zsh|fish`: a script of completions, made from the parsers. Imports
nothing heavy.
"""

import argparse
import importlib
import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from unseen.cli.arguments import Arguments
from unseen.errors import UnknownName

Parsers = Mapping[str, Callable[[], Arguments]]


@dataclass(frozen=True)
class Completion:
    """What may follow a command."""

    command: str
    help: str
    options: Mapping[str, str]
    """Every option with its help."""
    values: Mapping[str, tuple[str, ...]]
    """What an option with choices takes."""


def completions(
    commands: Mapping[str, tuple[str, str]], parsers: Parsers
) -> tuple[Completion, ...]:
    """Of every command, by its own parser."""
    found = []
    for name, (module, says) in commands.items():
        make = parsers.get(name) or importlib.import_module(module).parser
        actions = [a for a in make()._actions if a.option_strings and a.help != argparse.SUPPRESS]
        options = {option: str(a.help) for a in actions for option in a.option_strings}
        values = {
            option: tuple(map(str, a.choices))
            for a in actions
            for option in a.option_strings
            if a.choices
        }
        found.append(Completion(name, says, options, values))
    return tuple(found)


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
  [[ "$word" == -* ]] || return
  case "${{COMP_WORDS[1]}}" in
{_options(known)}
  esac
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
    return "\n".join(
        f"    {one.command}) "
        f'COMPREPLY=($(compgen -W {shlex.quote(" ".join(one.options))} -- "$word")) ;;'
        for one in known
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
