"""`unseen doctor`: what this machine has, lacks and would break on. Exit code 1 if something is
broken.
"""

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from unseen import __version__
from unseen.cli.arguments import Arguments
from unseen.errors import UnseenError
from unseen.runs.store import Store, home

LEAST_SPACE = 1e9
"""Bytes below which a laptop run may not fit."""


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, what was seen, whether it is fine, and what to do if it is
    not.
    """

    name: str
    seen: str
    sign: str = "✓"
    fix: str = ""


def parser() -> Arguments:
    p = Arguments(
        "unseen doctor",
        "What this machine has, lacks and would break on.",
        "Exit code 1: something is broken.",
    )
    p.add_argument("--home", type=Path, help="where results are kept")
    return p


def main(argv: Sequence[str]) -> int:
    options = parser().parse_args(argv)
    found = [
        Finding("unseen", __version__),
        Finding("python", f"{platform.python_version()} ({sys.executable})"),
        *_torch(),
        *_libraries(),
        _torchvision(),
        *_places(options.home),
    ]
    if options.json:
        print(
            json.dumps({"findings": [asdict(one) for one in found]}, ensure_ascii=False, indent=1)
        )
    else:
        width = max(len(one.name) for one in found)
        for one in found:
            print(
                f"{one.sign} {one.name:<{width}}  {one.seen}"
                + (f"\n    fix: {one.fix}" if one.fix else "")
            )
    return 1 if any(one.sign == "✗" for one in found) else 0


def _torch() -> list[Finding]:
    try:
        import torch  # may be broken: finding that out is the point
    except Exception as error:
        return [
            Finding(
                "torch", f"does not import: {error}", "✗", "pip install torch --force-reinstall"
            )
        ]
    cores = os.cpu_count() or 1
    threads = Finding("threads", f"{torch.get_num_threads()} of torch on {cores} cores")
    if torch.get_num_threads() > cores:
        threads = Finding("threads", threads.seen, "?", f"export OMP_NUM_THREADS={cores}")
    accelerator = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else "none: everything runs on the CPU"
    )
    return [Finding("torch", torch.__version__), threads, Finding("accelerator", accelerator, "–")]


def _libraries() -> list[Finding]:
    """Versions of what Unseen depends on, and which extras are there."""
    found = []
    try:
        required = importlib.metadata.requires("unseen") or []
    except importlib.metadata.PackageNotFoundError:
        return [Finding("package", "not installed", "?", "pip install -e .")]
    for line in required:
        name, extra = _requirement(line)
        if name in ("torch", "unseen") or extra == "test":
            continue
        version = _version(name)
        label = f"{name} ({extra})" if extra else name
        if version:
            found.append(Finding(label, version))
        elif extra:
            found.append(
                Finding(
                    label, "not installed", "–", f"pip install 'unseen[{extra}]' if you need it"
                )
            )
        else:
            found.append(Finding(label, "missing", "✗", f"pip install {name}"))
    return found


def _requirement(line: str) -> tuple[str, str]:
    """Name and extra in a line like `pyarrow>=15 ; extra == 'parquet'`."""
    name = re.match(r"[A-Za-z0-9._-]+", line)
    extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", line)
    return name[0] if name else "", extra[1] if extra else ""


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _torchvision() -> Finding:
    """Unseen never uses it, but transformers imports it where it finds it, and breaks where it does
    not fit torch.
    """
    version = _version("torchvision")
    if not version:
        return Finding("torchvision", "not installed: good, nothing here needs it")
    code = "import torchvision; torchvision.ops.nms"
    tried = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120
    )
    if tried.returncode == 0:
        return Finding("torchvision", f"{version}, fits torch")
    last = (tried.stderr.strip().splitlines() or ["no message"])[-1]
    return Finding(
        "torchvision", f"{version} does not fit torch: {last}", "✗", "pip uninstall torchvision"
    )


def _places(given: Path | None) -> list[Finding]:
    """Home (writable, space left), data folder."""
    base = home(given)
    try:
        Store(base).probe()
        found = [Finding("home", f"{base}, writable")]
    except UnseenError as error:
        found = [Finding("home", error.what, "✗", error.fix)]
    existing = next(
        (folder for folder in (base, *base.absolute().parents) if folder.is_dir()),
        Path("/"),
    )
    free = shutil.disk_usage(existing).free
    space = f"{free / 1e9:.1f} GB free at {base}"
    found.append(
        Finding("disk", space)
        if free > LEAST_SPACE
        else Finding("disk", space, "?", "free some space")
    )
    data = os.environ.get("UNSEEN_DATA")
    if not data:
        found.append(
            Finding("UNSEEN_DATA", "not set: public data are downloaded when first needed", "–")
        )
    elif not Path(data).is_dir():
        found.append(
            Finding(
                "UNSEEN_DATA",
                f"{data} is not a folder",
                "✗",
                "unset it, or give an existing folder",
            )
        )
    else:
        found.append(Finding("UNSEEN_DATA", f"{data}, {len(list(Path(data).iterdir()))} entries"))
    return found
