"""llmkit's duplicates as a process to measure; writes the indices of removed rows as JSON.

    python benchmarks/our_dedup.py METHOD ROWS.jsonl OUT.json [--threshold 0.95]

Texts go into shards on disk and from there to `deduplicate`, as in ``llmkit prep``. Who vouches for
each removed row is written beside the list, for `replay`.
"""

import argparse
import json
import tempfile
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from data_prep.dedup.deduplicate import DedupConfig, Meaning

METHODS = ("exact", "minhash", "semantic", "minhash-semantic")


def remove(method: str, rows: Path, out: Path, threshold: float) -> None:
    """Deduplicate in this process."""
    import numpy as np
    import pyarrow as pa
    import xxhash

    from data_prep.dedup.deduplicate import deduplicate
    from data_prep.dedup.words import Texts, TextsInShards
    from data_prep.shards import Rows, Shards

    config = _config(method, threshold)
    with tempfile.TemporaryDirectory() as folder, rows.open(encoding="utf-8") as lines:
        shards, number = Shards(Path(folder)), 0
        hashes: list[bytes] = []
        while batch := list(islice(lines, 2048)):
            texts = [json.loads(line)["text"] for line in batch]
            hashes += [xxhash.xxh3_128_digest(text.encode()) for text in texts]
            if config.minhash:
                shards.write(number, pa.table({"words": Texts.of(texts).to_arrow()}), {})
                number += 1
        keys = np.frombuffer(b"".join(hashes), np.uint64).reshape(-1, 2)
        source = TextsInShards(Rows(shards, number)) if config.minhash else None
        meaning = _meaning(rows) if config.semantic else None
        found = deduplicate(keys, source, config, np.arange(len(keys)), meaning)
    out.write_text(json.dumps(found.removed.tolist()))
    sides = found.removed, found.witness, found.measure, found.similarity
    names = "removed", "witness", "measure", "similarity"
    np.savez(certified(out), **dict(zip(names, sides, strict=True)))


def removed_for(out: Path, measure: str) -> list[int]:
    """The rows that `remove` removed for a measure or one that stands before it."""
    import numpy as np

    from data_prep.dedup.deduplicate import MEASURES

    with np.load(certified(out)) as found:
        removed: list[int] = found["removed"][found["measure"] <= MEASURES.index(measure)].tolist()
    return removed


def replay(rows: list[str], out: Path) -> tuple[int, list[str]]:
    """Have the independent audit check every certificate that ``remove("minhash", ...)`` left.

    Returns:
        How many there are, and what does not hold.
    """
    import numpy as np

    from data_prep.dedup.certificates import audit
    from data_prep.dedup.deduplicate import Removals, certificates
    from data_prep.rows import Text

    with np.load(certified(out)) as found:
        removals = Removals(**{name: found[name] for name in found.files})
    named = certificates(
        removals, _config("minhash", 0.95), lambda chosen: [str(i) for i in chosen]
    )
    gone = [str(index) for index in json.loads(out.read_text())]
    kept = frozenset(map(str, range(len(rows)))) - set(gone)
    texts = {str(index): Text(text) for index, text in enumerate(rows)}
    return len(named), audit(named, texts, kept, gone)


def certified(out: Path) -> Path:
    """Where certificates lie."""
    return out.with_suffix(".npz")


def _config(method: str, threshold: float) -> "DedupConfig":
    from data_prep.dedup.deduplicate import DedupConfig
    from data_prep.dedup.minhash import MinHashConfig
    from data_prep.dedup.semantic import SemanticConfig

    return DedupConfig(
        minhash=MinHashConfig() if "minhash" in method else None,
        semantic=SemanticConfig(threshold=threshold) if "semantic" in method else None,
    )


def _meaning(rows: Path) -> "Meaning":
    from data_prep.dedup.deduplicate import Meaning
    from llmkit.models.embedding import load_embedder

    texts = [json.loads(line)["text"] for line in rows.read_text(encoding="utf-8").splitlines()]
    embedder = load_embedder("all-minilm-l6-v2")
    return Meaning(lambda chosen: (texts[index] for index in chosen), embedder)


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("rows", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--threshold", type=float, default=0.95, help="of semantic")
    arguments = parser.parse_args()
    remove(arguments.method, arguments.rows, arguments.out, arguments.threshold)


if __name__ == "__main__":
    main()
