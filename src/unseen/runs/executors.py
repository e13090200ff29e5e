"""Where the pieces of a computation (cells, sites, groups of runs) are computed: `InProcess`, or in
`Processes` of this machine; and `compute_pieces`, which has them computed.

Both are `concurrent.futures` executors, and nothing else is asked for: any other executor (a
cluster's) serves.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from typing import Any, TypeVar

from unseen.errors import InvalidConfig

P = TypeVar("P")
R = TypeVar("R")
PULSE = 10.0
"""Seconds of waiting after which a cluster's executor is asked whether anybody is still there."""


class InProcess(Executor):
    """Computes at once, in this process. An interruption is not caught: it ends the run."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class Processes(ProcessPoolExecutor):
    """`jobs` fresh processes (spawned, not forked: torch's threads do not survive a fork), one
    torch thread each.
    """

    def __init__(self, jobs: int) -> None:
        if jobs < 1:
            raise InvalidConfig(
                f"{jobs} processes cannot compute.", why="at least one is needed.", fix="--jobs 2"
            )
        super().__init__(jobs, multiprocessing.get_context("spawn"), _settle)

    def kill(self) -> None:
        """Ends the workers now; a cell that they were at counts as not started."""
        for process in list((self._processes or {}).values()):
            process.terminate()
        # waits for the pool's thread, which else may close a pipe that Python's exit writes to
        self.shutdown(wait=True, cancel_futures=True)


def _settle() -> None:
    """In a new worker: one thread, interruptions left to the parent, and no life after the
    parent's.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    import torch  # here, not above: the parent may only want `InProcess`

    torch.set_num_threads(1)


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def compute_pieces(
    pieces: Sequence[P],
    function: Callable[[P], R],
    executor: Callable[[], Executor],
    at_once: int = 1,
    here: Callable[[P], R] | None = None,
) -> Generator[tuple[P, Future[R]], None, None]:
    """Each piece with its future as it ends. `here` is called instead of `function` where the
    executor computes in this process.

    A piece that went down with its worker is computed once more, alone, and no other is; a future
    that holds a `BrokenExecutor` went down twice.
    """
    down: list[P] = []
    for piece, future in _submit(pieces, function, executor, at_once, here):
        if isinstance(future.exception(), BrokenExecutor):
            down.append(piece)
        else:
            yield piece, future
    for piece in down:
        yield from _submit([piece], function, executor, 1, here)


def _submit(
    pieces: Sequence[P],
    function: Callable[[P], R],
    executor: Callable[[], Executor],
    at_once: int,
    here: Callable[[P], R] | None,
) -> Generator[tuple[P, Future[R]], None, None]:
    """Futures as they end. A pool that breaks with one of its workers accepts nothing more: what
    was not begun goes to a new one.
    """
    waiting = list(reversed(pieces))
    while waiting:
        place = executor()
        is_here = isinstance(place, InProcess)
        call = here if here is not None and is_here else function
        # few in flight, so that stopping early leaves nothing to take back
        yield from _submit_to(place, waiting, call, 1 if is_here else at_once + 1)


def _submit_to(
    place: Executor, waiting: list[P], call: Callable[[P], R], limit: int
) -> Generator[tuple[P, Future[R]], None, None]:
    """Takes pieces from the end of `waiting` until none is left or the executor is broken: one at
    least, so that even pieces that break every executor come to an end.
    """
    flying: dict[Future[R], P] = {}
    check: Callable[[], None] | None = getattr(place, "check", None)
    is_clean, is_begun, is_broken = False, False, False
    try:
        while flying or (waiting and not is_broken):
            while waiting and len(flying) < limit and not is_broken:
                piece = waiting.pop()
                try:
                    flying[place.submit(call, piece)] = piece
                except BrokenExecutor as error:
                    is_broken = True
                    if is_begun:
                        waiting.append(piece)
                    else:
                        flying[_broken_future(error)] = piece
                is_begun = True
            done = wait(flying, PULSE if check else None, FIRST_COMPLETED).done if flying else ()
            if check is not None and not done:
                check()
            for future in done:
                yield flying.pop(future), future
        is_clean = True
    finally:
        if is_clean or not hasattr(place, "kill"):
            place.shutdown(wait=True, cancel_futures=True)
        else:
            place.kill()


def _broken_future(error: BrokenExecutor) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(error)
    return future
