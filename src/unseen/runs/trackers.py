"""Experiment trackers that people have, as sinks of a `Lab`: TensorBoard, Weights & Biases, MLflow
and trackio. Each is an optional library with its own settings.
"""

import hashlib
import importlib
import importlib.util
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from unseen.errors import MissingExtra, UnknownName

T = TypeVar("T")
LONGEST = 250
"""Characters of a name that every tracker takes."""


@runtime_checkable
class Tracker(Protocol):
    """A `Sink` that also takes texts and files, and is closed at the end."""

    location: str
    """Where to look at it."""

    def log(self, path: tuple[str, ...], scalars: Mapping[str, float]) -> None: ...
    def track(
        self, path: tuple[str, ...], items: Iterable[T], total: int | None
    ) -> Iterator[T]: ...
    def describe(self, texts: Mapping[str, str]) -> None: ...
    def file(self, path: Path) -> None: ...
    def close(self) -> None: ...


class Scalars:
    """What all trackers share: the name and the step of a scalar. Progress is none of theirs."""

    def __init__(self) -> None:
        self._steps: Counter[str] = Counter()

    def log(self, path: tuple[str, ...], scalars: Mapping[str, float]) -> None:
        """Sends scalars; the step of each counts how often it was sent."""
        for name, value in scalars.items():
            full = name_of((*path, name))
            self.send(full, value, self._steps[full])
            self._steps[full] += 1

    def track(self, path: tuple[str, ...], items: Iterable[T], total: int | None) -> Iterator[T]:
        return iter(items)

    def send(self, name: str, value: float, step: int) -> None:
        raise NotImplementedError


class TensorBoard(Scalars):
    """Event files in `folder` (default: runs/NAME-TIME)."""

    def __init__(self, name: str = "unseen", folder: str | Path = "") -> None:
        super().__init__()
        writer = _library("tensorboard", "torch.utils.tensorboard").SummaryWriter
        self.location = str(folder or Path("runs") / f"{name}-{_moment()}")
        self._writer = writer(self.location)
        self.send = self._writer.add_scalar  # type: ignore[method-assign]
        self.close = self._writer.close

    def describe(self, texts: Mapping[str, str]) -> None:
        for name, text in texts.items():
            self._writer.add_text(name_of(name.split("/")), text)

    def file(self, path: Path) -> None:
        """Beside the event files: TensorBoard has no artifacts."""
        (Path(self.location) / path.name).write_bytes(path.read_bytes())


class WandB(Scalars):
    """A run of Weights & Biases in `folder`, offline unless WANDB_MODE says otherwise."""

    def __init__(self, name: str = "unseen", folder: str | Path = "") -> None:
        super().__init__()
        mode: Any = os.environ.get("WANDB_MODE", "offline")
        self._wandb = _library("wandb", "wandb")
        settings = self._wandb.Settings(console="off", silent=True)
        self._run = self._wandb.init(
            project="unseen", name=name, dir=folder or None, mode=mode, settings=settings
        )
        self.location = str(Path(self._run.dir).parent)
        self.close = self._run.finish

    def send(self, name: str, value: float, step: int) -> None:
        self._run.log({name: value})

    def describe(self, texts: Mapping[str, str]) -> None:
        self._run.config.update(dict(texts))

    def file(self, path: Path) -> None:
        artifact = self._wandb.Artifact(path.stem, type="unseen")
        artifact.add_file(str(path), policy="mutable")
        self._run.log_artifact(artifact)


class MLflow(Scalars):
    """A run of the experiment `unseen` in the store of MLFLOW_TRACKING_URI, or in `folder`
    (default: mlruns).
    """

    def __init__(self, name: str = "unseen", folder: str | Path = "") -> None:
        super().__init__()
        client = _library("mlflow", "mlflow").MlflowClient
        files = Path(folder or "mlruns").resolve().as_uri()
        self.location = files if folder else os.environ.get("MLFLOW_TRACKING_URI", files)
        if self.location == files:  # which newer versions refuse unless they are asked for
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        self._client = client(self.location)
        known = self._client.get_experiment_by_name("unseen")
        experiment = known.experiment_id if known else self._client.create_experiment("unseen")
        self._id = self._client.create_run(experiment, run_name=name).info.run_id

    def send(self, name: str, value: float, step: int) -> None:
        self._client.log_metric(self._id, name, value, step=step)

    def describe(self, texts: Mapping[str, str]) -> None:
        for name, text in texts.items():
            self._client.set_tag(self._id, name_of(name.split("/")), text[:5000])

    def file(self, path: Path) -> None:
        self._client.log_artifact(self._id, str(path))

    def close(self) -> None:
        self._client.set_terminated(self._id)


class Trackio(Scalars):
    """A run of trackio's project `unseen` on this machine (in TRACKIO_DIR, where that is set)."""

    def __init__(self, name: str = "unseen") -> None:
        super().__init__()
        self._trackio = _library("trackio", "trackio")
        self._run = self._trackio.init(project="unseen", name=f"{name}-{_moment()}", embed=False)
        self.location = "trackio show --project unseen"
        self.close = self._trackio.finish

    def send(self, name: str, value: float, step: int) -> None:
        self._trackio.log({name: value}, step=step)

    def describe(self, texts: Mapping[str, str]) -> None:
        self._run.config.update(texts)  # which goes out with the first scalar

    def file(self, path: Path) -> None:
        self._trackio.log_artifact(path, name=path.stem, type="unseen")


TRACKERS: Mapping[str, tuple[str, Callable[[str], Tracker]]] = {
    "tensorboard": ("tensorboard", TensorBoard),
    "wandb": ("wandb", WandB),
    "mlflow": ("mlflow", MLflow),
    "trackio": ("trackio", Trackio),
}
"""The library of each and how it is opened; the extras have the same names."""


def check_tracker(name: str) -> str:
    """The name, refused before any work where it is unknown or its library is missing."""
    if name not in TRACKERS:
        raise UnknownName.near("tracker", name, TRACKERS)
    if importlib.util.find_spec(TRACKERS[name][0]) is None:
        raise _missing_error(name)
    return name


def open_tracker(name: str, run: str) -> Tracker:
    """A new run in a tracker."""
    return TRACKERS[check_tracker(name)][1](run)


def name_of(parts: Iterable[str]) -> str:
    """One name that every tracker takes: parts by slashes, other signs than letters, digits,
    spaces, points, colons and hyphens as `_hex_`, and the end of a long name as a hash.
    """
    name = "/".join(_plain_part(part) for part in parts)
    if len(name) <= LONGEST:
        return name
    return f"{name[: LONGEST - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _plain_part(part: str) -> str:
    if not part.strip("."):  # empty, or a way to another folder
        return "".join("_2e_" for _ in part) or "_"
    return re.sub(r"[^\w .:-]", lambda sign: f"_{ord(sign[0]):x}_", part)


def _moment() -> str:
    return datetime.now().strftime("%Y%m%d-%H%M%S-%f")


def _library(tracker: str, module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _missing_error(tracker) from error


def _missing_error(tracker: str) -> MissingExtra:
    return MissingExtra(
        f"{tracker} is not installed.",
        why=f"the tracker `{tracker}` writes through it.",
        fix=f'pip install "unseen[{tracker}]"',
    )
