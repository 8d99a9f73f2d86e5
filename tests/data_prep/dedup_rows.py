"""Rows in memory through the deduplicator, for tests."""

from collections.abc import Sequence

import numpy as np

from data_prep.dedup.certificates import Certificate
from data_prep.dedup.deduplicate import DedupConfig, Meaning, certificates, deduplicate
from data_prep.dedup.words import TextsInMemory
from data_prep.embeddings import Embedder
from data_prep.making import hashes_of
from data_prep.row_text import text_of
from data_prep.rows import PlacedRow


def deduplicated(
    rows: Sequence[PlacedRow], config: DedupConfig, embedder: Embedder | None = None
) -> dict[int, Certificate]:
    """The index of each removed row, and its certificate."""
    on = config.minhash.on if config.minhash else "both"
    hashes = np.array([hashes_of(placed.row)[:2] for placed in rows], np.uint64).reshape(-1, 2)
    texts = TextsInMemory(text_of(placed.row, on) for placed in rows)
    part = config.semantic.on if config.semantic else "both"

    def read(chosen):
        return [text_of(rows[i].row, part) for i in chosen.tolist()]

    meaning = Meaning(read, embedder) if embedder else None
    found = deduplicate(hashes, texts, config, np.arange(len(rows)), meaning)
    name = embedder.name if embedder else ""
    made = certificates(
        found, config, lambda chosen: [rows[i].where for i in chosen.tolist()], name
    )
    return dict(zip(found.removed.tolist(), made, strict=True))
