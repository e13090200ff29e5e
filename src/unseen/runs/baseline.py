"""The rows that a ledger's own code gives on this machine.

Another processor sums in another order, and training amplifies that: kept rows and today's may
differ by far more than rounding although no change of code is behind it. Where the repository
still has a commit whose code is that of the ledger, that commit computes the same cells here, and
these rows and today's have to be equal.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unseen.runs import rows
from unseen.runs.ledger import Files
from unseen.runs.store import Value

PACKAGE = Path(__file__).resolve().parents[1]

# run by the package of another commit: it uses what packages since the first such ledger have
_PROGRAM = """
import sys
from pathlib import Path
from unseen.runs import catalog, rows
from unseen.runs.ledger import Stamp
from unseen.runs.smoke import compute
from unseen.study import Scale
name, scale, code, part, path = sys.argv[1:]
study = catalog.load(name)
if Stamp.of(study, Scale(scale)).code != code:
    sys.exit("it is not the code of the ledger")
cells = list(study.cells(study.scales[Scale.SMOKE if part == "smoke" else Scale(scale)]))
if part == "seed":
    first = min(cell.seed for cell in cells)
    cells = [cell for cell in cells if cell.seed == first]
rows.write(Path(path), compute(study, cells).rows)
"""


def rows_here(
    files: Files, text: Mapping[str, Any], *, one_seed: bool = False
) -> list[dict[str, Value]] | None:
    """Rows of the smoke scale, or of one seed of the ledger's scale, by the code of the ledger;
    `None` where the package lies in no repository or the repository lacks that code.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "rows.csv.gz")
        for commit in _commits(files, text):
            part = "seed" if one_seed else "smoke"
            arguments = [files.study, text["scale"], text["code"], part, str(target)]
            with _checkout(commit, Path(folder, "tree")) as source:
                if source is None:
                    continue
                path = os.pathsep.join([str(source), os.environ.get("PYTHONPATH", "")])
                run = subprocess.run(
                    [sys.executable, "-c", _PROGRAM, *arguments],
                    env={**os.environ, "PYTHONPATH": path},
                    cwd=folder,
                    capture_output=True,
                )
            if run.returncode == 0:
                return rows.read(target)
    return None


def _commits(files: Files, text: Mapping[str, Any]) -> list[str]:
    """Where the ledger's code may be found: the commit that it names, and the one that wrote it."""
    named = str(text.get("compared", "")).partition(" at ")[2] or str(text.get("commit", ""))
    found = [commit.strip().rstrip("+") for commit in named.split(",")]
    found.append(_git("log", "-1", "--format=%H", "--", str(files.claims.resolve())))
    return list(dict.fromkeys(commit for commit in found if commit))


@contextmanager
def _checkout(commit: str, tree: Path) -> Iterator[Path | None]:
    """A commit's sources in a tree of their own, as a folder for the path of modules."""
    top = _git("rev-parse", "--show-toplevel")
    if not top or not _git("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}"):
        yield None
        return
    _git("worktree", "add", "--force", "--detach", str(tree), commit)
    try:
        yield tree / PACKAGE.parent.relative_to(Path(top).resolve()) if tree.exists() else None
    finally:
        _git("worktree", "remove", "--force", str(tree))


def _git(*arguments: str) -> str:
    """What git says about the package's repository; empty where it fails or there is none."""
    try:
        command = ["git", "-C", str(PACKAGE), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
