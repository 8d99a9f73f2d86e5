"""What a file's name says about its content."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Compression = Literal["gzip", "zstd"]

_FORMATS = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".txt": "text",
}
_COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}

ALLOWED = f"{', '.join(_FORMATS)}, and all but .parquet also with {' or '.join(_COMPRESSIONS)}"
"""The endings of files that can be read, for error messages."""


@dataclass(frozen=True, slots=True)
class FileKind:
    """How a file is read."""

    format: str
    """json, jsonl, csv, tsv, parquet or text."""
    compression: Compression | None


def kind_of(path: Path) -> FileKind | None:
    """What a file holds by its name's ending, whatever its case; None: nothing that is read."""
    name = Path(path.name.lower())
    compression = _COMPRESSIONS.get(name.suffix)
    inner = _FORMATS.get(Path(name.stem).suffix if compression else name.suffix)
    return FileKind(inner, compression) if inner else None
