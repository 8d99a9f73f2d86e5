"""Replay what a preparation certified, from the sources and with code of its own."""

import json
from pathlib import Path
from typing import Any

from data_prep.dedup.certificates import DUPLICATES, Certificate, audit
from data_prep.prepared import PreparedDataset
from data_prep.reading import ReadRow, read_rows
from data_prep.settings import DataConfig
from data_prep.sources import SourceConfig


def audit_prepared(config: DataConfig, prepared: PreparedDataset) -> tuple[int, list[str]]:
    """Replay every duplicate's certificate against the rows in the sources.

    Args:
        config: what was prepared.
        prepared: what came out.

    Returns:
        How many certificates there are, and what does not hold, a line each.

    Raises:
        DataError: a source cannot be read any more.
    """
    lines = _lines(prepared.folder / "certificates.jsonl")
    certificates = [Certificate.model_validate(line) for line in lines]
    dropped = _lines(prepared.folder / "dropped.jsonl")
    removed = [str(row["where"]) for row in dropped if row["reason"] in DUPLICATES.values()]
    # Rows that leave later than duplicates do were there when their witnesses vouched.
    kept = {str(row["where"]) for row in dropped if row["reason"] == "also in validation"}
    for split in ("train", "validation"):
        for places in prepared.sequences(split).column("rows").to_pylist():
            kept.update(places)
    named = {place for c in certificates for place in (c.removed, c.witness)}
    own = [config.validation] if isinstance(config.validation, SourceConfig) else []
    rows = {
        found.where: found.row
        for source in (*config.sources, *own)
        for found in read_rows(source, config.roles)
        if isinstance(found, ReadRow) and found.where in named
    }
    return len(certificates), audit(certificates, rows, frozenset(kept), removed)


def _lines(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
