"""Trackers: everything arrives by its name, in time, and nothing leaves that was not asked to."""

import json
import os
import sqlite3
import sys
import types

import pytest
from transformers import TrainerCallback

from llmkit.errors import UsageError
from llmkit.training import trackers
from llmkit.training.events import read_events
from llmkit.training.progress import Diverged

VARIABLES = list(trackers._settings(trackers.Path()))


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for name in [*VARIABLES, "MLFLOW_TRACKING_URI", "TRACKIO_DIR", "DO_NOT_TRACK"]:
        monkeypatch.delenv(name, raising=False)


class Recorder(TrainerCallback):
    """What an integration is told between its beginning and its end."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, dict[str, float]]] = []
        self.name = ""
        self.environment: dict[str, str] = {}
        self.open = False

    def on_train_begin(self, args, state, control, **_) -> None:
        self.name, self.open = args.run_name, True
        self.environment = {name: os.environ.get(name, "") for name in VARIABLES}

    def on_log(self, args, state, control, logs=None, **_) -> None:
        assert self.open, "told before its beginning or after its end"
        self.heard.append((state.global_step, dict(logs)))

    def on_train_end(self, args, state, control, **_) -> None:
        self.open = False


@pytest.fixture
def recorder(monkeypatch):
    """An integration in place of tensorboard's."""
    made = Recorder()
    monkeypatch.setattr(trackers, "refuse_missing", lambda _: None)
    monkeypatch.setattr("llmkit.training.trainer_arguments.refuse_missing", lambda _: None)
    monkeypatch.setattr(
        "transformers.trainer.get_reporting_integration_callbacks",
        lambda wanted: [made] if wanted else [],
    )
    return made


def _told(events):
    """What ``events.jsonl`` says in the words of trackers."""
    steps = {e["step"]: e["loss"] for e in events if e["event"] == "step"}
    held_out = {e["step"]: e["loss"] for e in events if e["event"] == "validation"}
    return steps, held_out


def test_every_step_and_every_validation_is_told(recorder, run, prepared, tmp_path):
    data = prepared(40, validation=4)
    settings = {"max_steps": 5, "evaluate_every": 2, "trackers": ["tensorboard"]}
    run(data, tmp_path / "demo", **settings)
    steps, held_out = _told(read_events(tmp_path / "demo" / "events.jsonl"))
    assert list(held_out) == [0, 2, 4, 5]
    heard = recorder.heard
    assert {s: f["loss"] for s, f in heard if "loss" in f} == steps
    assert {s: f["eval_loss"] for s, f in heard if "eval_loss" in f} == held_out
    first = next(figures for _, figures in heard if "loss" in figures)
    assert {"learning_rate", "grad_norm", "tokens", "supervised", "seconds"} <= first.keys()
    assert not any("loss" in f for _, f in heard if "eval_loss" in f)
    assert recorder.name == "demo"


def test_a_resumed_training_tells_only_what_is_new(recorder, run, prepared, tmp_path):
    data = prepared(40, validation=4)
    settings = {"max_steps": 6, "checkpoint_every": 2, "trackers": ["tensorboard"]}
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path, stop_after=4, **settings)
    recorder.heard.clear()
    run(data, tmp_path, resume=True, **settings)
    assert [s for s, f in recorder.heard if "loss" in f] == [5, 6]
    assert [s for s, f in recorder.heard if "eval_loss" in f] == [6]


