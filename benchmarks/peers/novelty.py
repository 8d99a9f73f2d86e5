"""ROUGE-L of candidates with every text, the naive way; writes times and verdicts as JSON.

    python benchmarks/peers/novelty.py WORK.json OUT.json

``WORK.json`` holds the texts, the candidates, the threshold, and how many candidates the slow tool
is given. `rouge_score` is what Self-Instruct and Stanford Alpaca use; it is called as Alpaca does,
on words cut beforehand, which spares it half of its work. `rapidfuzz` computes the same figure with
the fastest longest common subsequence that a package has, each word one character.
"""

import argparse
import json
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import LCSseq
from rouge_score import rouge_scorer, tokenizers

EPSILON = 1e-9
"""rouge_score's F differs in its last digit from 2 * common / (both lengths)."""


def rouge(texts: list[list[str]], candidates: list[list[str]], least: float) -> list[bool]:
    """Alpaca's loop: every text, for every candidate."""
    found = []
    for candidate in candidates:
        scores = [rouge_scorer._score_lcs(candidate, text).fmeasure for text in texts]
        found.append(max(scores) >= least)
    return found


def rapid(texts: list[str], candidates: list[str], least: float) -> list[bool]:
    """All texts in one call, for every candidate."""
    lengths = np.array([len(text) for text in texts])
    found = []
    for candidate in candidates:
        common = process.cdist([candidate], texts, scorer=LCSseq.similarity)[0]
        scores = 2 * common.astype(float) / (lengths + len(candidate))
        found.append(bool(scores.max() >= least))
    return found


def measured(run: Callable[[], list[bool]], calls: int) -> dict[str, Any]:
    """CPU milliseconds a candidate, and what was found."""
    began = time.process_time()
    found = run()
    spent = time.process_time() - began
    return {"milliseconds": 1000 * spent / calls, "candidates": calls, "alike": found}


def main() -> None:
    """Read the work, do it both ways."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    work = json.loads(options.work.read_text(encoding="utf-8"))
    cut = tokenizers.DefaultTokenizer(use_stemmer=False).tokenize
    texts, candidates = ([cut(text) for text in work[name]] for name in ("texts", "candidates"))
    least, few = work["threshold"] - EPSILON, work["few"]
    characters: dict[str, str] = {}

    def spelled(words: list[str]) -> str:
        return "".join(characters.setdefault(word, chr(0x100 + len(characters))) for word in words)

    plain = [spelled(words) for words in texts], [spelled(words) for words in candidates]
    found = {
        "rouge_score": measured(lambda: rouge(texts, candidates[:few], least), few),
        "rapidfuzz": measured(lambda: rapid(*plain, least), len(candidates)),
        "versions": {name: version(name) for name in ("rouge-score", "rapidfuzz")},
    }
    options.out.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
