"""Files that are whole or absent, also when the disk is full."""

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from safetensors.torch import save_file

from llmkit.errors import LlmkitError
from llmkit.files import content_hash, remove, stamp, whole_folder, write_json, write_text
from llmkit.run import Run

TOO_MUCH = 4 * 2**20
"""Bytes; the small disk below has half of that."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill_plain(folder: Path) -> None:
    (folder / "file").write_bytes(bytes(TOO_MUCH))


def fill_safetensors(folder: Path) -> None:
    save_file({"a": torch.zeros(TOO_MUCH // 4)}, folder / "a.safetensors")


def fill_torch(folder: Path) -> None:
    torch.save(torch.zeros(TOO_MUCH // 4), folder / "a.pt")


def fill_arrow(folder: Path) -> None:
    table = pa.table({"a": list(range(TOO_MUCH // 8))})
    with (
        pa.OSFile(str(folder / "a.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)


def fail_after(file: Path, kind: type[BaseException]) -> None:
    file.write_text("new")
    raise kind


FILLS = [fill_plain, fill_safetensors, fill_torch, fill_arrow]


def test_a_folder_appears_whole_and_replaces_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"
    for text in ("first", "second"):
        with whole_folder(target) as folder:
            (folder / text).write_text(text)
            assert text == "first" or (target / "first").exists()
        assert [path.name for path in target.iterdir()] == [text]
    assert [path.name for path in target.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_a_failure_keeps_the_old_folder_and_nothing_half_written(
    tmp_path: Path, kind: type[BaseException]
) -> None:
    with whole_folder(tmp_path / "out") as folder:
        (folder / "file").write_text("old")
    with pytest.raises(kind), whole_folder(tmp_path / "out") as folder:
        fail_after(folder / "file", kind)
    assert (tmp_path / "out" / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_process_left_half_written_is_not_mixed_in(tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "leftover").write_text("")
    with whole_folder(tmp_path / "out") as folder:
        (folder / "file").write_text("")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["file"]


def test_the_old_folder_survives_a_kill_between_the_two_renames(tmp_path: Path) -> None:
    (tmp_path / "out.old").mkdir()
    (tmp_path / "out.old" / "file").write_text("old")
    with pytest.raises(ValueError, match="no"), whole_folder(tmp_path / "out"):
        raise ValueError("no")
    assert (tmp_path / "out" / "file").read_text() == "old"


def test_text_is_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"ä": 1})
    assert path.read_text(encoding="utf-8") == '{\n  "ä": 1\n}\n'
    with path.open(encoding="utf-8") as reader:
        write_json(path, {"ä": 2})
        assert "1" in reader.read(), "who had it open still reads the whole old one"
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]

    for error in (OSError(errno.EIO, "broken disk"), KeyboardInterrupt("broken off")):

        def fail(_descriptor: int, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(type(error), match="broken"):
            write_text(path, "new")
        assert "ä" in path.read_text(encoding="utf-8")
        assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_to_be_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    write_text(tmp_path / "a", "old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(LlmkitError, match="the disk is full"):
        write_text(tmp_path / "a", "new")
    with pytest.raises(LlmkitError, match="the disk is full"), whole_folder(tmp_path / "b") as new:
        (new / "file").write_text("")
    assert (tmp_path / "a").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_another_error_is_not_called_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="other"), whole_folder(tmp_path / "out"):
        raise RuntimeError("other")


@pytest.mark.parametrize("fill", FILLS)
def test_a_run_goes_on_after_a_real_full_disk(
    small_disk: Path, fill: Callable[[Path], None]
) -> None:
    run = Run(small_disk / "demo")
    inputs = {"a": "1"}

    def write(work: Callable[[Path], object]) -> dict[str, str]:
        with whole_folder(run.folder / "out") as folder:
            work(folder)
        return {}

    def little(folder: Path) -> int:
        return (folder / "file").write_text("small")

    with run:
        run.stage("make", inputs, ["out"], lambda: write(little))
        before = run.manifest()
        with pytest.raises(LlmkitError, match=r"the disk is full.*run the same command again"):
            run.stage("make", {"a": "2"}, ["out"], lambda: write(fill))
        assert run.manifest() == before
        assert run.changes("make", inputs) == []
        assert not (run.folder / "out.partial").exists()
        assert not run.stage("make", {"a": "2"}, ["out"], lambda: write(little)).skipped


def test_a_manifest_survives_a_real_full_disk(small_disk: Path) -> None:
    write_json(small_disk / "manifest.json", {"stages": {}})
    with pytest.raises(LlmkitError, match="the disk is full"):
        write_json(small_disk / "manifest.json", ["x" * TOO_MUCH])
    assert (small_disk / "manifest.json").read_text() == '{\n  "stages": {}\n}\n'
    assert len(list(small_disk.iterdir())) == 1


def test_a_folders_hash_depends_on_names_and_contents_only(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "file").write_text("x")
    assert content_hash(tmp_path / "a") == content_hash(tmp_path / "b")
    (tmp_path / "b" / "sub" / "file").rename(tmp_path / "b" / "sub" / "other")
    assert content_hash(tmp_path / "a") != content_hash(tmp_path / "b")


def test_a_stamp_changes_with_size_time_and_names(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    seen = {stamp(tmp_path)}
    file.write_text("xx")
    seen.add(stamp(tmp_path))
    os.utime(file, (1, 1))
    seen.add(stamp(tmp_path))
    file.rename(tmp_path / "other")
    seen.add(stamp(tmp_path))
    assert len(seen) == 4


def test_removing_a_link_leaves_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for name in ("link", "missing"):
        remove(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["real"]
