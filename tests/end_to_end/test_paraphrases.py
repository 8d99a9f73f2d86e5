"""Semantic duplicates with the real all-MiniLM-L6-v2."""

import difflib
import doctest
import heapq
import json

import numpy as np
import pytest
from commands import ROOT
from dedup_rows import deduplicated
from paraphrases import LOOK_ALIKES, PARAPHRASES

from data_prep.dedup.certificates import audit
from data_prep.dedup.deduplicate import DedupConfig
from data_prep.dedup.minhash import MinHashConfig
from data_prep.dedup.semantic import SemanticConfig
from data_prep.rows import Completion, PlacedRow

pytestmark = pytest.mark.end_to_end

OASST = ROOT.parent / "shared" / "data" / "oasst_samples" / "oasst_half_a.jsonl"


@pytest.fixture(scope="module")
def minilm():
    from llmkit.models.embedding import load_embedder

    return load_embedder("all-minilm-l6-v2", device="cpu")


@pytest.mark.parametrize(
    ("threshold", "paraphrases", "look_alikes"), [(0.8, 18, 4), (0.9, 9, 2), (0.95, 2, 2)]
)
def test_the_stated_figures_are_those_of_the_hand_made_pairs(
    minilm, threshold, paraphrases, look_alikes
):
    def found(pairs) -> int:
        config = DedupConfig(semantic=SemanticConfig(threshold=threshold))
        rows = [
            [PlacedRow(str(i), Completion(text, "")) for i, text in enumerate(p)] for p in pairs
        ]
        return sum(len(deduplicated(pair, config, minilm)) for pair in rows)

    assert found(PARAPHRASES) == paraphrases
    assert found(LOOK_ALIKES) == look_alikes


def test_texts_that_share_their_first_300_words_only_are_not_alike(minilm):
    def first(text: str) -> str:
        return " ".join(text.split()[:300])

    shared = first(heapq.__about__)
    texts = [f"{shared} {first(module.__doc__)}" for module in (difflib.SequenceMatcher, doctest)]
    vectors = minilm.embed(texts)
    assert vectors[0] @ vectors[1] < 0.85
    cut = minilm._model.encode(texts, show_progress_bar=False)
    assert cut[0] @ cut[1] > 0.999


def test_vectors_do_not_depend_on_the_batch(minilm):
    texts = [text for pair in PARAPHRASES for text in pair] + [heapq.__about__]
    together = minilm.embed(texts)
    alone = np.vstack([minilm.embed([text]) for text in texts])
    assert np.abs(together - alone).max() < 1e-6


def test_scripts_that_the_model_cannot_read_are_nobodys_duplicates(minilm):
    texts = [
        "今天天气怎么样",
        "Мы вчера видели длинный мир",
        "어떻게 지내세요",
        "What about today?",
        "x=3",
    ]
    assert minilm.embed(texts).any(axis=1).tolist() == [False, False, False, True, True]


@pytest.mark.skipif(not OASST.is_file(), reason="the shared data sets are not here")
def test_the_audit_passes_on_real_rows(minilm):
    lines = OASST.read_text(encoding="utf-8").splitlines()[:60]
    texts = [json.loads(line)["output"][:600] for line in lines]
    texts += [f"{text} Please note." for text in texts[:20]]
    rows = [PlacedRow(f"{OASST.name}:{i}", Completion("", t)) for i, t in enumerate(texts)]
    config = DedupConfig(minhash=MinHashConfig(threshold=0.99), semantic=SemanticConfig())
    certificates = deduplicated(rows, config, minilm)
    assert sum(c.measure == "cosine" for c in certificates.values()) >= 8
    removed = [rows[index].where for index in certificates]
    kept = frozenset(row.where for row in rows) - set(removed)
    by_place = {row.where: row.row for row in rows}
    assert audit(certificates.values(), by_place, kept, removed, minilm) == []
