"""What can be said of generated rows: how varied, how repetitive, how clean of evaluation sets.

Duplicates and evaluation texts are found by the code that `prep` finds them with.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from data_prep.contamination.index import build_index
from data_prep.contamination.overlaps import find_overlaps
from data_prep.contamination.settings import ContaminationConfig, EvaluationSet
from data_prep.dedup.deduplicate import MEASURES, DedupConfig, deduplicate
from data_prep.dedup.minhash import MinHashConfig
from data_prep.dedup.words import TextsInMemory
from data_prep.embeddings import Embedder, embed_all
from data_prep.generate.results import Record

EXAMPLES = 5
"""Pairs that are shown of each finding."""


def question_of(record: Record) -> str:
    """What a row asks."""
    return "\n".join(part for part in (record["instruction"], record["input"]) if part)


def repetitions(rows: Sequence[Record], threshold: float) -> dict[str, Any]:
    """Rows that `prep` would remove as duplicates, by measure, with examples.

    Args:
        rows: with ``instruction``, ``input`` and ``output``.
        threshold: the Jaccard similarity of near-duplicates.
    """
    texts = [f"{question_of(row)}\n{row['output']}" for row in rows]
    hashes = np.array(
        [[xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"))] for text in texts],
        np.uint64,
    ).reshape(len(texts), 1)
    found = deduplicate(
        hashes,
        TextsInMemory(texts),
        DedupConfig(minhash=MinHashConfig(threshold=threshold)),
        np.arange(len(texts)),
    )
    counts = np.bincount(found.measure, minlength=len(MEASURES))
    examples = [
        {
            "row": rows[removed]["lineage"]["id"],
            "like": rows[kept]["lineage"]["id"],
            "similarity": round(float(alike), 3),
        }
        for removed, kept, alike in zip(
            found.removed[:EXAMPLES].tolist(),
            found.witness[:EXAMPLES].tolist(),
            found.similarity[:EXAMPLES].tolist(),
            strict=True,
        )
    ]
    by = {name: int(count) for name, count in zip(MEASURES, counts, strict=True) if count}
    return {"rows": len(found.removed), "by": by, "examples": examples}


def contaminated(rows: Sequence[Record], sets: Sequence[EvaluationSet]) -> list[dict[str, Any]]:
    """How many rows hold texts of each evaluation set, with examples."""
    if not sets:
        return []
    index = build_index(ContaminationConfig(against=list(sets), action="report"))
    found = find_overlaps(
        index, [question_of(row) for row in rows], [row["output"] for row in rows]
    )
    told = []
    for one in sets:
        hits = []
        for row, overlaps in zip(rows, found, strict=True):
            of_set = (each for each in overlaps if each.evaluation_set == one.title)
            strongest = next(of_set, None)
            if strongest and strongest.kind == "leak":
                hits.append((row, strongest))
        told.append(
            {
                "set": one.title,
                "rows": len(hits),
                "examples": [
                    {"row": row["lineage"]["id"], "found": overlap.describe()}
                    for row, overlap in hits[:EXAMPLES]
                ],
            }
        )
    return told


def coverage(
    embedder: Embedder, stages: Sequence[tuple[str, Sequence[str]]]
) -> list[dict[str, Any]]:
    """How much ground instructions cover, before and after each stage.

    Args:
        embedder: gives each instruction a vector.
        stages: a name and the instructions that it added, in order; the first are the seeds.

    Returns:
        For each stage ``added`` and ``all`` instructions so far; ``distinct``, the effective number
        of different ones among all so far (the Vendi score of their cosines); and ``nearest``, the
        mean cosine of an added one to the nearest that was there before, None for the first.

    Source:
        Friedman and Dieng (2022), "The Vendi Score", arXiv 2210.02410.
    """
    texts = [text for _, added in stages for text in added]
    vectors = embed_all(embedder, texts, len(texts))
    told: list[dict[str, Any]] = []
    end = 0
    for name, added in stages:
        start, end = end, end + len(added)
        told.append(
            {
                "stage": name,
                "added": len(added),
                "all": end,
                "distinct": round(distinct(vectors[:end]), 2),
                "nearest": _nearest(vectors[start:end], vectors[:start]),
            }
        )
    return told


def distinct(vectors: NDArray[np.float32]) -> float:
    """The Vendi score: how many wholly different vectors would be as varied as these.

    Args:
        vectors: of length 1, shape ``[texts, dimensions]``.
    """
    if not len(vectors):
        return 0.0
    wide = vectors.astype(np.float64)
    # The eigenvalues of the cosines' matrix, from the smaller of the two products that have them.
    product = wide @ wide.T if len(wide) < wide.shape[1] else wide.T @ wide
    shares = np.linalg.eigvalsh(product / len(wide))
    shares = shares[shares > 1e-12]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _nearest(added: NDArray[np.float32], before: NDArray[np.float32]) -> float | None:
    if not len(added) or not len(before):
        return None
    best = [
        (added[start : start + 1024] @ before.T).max(axis=1) for start in range(0, len(added), 1024)
    ]
    return round(float(np.concatenate(best).mean()), 4)
