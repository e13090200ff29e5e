"""Executors of clusters: `dask`, `ray` and `slurm` compute cells as `Processes` do, with the same
keys and rows. Each is an optional library behind the interface of `concurrent.futures`.
"""

import importlib
import sys
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, redirect_stdout, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from unseen.errors import InvalidConfig, MissingExtra, UnknownName
from unseen.runs.executors import InProcess, Processes
from unseen.runs.store import home


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What is asked of a machine or cluster."""

    jobs: int = 1
    """Cells at the same time, one thread each."""
    address: str = ""
    """Scheduler of a Dask or Ray cluster that runs already; empty: workers on this machine. For
    Slurm "local" computes in processes of this machine instead of a queue.
    """
    partition: str = ""
    """Slurm: the partition of the queue."""
    memory_gb: float = 4.0
    """Slurm and Ray: asked for each cell."""
    minutes: int = 60
    """Slurm: the longest time of a cell."""

    def __post_init__(self) -> None:
        for name in ("jobs", "memory_gb", "minutes"):
            if getattr(self, name) <= 0:
                raise InvalidConfig(
                    f"{name} = {getattr(self, name)} is nothing to ask for.",
                    why="a cell needs at least one process, some memory and some time.",
                    fix=f"a {name} above 0.",
                )


class LocalDask(Executor):
    """A Dask cluster, started on this machine or found at an address. A cell whose worker is lost
    is computed by another one.
    """

    def __init__(self, resources: Resources) -> None:
        distributed = _library("distributed", "dask")
        self._lost = (distributed.scheduler.KilledWorker,)
        self._cluster = None
        if not resources.address:
            self._cluster = distributed.LocalCluster(
                n_workers=resources.jobs,
                threads_per_worker=1,
                dashboard_address=None,
                memory_limit=0,
            )
        self._client = distributed.Client(resources.address or self._cluster, set_as_default=False)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The result of a call by some worker; `BrokenExecutor` where workers died of it."""
        task = self._client.submit(_in_one_thread, fn, *args, pure=False, retries=0, **kwargs)
        future: Future[Any] = Future()
        task.add_done_callback(partial(_settle, future, lost=self._lost))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leaves the cluster, and ends it if it was started here."""
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()

    def kill(self) -> None:
        """Ends now; a cell that a worker was at counts as not started."""
        self.shutdown()


class Ray(Executor):
    """A Ray cluster, started on this machine or found at an address."""

    def __init__(self, resources: Resources) -> None:
        self._ray = _library("ray", "ray")
        where = {"address": resources.address} if resources.address else {}
        local = {} if resources.address else {"num_cpus": resources.jobs}
        self._own = not self._ray.is_initialized()
        # its raylet speaks on the standard output, which belongs to the result
        self._spoken = ExitStack()
        self._spoken.enter_context(redirect_stdout(sys.stderr))
        if self._own:
            self._ray.init(**where, **local, include_dashboard=False, log_to_driver=False)
        self._call = self._ray.remote(
            num_cpus=1, memory=int(resources.memory_gb * 2**30), max_retries=1
        )(_in_one_thread)
        self._lost = (self._ray.exceptions.WorkerCrashedError, self._ray.exceptions.NodeDiedError)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The result of a call by some worker; `BrokenExecutor` where workers died of it."""
        future: Future[Any] = Future()
        answer = self._call.remote(fn, *args, **kwargs).future()
        answer.add_done_callback(partial(_settle, future, lost=self._lost))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leaves the cluster, and ends it if it was started here."""
        if self._own:
            self._ray.shutdown()
        self._spoken.close()

    def kill(self) -> None:
        """Ends now; a cell that a worker was at counts as not started."""
        self.shutdown()


class Slurm(Executor):
    """A job of Slurm's queue per cell (submitit); its files lie under the home's `slurm`."""

    def __init__(self, resources: Resources) -> None:
        submitit = _library("submitit", "slurm")
        self._lost = (submitit.core.utils.UncompletedJobError,)
        folder = home() / "slurm"
        cluster = resources.address or "slurm"  # None would compute here where no queue is found
        try:
            self._queue = submitit.AutoExecutor(folder=Path(folder), cluster=cluster)
        except RuntimeError as error:
            raise InvalidConfig(
                "there is no Slurm here to queue cells in.",
                why=f"{error}.",
                fix="log in to the cluster, or try it on this machine with --address local.",
            ) from None
        self._queue.update_parameters(
            timeout_min=resources.minutes,
            mem_gb=resources.memory_gb,
            cpus_per_task=1,
            name="unseen",
            **({"slurm_partition": resources.partition} if resources.partition else {}),
        )
        self._waiting = ThreadPoolExecutor(resources.jobs + 1)
        self._jobs: list[Any] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The result of a call as a job; `BrokenExecutor` where the job ended without one."""
        job = self._queue.submit(_in_one_thread, fn, *args, **kwargs)
        self._jobs.append(job)
        return self._waiting.submit(self._result, job)

    def _result(self, job: Any) -> Any:
        try:
            return job.result()
        except self._lost as error:
            raise BrokenExecutor(str(error)) from None

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Waits for the jobs of this run."""
        self._waiting.shutdown(wait=wait, cancel_futures=cancel_futures)

    def kill(self) -> None:
        """Cancels what is queued or computed; such cells count as not started."""
        for job in self._jobs:
            with suppress(Exception):  # one that has ended has nothing to cancel
                if not job.done():
                    job.cancel(check=False)
        self.shutdown(wait=False, cancel_futures=True)


EXECUTORS: dict[str, Callable[[Resources], Executor]] = {
    "here": lambda resources: InProcess(),
    "processes": lambda resources: Processes(resources.jobs),
    "dask": LocalDask,
    "ray": Ray,
    "slurm": Slurm,
}


def executor(name: str, resources: Resources) -> Callable[[], Executor]:
    """Makes the executor of that name when the runner wants it. An empty name is `here` for one
    job, else `processes`.
    """
    name = name or ("here" if resources.jobs == 1 else "processes")
    if name not in EXECUTORS:
        raise UnknownName.near("executor", name, EXECUTORS)
    return partial(EXECUTORS[name], resources)


def _library(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"The executor `{extra}` needs {module}.",
            why=str(error),
            fix=f'pip install "unseen[{extra}]"',
        ) from None


def _in_one_thread(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """In a worker: the call, with torch on one thread, as in the processes of this machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return fn(*args, **kwargs)
    finally:
        torch.set_num_threads(before)


def _settle(future: Future[Any], answer: Any, lost: tuple[type[BaseException], ...]) -> None:
    """The outcome of a cluster's future in one of ours."""
    try:
        future.set_result(answer.result())
    except lost as error:
        future.set_exception(BrokenExecutor(str(error)))
    except BaseException as error:
        future.set_exception(error)
