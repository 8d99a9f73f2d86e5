"""Training rows -> which evaluation texts stand in them, by which method, how surely."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from data_prep.contamination import kernels, semantic
from data_prep.contamination.index import EvaluationIndex
from data_prep.contamination.overlap import Overlap
from data_prep.contamination.run_tables import SEED
from data_prep.contamination.settings import Kind, Method, Side
from data_prep.contamination.words import Words, words_of
from data_prep.embeddings import Embedder

SIDES: tuple[Side, Side] = ("prompt", "response")
CHUNK = 1 << 21
"""Characters that are looked at together: bounds memory, changes no result."""
ROOM = 1 << 16
"""Pairs of texts that there is room for at first."""
LINE = 4
"""Words from which a line of a prompt is a question of its own; the whole prompt always is."""


Found = dict[tuple[int, int], Overlap]
"""The strongest overlap of each training text and evaluation text."""


def find_overlaps(
    index: EvaluationIndex,
    prompts: Sequence[str],
    responses: Sequence[str],
    embedder: Embedder | None = None,
) -> list[tuple[Overlap, ...]]:
    """Find the evaluation texts that stand in training rows.

    The answer for a row depends on the index and on that row alone.

    Args:
        index: the evaluation texts.
        prompts: what everybody but the assistant says, of each row.
        responses: what the assistant says, of each row.
        embedder: the model that the index was built with, when it was built with one.

    Returns:
        For each row its overlaps, the strongest first: leaks before look-alikes, then by method
        (exact, ngram, fuzzy, semantic) and score. Each field of each evaluation record at most
        once a row; a row in which none stands has none.
    """
    found: list[tuple[Overlap, ...]] = []
    for start, stop in _chunks(prompts, responses):
        rows_here = zip(prompts[start:stop], responses[start:stop], strict=True)
        sides = [text for pair in rows_here for text in pair]
        by_text = _by_words(index, sides)
        if index.embedder:
            _add(by_text, _by_meaning(index, sides, by_text, embedder))
        rows: list[dict[tuple[int, str], Overlap]] = [{} for _ in range(stop - start)]
        for (text, owner), overlap in sorted(by_text.items()):
            asked = index.texts[owner]
            row, key = rows[text // 2], (asked.set_index, f"{asked.record} {asked.field}")
            if key not in row or overlap.strength < row[key].strength:
                row[key] = overlap
        found += [tuple(sorted(row.values(), key=lambda each: each.strength)) for row in rows]
    return found


def _chunks(prompts: Sequence[str], responses: Sequence[str]) -> Iterator[tuple[int, int]]:
    start = size = 0
    for stop, (prompt, response) in enumerate(zip(prompts, responses, strict=True), 1):
        size += len(prompt) + len(response)
        if size >= CHUNK or stop == len(prompts):
            yield start, stop
            start, size = stop, 0


def _by_words(index: EvaluationIndex, texts: Sequence[str]) -> Found:
    """What exact, ngram and fuzzy find; the strongest that says anything of a pair decides."""
    words = words_of(texts)
    found: Found = {}
    pairs = _common_runs(index, words)
    if index.config.exact:
        _add(found, _short(index, words))
        _add(found, _exact(index, words, pairs))
    if index.config.ngram:
        _add(found, _ngram(index, pairs))
    if index.config.fuzzy:
        _add(found, _fuzzy(index, words, found))
    return found


def _add(found: Found, more: Iterator[tuple[int, Overlap]]) -> None:
    for text, overlap in list(more):
        found.setdefault((text, overlap.text), overlap)


def _sides(words: Words) -> NDArray[np.uint8]:
    return np.tile(np.array([1, 2], np.uint8), (len(words.texts) - 1) // 2)


def _common_runs(index: EvaluationIndex, words: Words) -> NDArray[np.int64]:
    sizes = np.unique(index.runs.sizes[index.runs.sizes > 0])
    room = ROOM
    while True:
        found = np.empty((room, 5), np.int64)
        count = kernels.count_runs(
            words.plain,
            words.masked,
            words.powers,
            words.texts,
            _sides(words),
            sizes,
            index.runs.grams.table,
            index.runs.grams.owners,
            index.runs.grams.runs,
            index.allowed,
            index.runs.grams.totals,
            index.least,
            found,
        )
        if count <= room:
            return found[:count]
        room = count


def _short(index: EvaluationIndex, words: Words) -> Iterator[tuple[int, Overlap]]:
    """Questions too short for runs of words: the whole prompt, or a line of it."""
    if not len(index.short):
        return
    starts = np.concatenate([words.texts[:-1], words.lines[:-1]])
    stops = np.concatenate([words.texts[1:], words.lines[1:]])
    texts = np.searchsorted(words.texts, starts, side="right") - 1
    whole = np.arange(len(starts)) < len(words.texts) - 1
    texts[whole] = np.arange(len(words.texts) - 1)
    asked = (texts % 2 == 0) & (stops - starts >= np.where(whole, 1, LINE))
    starts, stops, texts = starts[asked], stops[asked], texts[asked]
    runs = words.runs(starts, stops)
    lows = np.searchsorted(index.short, runs, side="left")
    highs = np.searchsorted(index.short, runs, side="right")
    for i in np.flatnonzero(highs > lows).tolist():
        for owner in index.short_texts[lows[i] : highs[i]].tolist():
            if index.allowed[owner] & 1:
                at = int(starts[i] - words.texts[texts[i]])
                length = int(stops[i] - starts[i])
                yield int(texts[i]), _overlap(index, owner, int(texts[i]), "exact", at, length, 1.0)


def _exact(
    index: EvaluationIndex, words: Words, pairs: NDArray[np.int64]
) -> Iterator[tuple[int, Overlap]]:
    pairs = pairs[pairs[:, 3] == index.runs.grams.totals[pairs[:, 1]]]
    text, owner = pairs[:, 0], pairs[:, 1]
    begins, ends = index.runs.begins[owner], index.runs.ends[owner]
    at = np.empty(len(pairs), np.int64)
    kernels.find_whole(
        words.words, words.texts[text], words.texts[text + 1], index.words.words, begins, ends, at
    )
    for i in np.flatnonzero(at >= 0).tolist():
        length = int(ends[i] - begins[i])
        pair = int(owner[i]), int(text[i])
        yield pair[1], _overlap(index, *pair, "exact", int(at[i]), length, 1.0)


def _ngram(index: EvaluationIndex, pairs: NDArray[np.int64]) -> Iterator[tuple[int, Overlap]]:
    pairs = pairs[pairs[:, 2] >= index.least[pairs[:, 1]]]
    for text, owner, common, equal, at in pairs.tolist():
        # A run that is only there with other figures in it shows that this is another question.
        other = index.config.numbers == "distinct" and equal < common
        score = common / int(index.runs.grams.totals[owner])
        length = int(index.runs.ends[owner] - index.runs.begins[owner])
        kind: Kind = "look-alike" if other else "leak"
        yield text, _overlap(index, owner, text, "ngram", at, length, score, kind)


def _fuzzy(index: EvaluationIndex, words: Words, found: Found) -> Iterator[tuple[int, Overlap]]:
    pairs = _candidates(index, words)
    new = [(text, owner) not in found for text, owner in pairs[:, :2].tolist()]
    pairs = pairs[np.array(new, bool)]
    text, owner = pairs[:, 0], pairs[:, 1]
    begins, ends = index.runs.begins[owner], index.runs.ends[owner]
    # Around the seeds that they have in common; the rest of a long text is not like it.
    start = words.texts[text]
    starts = np.maximum(start, start + pairs[:, 2] - (ends - begins))
    stops = np.minimum(words.texts[text + 1], start + pairs[:, 3] + (ends - begins))
    longest = int(np.max(ends - begins + stops - starts, initial=0))
    best, at = np.empty(len(pairs)), np.empty(len(pairs), np.int64)
    kernels.best_stretch(
        words.words, starts, stops, index.words.words, begins, ends, longest, best, at
    )
    assert index.config.fuzzy is not None
    for i in np.flatnonzero(best >= index.config.fuzzy.threshold).tolist():
        first = int(starts[i] + at[i])
        last = min(first + int(ends[i] - begins[i]), int(stops[i]))
        stretch, asked = slice(first, last), slice(int(begins[i]), int(ends[i]))
        theirs = set(words.words[stretch][words.numeric[stretch]].tolist())
        ours = set(index.words.words[asked][index.words.numeric[asked]].tolist())
        other = index.config.numbers == "distinct" and theirs - ours and ours - theirs
        place, length = first - int(start[i]), last - first
        kind: Kind = "look-alike" if other else "leak"
        pair = int(owner[i]), int(text[i])
        yield pair[1], _overlap(index, *pair, "fuzzy", place, length, float(best[i]), kind)


def _candidates(index: EvaluationIndex, words: Words) -> NDArray[np.int64]:
    room = ROOM
    while True:
        found = np.empty((room, 4), np.int64)
        count = kernels.vote(
            words.masked,
            words.powers,
            words.texts,
            _sides(words),
            SEED,
            index.seeds.table,
            index.seeds.owners,
            index.allowed,
            index.needed,
            found,
        )
        if count <= room:
            return found[:count]
        room = count


def _by_meaning(
    index: EvaluationIndex, texts: Sequence[str], found: Found, embedder: Embedder | None
) -> Iterator[tuple[int, Overlap]]:
    for text, owner, cosine, other in semantic.alike(index, texts, embedder):
        kind: Kind = "look-alike" if other else "leak"
        if (text, owner) not in found:
            yield text, _overlap(index, owner, text, "semantic", 0, 0, cosine, kind)


def _overlap(
    index: EvaluationIndex,
    owner: int,
    text: int,
    method: Method,
    at: int,
    length: int,
    score: float,
    kind: Kind = "leak",
) -> Overlap:
    settings, asked = index.config, index.texts[owner]
    thresholds = {
        "ngram": settings.ngram and settings.ngram.coverage,
        "fuzzy": settings.fuzzy and settings.fuzzy.threshold,
        "semantic": settings.semantic and settings.semantic.threshold,
    }
    first = int(index.words.texts[owner])
    return Overlap(
        evaluation_set=settings.against[asked.set_index].title,
        where=asked.where,
        field=asked.field,
        group=asked.group,
        answer=asked.answer,
        stem=asked.stem,
        side=SIDES[text % 2],
        method=method,
        kind=kind,
        score=score,
        threshold=thresholds.get(method) or 1.0,
        core=(int(index.runs.begins[owner]) - first, int(index.runs.ends[owner]) - first),
        at=at,
        length=length,
        text=owner,
        model=index.embedder if method == "semantic" else "",
    )
