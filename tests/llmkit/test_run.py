"""The run directory: when a stage is done again, what the manifest says, and the lock."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from llmkit.errors import UsageError
from llmkit.files import content_hash, whole_folder
from llmkit.run import Outcome, Run, code_hash, differences, flatten

HOLD = """
import sys
from pathlib import Path
from llmkit.run import Run
with Run(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "demo")


def do(run: Run, inputs: dict[str, str], text: str = "made") -> Outcome:
    """One stage that leaves a folder."""

    def work() -> Mapping[str, Any]:
        with whole_folder(run.folder / "out") as folder:
            (folder / "file").write_text(text)
        return {"rows": 3}

    with run:
        return run.stage("make", inputs, ["out"], work)


def test_a_stage_whose_inputs_and_outputs_are_unchanged_is_skipped(run: Run) -> None:
    first = do(run, {"a": "1"})
    second = do(run, {"a": "1"}, "something else")
    assert (first.skipped, second.skipped) == (False, True)
    assert second.figures == {"rows": 3}
    assert (run.folder / "out" / "file").read_text() == "made"


def test_a_stage_is_done_again_when_an_input_changes_appears_or_goes(run: Run) -> None:
    do(run, {"a": "1"})
    for inputs in ({"a": "2"}, {"a": "2", "b": "1"}, {"b": "1"}):
        assert not do(run, inputs).skipped


def _remove(run: Run) -> None:
    shutil.rmtree(run.folder / "out")


def _modify(run: Run) -> None:
    (run.folder / "out" / "file").write_text("edited")


def _add(run: Run) -> None:
    (run.folder / "out" / "more").write_text("")


@pytest.mark.parametrize("damage", [_remove, _modify, _add])
def test_a_stage_is_done_again_when_its_output_is_not_what_it_left(
    run: Run, damage: Callable[[Run], None]
) -> None:
    do(run, {"a": "1"})
    damage(run)
    assert not do(run, {"a": "1"}).skipped
    assert (run.folder / "out" / "file").read_text() == "made"
    assert do(run, {"a": "1"}).skipped


def test_output_that_was_only_touched_or_moved_is_believed(run: Run) -> None:
    do(run, {"a": "1"})
    os.utime(run.folder / "out" / "file", (0, 0))
    assert do(run, {"a": "1"}).skipped
    moved = run.folder.rename(run.folder.with_name("moved"))
    assert do(Run(moved), {"a": "1"}).skipped


