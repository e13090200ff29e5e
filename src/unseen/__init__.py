"""Unseen: will it work on data it has not seen, why, and what can I change?

`audit`, `compare`, `explain`, `influence` and `measure` answer for a table, a path or a `Subject`;
the nouns are beside them. Importing this package imports nothing else: each name brings its module
when it is asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:  # for editors and type checkers; `_HOMES` says the same to the interpreter
    from unseen.api.audit import audit as audit
    from unseen.api.cache import list_cache as list_cache
    from unseen.api.cache import prune_cache as prune_cache
    from unseen.api.compare import compare as compare
    from unseen.api.compare import compare_pairs as compare_pairs
    from unseen.api.compare import compare_programs as compare_programs
    from unseen.api.compare import easy_to_hard as easy_to_hard
    from unseen.api.compare import forget_items as forget_items
    from unseen.api.explain import explain as explain
    from unseen.api.explain import explain_authors as explain_authors
    from unseen.api.explain import explain_of_text as explain_of_text
    from unseen.api.influence import influence as influence
    from unseen.api.influence import influence_of_text as influence_of_text
    from unseen.api.instructions import compare_instructions as compare_instructions
    from unseen.api.instructions import compare_mixture as compare_mixture
    from unseen.api.levels import compare_levels as compare_levels
    from unseen.api.measure import concurrence as concurrence
    from unseen.api.measure import difficulty as difficulty
    from unseen.api.measure import measure as measure
    from unseen.api.measure import measure_authorship as measure_authorship
    from unseen.api.measure import measure_of_items as measure_of_items
    from unseen.api.measure import measure_of_text as measure_of_text
    from unseen.api.measure import measure_sweep as measure_sweep
    from unseen.attribution import Attribution as Attribution
    from unseen.attribution import Attributor as Attributor
    from unseen.attribution import Cause as Cause
    from unseen.attribution import Credits as Credits
    from unseen.engine.batches import Columns as Columns
    from unseen.engine.loop import Budget as Budget
    from unseen.errors import UnseenError as UnseenError
    from unseen.lab import Lab as Lab
    from unseen.method import Method as Method
    from unseen.method import Trained as Trained
    from unseen.questions.answer import Answer as Answer
    from unseen.reading import Measure as Measure
    from unseen.reading import Reading as Reading
    from unseen.study import Claim as Claim
    from unseen.study import Scale as Scale
    from unseen.study import Study as Study
    from unseen.subjects.subject import Subject as Subject
    from unseen.subjects.user_data import NamedExamples as NamedExamples
    from unseen.task import Axis as Axis
    from unseen.task import Objective as Objective
    from unseen.task import Split as Split
    from unseen.task import Task as Task
    from unseen.task import TaskSpec as TaskSpec
    from unseen.task import Use as Use

_HOMES = {
    "unseen.api.audit": ("audit",),
    "unseen.api.cache": ("list_cache", "prune_cache"),
    "unseen.api.compare": (
        "compare",
        "compare_pairs",
        "compare_programs",
        "easy_to_hard",
        "forget_items",
    ),
    "unseen.api.explain": (
        "explain",
        "explain_authors",
        "explain_of_text",
    ),
    "unseen.api.influence": (
        "influence",
        "influence_of_text",
    ),
    "unseen.api.instructions": ("compare_instructions", "compare_mixture"),
    "unseen.api.levels": ("compare_levels",),
    "unseen.api.measure": (
        "concurrence",
        "difficulty",
        "measure",
        "measure_authorship",
        "measure_of_items",
        "measure_of_text",
        "measure_sweep",
    ),
    "unseen.attribution": ("Attribution", "Attributor", "Cause", "Credits"),
    "unseen.engine.batches": ("Columns",),
    "unseen.engine.loop": ("Budget",),
    "unseen.errors": ("UnseenError",),
    "unseen.lab": ("Lab",),
    "unseen.method": ("Method", "Trained"),
    "unseen.questions.answer": ("Answer",),
    "unseen.reading": ("Measure", "Reading"),
    "unseen.study": ("Claim", "Scale", "Study"),
    "unseen.subjects.subject": ("Subject",),
    "unseen.subjects.user_data": ("NamedExamples",),
    "unseen.task": ("Axis", "Objective", "Split", "Task", "TaskSpec", "Use"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
_FOLDERS = ("attributions", "measures", "methods", "models", "objectives", "tasks")

__all__ = ["__version__", *_HOME_OF]


def __getattr__(name: str) -> Any:
    if name in _FOLDERS:  # `unseen.methods.SAM` after `import unseen` alone
        return importlib.import_module(f"unseen.{name}")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'unseen' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value  # asked for once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_FOLDERS})
