"""Certificates of removed duplicates, and an audit that believes none of them.

The audit shares no code with the deduplicator: it takes the two texts, finds their words with a
regular expression, and counts. For the cosine of two embeddings it embeds both again.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from data_prep.embeddings import Embedder
from data_prep.row_text import text_of, whole_text
from data_prep.rows import Completion, Conversation, Labelled, Preference, Row

TOLERANCE = 1e-9
"""Between the certified and the recounted similarity: both divide the same two whole numbers."""
COSINE_TOLERANCE = 1e-3
"""Between the certified and the recomputed cosine: another machine, or another batch, rounds
otherwise. The certified one is never below the threshold, so the other is by no more than this."""


DUPLICATES = {
    "equal": "exact duplicate",
    "same words": "duplicate but for case and punctuation",
    "jaccard": "near-duplicate",
    "cosine": "semantic duplicate",
}
"""What the ledger calls a row that was removed by each measure."""
CONTRADICTING = "contradicting"
"""What it calls a preference of which another row says the opposite: neither can be believed."""


class Certificate(BaseModel):
    """Why one row was removed: a row that stays, and how alike the two were counted to be.

    Of a row that was removed for contradicting another one, that other one, which went too.
    """

    model_config = ConfigDict(frozen=True)

    removed: str
    """The place of the removed row."""
    witness: str
    """The place of the row that stays; of a contradiction, that of the other row."""
    measure: Literal["equal", "same words", "jaccard", "cosine", "group", "question", "opposite"]
    """Every turn and tool is equal; the words are equal in their order; the sets of words are
    this similar; the sentence embeddings are. Of rows that validation has, also: they have one
    value of the ``group`` field, which only the sources can tell; they ask the same question. Of
    preferences: one is the opposite of the other, everything else is equal."""
    similarity: float
    threshold: float
    on: Literal["prompt", "response", "both"] = "both"
    ngram: int = 1
    numbers: Literal["distinct", "merge"] = "distinct"
    model: str = ""
    """Of a cosine: the embedder's name, a hash of its files in it."""


def audit(
    certificates: Iterable[Certificate],
    rows: Mapping[str, Row],
    kept: frozenset[str],
    removed: Sequence[str],
    embedder: Embedder | None = None,
) -> list[str]:
    """Replay every certificate, and see that there is one of every removed row.

    Args:
        certificates: what the deduplicator claims.
        rows: the rows they name, by place, read anew.
        kept: places of the rows that deduplication left in the data.
        removed: places of the rows that the ledger says were removed as duplicates.
        embedder: the model to embed rows with once more; cosines do not hold without it.

    Returns:
        What does not hold, a line each; empty when everything does.
    """
    every = list(certificates)
    return replay(every, rows, kept, embedder) + unmatched(every, removed)


def replay(
    certificates: Sequence[Certificate],
    rows: Mapping[str, Row],
    kept: frozenset[str],
    embedder: Embedder | None = None,
    groups: Mapping[str, str] | None = None,
) -> list[str]:
    """Replay some certificates.

    Args:
        certificates: as for `audit`.
        rows: as for `audit`.
        kept: as for `audit`.
        embedder: as for `audit`.
        groups: what stands in the ``group`` field of each row they name that has one.

    Returns:
        What does not hold, a line each.
    """
    problems = []
    vectors = _embedded(certificates, rows, embedder)
    for certificate in certificates:
        problem = _problem(certificate, rows, kept, groups or {})
        if not problem and certificate.measure == "cosine":
            problem = _cosine_problem(certificate, vectors, embedder.name if embedder else "")
        if problem:
            problems.append(f"{certificate.removed}: {problem}")
    return problems


def unmatched(certificates: Iterable[Certificate], removed: Sequence[str]) -> list[str]:
    """Removed rows without a certificate, certificates of other rows, and second ones."""
    counts = Counter(certificate.removed for certificate in certificates)
    problems = []
    for place in sorted(set(removed) ^ counts.keys()):
        what = "has a certificate but was not removed" if place in counts else "is not certified"
        problems.append(f"{place}: {what}")
    twice = (place for place, count in counts.items() if count > 1)
    return problems + [f"{place}: is certified more than once" for place in sorted(twice)]


def _problem(
    certificate: Certificate,
    rows: Mapping[str, Row],
    kept: frozenset[str],
    groups: Mapping[str, str],
) -> str:
    if certificate.removed in kept:
        return "was certified as removed, and is still there"
    if certificate.witness not in kept:
        return f"its witness {certificate.witness} did not stay"
    if certificate.removed not in rows or certificate.witness not in rows:
        return "the row or its witness is not in the sources any more"
    one, other = rows[certificate.removed], rows[certificate.witness]
    if certificate.measure == "equal":
        return "" if whole_text(one) == whole_text(other) else "is not equal to its witness"
    if certificate.measure == "group":
        shared = groups.get(certificate.removed) is not None
        shared = shared and groups[certificate.removed] == groups.get(certificate.witness)
        return "" if shared else "has not the group of its witness"
    if certificate.measure == "question":
        return "" if _question(one) == _question(other) else "does not ask what its witness asks"
    words = [words_in(text_of(each, certificate.on)) for each in (one, other)]
    if certificate.measure == "same words":
        return "" if words[0] == words[1] else "has not the same words as its witness"
    sets = [grams(each, certificate.ngram) for each in words]
    similarity = len(sets[0] & sets[1]) / max(1, len(sets[0] | sets[1]))
    if certificate.measure == "jaccard":
        if abs(similarity - certificate.similarity) > TOLERANCE:
            return f"certified {certificate.similarity:.6f} similar, counted {similarity:.6f}"
        if similarity < certificate.threshold:
            return f"similarity {similarity:.6f} is below the threshold {certificate.threshold}"
    numbers = [{word for word in each if _NUMERIC.search(word)} for each in words]
    if certificate.numbers == "distinct" and (
        (numbers[0] - numbers[1] and numbers[1] - numbers[0])
        or (certificate.measure == "jaccard" and _only_figures_differ(*words))
    ):
        return "differs from its witness in its numbers"
    return ""


