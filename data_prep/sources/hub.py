"""Data sets that `datasets` loads: from the hub, or from a folder it made itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_prep.errors import DataError
from data_prep.sources.arrow_rows import ROWS_AT_ONCE, arrow_rows, refuse_unreadable
from data_prep.sources.config import SourceConfig
from data_prep.sources.files import SAVED_MARKS
from data_prep.sources.records import RawRecord


def scan_dataset(source: SourceConfig) -> Iterator[RawRecord]:
    """Read a data set.

    A record's place is ``path[@revision][/name]/split[index]``.

    Raises:
        DataError: it cannot be loaded, now or after some rows.
    """
    revision = f"@{source.revision}" if source.revision else ""
    name = f"/{source.name}" if source.name else ""
    place = f"{source.path}{revision}{name}/{source.split}"
    index = 0
    checked = None
    try:
        for table in _load(source).with_format("arrow").iter(ROWS_AT_ONCE):
            if table.schema != checked:
                refuse_unreadable(source.path, table.schema)
                checked = table.schema
            for value in arrow_rows(table):
                yield RawRecord(f"{place}[{index}]", value, "value")
                index += 1
    except DataError:
        raise
    except Exception as error:  # datasets raises a dozen kinds, network errors among them
        what = f"reading it failed after {index} rows" if index else "it could not be loaded"
        raise DataError(
            f"{source.path}: not a file here, and as a data set of `datasets` {what} "
            f"(split {source.split!r}): {type(error).__name__}: {error}"
        ) from None


PATIENCE = 5.0
"""Seconds in which the hub must answer anything at all."""


def _load(source: SourceConfig) -> Any:
    if any((Path(source.path) / mark).is_file() for mark in SAVED_MARKS):
        return _saved(source)
    if Path(source.path).is_dir() or not (problem := _unreachable()):
        return _loaded(source)
    try:
        with _without_hub():
            found = _loaded(source)
    except Exception:
        raise DataError(
            f"{source.path}: no such file or folder here (looked in {Path.cwd()}), and as a data "
            f"set it is neither in the cache nor can the hub be reached ({problem}). Check the "
            "path, or the network."
        ) from None
    files = [Path(file["filename"]) for file in getattr(found, "cache_files", ())]
    known = files and all(source.revision in file.parts for file in files)
    if source.revision and not known:
        raise DataError(
            f"{source.path}: the hub cannot be reached ({problem}), and whether the version in "
            f"the cache is {source.revision!r} is not known here: name the commit."
        )
    return found


def _unreachable() -> str:
    """Why the hub cannot be reached, empty when it can: `datasets` tries for half a minute."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=PATIENCE)
    except Exception as error:  # of the network come as many kinds
        return f"{constants.ENDPOINT}: {error}"
    return ""


@contextmanager
def _without_hub() -> Iterator[None]:
    """Within it `datasets` looks into its cache alone, and does not ask again and again."""
    import datasets

    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _loaded(source: SourceConfig) -> Any:
    import datasets

    return datasets.load_dataset(
        source.path,
        name=source.name,
        split=source.split,
        revision=source.revision,
        streaming=source.streaming,
    )


def _saved(source: SourceConfig) -> Any:
    """What `datasets.save_to_disk` wrote into a folder."""
    import datasets

    if source.name or source.revision or source.streaming:
        raise DataError(f"{source.path}: name, revision and streaming are for hub data sets.")
    saved = datasets.load_from_disk(source.path)
    if isinstance(saved, datasets.DatasetDict):
        if source.split not in saved:
            raise DataError(
                f"{source.path}: no split {source.split!r}. Allowed: {', '.join(saved)}."
            )
        return saved[source.split]
    if source.split not in ("train", str(saved.split)):
        raise DataError(f"{source.path}: holds the split {str(saved.split)!r} only.")
    return saved
