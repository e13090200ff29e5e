"""Executors of clusters: `dask`, `ray` and `slurm` compute cells of studies, sites of audits and
runs of comparisons as `Processes` do, with the same keys and numbers. Each is an optional library
behind the interface of `concurrent.futures`.

No wait is without an end: `check` is asked while nothing comes back, and raises where nobody is
left who could answer.
"""

import importlib
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, redirect_stdout, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from unseen.errors import InvalidConfig, MissingExtra, UnknownName, UnseenError
from unseen.runs.executors import InProcess, Processes
from unseen.runs.store import home

ABSENT = 120.0
"""Seconds without a single worker after which a cluster is given up."""
SILENCE = 30.0
"""Seconds in which a machine accepts a connection."""

RAY_ADVICE = (
    "; RAY_AUTH_MODE=token before the command where the cluster asks for its token "
    "(Ray does so since 2.60)"
)


class LostCluster(UnseenError, ConnectionError):
    """Nobody is left who could compute."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What is asked of a machine or cluster. A cell of a study, a site of an audit and a group of
    runs of a comparison are each one piece.
    """

    jobs: int = 1
    """Pieces at the same time, one thread each."""
    address: str = ""
    """Scheduler of a Dask or Ray cluster that runs already; empty: workers on this machine. For
    Slurm "local" computes in processes of this machine instead of a queue.
    """
    partition: str = ""
    """Slurm: the partition of the queue."""
    memory_gb: float = 4.0
    """Slurm and Ray: asked for each piece."""
    minutes: int = 60
    """Slurm: the longest time of a piece."""

    def __post_init__(self) -> None:
        for name in ("jobs", "memory_gb", "minutes"):
            if getattr(self, name) <= 0:
                raise InvalidConfig(
                    f"{name} = {getattr(self, name)} is nothing to ask for.",
                    why="a piece needs at least one process, some memory and some time.",
                    fix=f"--{name.replace('_', '-')} above 0.",
                )


