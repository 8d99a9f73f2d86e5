"""Semantic duplicates: exact over all pairs, in bounded memory, certified and audited."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from dedup_rows import deduplicated
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from word_embedder import WordEmbedder

from data_prep.dedup import semantic
from data_prep.dedup.certificates import Certificate, audit
from data_prep.dedup.cosine_kernels import numbers_differ
from data_prep.dedup.deduplicate import DedupConfig
from data_prep.dedup.minhash import MinHashConfig
from data_prep.dedup.numbers import NumberSets
from data_prep.dedup.semantic import SemanticConfig, semantic_stars
from data_prep.dedup.stars import stars
from data_prep.dedup.words import Texts
from data_prep.embeddings import embed_all
from data_prep.errors import DataError
from data_prep.rows import Completion, Conversation, Message, PlacedRow

ROOT = Path(__file__).parents[2]


def unit(vectors):
    vectors = np.asarray(vectors, np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)


def clusters(seed: int, rows: int = 60, dimensions: int = 8, spread: float = 0.35):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(6, dimensions))
    chosen = centres[rng.integers(0, 6, rows)]
    return unit(chosen + spread * rng.normal(size=(rows, dimensions)))


def numbers_of(sets) -> NumberSets:
    """Sets of small whole numbers as number sets."""
    values = [np.array(sorted(each), np.uint64) for each in sets]
    offsets = np.cumsum([0, *map(len, values)], dtype=np.int64)
    return NumberSets(np.concatenate([np.empty(0, np.uint64), *values]), offsets)


def listed(vectors, sets, threshold):
    """All pairs written out and given to `stars`."""
    cosines = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    pairs = [
        (i, j)
        for i in range(len(vectors))
        for j in range(i + 1, len(vectors))
        if cosines[i, j] >= threshold and not (sets[i] - sets[j] and sets[j] - sets[i])
    ]
    left, right = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))
    return stars(len(vectors), left, right, cosines[left, right])


# Which rows go.


@given(
    st.integers(0, 10**6),
    st.sampled_from([0.5, 0.8, 0.95]),
    st.lists(st.sets(st.integers(0, 3), max_size=2), min_size=1, max_size=60),
    st.lists(st.integers(0, 59), max_size=20),
    st.sampled_from([3, 7, 4096]),
)
@settings(max_examples=60)
def test_blocks_find_what_a_list_of_all_pairs_finds(seed, threshold, sets, repeats, block):
    vectors = clusters(seed, len(sets))
    for target, source in enumerate(repeats[: len(sets)]):
        vectors[target] = vectors[source % len(sets)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(semantic, "BLOCK", block)
        patch.setattr(semantic, "CENTRES", max(2, block // 2))
        found = semantic_stars(vectors, numbers_of(sets), threshold)
    expected = listed(vectors, sets, threshold)
    assert found.removed.tolist() == expected.removed.tolist()
    assert np.allclose(found.similarity, expected.similarity, atol=1e-6)
    same = found.witness == expected.witness
    # Two witnesses may be equally like a row; then either is right.
    exact = np.einsum("ij,ij->i", vectors[found.removed], vectors[expected.witness])
    assert np.allclose(exact[~same], found.similarity[~same], atol=1e-6)


@given(st.integers(0, 10**6), st.sampled_from([0.6, 0.9]))
@settings(max_examples=40)
def test_no_two_that_stay_are_alike_and_every_other_is_like_its_witness(seed, threshold):
    vectors = clusters(seed, 80)
    found = semantic_stars(vectors, NumberSets.none(80), threshold)
    kept = np.setdiff1d(np.arange(80), found.removed)
    cosines = vectors.astype(np.float64) @ vectors.T
    assert not np.isin(found.witness, found.removed).any()
    assert np.all(cosines[found.removed, found.witness] >= threshold)
    between = cosines[np.ix_(kept, kept)]
    assert np.all(between[~np.eye(len(kept), dtype=bool)] < threshold)


def test_pairs_at_the_threshold_are_decided_by_their_exact_cosine():
    """Rounded to float32, half of these would be decided wrongly."""
    rng = np.random.default_rng(0)
    right_side = 0
    for _ in range(200):
        one, other = unit(rng.normal(size=(2, 384)))
        exact = sum(float(a) * float(b) for a, b in zip(one, other))
        if exact <= 1e-3:
            one, exact = -one, -exact
        for threshold, expected in ((np.nextafter(exact, 1), 0), (exact - 1e-13, 1)):
            threshold += 1e-13 if not expected else 0
            found = semantic_stars(np.stack([one, other]), NumberSets.none(2), threshold)
            right_side += len(found.removed) == expected
    assert right_side == 400


def test_rows_without_a_vector_are_like_no_other():
    vectors = np.zeros((5, 8), np.float32)
    vectors[3:] = unit(np.ones((2, 8)))
    found = semantic_stars(vectors, NumberSets.none(5), 0.5)
    assert (found.removed.tolist(), found.witness.tolist()) == ([4], [3])
    assert len(semantic_stars(vectors[:0], NumberSets.none(0), 0.5).removed) == 0


def test_a_memory_mapped_array_gives_the_same(tmp_path):
    vectors = clusters(3, 200)
    np.save(tmp_path / "v.npy", vectors)
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    one, other = (semantic_stars(v, NumberSets.none(200), 0.9) for v in (vectors, mapped))
    assert one.removed.tolist() == other.removed.tolist()
    assert one.witness.tolist() == other.witness.tolist()


def test_forty_thousand_rows_that_say_the_same_do_not_fill_the_memory():
    """800 million pairs are alike; a list of them would take 12 GB."""
    code = """
