"""The index that training rows are looked up in: hashes of the evaluation texts' words."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from data_prep.contamination.boilerplate import cores, limits
from data_prep.contamination.evaluation_texts import (
    EvaluationRecords,
    EvaluationText,
    Progress,
    read_evaluation_set,
)
from data_prep.contamination.run_tables import (
    SEED,
    ComparedRuns,
    RunTable,
    gram_table,
    positions,
    seed_table,
)
from data_prep.contamination.settings import ContaminationConfig, NgramConfig
from data_prep.contamination.words import Words, words_of
from data_prep.embeddings import Embedder, embed_all
from data_prep.errors import DataError

VOTES = 0.15
"""The share of a text's seeds that a candidate has. When a quarter of the words are others, which
is a similarity of 0.6, 0.42 of the seeds are still there."""
NEVER = 2**31 - 1
ROUNDING = 1e-9
"""0.07 of 100 runs are 7, though floats say a little more."""


@dataclass(frozen=True)
class EvaluationIndex:
    """Evaluation texts, ready to be looked for. Holds no open files: it can be pickled."""

    config: ContaminationConfig
    sets: list[EvaluationRecords]
    texts: list[EvaluationText]
    words: Words
    runs: ComparedRuns
    """What is compared of each text."""
    seeds: RunTable
    """Short runs that make candidates for being alike."""
    allowed: NDArray[np.uint8]
    """Where each text is looked for: 1 the prompt, 2 the response, 3 both, 0 nowhere."""
    least: NDArray[np.int32]
    """Runs in common that reach ``ngram.coverage``, of each text."""
    needed: NDArray[np.int32]
    """Seeds in common that make each text a candidate for being alike."""
    short: NDArray[np.uint64]
    """Hashes of questions that are too short for runs, ascending."""
    short_texts: NDArray[np.int64]
    """Which texts they are."""
    embedder: str
    """Name of the model behind the vectors."""
    vectors: NDArray[np.float32]
    """Embeddings of the questions, shape ``[questions, dimensions]``."""
    vector_texts: NDArray[np.int64]
    """Which texts they are of."""


def build_index(
    config: ContaminationConfig,
    progress: Progress = lambda _step, _rows: None,
    embedder: Embedder | None = None,
) -> EvaluationIndex:
    """Read the evaluation sets and index their texts.

    Args:
        config: which sets, and what is looked for.
        progress: told of evaluation records as they are read.
        embedder: the model, when ``config.semantic`` asks for one.

    Raises:
        DataError: a set cannot be read or holds no text; or no model was handed in.
    """
    if config.semantic and embedder is None:
        raise DataError(
            "contamination.semantic needs a sentence-embedding model, and there is none. "
            "Name one, or leave contamination.semantic out."
        )
    sets = [read_evaluation_set(each, i, progress) for i, each in enumerate(config.against)]
    texts = [text for each in sets for text in each.texts]
    words = words_of([each.text for each in texts])
    runs = _runs(config, texts, words)
    seeds = _seeds(config, texts, words, runs)
    reach = np.ceil((config.ngram or NgramConfig()).coverage * runs.grams.totals - ROUNDING)
    never = runs.whole_only | (config.ngram is None)
    short, short_texts = _short(texts, words, runs.sizes)
    questions, vectors = _vectors(texts, embedder if config.semantic else None)
    return EvaluationIndex(
        config=config,
        sets=sets,
        texts=texts,
        words=words,
        runs=runs,
        seeds=seeds,
        allowed=_allowed(config, texts, runs),
        least=np.where(never, NEVER, reach).astype(np.int32),
        needed=np.maximum(2, np.ceil(VOTES * seeds.totals)).astype(np.int32),
        short=short,
        short_texts=short_texts,
        embedder=embedder.name if embedder and config.semantic else "",
        vectors=vectors,
        vector_texts=questions,
    )


def _runs(
    config: ContaminationConfig, texts: Sequence[EvaluationText], words: Words
) -> ComparedRuns:
    """Which words of each text are compared, and in which runs."""
    keys = [(text.set_index, text.group, text.answer, text.stem) for text in texts]
    numbers = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    groups = np.array([numbers[key] for key in keys], np.int64)
    distinct = _first_equal(words, groups)
    many = limits(groups, distinct)
    begins, ends = cores(words, groups, distinct, many)
    floor = np.where([text.answer for text in texts], config.answer_words, config.min_words)
    whole_only = ends - begins < floor
    begins = np.where(whole_only, words.texts[:-1], begins)
    ends = np.where(whole_only, words.texts[1:], ends)
    judged = words.texts[1:] - words.texts[:-1] >= floor
    sizes = np.where(judged, np.minimum(config.run_words, ends - begins), 0)
    at = positions(begins, ends, sizes)
    grams, bare = gram_table(words, at, sizes, groups, distinct, many)
    return ComparedRuns(begins, ends, sizes, whole_only | bare, grams)


def _seeds(
    config: ContaminationConfig,
    texts: Sequence[EvaluationText],
    words: Words,
    runs: ComparedRuns,
) -> RunTable:
    least = max(config.fuzzy.min_words, SEED) if config.fuzzy else inf
    # Answers of one kind, code above all, have the same words: they are not compared as sets.
    question = np.array([not text.answer for text in texts])
    compared = ~runs.whole_only & question & (runs.ends - runs.begins >= least)
    sizes = np.where(compared, SEED, 0)
    return seed_table(words, positions(runs.begins, runs.ends, sizes), sizes)


def _short(
    texts: Sequence[EvaluationText], words: Words, sizes: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hashes of the questions that are too short for runs, ascending, and which they are."""
    question = np.array([not text.answer for text in texts])
    short = np.flatnonzero(question & (sizes == 0) & (words.texts[1:] > words.texts[:-1]))
    hashes = words.runs(words.texts[short], words.texts[short + 1])
    order = np.argsort(hashes, kind="stable")
    return hashes[order], short[order]


def _vectors(
    texts: Sequence[EvaluationText], embedder: Embedder | None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The questions and their embeddings, where there is a model."""
    if embedder is None:
        return np.empty(0, np.int64), np.empty((0, 0), np.float32)
    questions = np.flatnonzero([not text.answer and not text.stem for text in texts])
    asked = (texts[i].text for i in questions)
    return questions, embed_all(embedder, asked, len(questions))


def _allowed(
    config: ContaminationConfig, texts: Sequence[EvaluationText], runs: ComparedRuns
) -> NDArray[np.uint8]:
    sides = {"prompt": 1, "response": 2, "both": 3}
    asked = [sides[each.on] for each in config.against]
    allowed = np.array([2 if text.answer else asked[text.set_index] for text in texts], np.uint8)
    # "Which of these is true?" without its options is no question.
    stem = np.array([text.stem for text in texts])
    allowed[stem & (runs.whole_only | (runs.sizes == 0))] = 0
    return allowed


def _first_equal(words: Words, groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each text the first of its group with the same words."""
    whole = words.runs(words.texts[:-1], words.texts[1:])
    pairs = np.stack([groups.astype(np.uint64), whole], axis=1)
    _, first, inverse = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
    found: NDArray[np.int64] = first[inverse.reshape(-1)]
    return found
