"""Rows that repeat themselves.

The rules and limits are those of Gopher: Rae et al. (2021), arXiv 2112.11446, table A1. They were
made for web pages, and answers are shorter: without what is stated here for short texts, 17% of
GSM8K's worked sums and 2.7% of Alpaca's answers would go; with it, 0.1% and 0.5% do. What still
goes of good answers is songs and long step-by-step work: raise the limits for such data.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from data_prep.filters.candidate import Candidate, Part, Verdict
from data_prep.filters.repetition_kernels import repeated_characters, top_characters
from data_prep.filters.words import HAN_AND_KANA, THAI_AND_KIN

FEWEST_WORDS = 10
"""Texts of fewer words are never called repetitive."""
SHORT_LIMIT = 0.5
"""In short texts, every limit that is lower is raised to this."""

Share = Annotated[float, Field(ge=0, le=1)]

_UNSPACED = re.compile(f"[{HAN_AND_KANA}{THAI_AND_KIN}]")
_THAI_AND_KIN = re.compile(f"[{THAI_AND_KIN}]")
_PIECE = re.compile(rf"[{HAN_AND_KANA}{THAI_AND_KIN}]|[^\s{HAN_AND_KANA}{THAI_AND_KIN}]+")
_SAYS_SOMETHING = re.compile(r"\w")
_LINES, _PARAGRAPHS = re.compile(r"\n+"), re.compile(r"\n[^\S\n]*\n\s*")


class RepetitionFilter(BaseModel):
    """Drops rows with a turn of which too large a share is repetition.

    Every turn is judged by itself: an answer said anew, shorter or corrected, repeats much of the
    one before and is no defect.

    Words are what white space parts. Of scripts written without spaces every character is taken
    for a piece of a word: 2 pieces a word in Han and Kana, 4 in Thai, Lao, Burmese and Khmer.
    A repeat is what stood before; what stands first is not counted. Lines and paragraphs without
    a letter or digit (brackets, rules) do not count. 1 is the limit that never drops.

    Short texts: below 10 words nothing is dropped; below ``short`` words only texts that are
    mostly repetition, because a limit lower than 0.5 counts as 0.5.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["repetition"]
    on: Part = "response"
    """What is looked at: the turns of the ``prompt``, of the ``response``, or of ``both``."""
    short: int = Field(default=150, ge=0)
    """Words from which on the limits hold as they are."""
    lines: Share = 0.30
    """The largest share of lines that stood before."""
    line_characters: Share = 0.20
    """The largest share of characters in lines that stood before."""
    paragraphs: Share = 0.30
    """The largest share of paragraphs (parted by empty lines) that stood before."""
    paragraph_characters: Share = 0.20
    """The largest share of characters in paragraphs that stood before."""
    top_ngrams: tuple[Share, Share, Share] = (0.20, 0.18, 0.16)
    """The largest share of characters in the most frequent sequence of 2, 3 and 4 words."""
    repeated_ngrams: tuple[Share, Share, Share, Share, Share, Share] = (
        0.15,
        0.14,
        0.13,
        0.12,
        0.11,
        0.10,
    )
    """The largest share of characters in sequences of 5, 6, 7, 8, 9 and 10 words that stood
    before."""

    def judge(self, candidate: Candidate) -> Verdict:
        """Keep a row whose turns all lie within every limit."""
        for text in candidate.turns(self.on):
            verdict = self._judge(text)
            if verdict is not True:
                return verdict
        return True

    def _judge(self, text: str) -> Verdict:
        pieces = _PIECE.findall(text)
        a_word = _pieces_a_word(text, len(pieces))
        words = len(pieces) // a_word
        if words < FEWEST_WORDS:
            return True
        floor = SHORT_LIMIT if words < self.short else 0.0
        for what, share, limit in self._shares(text, pieces, a_word):
            if share > max(limit, floor):
                return False, f"{share:.0%} {what} of {words} words, max={max(limit, floor):.0%}"
        return True

    def _shares(
        self, text: str, pieces: list[str], a_word: int
    ) -> Iterator[tuple[str, float, float]]:
        """Every rule in words, what was found, and its limit; the cheap ones first."""
        for name, parts, by_count, by_characters in (
            ("lines", _LINES.split(text), self.lines, self.line_characters),
            (
                "paragraphs",
                _PARAGRAPHS.split(text),
                self.paragraphs,
                self.paragraph_characters,
            ),
        ):
            count, characters = _repeated(parts)
            yield f"repeated {name}", count, by_count
            yield f"of characters in repeated {name}", characters, by_characters
        ids, sizes = _numbered(pieces)
        total = int(sizes.sum())
        for n, limit in enumerate(self.top_ngrams, 2):
            _, found = top_characters(ids, sizes, n * a_word)
            yield f"of characters in the top {n}-gram", int(found) / total, limit
        for n, limit in enumerate(self.repeated_ngrams, 5):
            found = repeated_characters(ids, sizes, n * a_word)
            yield f"of characters in repeated {n}-grams", int(found) / total, limit


def _pieces_a_word(text: str, pieces: int) -> int:
    """How many pieces make a word, by the script that most of the text is written in."""
    if text.isascii():
        return 1
    unspaced = len(_UNSPACED.findall(text))
    if 2 * unspaced <= pieces:
        return 1
    return 4 if 2 * len(_THAI_AND_KIN.findall(text)) > unspaced else 2


def _repeated(parts: list[str]) -> tuple[float, float]:
    """The share of parts that stood before, by their number and by their characters."""
    seen: set[str] = set()
    repeats = repeated_characters = characters = count = 0
    for part in parts:
        stripped = part.strip()
        if not _SAYS_SOMETHING.search(stripped):
            continue
        count += 1
        characters += len(stripped)
        if stripped in seen:
            repeats += 1
            repeated_characters += len(stripped)
        seen.add(stripped)
    return repeats / max(count, 1), repeated_characters / max(characters, 1)


def _numbered(pieces: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A number for every piece, equal for equal ones, and its characters."""
    numbers: dict[str, int] = {}
    ids = [numbers.setdefault(piece, len(numbers)) for piece in pieces]
    return np.array(ids, np.int64), np.array([len(piece) for piece in pieces], np.int64)
