"""One file per check of an audit; the folder is the list. Each file ends with `check = …`."""

import functools
import importlib
from pathlib import Path
from typing import Any

from unseen.lazy import modules
from unseen.questions.audit.check import Check


@functools.cache
def checks() -> tuple[Check[Any], ...]:
    """Every check of the folder, in order of their first codes."""
    found = [
        importlib.import_module(f"{__name__}.{name}").check
        for name in modules(Path(__file__).parent)
    ]
    return tuple(sorted(found, key=lambda check: check.codes[0].code))
