r"""Near-duplicates as a peer's users find them; writes the indices of removed rows as JSON.

    python benchmarks/peers/dedup.py TOOL ROWS.jsonl OUT.json --ngram 1 --threshold 0.65

rensa and datasketch take words from their caller, here ``re.findall(r"\\w+", text.lower())`` as in
scripts of their documentation; ``--ngram`` above 1 makes runs of that many. text-dedup, datatrove
and semhash read texts and cut them by their own rules. Each is called as its documentation does,
in one process, with what it writes on the way in a folder that is deleted afterwards.
"""

import argparse
import json
import re
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np

WORD = re.compile(r"\w+")


def texts(path: Path) -> Iterator[str]:
    """The text of each row."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["text"]


def token_sets(path: Path, ngram: int) -> Iterator[set[str]]:
    """The set of words, or of runs of words, of each row."""
    for text in texts(path):
        words = WORD.findall(text.lower())
        if ngram == 1:
            yield set(words)
        else:
            runs = range(max(1, len(words) - ngram + 1))
            yield {" ".join(words[i : i + ngram]) for i in runs}


def rensa(options: argparse.Namespace) -> list[int]:
    """The deduplicator of rensa's documentation: keeps a row unless a kept one is alike."""
    from rensa import RMinHashDeduplicator

    tool = RMinHashDeduplicator(threshold=options.threshold, num_perm=128, use_lsh=True)
    sets = enumerate(token_sets(options.rows, options.ngram))
    kept = tool.add_pairs((str(i), list(words)) for i, words in sets)
    return [index for index, stays in enumerate(kept) if not stays]


def datasketch(options: argparse.Namespace) -> list[int]:
    """The script everybody writes: query the index, insert what is new."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=options.threshold, num_perm=128)
    removed = []
    sets = ([word.encode() for word in words] for words in token_sets(options.rows, options.ngram))
    for row, sketch in enumerate(MinHash.generator(sets, num_perm=128)):
        if index.query(sketch):
            removed.append(row)
        else:
            index.insert(row, sketch)
    return removed


def text_dedup(options: argparse.Namespace) -> list[int]:
    """The command ``python -m text_dedup.minhash``; what it keeps is the first of each cluster."""
    from text_dedup import minhash

    with tempfile.TemporaryDirectory() as folder:
        command = {
            "path": "json",
            "data_files": str(options.rows),
            "split": "train",
            "cache_dir": f"{folder}/cache",
            "output": f"{folder}/kept",
            "column": "text",
            "ngram": options.ngram,
            "min_length": 1,
            "num_perm": 128,
            "threshold": options.threshold,
            "hash_func": "xxh3",
            "num_proc": 1,
        }
        if options.bands:
            command |= {"b": options.bands, "r": options.band_rows}
            command["num_perm"] = options.bands * options.band_rows
        arguments = [part for name, value in command.items() for part in (f"--{name}", str(value))]
        minhash.main(arguments, standalone_mode=False)
    rows = sum(1 for _ in texts(options.rows))
    return [row for row in range(rows) if minhash.uf.find(row) != row]


def datatrove(options: argparse.Namespace) -> list[int]:
    """Its MinHash example up to the list of rows to remove; writing the others is left out."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
    )
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.utils.text import TextNormConfig

    config = MinhashConfig(
        n_grams=options.ngram,
        num_buckets=options.bands,
        hashes_per_bucket=options.band_rows,
        norm_config=TextNormConfig(norm_numbers=not options.keep_numbers),
    )
    reader = JsonlReader(str(options.rows.parent), glob_pattern=options.rows.name)
    with tempfile.TemporaryDirectory() as folder:
        sketches, pairs, clusters = (f"{folder}/{name}" for name in ("sigs", "dups", "remove"))
        for tasks, pipeline in (
            (1, [reader, MinhashDedupSignature(sketches, config)]),
            (options.bands, [MinhashDedupBuckets(sketches, pairs, config=config)]),
            (1, [MinhashDedupCluster(pairs, clusters, config=config)]),
        ):
            logs = f"{folder}/logs-{len(list(Path(folder).iterdir()))}"
            LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=logs).run()
        found = Path(clusters, "000000.remove")
        return np.fromfile(found, "<u4").tolist() if found.exists() else []


def semhash(options: argparse.Namespace) -> list[int]:
    """Self-deduplication by embeddings: of a model2vec model in a package, or of ``--model``.

    Its default model lies on a hub. The package's is of the same kind, and smaller.
    """
    from semhash import SemHash

    if options.model:
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(options.model), device="cpu")
    else:
        from model2vec import StaticModel

        package = find_spec("static_model").origin
        model = StaticModel.from_pretrained(Path(package).parent / "model")
    records = [{"text": text, "row": row} for row, text in enumerate(texts(options.rows))]
    tool = SemHash.from_records(records, columns=["text"], model=model)
    found = tool.self_deduplicate(threshold=options.threshold)
    return sorted(duplicate.record["row"] for duplicate in found.filtered)


def main() -> None:
    """Parse the arguments and run."""
    tools = (rensa, datasketch, text_dedup, datatrove, semhash)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tool", choices=[tool.__name__ for tool in tools])
    parser.add_argument("rows", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--ngram", type=int, default=1)
    parser.add_argument("--threshold", type=float, default=0.65)
    parser.add_argument("--bands", type=int, default=0, help="of datatrove and text-dedup")
    parser.add_argument("--band-rows", type=int, default=0)
    parser.add_argument("--keep-numbers", action="store_true", help="datatrove: not all to zero")
    parser.add_argument("--model", type=Path, help="semhash: a sentence-transformers folder")
    options = parser.parse_args()
    tool = {tool.__name__: tool for tool in tools}[options.tool]
    options.out.write_text(json.dumps(tool(options)))


if __name__ == "__main__":
    main()