import resource
import numpy as np
from data_prep.dedup.numbers import NumberSets
from data_prep.dedup.semantic import semantic_stars
rng = np.random.default_rng(0)
one = rng.normal(size=(1, 32)).astype(np.float32)
vectors = np.repeat(one, 40000, 0)
vectors[20000:] += 0.01 * rng.normal(size=(20000, 32)).astype(np.float32)
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = semantic_stars(vectors, NumberSets.none(40000), 0.95)
print(len(found.removed), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    removed, mebibytes = map(int, done.stdout.split())
    assert removed == 39999
    assert mebibytes < 500


def test_progress_counts_every_row_once():
    told = []
    vectors = clusters(0, 50)
    semantic_stars(vectors, NumberSets.none(50), 0.9, lambda step, rows: told.append((step, rows)))
    assert sum(rows for _, rows in told) == 50


# Numbers.


def test_number_sets_tell_apart_texts_of_which_each_has_a_number_of_its_own():
    texts = ["add 3 and 4", "add 4 and 3.", "add 3 and 5", "add 3 and 4 and 5", "add", "7 - 2"]
    sets = NumberSets.of(Texts.of(texts))
    differ = {
        (i, j)
        for i in range(6)
        for j in range(6)
        if numbers_differ(sets.values, sets.offsets, i, j)
    }
    one_way = {(0, 2), (1, 2), (0, 5), (1, 5), (2, 5), (3, 5)}
    assert differ == one_way | {(j, i) for i, j in one_way}
    chosen = sets.take(np.array([4, 2, 0]))
    assert [len(chosen.values[a:b]) for a, b in zip(chosen.offsets, chosen.offsets[1:])] == [
        0,
        2,
        2,
    ]


# In the data.


def placed(*texts: str) -> list[PlacedRow]:
    return [PlacedRow(f"r.jsonl:{i}", Completion("", text)) for i, text in enumerate(texts, 1)]


def found(rows, minhash: bool = False, embedder=None, **chosen) -> dict[int, Certificate]:
    config = DedupConfig(
        minhash=MinHashConfig() if minhash else None,
        semantic=SemanticConfig.model_validate(chosen),
    )
    return deduplicated(rows, config, embedder or WordEmbedder())


def replayed(rows, certificates, embedder=None) -> list[str]:
    removed = [rows[index].where for index in certificates]
    return audit(
        certificates.values(),
        {row.where: row.row for row in rows},
        frozenset(row.where for row in rows) - set(removed),
        removed,
        embedder or WordEmbedder(),
    )


TEXT = "where can a doctor buy a cheap and fast car to start the day"
SAME = "where can a physician purchase a inexpensive and rapid automobile to begin the day"
OTHER = "the river flows slowly through green hills past old stone bridges"


def test_rows_that_say_the_same_in_other_words_leave_one_with_a_certificate():
    rows = placed(TEXT, OTHER, SAME)
    (certificate,) = found(rows).values()
    assert certificate == Certificate(
        removed="r.jsonl:3",
        witness="r.jsonl:1",
        measure="cosine",
        similarity=certificate.similarity,
        threshold=0.95,
        model="words@1",
    )
    assert certificate.similarity > 0.999
    assert replayed(rows, {2: certificate}) == []
    assert not found(rows, threshold=0.9999)[2].similarity < 0.9999


def test_rows_that_differ_in_their_numbers_stay_unless_asked_to_merge():
    rows = placed(f"{TEXT} {OTHER} at 5", f"{SAME} {OTHER} at 6", f"{SAME} {OTHER} at 5")
    assert {c.removed: c.witness for c in found(rows, threshold=0.8).values()} == {
        "r.jsonl:3": "r.jsonl:1"
    }
    merged = found(rows, threshold=0.8, numbers="merge")
    assert len(merged) == 2
    assert replayed(rows, merged) == []


@pytest.mark.parametrize(("on", "expected"), [("prompt", [1, 2]), ("response", [1]), ("both", [1])])
def test_prompts_responses_or_both_are_compared(on, expected):
    def row(asked: str, said: str) -> Conversation:
        return Conversation((Message("user", asked), Message("assistant", said)))

    rows = [row(TEXT, OTHER), row(SAME, OTHER + "!"), row(SAME, "no")]
    certificates = found([PlacedRow(str(i), r) for i, r in enumerate(rows)], on=on, threshold=0.97)
    assert list(certificates) == expected


def test_texts_that_say_nothing_are_nobodys_duplicates():
    assert not found(placed("", "!", "?!", "..."))


def test_semantic_duplicates_are_looked_for_among_rows_that_are_left():
    embedder = WordEmbedder()
    rows = placed(TEXT, TEXT, TEXT.upper(), SAME, f"{OTHER} now", f"{OTHER} then")
    certificates = found(rows, minhash=True, embedder=embedder)
    measures = {index: c.measure for index, c in certificates.items()}
    assert measures == {1: "equal", 2: "same words", 3: "cosine", 5: "jaccard"}
    assert embedder.asked == [3]
    assert replayed(rows, certificates) == []


def test_what_a_row_vouched_for_goes_over_to_its_witness_when_that_is_like_it_too():
    """Rows 1 and 2 are one by their words; row 2 goes for row 0, which is like row 1 as well."""
    rows = placed(SAME, f"{TEXT} {TEXT}", f"{TEXT} {TEXT}.", SAME.upper(), f"{SAME}.")
    certificates = found(rows, minhash=True)
    assert {c.witness for c in certificates.values()} == {"r.jsonl:1"}
    assert {index: c.measure for index, c in certificates.items()} == {
        1: "cosine",
        2: "cosine",
        3: "same words",
        4: "same words",
    }
    assert replayed(rows, certificates) == []


def test_a_row_stays_when_what_it_vouched_for_would_be_left_without_a_witness():
    rows = placed(SAME, TEXT, f"{TEXT} tomorrow")
    config = DedupConfig(minhash=MinHashConfig(), semantic=SemanticConfig(threshold=0.99))
    certificates = deduplicated(rows, config, WordEmbedder())
    assert {c.removed: (c.witness, c.measure) for c in certificates.values()} == {
        "r.jsonl:3": ("r.jsonl:2", "jaccard")
    }
    assert replayed(rows, certificates) == []


WORDS = ["car", "automobile", "buy", "purchase", "fast", "rapid", "cheap", "river", "7", "8"]


@given(st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=9), max_size=14))
@settings(max_examples=80)
def test_every_certificate_holds_and_every_witness_stays(texts):
    rows = placed(*(" ".join(words) for words in texts))
    config = DedupConfig(
        minhash=MinHashConfig(threshold=0.5), semantic=SemanticConfig(threshold=0.9)
    )
    certificates = deduplicated(rows, config, WordEmbedder())
    assert replayed(rows, certificates) == []


