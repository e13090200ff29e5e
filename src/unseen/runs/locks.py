"""Which parts of the home running processes write: locks that the system takes back with the
process that holds them, however it ends.

    <home>/.locks/<room>.lock       shared by those who write there, exclusive for who removes
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def writing(home: Path, room: str) -> Iterator[None]:
    """Inside the block nobody removes what lies in this room of the home."""
    with contextlib.ExitStack() as stack:
        # a home without locks, or one that is read-only, is no reason not to compute
        with contextlib.suppress(OSError):
            _lock(stack.enter_context(_lock_file(home, room)), is_exclusive=False)
        yield


@contextlib.contextmanager
def removing(home: Path, room: str) -> Iterator[bool]:
    """Whether nobody writes in this room; inside the block nobody begins to."""
    with contextlib.ExitStack() as stack:
        yield _is_free(home, room, stack)


def _is_free(home: Path, room: str, stack: contextlib.ExitStack) -> bool:
    try:
        return _lock(stack.enter_context(_lock_file(home, room)), is_exclusive=True)
    except OSError:
        return False


def _lock(file: Any, *, is_exclusive: bool) -> bool:
    """Whether the system has such locks. Windows has none: nothing is removed there that may be
    written.
    """
    # imported here: a statement of this module would be a part of the key of every study
    try:
        import fcntl
    except ImportError:
        return False
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB if is_exclusive else fcntl.LOCK_SH)
    return True


def _lock_file(home: Path, room: str) -> Any:
    folder = home / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    return open(folder / f"{room.replace('/', '-')}.lock", "ab")
