"""Source files that tests write, and what reading them gives."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from backports import zstd

from data_prep.sources.config import SourceConfig
from data_prep.sources.records import BadRecord, Record
from data_prep.sources.scan import read

ROWS = [{"instruction": "ä", "output": "b\nc"}, {"instruction": "c", "output": "d, e"}]


def read_all(path: Path | str, **settings: Any) -> list[Record | BadRecord]:
    return list(read(SourceConfig(path=str(path), **settings)))


def values(path: Path | str, **settings: Any) -> list[object]:
    found = read_all(path, **settings)
    assert all(isinstance(record, Record) for record in found), found
    return [dict(record.value) for record in found]


def texts(path: Path | str, **settings: Any) -> list[object]:
    return [value["text"] for value in values(path, **settings)]


def places(path: Path | str, **settings: Any) -> list[str]:
    return [record.where for record in read_all(path, **settings)]


def compressed(path: Path, content: bytes) -> bytes:
    """As the path's ending says."""
    match path.suffix:
        case ".gz":
            return gzip.compress(content, mtime=0)
        case ".zst":
            return zstd.compress(content)
    return content


def save(path: Path, rows: list[dict[str, str]]) -> Path:
    """Write rows as the path's ending says."""
    plain = path.with_suffix("") if path.suffix in (".gz", ".zst") else path
    match plain.suffix:
        case ".json":
            text = json.dumps(rows, indent=1)
        case ".jsonl" | ".ndjson":
            text = "".join(json.dumps(row) + "\n" for row in rows)
        case ".csv" | ".tsv":
            comma = "," if plain.suffix == ".csv" else "\t"
            lines = [f"instruction{comma}output"]
            lines += ['"{instruction}"{}"{output}"'.format(comma, **row) for row in rows]
            text = "\r\n".join(lines)
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
            return path
        case _:
            text = "".join(row["text"] + "\n" for row in rows)
    path.write_bytes(compressed(path, text.encode()))
    return path
