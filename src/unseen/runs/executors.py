"""Where cells are computed: `InProcess`, or in `Processes` of this machine.

Both are `concurrent.futures` executors, and the runner asks for nothing else: any other executor (a
cluster's) serves.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from typing import Any

from unseen.errors import InvalidConfig


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
