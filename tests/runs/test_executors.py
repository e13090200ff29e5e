"""Pieces by executors that break, vanish or say nothing: every piece once, and no endless wait."""

from collections import Counter
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future

import pytest

from unseen.errors import InvalidConfig
from unseen.runs import executors
from unseen.runs.clusters import LostCluster, _settle
from unseen.runs.executors import InProcess, compute_pieces


class Pool(Executor):
    """A pool that dies with the worker of a fatal piece: what is in flight is lost, and nothing
    more is accepted.
    """

    def __init__(self, fatal: Counter[int], calls: list[int]) -> None:
        self.fatal, self.calls = fatal, calls
        self.is_broken = False
        self.flying: list[Future[int]] = []

    def submit(self, fn, /, piece):
        if self.is_broken:
            raise BrokenExecutor("The pool is broken.")
        self.calls.append(piece)
        future: Future[int] = Future()
        if self.fatal[piece] > 0:
            self.fatal[piece] -= 1
            self.is_broken = True
            future.set_exception(BrokenExecutor("A worker is gone."))
        else:
            future.set_result(fn(piece))
        return future


def square(piece: int) -> int:
    return piece**2


def outcomes(pools, pieces, at_once=1):
    return {
        piece: future.exception() or future.result()
        for piece, future in compute_pieces(pieces, square, pools, at_once)
    }


def test_what_was_not_begun_goes_to_a_new_pool():
    calls: list[int] = []
    made: list[Pool] = []

    def pool() -> Pool:
        made.append(Pool(fatal, calls))
        return made[-1]

    fatal = Counter([2])
    assert outcomes(pool, range(6)) == {k: k**2 for k in range(6)}
    assert Counter(calls) == Counter([*range(6), 2])
    assert len(made) == 3  # the second for the rest, the third for the lost one alone


def test_pieces_that_break_every_pool_come_to_an_end():
    calls: list[int] = []
    fatal = Counter(dict.fromkeys(range(4), 99))
    found = outcomes(lambda: Pool(fatal, calls), range(4), at_once=2)
    assert all(isinstance(error, BrokenExecutor) for error in found.values())
    assert Counter(calls) == Counter(dict.fromkeys(range(4), 2))


def test_a_pool_that_is_broken_from_the_start_comes_to_an_end():
    def broken() -> Pool:
        pool = Pool(Counter(), [])
        pool.is_broken = True
        return pool

    found = outcomes(broken, range(3))
    assert len(found) == 3
    assert all(isinstance(error, BrokenExecutor) for error in found.values())


def test_a_cluster_that_is_gone_ends_the_wait(monkeypatch):
    class Silent(Executor):
        killed = False

        def submit(self, fn, /, piece):
            return Future()

        def check(self):
            raise LostCluster("Nobody is there.")

        def kill(self):
            Silent.killed = True

    monkeypatch.setattr(executors, "PULSE", 0.01)
    with pytest.raises(LostCluster):
        list(compute_pieces([1, 2], square, Silent))
    assert Silent.killed


def test_in_this_process_another_function_may_be_called():
    found = list(compute_pieces([1, 2], square, InProcess, here=lambda piece: -piece))
    assert [(piece, future.result()) for piece, future in found] == [(1, -1), (2, -2)]


def test_what_a_library_cancels_is_a_lost_cluster():
    theirs: Future[int] = Future()
    theirs.cancel()
    ours: Future[int] = Future()
    _settle(ours, theirs, lost=())
    with pytest.raises(LostCluster, match="no worker any more"):
        ours.result()
    with pytest.raises(CancelledError):
        theirs.result()


def test_no_process_at_all_is_refused():
    with pytest.raises(InvalidConfig, match="at least one"):
        executors.Processes(0)
