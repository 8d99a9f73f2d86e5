"""Certificates of removed duplicates, and an audit that believes none of them.

The audit shares no code with the deduplicator: it takes the two texts, finds their words with a
regular expression, and counts.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from data_prep.row_text import text_of, whole_text
from data_prep.rows import Row

TOLERANCE = 1e-9
"""Between the certified and the recounted similarity: both divide the same two whole numbers."""


DUPLICATES = {
    "equal": "exact duplicate",
    "same words": "duplicate but for case and punctuation",
    "jaccard": "near-duplicate",
}
"""What the ledger calls a row that was removed by each measure."""


class Certificate(BaseModel):
    """Why one row was removed: a row that stays, and how alike the two were counted to be."""

    model_config = ConfigDict(frozen=True)

    removed: str
    """The place of the removed row."""
    witness: str
    """The place of the row that stays."""
    measure: Literal["equal", "same words", "jaccard"]
    """Every turn and tool is equal; the words are equal in their order; the sets of words are
    this similar."""
    similarity: float
    threshold: float
    on: Literal["prompt", "response", "both"] = "both"
    ngram: int = 1
    numbers: Literal["distinct", "merge"] = "distinct"


def audit(
    certificates: Iterable[Certificate],
    rows: Mapping[str, Row],
    kept: frozenset[str],
    removed: Sequence[str],
) -> list[str]:
    """Replay every certificate.

    Args:
        certificates: what the deduplicator claims.
        rows: the rows they name, by place, read anew.
        kept: places of the rows that deduplication left in the data.
        removed: places of the rows that the ledger says were removed as duplicates.

    Returns:
        What does not hold, a line each; empty when everything does.
    """
    problems = []
    certified = set()
    for certificate in certificates:
        certified.add(certificate.removed)
        problem = _problem(certificate, rows, kept)
        if problem:
            problems.append(f"{certificate.removed}: {problem}")
    for place in sorted(set(removed) ^ certified):
        what = "has a certificate but was not removed" if place in certified else "is not certified"
        problems.append(f"{place}: {what}")
    return problems


def _problem(certificate: Certificate, rows: Mapping[str, Row], kept: frozenset[str]) -> str:
    if certificate.removed in kept:
        return "was certified as removed, and is still there"
    if certificate.witness not in kept:
        return f"its witness {certificate.witness} did not stay"
    if certificate.removed not in rows or certificate.witness not in rows:
        return "the row or its witness is not in the sources any more"
    one, other = rows[certificate.removed], rows[certificate.witness]
    if certificate.measure == "equal":
        return "" if whole_text(one) == whole_text(other) else "is not equal to its witness"
    words = [_words(text_of(each, certificate.on)) for each in (one, other)]
    if certificate.measure == "same words":
        return "" if words[0] == words[1] else "has not the same words as its witness"
    grams = [_grams(each, certificate.ngram) for each in words]
    similarity = len(grams[0] & grams[1]) / max(1, len(grams[0] | grams[1]))
    if abs(similarity - certificate.similarity) > TOLERANCE:
        return f"certified {certificate.similarity:.6f} similar, counted {similarity:.6f}"
    if similarity < certificate.threshold:
        return f"similarity {similarity:.6f} is below the threshold {certificate.threshold}"
    numbers = [{word for word in each if _NUMERIC.search(word)} for each in words]
    if certificate.numbers == "distinct" and numbers[0] - numbers[1] and numbers[1] - numbers[0]:
        return "differs from its witness in its numbers"
    return ""


_NO_SPACES = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff"
_BREAKS = "\u0080-\u00bf\u2000-\u206f\u3000-\u303f"
_WORD = re.compile(
    rf"(?P<pairs>[{_NO_SPACES}]+)|[a-z0-9_]|(?P<letter>[^\x00-\x7f{_BREAKS}{_NO_SPACES}])"
    r"|[%&*+/<=>^|~]|-(?=[0-9])|(?<=[0-9])-|(?<= )-(?= )"
)
_LETTER = re.compile(rf"[a-z0-9_]|[^\x00-\x7f{_BREAKS}{_NO_SPACES}]")
_NUMERIC = re.compile(r"[0-9]|^[-%&*+/<=>^|~]$")


def _words(text: str) -> list[str]:
    """The words of a text, by the rules that `data_prep.dedup.words` states."""
    words: list[str] = []
    end = -1
    for match in _WORD.finditer(unicodedata.normalize("NFKC", text).casefold()):
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


def _grams(words: Sequence[str], size: int) -> set[tuple[str, ...]]:
    if len(words) <= size:
        return {tuple(words)} if words else set()
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}
