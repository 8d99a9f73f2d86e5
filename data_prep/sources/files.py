"""What a source's path names: files here, or something that `datasets` loads."""

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from data_prep.errors import DataError
from data_prep.sources.config import SourceConfig
from data_prep.sources.kinds import ALLOWED, kind_of

SAVED_MARKS = ("state.json", "dataset_dict.json")
"""Files that `datasets.save_to_disk` leaves in the folder it was given."""

_SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""The words by which `datasets` tells the splits of a folder's files."""

_WORD = re.compile(
    r"(?:^|[-._ 0-9/])(?P<word>"
    + "|".join(word for words in _SPLIT_WORDS.values() for word in words)
    + r")(?=[-._ 0-9/])"
)
_SHARD = re.compile(r"(?:^|/)data/(?P<split>\w+(?:\.\w+)*)-\d{5}-of-\d{5}[^/]*$")
"""``data/train_sft-00000-of-00002.parquet``, as `push_to_hub` names files."""


def find_files(path: str, split: str = "train") -> list[Path] | None:
    """The files that a source's path names, in the order they are read.

    A folder gives the supported files below it; where their names tell splits apart, those of
    one split. Hidden files, and in folders and patterns those of unknown kinds, are left out. A
    file with two names, by a symbolic link, is read once.

    Args:
        path: a file, a folder, a pattern, or a hub id.
        split: which split, for a folder.

    Returns:
        Files; or None when the path names what `datasets` must load: a hub id, or a folder that
        it saved, that holds Arrow files, or that has a data set card with configurations.

    Raises:
        DataError: there is nothing of the kind, or nothing that can be read.
    """
    named = Path(path)
    try:
        if named.is_file():
            found = _readable(path, [named], lone=True)
        elif named.is_dir():
            if _made_by_datasets(named):
                return None
            found = _of_split(named, _readable(path, _below(named)), split)
        elif glob.has_magic(path):
            matches = glob.iglob(path, recursive=True)  # noqa: PTH207 (pathlib's finds hidden files)
            found = _readable(path, map(Path, matches))
        elif looks_like_hub_id(path):
            return None
        else:
            home = " A ~ is not understood here: write the folder out." if path[:1] == "~" else ""
            raise DataError(
                f"{path}: no such file (looked in {Path.cwd()}).{home} Give a path to a file "
                f"({ALLOWED}), a folder, a pattern such as data/*.jsonl, or a hub id (owner/name)."
            )
    except (OSError, ValueError) as error:  # a name too long, for one, or with a NUL in it
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path[:80]}: cannot be read: {reason}") from None
    return _each_once(found)


def refuse_shared_files(sources: Iterable[SourceConfig]) -> None:
    """Refuse sources of which two read the same file: a pattern and a file that it matches, say.

    Parts of one path, kept apart by skip and take, are no such sources.

    Raises:
        DataError: a file would be read twice; or as `find_files`.
    """
    named: dict[str, SourceConfig] = {}
    for source in sources:
        for file in find_files(source.path, source.split) or ():
            other = named.setdefault(os.path.realpath(file), source)
            apart = other.path == source.path and not other.shares_records_with(source)
            if other is not source and not apart:
                raise DataError(
                    f"{file} is named by two sources: {other.path} and {source.path}. "
                    "Its rows would count twice; name it in one of them only."
                )


def looks_like_hub_id(path: str) -> bool:
    """Whether a path that is no file or folder may be a data set's name on the hub."""
    parts = path.split("/")
    ending = Path(path).suffix[1:]  # of OpenHermes-2.5, "5": part of the name
    return (
        len(parts) == 2
        and all(parts)
        and not ending.isalpha()
        and parts[0] not in (".", "..", "~")
        and not Path(parts[0]).is_dir()  # then a file in it was meant
    )


def _below(folder: Path) -> Iterator[Path]:
    """Files below a folder, through links too, but no folder twice."""
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True, onerror=_raise):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        # Sorted, so that of two links to one folder always the same is entered.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in names if not name.startswith("."))


def _raise(error: OSError) -> None:
    raise error


def _readable(path: str, candidates: Iterable[Path], *, lone: bool = False) -> list[Path]:
    """Of some files those of a known kind, sorted.

    Raises:
        DataError: there are none, or one of them is a link that leads nowhere.
    """
    found, others = [], []
    for file in sorted(candidates):
        if kind_of(file) is None:
            others += [file] if file.is_file() else []
        elif file.is_file():
            found.append(_with_a_printable_name(file))
        elif file.is_symlink() and not file.exists():
            raise DataError(f"{file}: a link to a file that is not there.")
    if found:
        return found
    if lone:
        ending = "".join(Path(path).suffixes[-1:])
        raise DataError(f"{path}: files of kind {ending!r} cannot be read. Allowed: {ALLOWED}.")
    shown = ", ".join(file.name for file in others[:5])
    besides = f" (left out: {shown}{', ...' if len(others) > 5 else ''})" if others else ""
    what = (
        "no file matches" if glob.has_magic(path) and not Path(path).is_dir() else "no file in it"
    )
    raise DataError(
        f"{path}: {what} that can be read{besides}; looked from {Path.cwd()}. Allowed: {ALLOWED}."
    )


def _with_a_printable_name(file: Path) -> Path:
    try:
        str(file).encode()
    except UnicodeEncodeError:
        shown = os.fsencode(file).decode(errors="backslashreplace")
        raise DataError(f"{shown}: the file's name is not UTF-8. Rename it.") from None
    return file


def _of_split(folder: Path, files: Sequence[Path], split: str) -> list[Path]:
    splits = {file: _split_in(file.relative_to(folder).as_posix()) for file in files}
    if not any(splits.values()):
        if split != "train":
            raise DataError(f"{folder}: no split {split!r}: no file's name tells a split.")
        return list(files)
    unclear = [file.name for file, found in splits.items() if not found]
    if unclear:
        raise DataError(
            f"{folder}: some file names tell a split, but not {', '.join(unclear[:5])}. "
            f"Say which files are meant with a pattern, such as {folder}/*.jsonl."
        )
    chosen = [file for file, found in splits.items() if found == split]
    if not chosen:
        known = ", ".join(sorted({str(found) for found in splits.values()}))
        raise DataError(f"{folder}: no file of the split {split!r}. Allowed: {known}.")
    return chosen


def _split_in(name: str) -> str | None:
    """Which split a file is of by its name in the folder, as `datasets` would tell it."""
    if shard := _SHARD.search(name):
        return shard["split"]
    found = _WORD.search(name)
    return next((s for s, words in _SPLIT_WORDS.items() if found and found["word"] in words), None)


def _made_by_datasets(folder: Path) -> bool:
    if any((folder / mark).is_file() for mark in SAVED_MARKS) or any(folder.glob("*.arrow")):
        return True
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    front = re.match(r"---\n(.*?)^---$", text, re.DOTALL | re.MULTILINE)
    return bool(front and re.search(r"^configs:", front[1], re.MULTILINE))


def _each_once(files: Iterable[Path]) -> list[Path]:
    first: dict[str, Path] = {}
    for file in files:
        first.setdefault(os.path.realpath(file), file)
    return list(first.values())