def _only_figures_differ(one: Sequence[str], other: Sequence[str]) -> bool:
    """Both have figures, other ones or in another order, and the same words beside them."""
    plain = [[word for word in each if not _FIGURE.match(word)] for each in (one, other)]
    figures = [
        [
            word
            for word, after in zip(each, [*each[1:], ""], strict=True)
            if word[0].isdecimal() or (_FIGURE.match(word) and after[:1].isdecimal())
        ]
        for each in (one, other)
    ]
    return plain[0] == plain[1] and all(figures) and figures[0] != figures[1]


def _question(row: Row) -> list[str]:
    """The words of what is asked first, whatever their case."""
    match row:
        case Conversation(messages=turns):
            asked = [turn.content for turn in turns if turn.role == "user"][:1]
        case (
            Preference(prompt=str(prompt), chosen=completion)
            | Labelled(prompt=str(prompt), completion=completion)
        ):
            asked = [prompt if prompt.split() else str(completion)]
        case Preference(prompt=tuple() as turns) | Labelled(prompt=tuple() as turns):
            asked = [turn.content for turn in turns if turn.role == "user"][:1]
        case Completion(prompt=prompt, completion=completion):
            asked = [prompt if prompt.split() else completion]
        case _:
            asked = [text_of(row, "both")]
    return " ".join(asked).lower().split()


def _embedded(
    certificates: Iterable[Certificate], rows: Mapping[str, Row], embedder: Embedder | None
) -> dict[tuple[str, str], NDArray[np.float64]]:
    """The vector of each row that a cosine names, by its place and the part that is compared."""
    if embedder is None:
        return {}
    named = {
        (place, certificate.on): text_of(rows[place], certificate.on)
        for certificate in certificates
        if certificate.measure == "cosine"
        for place in (certificate.removed, certificate.witness)
        if place in rows
    }
    if not named:
        return {}
    vectors = embedder.embed(list(named.values()))
    return {key: vectors[index].astype(np.float64) for index, key in enumerate(named)}


def _cosine_problem(
    certificate: Certificate,
    vectors: Mapping[tuple[str, str], NDArray[np.float64]],
    model: str,
) -> str:
    if not model:
        return f"names a cosine, and the model {certificate.model} was not loaded to replay it"
    if model != certificate.model:
        return f"was certified with the model {certificate.model}, not {model}"
    one, other = (vectors[p, certificate.on] for p in (certificate.removed, certificate.witness))
    cosine = float(np.dot(one, other))
    if not abs(cosine - certificate.similarity) <= COSINE_TOLERANCE:
        return f"certified a cosine of {certificate.similarity:.6f}, computed {cosine:.6f}"
    if certificate.similarity < certificate.threshold:
        return f"cosine {certificate.similarity:.6f} is below the threshold {certificate.threshold}"
    return ""


_NO_SPACES = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff"
_BREAKS = "\u0080-\u00bf\u2000-\u206f\u3000-\u303f"
_SIGNS = "\u00b1\u00d7\u00f7\u2200-\u22ff"
_WORD = re.compile(
    rf"(?P<pairs>[{_NO_SPACES}]+)|[a-z0-9_]|[^\x00-\x7f{_BREAKS}{_NO_SPACES}{_SIGNS}]"
    rf"|[%&*+/<=>^|~{_SIGNS}]|-(?=[0-9])|(?<=[0-9])-|(?<= )-(?= )"
)
_LETTER = re.compile(rf"[a-z0-9_]|[^\x00-\x7f{_BREAKS}{_NO_SPACES}{_SIGNS}]")
_FIGURE = re.compile(rf"[0-9]|[-%&*+/<=>^|~{_SIGNS}]$")
_NUMERIC = re.compile(rf"[0-9]|^[-%&*+/<=>^|~{_SIGNS}]$")


def words_in(text: str) -> list[str]:
    """The words of a text, by the rules that `data_prep.dedup.words` states."""
    words: list[str] = []
    end = -1
    folded = unicodedata.normalize("NFKC", text).casefold()
    plain = "".join(str(int(c)) if c.isdecimal() else c for c in folded)
    for match in _WORD.finditer(plain):
        piece = match.group()
        if match.group("pairs"):
            words += [piece[i : i + 2] for i in range(len(piece) - 1)]
            end = -1
        elif _LETTER.fullmatch(piece):
            if match.start() == end:
                words[-1] += piece
            else:
                words.append(piece)
            end = match.end()
        else:
            words.append(piece)
            end = -1
    return words


def grams(words: Sequence[str], size: int) -> set[tuple[str, ...]]:
    """The runs of so many neighbouring words; of fewer words all of them as one."""
    if len(words) <= size:
        return {tuple(words)} if words else set()
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}