def test_without_a_model_semantic_deduplication_is_refused():
    with pytest.raises(DataError, match=r"dedup\.semantic: no model was loaded .*minilm"):
        deduplicated(placed(TEXT), DedupConfig(semantic=SemanticConfig()))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda v: v * 2, "have not length 1"),
        (lambda v: v * np.nan, "have not length 1"),
        (lambda v: v[:-1], "was expected"),
        (lambda v: v[0], "was expected"),
    ],
)
def test_a_model_that_breaks_its_promise_is_refused(spoil, said):
    class Broken(WordEmbedder):
        def embed(self, texts):
            return spoil(super().embed(texts))

    with pytest.raises(DataError, match=said):
        found(placed(TEXT, OTHER), embedder=Broken())


def test_many_texts_are_embedded_some_at_a_time(monkeypatch):
    monkeypatch.setattr("data_prep.embeddings.TEXTS", 3)
    embedder, texts, told = WordEmbedder(), [TEXT, OTHER, "a", "b c", "d", "e", "f"], []
    vectors = embed_all(embedder, iter(texts), 7, lambda _, rows: told.append(rows))
    assert embedder.asked == told == [3, 3, 1]
    assert np.array_equal(vectors, embedder.embed(texts))


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": 0},
        {"threshold": 1},
        {"threshold": float("nan")},
        {"on": "all"},
        {"model": ""},
        {"modl": "x"},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValidationError):
        SemanticConfig.model_validate(wrong)


