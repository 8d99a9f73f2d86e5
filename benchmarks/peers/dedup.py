r"""Near-duplicates as a peer's users find them; writes the indices of removed rows as JSON.

    python benchmarks/peers/dedup.py TOOL ROWS.jsonl OUT.json --ngram 1 --threshold 0.65

The words are those of ``str.lower().split()``-like scripts in the peers' own documentation:
``re.findall(r"\\w+", text.lower())``; ``--ngram`` above 1 makes runs of that many words.
"""

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path

WORD = re.compile(r"\w+")


def token_sets(path: Path, ngram: int) -> Iterator[set[str]]:
    """The set of words, or of runs of words, of each row."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            words = WORD.findall(json.loads(line)["text"].lower())
            if ngram == 1:
                yield set(words)
            else:
                runs = range(max(1, len(words) - ngram + 1))
                yield {" ".join(words[i : i + ngram]) for i in runs}


def rensa(path: Path, ngram: int, threshold: float) -> list[int]:
    """The deduplicator of rensa's documentation: keeps a row unless a kept one is alike."""
    from rensa import RMinHashDeduplicator

    tool = RMinHashDeduplicator(threshold=threshold, num_perm=128, use_lsh=True)
    kept = tool.add_pairs((str(i), list(words)) for i, words in enumerate(token_sets(path, ngram)))
    return [index for index, stays in enumerate(kept) if not stays]


def datasketch(path: Path, ngram: int, threshold: float) -> list[int]:
    """The script everybody writes: query the index, insert what is new."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=threshold, num_perm=128)
    removed = []
    sets = ([word.encode() for word in words] for words in token_sets(path, ngram))
    for row, sketch in enumerate(MinHash.generator(sets, num_perm=128)):
        if index.query(sketch):
            removed.append(row)
        else:
            index.insert(row, sketch)
    return removed


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tool", choices=("rensa", "datasketch"))
    parser.add_argument("rows", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--ngram", type=int, default=1)
    parser.add_argument("--threshold", type=float, default=0.65)
    arguments = parser.parse_args()
    tool = {"rensa": rensa, "datasketch": datasketch}[arguments.tool]
    removed = tool(arguments.rows, arguments.ngram, arguments.threshold)
    arguments.out.write_text(json.dumps(removed))


if __name__ == "__main__":
    main()
