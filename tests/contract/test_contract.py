"""Every plug in the house, found by listing its folder, keeps the contract. Nothing to register."""

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import unseen
from unseen import testing
from unseen.study import Scale
from unseen.study.document import differences

HOUSE = Path(unseen.__file__).parent


def plugs(room: str) -> list[str]:
    """Module names: files and folders of the room that do not begin with an underscore."""
    entries = [path for path in (HOUSE / room).iterdir() if not path.name.startswith("_")]
    files = [path.stem for path in entries if path.suffix == ".py"]
    return sorted(files + [path.name for path in entries if (path / "__init__.py").is_file()])


def example(room: str, name: str) -> tuple[Any, ...]:
    """What `example()` returns, as the arguments of the check."""
    module = importlib.import_module(f"unseen.{room}.{name}")
    if not hasattr(module, "example"):
        pytest.fail(
            f"unseen/{room}/{name} has no example(): end it with the smallest useful use of the "
            "plug."
        )
    found = module.example()
    return found if isinstance(found, tuple) else (found,)


CHECKS: dict[str, Callable[..., None]] = {
    "tasks": testing.check_task,
    "methods": testing.check_method,
    "measures": testing.check_measure,
    "attributions": testing.check_attribution,
}


@pytest.mark.parametrize(
    ("room", "name"), [(room, name) for room in CHECKS for name in plugs(room)]
)
def test_plug(room: str, name: str) -> None:
    CHECKS[room](*example(room, name))


@pytest.mark.parametrize("name", plugs("studies"))
def test_study(name: str, smoke_runs) -> None:
    module = importlib.import_module(f"unseen.studies.{name}")
    assert hasattr(module, "study"), f"unseen/studies/{name} has no `study`."
    testing.check_study(module.study, smoke_runs.rows(name))


@pytest.mark.parametrize("name", plugs("studies"))
def test_a_study_says_how_it_differs_from_the_paper_with_its_seeds(name: str) -> None:
    study = importlib.import_module(f"unseen.studies.{name}").study
    laptop = study.scales[Scale.LAPTOP]
    # a cell may train the seeds of its study as one stack
    seeds = max(len({cell.seed for cell in study.cells(laptop)}), getattr(laptop, "seeds", 0))
    assert re.search(rf"\b{seeds} seeds?\b", study.differs), f"{seeds} seeds"
    assert study.not_tested
    stated, left_out = differences(study)
    assert (stated.text, left_out.text) == (study.differs, f"Not tested: {study.not_tested}")
