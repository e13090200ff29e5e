"""Each tracker writes what its own reader reads. Each is skipped where its library is missing."""

import importlib.util
import json
from pathlib import Path

import pytest
from stored_audits import findings

from unseen.document import Document
from unseen.lab import Lab, Sink
from unseen.questions.tracking import track_answer
from unseen.report.html import html
from unseen.runs.trackers import TRACKERS, MLflow, TensorBoard, Trackio, WandB

pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries that are not ours


def needs(library: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        importlib.util.find_spec(library) is None, reason=f"{library} is not installed"
    )


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """A folder for all that is written, and no way to a server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def use(tracker, folder: Path) -> None:
    """As a computation and an answer use it."""
    assert isinstance(tracker, Sink)
    tracker.describe({"lead": "It holds.", "verdict: 50 %": "supported"})
    lab = Lab(sink=tracker).child("fit")
    for loss in (0.5, 0.25):
        lab.log(loss=loss)
    assert [*lab.track(range(3))] == [0, 1, 2]
    tracker.log(("findings", "São Paulo", "AUC"), {"value": 0.75})
    page = folder / "report.html"
    page.write_text("<p>page</p>")
    tracker.file(page)
    tracker.close()


@needs("tensorboard")
def test_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker = TensorBoard("unseen-audit")
    use(tracker, tmp_path)
    events = EventAccumulator(tracker.location)
    events.Reload()
    assert [(one.step, one.value) for one in events.Scalars("fit/loss")] == [(0, 0.5), (1, 0.25)]
    assert events.Scalars("findings/São Paulo/AUC/value")[0].value == 0.75
    text = events.Tensors("lead/text_summary")[0].tensor_proto.string_val[0]
    assert text == b"It holds."
    assert (Path(tracker.location) / "report.html").read_text() == "<p>page</p>"


def wandb_records(path: Path):
    """The records of an offline file, by the messages of wandb itself. Its Python reader is gone
    since 0.31; the frame is that of LevelDB's log: blocks of 32 KiB, each part behind a checksum,
    its length and whether it is whole, first, middle or last.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        if (rest := 32768 - at % 32768) < 7:
            at += rest
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield Record.FromString(parts)
            parts = b""


@needs("wandb")
def test_wandb_offline(tmp_path):
    import wandb

    tracker = WandB("unseen-audit", tmp_path)
    use(tracker, tmp_path)
    wandb.teardown()  # its process writes the last block as it ends
    (path,) = Path(tracker.location).glob("*.wandb")
    history, config, artifacts = [], {}, []
    for record in wandb_records(path):
        history += [
            (item.key or "/".join(item.nested_key), json.loads(item.value_json))
            for item in record.history.item
        ]
        for update in (*record.config.update, *record.run.config.update):
            config[update.key or "/".join(update.nested_key)] = json.loads(update.value_json)
        if record.request.HasField("log_artifact"):
            artifacts.append(record.request.log_artifact.artifact.name)
        if record.HasField("artifact"):
            artifacts.append(record.artifact.name)
    assert [value for key, value in history if key == "fit/loss"] == [0.5, 0.25]
    assert ("findings/São Paulo/AUC/value", 0.75) in history
    assert config["lead"] == "It holds."
    assert "report" in artifacts


@needs("mlflow")
def test_mlflow_files(tmp_path):
    tracker = MLflow("unseen-audit", tmp_path / "mlruns")
    use(tracker, tmp_path)
    from mlflow import MlflowClient

    client = MlflowClient((tmp_path / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("unseen")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["findings/São Paulo/AUC/value"] == 0.75
    losses = client.get_metric_history(run.info.run_id, "fit/loss")
    assert [(one.step, one.value) for one in losses] == [(0, 0.5), (1, 0.25)]
    assert run.data.tags["lead"] == "It holds."
    assert run.data.tags["verdict: 50 _25_"] == "supported"
    assert [one.path for one in client.list_artifacts(run.info.run_id)] == ["report.html"]


@needs("trackio")
def test_trackio(tmp_path):
    tracker = Trackio("unseen-audit")
    use(tracker, tmp_path)
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    run = trackio.Api().runs("unseen")[0]
    logs = SQLiteStorage.get_logs("unseen", run.name)
    losses = [(one["step"], one["fit/loss"]) for one in logs if "fit/loss" in one]
    assert losses == [(0, 0.5), (1, 0.25)]
    name = "findings/São Paulo/AUC/value"
    assert [one[name] for one in logs if name in one] == [0.75]
    assert run.config["lead"] == "It holds."
    assert [one["name"] for one in SQLiteStorage.get_artifacts("unseen")] == ["report"]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=needs(library)) for name, (library, _) in TRACKERS.items()]
)
def test_a_whole_answer(name, capsys):
    """Files outlive the folder they come from, and nothing is said on the standard output."""
    page = Document(title="Network on clinics", kicker="audit", lead="It holds.", sections=[])
    place = track_answer(name, "audit", page, {"findings": findings(0, 1.0)})
    assert capsys.readouterr().out == ""
    assert place
    if name == "mlflow":
        from mlflow import MlflowClient

        client = MlflowClient(place)
        (run,) = client.search_runs([client.get_experiment_by_name("unseen").experiment_id])
        scores = [key for key in run.data.metrics if key.endswith("accuracy/value")]
        assert len(scores) == 2
        text = Path(client.download_artifacts(run.info.run_id, "report.html")).read_text("utf-8")
        assert text == html(page)
