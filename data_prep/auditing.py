"""Replay what a preparation certified, from the sources and with code of its own."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.chat_templates import ChatTemplate
from data_prep.comparing import CONTAMINATED
from data_prep.contamination.auditing import Claim, audit_contamination
from data_prep.contamination.overlap import Overlap
from data_prep.decisions import IN_VALIDATION
from data_prep.dedup.certificates import DUPLICATES, Certificate, audit
from data_prep.making import changed
from data_prep.models import Models, NoModels
from data_prep.pipeline import LEFT_OUT, NOT_SELECTED
from data_prep.prepared import PreparedDataset
from data_prep.reading import ReadRow, read_rows
from data_prep.rows import Row
from data_prep.settings import DataConfig

LATER = {CONTAMINATED, IN_VALIDATION, NOT_SELECTED, LEFT_OUT}
"""Reasons for which rows leave after duplicates do: they were there when they vouched."""


@dataclass(frozen=True)
class Audit:
    """What was replayed, and what does not hold."""

    duplicates: int
    """Certificates of removed duplicates, and of rows that validation has, too."""
    overlaps: int
    """Certificates of evaluation texts in rows."""
    problems: list[str]
    """What does not hold, a line each."""


def audit_prepared(
    config: DataConfig,
    template: ChatTemplate,
    prepared: PreparedDataset,
    models: Models | None = None,
) -> Audit:
    """Replay every certificate against the rows in the sources.

    Args:
        config: what was prepared.
        template: what it was rendered with.
        prepared: what came out.
        models: loads the model that semantic duplicates were found with.

    Raises:
        DataError: a source cannot be read any more.
    """
    folder = prepared.folder
    certificates = [Certificate.model_validate(x) for x in _lines(folder / "certificates.jsonl")]
    claims = [
        Claim(line["row"], Overlap.model_validate(line["overlap"]))
        for line in _lines(folder / "overlaps.jsonl")
    ]
    dropped: dict[str, list[str]] = {}
    for line in _lines(folder / "dropped.jsonl"):
        dropped.setdefault(line["reason"], []).append(line["where"])
    removed = [place for reason in DUPLICATES.values() for place in dropped.get(reason, ())]
    kept = {place for reason in LATER for place in dropped.get(reason, ())}
    held_out = _places(prepared, "validation")
    kept |= _places(prepared, "train") | held_out
    named = {place for c in certificates for place in (c.removed, c.witness)}
    named |= {claim.row for claim in claims}
    rows = dict(_rows(config, template, named))
    embedder = None
    if config.dedup.semantic and any(c.measure == "cosine" for c in certificates):
        embedder = (models or NoModels()).embedder(config.dedup.semantic.model)
    # What training lost to the validation's own source has a row of validation as its witness.
    leaked = dropped.get(IN_VALIDATION, [])
    parted = set(leaked)
    leaks = [c for c in certificates if c.removed in parted]
    duplicates = [c for c in certificates if c.removed not in parted]
    problems = audit(duplicates, rows, frozenset(kept), removed, embedder)
    problems += audit(leaks, rows, frozenset(held_out), leaked)
    if config.contamination:
        contaminated = dropped.get(CONTAMINATED, [])
        problems += audit_contamination(claims, rows, config.contamination, contaminated)
    return Audit(len(certificates), len(claims), problems)


def _places(prepared: PreparedDataset, split: str) -> set[str]:
    column = prepared.sequences(split).column("rows").to_pylist()
    return {place for places in column for place in places}


def _rows(config: DataConfig, template: ChatTemplate, named: set[str]) -> Iterator[tuple[str, Row]]:
    """The named rows as they were compared, read anew."""
    for source in config.all_sources:
        for found in read_rows(source, config.roles):
            if isinstance(found, ReadRow) and found.where in named:
                yield found.where, changed(found.row, config, template, Counter())


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
