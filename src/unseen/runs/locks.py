"""Which parts of the home running processes write: locks that the system takes back with the
process that holds them, however it ends.

    <home>/.locks/<room>.lock       shared by those who write there, exclusive for who removes
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows has none: `free` says no, and nothing is removed that may be written
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def writing(home: Path, room: str) -> Iterator[None]:
    """Inside the block nobody removes what lies in this room of the home."""
    with contextlib.ExitStack() as stack:
        # a home without locks, or one that is read-only, is no reason not to compute
        with contextlib.suppress(OSError):
            file = stack.enter_context(_lock_file(home, room))
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextlib.contextmanager
def removing(home: Path, room: str) -> Iterator[bool]:
    """Whether nobody writes in this room; inside the block nobody begins to."""
    with contextlib.ExitStack() as stack:
        yield _is_free(home, room, stack)


def _is_free(home: Path, room: str, stack: contextlib.ExitStack) -> bool:
    if fcntl is None:
        return False
    try:
        file = stack.enter_context(_lock_file(home, room))
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _lock_file(home: Path, room: str) -> Any:
    folder = home / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    return open(folder / f"{room.replace('/', '-')}.lock", "ab")
