"""What a path may name: files, folders, patterns, hub ids."""

import os
from pathlib import Path

import pytest
from source_files import ROWS, places, read_all, save, texts, values

from data_prep.errors import DataError
from data_prep.sources.files import find_files


def named(folder: Path, *names: str) -> None:
    """Text files that hold their own names."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        save(path, [{"text": name}])


def test_a_folder_gives_every_supported_file_below_it_in_order(tmp_path: Path):
    named(tmp_path, "b.txt", "a/z.txt", "a/b.txt.gz", "c.txt.zst", "a.md", ".h.txt", ".git/x.txt")
    order = ["a/b.txt.gz", "a/z.txt", "b.txt", "c.txt.zst"]
    assert texts(tmp_path) == order
    assert places(tmp_path) == [f"{tmp_path}/{name}:1" for name in order]


def test_files_of_several_kinds_may_lie_in_one_folder(tmp_path: Path):
    for name in ("a.jsonl", "b.csv", "c.parquet", "d.json.gz"):
        save(tmp_path / name, ROWS)
    assert values(tmp_path) == ROWS * 4


def test_a_pattern_gives_the_supported_files_that_match(tmp_path: Path):
    named(tmp_path, "a.txt", "b.txt", "c.md", "d/a.txt", "d/e/a.txt", ".hidden.txt")
    assert texts(tmp_path / "*") == ["a.txt", "b.txt"]
    assert texts(tmp_path / "[b-z]*.txt") == ["b.txt"]
    assert texts(tmp_path / "**" / "a.txt") == ["a.txt", "d/a.txt", "d/e/a.txt"]


def test_a_relative_pattern_starts_at_the_working_directory(tmp_path: Path, monkeypatch):
    named(tmp_path, "d/a.txt")
    monkeypatch.chdir(tmp_path)
    assert places("d/*.txt") == ["d/a.txt:1"]


def test_a_name_with_a_patterns_signs_in_it_is_that_file(tmp_path: Path):
    named(tmp_path, "a[1].txt", "a1.txt", "f[1]/b.txt")
    assert texts(tmp_path / "a[1].txt") == ["a[1].txt"]
    assert texts(tmp_path / "f[1]") == ["f[1]/b.txt"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("*.jsonl", r"\*\.jsonl: no file matches that can be read; looked from /"),
        ("*.md", r"no file matches that can be read \(left out: a\.md, b\.md\)"),
        ("", r"no file in it that can be read \(left out: a\.md, b\.md\).*Allowed: \.json"),
        ("deep", r"no file in it that can be read; looked"),
    ],
)
def test_a_place_without_a_file_that_can_be_read_is_refused(tmp_path, path, message):
    named(tmp_path, "a.md", "b.md")
    (tmp_path / "deep" / "empty").mkdir(parents=True)
    with pytest.raises(DataError, match=message):
        read_all(tmp_path / path)


def test_a_file_with_two_names_is_read_once(tmp_path: Path):
    named(tmp_path, "a.txt", "b.txt")
    (tmp_path / "a0.txt").symlink_to("b.txt")
    assert places(tmp_path) == [f"{tmp_path}/{name}:1" for name in ("a.txt", "a0.txt")]
    assert places(tmp_path / "*.txt") == places(tmp_path)


def test_folders_are_followed_through_links_but_never_twice(tmp_path: Path):
    named(tmp_path, "real/a.txt", "other/b.txt")
    for name in ("loop", "loop2"):  # two, so that following them would never end
        (tmp_path / "real" / name).symlink_to(tmp_path / "real")
    (tmp_path / "real" / "more").symlink_to(tmp_path / "other")
    assert texts(tmp_path / "real") == ["a.txt".join(["real/", ""]), "other/b.txt"]


def test_a_link_that_leads_nowhere_is_refused(tmp_path: Path):
    named(tmp_path, "a.txt")
    (tmp_path / "b.txt").symlink_to("gone.txt")
    for path in (tmp_path, tmp_path / "*.txt"):
        with pytest.raises(DataError, match=r"b\.txt: a link to a file that is not there"):
            read_all(path)


def test_a_name_that_is_not_text_is_refused(tmp_path: Path):
    Path(os.fsdecode(bytes(tmp_path) + b"/\xff.txt")).write_text("x")
    with pytest.raises(DataError, match=r"\\xff\.txt: the file's name is not UTF-8"):
        read_all(tmp_path)


# Splits of a folder.


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_names_in_a_folder_tell_splits_apart(tmp_path: Path, suffix: str):
    save(tmp_path / f"train.{suffix}", ROWS)
    save(tmp_path / f"test.{suffix}", ROWS[:1])
    assert values(tmp_path) == ROWS
    assert values(tmp_path, split="test") == ROWS[:1]
    with pytest.raises(DataError, match=r"no file of the split 'nothing'\. Allowed: test, train"):
        read_all(tmp_path, split="nothing")


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("my-train.txt", "train"),
        ("training_2.txt", "train"),
        ("dev.txt", "validation"),
        ("valid/1.txt", "validation"),
        ("test/train-like.txt", "test"),
        ("x eval.txt", "test"),
        ("data/train_sft-00000-of-00002.txt", "train_sft"),
    ],
)
def test_a_split_is_told_as_datasets_tells_it(tmp_path: Path, name: str, split: str):
    named(tmp_path, name)
    assert texts(tmp_path, split=split) == [name]


@pytest.mark.parametrize("name", ["trainer.txt", "latest.txt", "contest/a.txt", "developer.txt"])
def test_a_word_that_only_holds_a_splits_name_tells_none(tmp_path: Path, name: str):
    named(tmp_path, name)
    assert texts(tmp_path) == [name]
    with pytest.raises(DataError, match="no split 'test': no file's name tells a split"):
        read_all(tmp_path, split="test")


def test_a_folder_that_tells_the_split_of_some_files_only_is_refused(tmp_path: Path):
    named(tmp_path, "test.txt", "more.txt")
    with pytest.raises(DataError, match=r"some file names tell a split, but not more\.txt"):
        read_all(tmp_path)


# What is no file.


@pytest.mark.parametrize(
    "path",
    [
        "missing.jsonl",
        "data/missing.json",
        "missing",
        "a/b/c",
        "./x",
        "x" * 5000,
        "a\0b",
        "a/*",
        "~/x",
    ],
)
def test_a_missing_file_is_refused_without_asking_the_hub(path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("asked the hub"))
    with pytest.raises(DataError, match=r"no such file|cannot be read|no file matches"):
        read_all(path)


def test_a_home_folder_that_is_not_written_out_says_so():
    with pytest.raises(DataError, match="A ~ is not understood here: write the folder out"):
        read_all("~/data/r.jsonl")


@pytest.mark.parametrize("path", ["nobody/nothing", "teknium/OpenHermes-2.5", "a/b.v2"])
def test_an_owner_and_a_name_may_be_a_data_set_on_the_hub(path):
    assert find_files(path) is None
