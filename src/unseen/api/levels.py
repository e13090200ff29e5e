"""`unseen.compare_levels`: logged games split by level."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from unseen.api.common import make_lab, save_if_asked
from unseen.questions.answer import Answer, check_report_path
from unseen.questions.compare.levels import (
    LevelComparison,
    LevelResults,
    choose_methods,
    count_trainings,
    evaluate_levels,
    unseen_levels,
)
from unseen.questions.compare.levels_document import levels_document, machine_levels
from unseen.runs.progress import watcher
from unseen.subjects.python_files import load_call
from unseen.tasks.levels import Levels, drop_known_layouts, open_minari, read_minari
from unseen.tasks.levels.environments import open_arena
from unseen.tasks.levels.logged import LEVEL


def compare_levels(
    data: str | Path,
    environment: str | Callable[[], Any],
    *,
    levels: str = LEVEL,
    unseen: str | None = None,
    max_steps: int | None = None,
    methods: Sequence[str] = (),
    seeds: int = 3,
    steps: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
    report: str | Path | None = None,
) -> Answer[LevelResults]:
    """Which way of learning from logged games holds on levels that they never showed?

    `data` is a Minari data set (its folder or name), `environment` where it was logged: a name in
    Gymnasium's registry, "file.py:make", or a function that makes one; `reset(seed=level)` makes
    the level. `levels` names what holds the level in the infos of an episode ("seed": the recorded
    seed of its reset). `unseen` is a number of levels behind the logged ones, or "FIRST:END".
    `methods` are names ("bc", "cql", "bcq", "iql", "dt", "bc-transformer"; none given: all).
    """
    path = None if report is None else check_report_path(report)
    chosen = choose_methods(methods)
    logged = read_minari(data, levels)
    make = environment
    if isinstance(environment, str) and ".py:" in environment:
        make = partial(load_call, environment, "--environment")
    arena = open_arena(make, open_minari(data).observation_space, max_steps)
    split = Levels(logged.levels, unseen_levels(unseen, logged.levels))
    kept, distinct = drop_known_layouts(arena, split.train, split.unseen)
    asked = LevelComparison(
        data=logged,
        arena=arena,
        levels=replace(split, unseen=kept),
        methods=chosen,
        seeds=seeds,
        **({} if steps is None else {"steps": steps}),
    )
    watch = watcher(shown=progress)
    lab = make_lab(seed, device, "comparisons", watch.sink)
    watch.begin("compare", count_trainings(asked), 0, "trainings")
    try:
        with threadpool_limits(1):
            facts = (distinct, len(split.unseen) - len(kept))
            found = evaluate_levels(asked, lab, watch.on_finish, facts)
    finally:
        watch.end()
    name = environment if isinstance(environment, str) else getattr(environment, "__name__", "")
    answer = Answer(
        results=found,
        document=levels_document(found, Path(data).name, name),
        summary_sections=2,
        machine=machine_levels(found, name),
    )
    return save_if_asked(answer, path)
