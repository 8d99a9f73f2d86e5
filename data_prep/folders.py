"""New folders that appear under their name only when they are whole."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_prep.errors import DataError

PARTIAL = ".partial"


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Fill a folder beside ``path`` that takes its name when the block ends without an error.

    Yields:
        The folder to write into. When the block fails it is removed, and nothing was made.

    Raises:
        DataError: something other than an empty folder stands there already: it is not replaced.
    """
    refuse_taken(path)
    beside = path.with_name(path.name + PARTIAL)
    shutil.rmtree(beside, ignore_errors=True)  # of an attempt that was killed
    try:
        beside.mkdir(parents=True)
        yield beside
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    beside.replace(path)  # of an empty folder too


def refuse_taken(path: Path) -> None:
    """Say before the work begins that its result would have no place.

    Raises:
        DataError: a file stands there, or a folder with something in it.
    """
    if path.is_symlink() or path.is_file():
        raise DataError(f"{path}: there is a file of this name. Name a new folder.")
    if path.is_dir() and any(path.iterdir()):
        raise DataError(
            f"{path}: the folder is not empty, and nothing in it is replaced. "
            "Name a new folder, or empty this one."
        )