def test_output_is_not_hashed_again_under_another_spelling_of_the_folder(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    do(run, {"a": "1"})
    monkeypatch.chdir(run.folder.parent)
    monkeypatch.setattr("llmkit.run.content_hash", lambda path: pytest.fail("hashed"))
    assert Run(Path("demo")).changes("make", {"a": "1"}) == []


def test_changes_say_why_a_stage_must_be_done(run: Run) -> None:
    assert run.changes("make", {}) == ["not done yet"]
    do(run, {"alpha": "16", "data": "a" * 64})
    found = run.changes("make", {"alpha": "32", "data": "b" * 64, "new": "1"})
    assert found == [
        "alpha: 16 -> 32",
        f"data: {'a' * 12} -> {'b' * 12}",
        "new: absent -> 1",
    ]
    _modify(run)
    assert "out was changed by something else" in run.changes("make", {})
    _remove(run)
    assert "out is missing" in run.changes("make", {})


def test_the_manifest_records_inputs_outputs_figures_duration_and_packages(run: Run) -> None:
    do(run, {"a": "1"})
    record = json.loads((run.folder / "manifest.json").read_text())["stages"]["make"]
    assert record["inputs"] == {"a": "1"}
    assert record["outputs"]["out"]["sha256"] == content_hash(run.folder / "out")
    assert record["figures"] == {"rows": 3}
    assert record["seconds"] >= 0
    assert re.match(r"\d{4}-\d\d-\d\dT.*\+00:00$", record["finished"])
    assert record["packages"]["torch"]


def test_a_stage_that_fails_leaves_the_manifest_and_its_old_output(run: Run) -> None:
    do(run, {"a": "1"})
    before = run.manifest()

    def fail() -> Mapping[str, Any]:
        with whole_folder(run.folder / "out") as folder:
            (folder / "file").write_text("half")
            raise RuntimeError

    with run, pytest.raises(RuntimeError):
        run.stage("make", {"a": "2"}, ["out"], fail)
    assert run.manifest() == before
    assert do(run, {"a": "1"}).skipped


def test_output_replaced_by_a_stage_that_was_never_recorded_is_not_believed(run: Run) -> None:
    do(run, {"a": "1"})

    def killed() -> Mapping[str, Any]:
        with whole_folder(run.folder / "out") as folder:
            (folder / "file").write_text("of other inputs")
        raise KeyboardInterrupt

    with run, pytest.raises(KeyboardInterrupt):
        run.stage("make", {"a": "2"}, ["out"], killed)
    assert not do(run, {"a": "1"}).skipped


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"stages": []}',
        '{"stages": {"make": 3}}',
        '{"stages": {"make": {}}}',
        "\x00\x00",
    ],
)
def test_a_damaged_manifest_is_said_to_be_damaged(run: Run, text: str) -> None:
    run.folder.mkdir()
    run.manifest_path.write_text(text)
    with pytest.raises(UsageError, match=r"manifest\.json: damaged.*Remove it"):
        run.changes("make", {})


def test_a_second_process_is_refused_and_told_who_holds_the_run(run: Run) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=rf"pid {holder.pid}\)") as caught, run:
            pass
        assert caught.value.exit_code == 2
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with run:
        pass


def test_a_run_cannot_be_entered_twice_and_is_free_after(run: Run) -> None:
    with run, pytest.raises(UsageError, match=f"pid {os.getpid()}"), Run(run.folder):
        pass
    with Run(run.folder):
        pass


def test_a_folder_that_cannot_be_written_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UsageError, match=r"cannot be written.*--runs"),
        Run(tmp_path / "file" / "x"),
    ):
        pass


def test_flatten_names_every_leaf_and_tells_types_apart() -> None:
    flat = flatten({"a": {"b": 1, "c": [1, {"d": 2}]}, "e": None}, "x.")
    assert flat == {"x.a.b": "1", "x.a.c": '[1, {"d": 2}]', "x.e": "null"}
    assert flatten({"a": 1}) != flatten({"a": "1"})
    assert flatten({"a": [{"b": 1}, {"b": 2}], "c": []}) == {"a.0.b": "1", "a.1.b": "2", "c": "[]"}
    assert differences({"a": "1"}, {"a": "1"}) == []


def test_the_code_hash_tells_packages_and_single_files_apart() -> None:
    hashes = {code_hash("data_prep"), code_hash("serve"), code_hash("llmkit/verification.py")}
    assert len(hashes) == 3


def test_a_lock_that_was_removed_before_it_was_had_is_taken_anew(run: Run, monkeypatch) -> None:
    """Another process that left nothing removes its lock: holding that one would hold nothing."""
    import fcntl

    real, removed = fcntl.flock, []

    def late(descriptor: int, how: int) -> None:
        if not removed:
            removed.append(run.folder / ".lock")
            removed[0].unlink()
            run.folder.rmdir()
        real(descriptor, how)

    monkeypatch.setattr("fcntl.flock", late)
    with run, pytest.raises(UsageError, match="another llmkit process"), Run(run.folder):
        pass
    assert not run.folder.exists()


def test_a_run_folder_that_cannot_be_made_is_said_and_not_tried_for_ever() -> None:
    run = Run(Path("/proc/1/nothing"))
    with pytest.raises(UsageError, match=r"nothing: cannot be made.*--runs"), run:
        pass
