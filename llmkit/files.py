"""Files that are whole or absent: written beside, flushed to disk, and renamed into place."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from llmkit.errors import LlmkitError

PARTIAL = ".partial"
OLD = ".old"


def write_text(path: Path, text: str) -> None:
    """Replace a file's content in one step.

    Raises:
        LlmkitError: the disk is full; what stood there before still does.
    """
    beside = path.with_name(path.name + PARTIAL)
    with said_when_full(path):
        try:
            with beside.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file's content in one step."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Fill a folder that appears under its name only when it is whole.

    Yields an empty folder beside ``path``. When the block ends without an error its files are
    flushed and it takes the name; what stood there before is removed. When the block fails, the
    half-written folder is removed and the old one stays.

    Raises:
        LlmkitError: the disk is full.
    """
    beside, old = (path.with_name(path.name + suffix) for suffix in (PARTIAL, OLD))
    if old.exists() and not path.exists():  # killed between the two renames below
        old.rename(path)
    remove(beside)
    with said_when_full(path):
        try:
            beside.mkdir(parents=True)
            yield beside
            for file in sorted(beside.rglob("*")):
                if file.is_file():
                    flush(file)
            flush(beside)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
    remove(old)
    if path.exists():
        path.rename(old)
    beside.rename(path)
    flush(path.parent)
    remove(old)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def make_folder(path: Path) -> list[Path]:
    """Make a folder; answers the ones that were not there, the innermost first."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(parents=True, exist_ok=True)
    return missing


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, the innermost first, up to one in which something stands."""
    with suppress(OSError):
        for each in folders:
            each.rmdir()


def content_hash(path: Path) -> str:
    """SHA-256 of a file, or of a folder's relative names and contents."""
    digest = hashlib.sha256()
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file():
                digest.update(f"{file.relative_to(path)}\0{content_hash(file)}\n".encode())
        return digest.hexdigest()
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def stamp(path: Path) -> str:
    """Sizes and modification times: equal while nothing was written; far cheaper than a hash."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    found = [(str(f.relative_to(path)), f.stat()) for f in files if f.is_file()]
    seen = [(name, status.st_size, status.st_mtime_ns) for name, status in found]
    return hashlib.sha256(repr(seen).encode()).hexdigest()


def flush(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def said_when_full(path: Path) -> Iterator[None]:
    """Say plainly that the disk is full, whatever library noticed it.

    Raises:
        LlmkitError: the disk that ``path`` is on is full.
    """
    try:
        yield
    except Exception as error:
        if not _means_disk_full(error):
            raise
        raise LlmkitError(
            f"{path}: the disk is full. What stood there before is as it was; free some space "
            "and run the same command again: it goes on where it stopped."
        ) from error


def _means_disk_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    if any(words in str(error) for words in _WORDS_WHEN_FULL):
        return True
    return error.__context__ is not None and _means_disk_full(error.__context__)


_WORDS_WHEN_FULL = (
    "No space left on device",  # safetensors and Arrow wrap the system's error, with its words
    "Disk quota exceeded",
    "inline_container.cc",  # torch.save says only that its file is shorter than it should be
)