class LocalDask(Executor):
    """A Dask cluster, started on this machine or found at an address. A piece whose worker is lost
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
        try:
            self._client = distributed.Client(
                resources.address or self._cluster, set_as_default=False
            )
        except (OSError, ValueError) as error:
            raise _no_scheduler(resources.address, error) from None
        self._seen = time.monotonic()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The result of a call by some worker; `BrokenExecutor` where workers died of it."""
        task = self._client.submit(_in_one_thread, fn, *args, pure=False, retries=0, **kwargs)
        future: Future[Any] = Future()
        task.add_done_callback(partial(_settle, future, lost=self._lost))
        return future

    def check(self) -> None:
        """Raises where the scheduler has had no worker for a while, or does not answer."""
        with suppress(OSError):  # the client connects anew by itself
            if self._client.nthreads():
                self._seen = time.monotonic()
        if self._client.status == "closed" or time.monotonic() - self._seen > ABSENT:
            raise _lost_cluster("Dask")

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leaves the cluster, and ends it if it was started here."""
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()

    def kill(self) -> None:
        """Ends now; a piece that a worker was at counts as not started."""
        self.shutdown()


class Ray(Executor):
    """A Ray cluster, started on this machine or found at an address."""

    def __init__(self, resources: Resources) -> None:
        self._ray = _library("ray", "ray")
        # "local": without an address Ray would join a cluster that happens to run on this machine
        where: dict[str, Any] = {"address": resources.address or "local"}
        if not resources.address:
            where["num_cpus"] = resources.jobs
        self._own = not self._ray.is_initialized()
        # its raylet speaks on the standard output, which belongs to the result
        self._spoken = ExitStack()
        self._spoken.enter_context(redirect_stdout(sys.stderr))
        if self._own:
            refuse_silence(resources.address)
            try:
                self._ray.init(**where, include_dashboard=False, log_to_driver=False)
            # other versions, or a token that is missing, are RuntimeErrors or its own
            except (OSError, ValueError, RuntimeError, self._ray.exceptions.RayError) as error:
                self._spoken.close()
                raise _no_scheduler(resources.address, error, RAY_ADVICE) from None
        self._memory = resources.memory_gb * 2**30
        self._seen = time.monotonic()
        self._call = self._ray.remote(
            num_cpus=1, memory=int(resources.memory_gb * 2**30), max_retries=1
        )(_in_one_thread)
        died = self._ray.exceptions
        self._lost = (
            died.WorkerCrashedError,
            died.NodeDiedError,
            died.OutOfMemoryError,
            died.ObjectLostError,
        )

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The result of a call by some worker; `BrokenExecutor` where workers died of it."""
        future: Future[Any] = Future()
        answer = self._call.remote(fn, *args, **kwargs).future()
        answer.add_done_callback(partial(_settle, future, lost=self._lost))
        return future

    def check(self) -> None:
        """Raises where no machine has had the memory of a piece for a while: it would wait for
        ever.
        """
        rooms = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if any(room.get("CPU", 0) >= 1 and room.get("memory", 0) >= self._memory for room in rooms):
            self._seen = time.monotonic()
        elif rooms and (self._own or time.monotonic() - self._seen > ABSENT):
            most = max(room.get("memory", 0) for room in rooms) / 2**30
            raise InvalidConfig(
                f"No machine of the Ray cluster has {self._memory / 2**30:g} GB for a piece.",
                why=f"the largest has {most:.2g} GB.",
                fix=f"--memory-gb {most * 0.8:.2g}",
            )
        elif time.monotonic() - self._seen > ABSENT:
            raise _lost_cluster("Ray")

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leaves the cluster, and ends it if it was started here."""
        if self._own:
            self._ray.shutdown()
        self._spoken.close()

    def kill(self) -> None:
        """Ends now; a piece that a worker was at counts as not started."""
        self.shutdown()


class Slurm(Executor):
    """A job of Slurm's queue per piece (submitit), at most so many in the queue as there are jobs;
    its files lie under the home's `slurm`.
    """

    def __init__(self, resources: Resources) -> None:
        submitit = _library("submitit", "slurm")
        self._lost = (submitit.core.utils.UncompletedJobError,)
        self._refused = (
            submitit.core.utils.FailedJobError,
            submitit.core.utils.FailedSubmissionError,
            OSError,
        )
        folder = home() / "slurm"
        cluster = resources.address or "slurm"  # None would compute here where no queue is found
        try:
            self._queue = submitit.AutoExecutor(folder=Path(folder), cluster=cluster)
        except RuntimeError as error:
            raise InvalidConfig(
                "there is no Slurm here to queue in.",
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
        self._waiting = ThreadPoolExecutor(resources.jobs)
        self._ended = threading.Event()
        self._longest = resources.minutes * 60 + ABSENT
        self._jobs: list[Any] = []
        self._entrance = threading.Lock()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The result of a call as a job; `BrokenExecutor` where the job ended without one."""
        return self._waiting.submit(self._compute, fn, *args, **kwargs)

    def _compute(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result, error = self._result(self._enter(partial(_outcome, fn, *args, **kwargs)))
        if error is not None:
            raise error
        return result

    def _enter(self, call: Callable[[], Any]) -> Any:
        """The job in the queue; none any more where the run was cancelled."""
        with self._entrance:
            if self._ended.is_set():
                raise BrokenExecutor("it was cancelled")
            try:
                job = self._queue.submit(call)
            except self._refused as error:
                raise InvalidConfig(
                    "Slurm did not take a job.",
                    why=f"{str(error).strip() or type(error).__name__}.",
                    fix="what it grants (sinfo, sacctmgr) by --partition, --memory-gb, --minutes.",
                ) from error
            self._jobs.append(job)
        return job

    def _result(self, job: Any) -> Any:
        started = None
        while not job.done():
            if self._ended.wait(1):
                raise BrokenExecutor("it was cancelled")
            if started is None and job.paths.stdout.exists():
                started = time.monotonic()
            # a queue without accounting never says that a job was killed
            is_over = started is not None and time.monotonic() - started > self._longest
            if is_over and job.state.upper() == "UNKNOWN":
                raise BrokenExecutor("its time is over, and nothing came back")
        try:
            return job.result()
        except self._lost as error:
            raise BrokenExecutor(str(error)) from None

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Waits for the jobs of this run."""
        self._waiting.shutdown(wait=wait, cancel_futures=cancel_futures)

    def kill(self) -> None:
        """Cancels what is queued or computed; such pieces count as not started."""
        self.shutdown(wait=False, cancel_futures=True)
        with self._entrance:
            self._ended.set()
        for job in self._jobs:
            with suppress(Exception):  # one that has ended has nothing to cancel
                if not job.done():
                    job.cancel(check=False)


EXECUTORS: dict[str, Callable[[Resources], Executor]] = {
    "here": lambda resources: InProcess(),
    "processes": lambda resources: Processes(resources.jobs),
    "dask": LocalDask,
    "ray": Ray,
    "slurm": Slurm,
}


def executor(name: str, resources: Resources) -> Callable[[], Executor]:
    """Makes the executor of that name when it is wanted. An empty name is `here` for one job, else
    `processes`.
    """
    name = name or ("here" if resources.jobs == 1 else "processes")
    if name not in EXECUTORS:
        raise UnknownName.near("executor", name, EXECUTORS)
    if name in ("here", "processes") and (resources.address or resources.partition):
        raise InvalidConfig(
            f"`{resources.address or resources.partition}` was given, and `{name}` computes.",
            why="only clusters have an address or a partition.",
            fix="--executor dask --address tcp://host:8786, or --executor slurm --partition NAME.",
        )
    if name == "slurm" and resources.address not in ("", "slurm", "local"):
        raise InvalidConfig(
            f"`{resources.address}` was given, and Slurm has no address.",
            why="jobs go to the queue of the machine on which the command is typed.",
            fix="leave it out there; --address local tries it in processes of this machine.",
        )
    return partial(EXECUTORS[name], resources)


def refuse_silence(address: str) -> None:
    """Raises where nobody listens at an address with a port, for which Ray looks for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not (host and port.isdigit()):
        return
    try:
        socket.create_connection((host, int(port)), timeout=SILENCE).close()
    except OSError as error:
        raise _no_scheduler(address, error) from None


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


def _outcome(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Any, Exception | None]:
    """In a worker of Slurm: the result or the error, which submitit would send as text."""
    try:
        return _in_one_thread(fn, *args, **kwargs), None
    except Exception as error:
        return None, error


def _settle(future: Future[Any], answer: Any, lost: tuple[type[BaseException], ...]) -> None:
    """The outcome of a cluster's future in one of ours."""
    try:
        future.set_result(answer.result())
    except lost as error:
        future.set_exception(BrokenExecutor(str(error)))
    except CancelledError:  # by the library, because the connection to the scheduler is gone
        future.set_exception(_lost_cluster("Dask"))
    except BaseException as error:
        future.set_exception(error)


def _no_scheduler(address: str, error: Exception, advice: str = "") -> LostCluster:
    return LostCluster(
        f"No scheduler answers{f' at {address}' if address else ' on this machine'}.",
        why=f"{' '.join(str(error).split())[:300].rstrip('.') or type(error).__name__}.",
        fix=f"check that it runs, its --address, and that this machine may reach it{advice}.",
    )


def _lost_cluster(name: str) -> LostCluster:
    return LostCluster(
        f"The {name} cluster has no worker any more.",
        why="what was asked of it would never come back.",
        fix="start its workers, and the same command again: what is stored is not computed again.",
    )