def test_unless_asked_nothing_is_sent_and_the_environment_is_as_before(
    recorder, run, prepared, tmp_path, monkeypatch
):
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    before = dict(os.environ)
    run(prepared(24), tmp_path / "demo", max_steps=1, trackers=["tensorboard"])
    found = recorder.environment
    assert found["WANDB_MODE"] == "offline"
    assert found["WANDB_PROJECT"] == "mine"
    assert found["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert found["TENSORBOARD_LOGGING_DIR"] == str(tmp_path / "demo/trackers/tensorboard")
    assert {name: os.environ.get(name) for name in VARIABLES} == {
        name: before.get(name) for name in VARIABLES
    }


def test_without_trackers_there_is_no_integration(recorder, run, prepared, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "some key")
    run(prepared(24), tmp_path, max_steps=1)
    assert recorder.heard == []
    assert not (tmp_path / "trackers").exists()


@pytest.fixture
def wandb(monkeypatch):
    """A package that says how its run was ended."""
    package = types.ModuleType("wandb")
    package.run, package.ended = object(), []
    package.finish = lambda exit_code: package.ended.append(exit_code)
    package.Error = type("Error", (Exception,), {"__module__": "wandb.errors"})
    monkeypatch.setitem(sys.modules, "wandb", package)
    return package


@pytest.mark.parametrize(("error", "code"), [(None, 0), (Diverged("x"), 1), (KeyboardInterrupt, 1)])
def test_a_trackers_run_ends_with_the_training(wandb, tmp_path, error, code):
    def go():
        with trackers.tracking(["wandb"], tmp_path, fresh=True):
            if error:
                raise error

    if error:
        with pytest.raises(error if isinstance(error, type) else type(error)):
            go()
    else:
        go()
    assert wandb.ended == [code]


def test_a_tracker_that_refuses_says_so_with_a_way_out(wandb, tmp_path):
    with (
        pytest.raises(UsageError, match=r"(?s)wandb refuses: no key.*WANDB_MODE=offline"),
        trackers.tracking(["wandb"], tmp_path, fresh=True),
    ):
        raise wandb.Error("no key")


def test_a_new_training_does_not_go_on_in_an_old_ones_files(tmp_path):
    old = tmp_path / "trackers" / "tensorboard"
    old.mkdir(parents=True)
    with trackers.tracking(["tensorboard"], tmp_path, fresh=False):
        assert old.is_dir()
    with trackers.tracking(["tensorboard"], tmp_path, fresh=True):
        assert not old.exists()


SETTINGS = {"max_steps": 3, "evaluate_every": 2}


def test_tensorboard_has_the_events(run, prepared, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(prepared(40, validation=4), tmp_path / "demo", trackers=["tensorboard"], **SETTINGS)
    board = EventAccumulator(str(tmp_path / "demo" / "trackers" / "tensorboard")).Reload()
    steps, held_out = _told(read_events(tmp_path / "demo" / "events.jsonl"))
    for name, expected in (("train/loss", steps), ("eval/loss", held_out)):
        found = {event.step: event.value for event in board.Scalars(name)}
        assert found == pytest.approx(expected, rel=1e-4)
    assert "demo" in str(board.Tensors("args/text_summary")[0].tensor_proto)


def test_wandb_has_the_events_and_stays_offline(run, prepared, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    run(prepared(40, validation=4), tmp_path / "demo", trackers=["wandb"], **SETTINGS)
    (folder,) = (tmp_path / "demo" / "trackers" / "wandb").glob("offline-run-*")
    (stored,) = folder.glob("*.wandb")
    content = stored.read_bytes()
    for name in (b"train/loss", b"eval/loss", b"train/global_step", b"demo", b"llmkit"):
        assert name in content
    _, held_out = _told(read_events(tmp_path / "demo" / "events.jsonl"))
    for value in held_out.values():
        assert json.dumps(value).encode() in content
    assert wandb.run is None


def test_mlflow_has_the_events(run, prepared, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)
    run(prepared(40, validation=4), tmp_path / "demo", trackers=["mlflow"], **SETTINGS)
    client = mlflow.MlflowClient(uri)
    (found,) = client.search_runs([client.get_experiment_by_name("llmkit").experiment_id])
    assert (found.info.run_name, found.info.status) == ("demo", "FINISHED")
    steps, held_out = _told(read_events(tmp_path / "demo" / "events.jsonl"))
    for name, expected in (("loss", steps), ("eval_loss", held_out)):
        history = client.get_metric_history(found.info.run_id, name)
        assert {each.step: each.value for each in history} == pytest.approx(expected)


def test_trackio_has_the_events(run, prepared, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    run(prepared(40, validation=4), tmp_path / "demo", trackers=["trackio"], **SETTINGS)
    (path,) = (tmp_path / "trackio").glob("llmkit*.db")
    with sqlite3.connect(path) as database:
        rows = database.execute("SELECT run_name, step, metrics FROM metrics").fetchall()
    told = [json.loads(metrics) for _, _, metrics in rows]
    assert {name for name, _, _ in rows} == {"demo"}
    steps, held_out = _told(read_events(tmp_path / "demo" / "events.jsonl"))
    assert [each["train/loss"] for each in told if "train/loss" in each] == pytest.approx(
        [*steps.values()]
    )
    assert [each["eval/loss"] for each in told if "eval/loss" in each] == pytest.approx(
        [*held_out.values()]
    )