# The audit.

ROWS = placed(TEXT, OTHER, SAME, f"{SAME} 5", f"{TEXT} 5 {OTHER}")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"witness": "r.jsonl:2"}, r"certified a cosine of 1\.000000, computed"),
        ({"similarity": 0.99}, r"certified a cosine of 0\.990000, computed 1\.000000"),
        ({"witness": "r.jsonl:2", "similarity": 0.2}, "certified a cosine|below the threshold"),
        ({"witness": "r.jsonl:9"}, "did not stay"),
        ({"removed": "r.jsonl:2"}, "is still there"),
        ({"model": "words@2"}, r"certified with the model words@2, not words@1"),
        ({"similarity": float("nan")}, "certified a cosine of nan"),
    ],
)
def test_a_planted_bad_certificate_fails_the_audit(change, problem):
    (certificate,) = found(ROWS[:3]).values()
    assert replayed(ROWS[:3], {2: certificate}) == []
    lying = {2: certificate.model_copy(update=change)}
    assert re.search(problem, "\n".join(replayed(ROWS[:3], lying)))


def test_a_true_cosine_below_the_threshold_fails_the_audit():
    (certificate,) = found(placed(TEXT, f"{SAME} today"), threshold=0.9).values()
    rows = placed(TEXT, f"{SAME} today")
    raised = certificate.model_copy(update={"threshold": 0.99})
    assert replayed(rows, {1: certificate}) == []
    assert "is below the threshold 0.99" in replayed(rows, {1: raised})[0]
    both = certificate.model_copy(update={"threshold": 0.99, "similarity": 0.9901})
    assert replayed(rows, {1: both})


def test_a_cosine_over_different_numbers_fails_the_audit():
    rows = placed(f"{TEXT} {OTHER} 5", f"{SAME} {OTHER} 6")
    (certificate,) = found(rows, threshold=0.8, numbers="merge").values()
    lying = certificate.model_copy(update={"numbers": "distinct"})
    assert "differs from its witness in its numbers" in replayed(rows, {1: lying})[0]


def test_an_audit_without_the_model_says_that_it_cannot_tell():
    certificates = found(ROWS[:3])
    rows = {row.where: row.row for row in ROWS[:3]}
    kept = frozenset({"r.jsonl:1", "r.jsonl:2"})
    (problem,) = audit(certificates.values(), rows, kept, ["r.jsonl:3"])
    assert problem == (
        "r.jsonl:3: names a cosine, and the model words@1 was not loaded to replay it"
    )
