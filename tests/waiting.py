"""Waiting for a condition, with an end so late that only a real fault reaches it."""

import time
from collections.abc import Callable

PATIENCE = 1_200
"""Seconds until a test that waits is a failed one; no machine that still works is that slow."""


def wait_until(holds: Callable[[], bool], what: str) -> None:
    """Returns when `holds()`; fails if it does not for `PATIENCE` seconds."""
    end = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"Waited {PATIENCE} s in vain until {what}.")
        time.sleep(0.01)
