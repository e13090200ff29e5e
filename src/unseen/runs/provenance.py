"""What is written beside rows: versions and commit. Facts say how a number came about and never
decide it.
"""

import contextlib
import importlib.metadata
import platform
import re
import shlex
import subprocess
import sys
from datetime import date
from functools import cache
from pathlib import Path

from unseen.data.files import content_sha256
from unseen.runs.code_keys import Code

DEPENDENCIES = ("torch", "numpy", "scipy", "scikit-learn")


@cache
def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    found = {"python": platform.python_version()}
    for name in ("unseen", *DEPENDENCIES):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = ""
    return found


def facts(source: object) -> dict[str, str]:
    """What a report says about how it came about: the command, the file with its checksum, the
    versions and the day. `source` is what was asked about.
    """
    found = {"command": command_line()}
    if isinstance(source, str | Path) and Path(source).is_file():
        found["data"] = f"{Path(source).name}, SHA-256 {content_sha256(Path(source))[:16]}"
    found["versions"] = f"unseen {versions()['unseen']}, torch {versions()['torch']}"
    found["date"] = date.today().isoformat()
    return {name: fact for name, fact in found.items() if fact}


def command_line() -> str:
    """The command as it was typed; empty where Unseen was called from Python."""
    program = Path(sys.argv[0]) if sys.argv and sys.argv[0] else Path()
    is_command = program.stem == "unseen" or program.parts[-3:] == ("unseen", "cli", "main.py")
    return shlex.join(["unseen", *sys.argv[1:]]) if is_command else ""


@cache
def processor() -> str:
    """The processor's name, as the system gives it."""
    with contextlib.suppress(OSError):
        found = re.search(
            r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE
        )
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


@cache
def commit(code: Code) -> str:
    """The commit of the code that a cell uses, with `+` if those files differ from it; empty
    outside a repository.
    """
    if not code.files:
        return ""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(code.files[0].parent), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=20
        ).stdout.strip()

    try:
        head = git("rev-parse", "HEAD")
        return head + ("+" if git("status", "--porcelain", "--", *map(str, code.files)) else "")
    except (OSError, subprocess.SubprocessError):
        return ""
