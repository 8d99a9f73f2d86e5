"""How many tokens a tokenizer makes of a word, of a byte, of a character.

Fertility is the mean number of tokens that a word is cut into (Rust et al. 2021, arXiv
2012.15613). Here, exactly:

- A *word* is a longest run of letters, the marks on them, digits and underscores. Scripts that are
  written without spaces (Chinese, Japanese kana, Thai, Lao, Khmer, Burmese, Tibetan) have no words
  by that rule, so their characters are in none; ``characters_per_token`` is for them, and
  ``covered_share`` says how much of the texts the words are.
- A word's tokens are those that cover at least one of its characters. The space that many
  tokenizers put before a word belongs to its first token and costs nothing; punctuation counts only
  where a token joins it to a word.
- ``tokens_per_word`` is the mean over all words of the texts, repeated ones repeatedly.
- ``bytes_per_token`` and ``characters_per_token`` are over everything: all UTF-8 bytes (characters)
  of the texts by all their tokens, special tokens that the tokenizer adds itself left out.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.tokenizer import Tokenizer

BATCH = 256
"""Texts encoded at once, on all cores; decides speed, not the result."""

_UNSPACED_RANGES = (
    (0x0E00, 0x0FFF),  # Thai, Lao, Tibetan
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),  # signs that stand among Han
    (0x3041, 0x30FF),  # kana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),  # kana of half width
    (0x20000, 0x3FFFF),
)
_UNSPACED = "".join(f"{chr(first)}-{chr(last)}" for first, last in _UNSPACED_RANGES)
"""Inside the brackets of a regular expression."""


@dataclass(frozen=True)
class Fertility:
    """What some texts cost under one tokenizer; the module says how each figure is defined."""

    texts: int = 0
    characters: int = 0
    bytes: int = 0
    tokens: int = 0
    words: int = 0
    word_tokens: int = 0
    """Tokens of words, summed over the words."""
    whole_words: int = 0
    """Words that are one token."""
    word_characters: int = 0
    """Characters of words."""
    unspaced_characters: int = 0
    """Characters of scripts that are written without spaces: they are in no word."""

    def __add__(self, other: "Fertility") -> "Fertility":
        return Fertility(*(a + b for a, b in zip(self._counts(), other._counts(), strict=True)))

    @property
    def tokens_per_word(self) -> float | None:
        """The fertility; None where there are no words."""
        return self.word_tokens / self.words if self.words else None

    @property
    def whole_word_share(self) -> float | None:
        """The share of words that are one token; None where there are no words."""
        return self.whole_words / self.words if self.words else None

    @property
    def covered_share(self) -> float | None:
        """The share of what could be words that is; the rest is written without spaces.

        Where it is small, the words are a few foreign ones, and their fertility says nothing of
        the texts. None where there is neither.
        """
        both = self.word_characters + self.unspaced_characters
        return self.word_characters / both if both else None

    @property
    def bytes_per_token(self) -> float | None:
        """UTF-8 bytes that a token stands for; None where there are no tokens."""
        return self.bytes / self.tokens if self.tokens else None

    @property
    def characters_per_token(self) -> float | None:
        """Characters that a token stands for; None where there are no tokens."""
        return self.characters / self.tokens if self.tokens else None

    def as_dict(self) -> dict[str, Any]:
        """Counts and figures, for JSON."""
        return vars(self) | {
            "tokens_per_word": self.tokens_per_word,
            "whole_word_share": self.whole_word_share,
            "covered_share": self.covered_share,
            "bytes_per_token": self.bytes_per_token,
            "characters_per_token": self.characters_per_token,
        }

    def _counts(self) -> tuple[int, ...]:
        return tuple(vars(self).values())


def fertility(
    tokenizer: Tokenizer,
    texts: Iterable[str],
    progress: Callable[[int], None] = lambda _texts: None,
) -> Fertility:
    """Measure a tokenizer on texts.

    Args:
        tokenizer: any fast tokenizer.
        texts: read once, a batch at a time.
        progress: told how many more texts were measured.
    """
    return fertility_by(tokenizer, (("", text) for text in texts), progress).get("", Fertility())


def fertility_by(
    tokenizer: Tokenizer,
    labelled: Iterable[tuple[str, str]],
    progress: Callable[[int], None] = lambda _texts: None,
) -> dict[str, Fertility]:
    """Measure a tokenizer on texts, each language (or other label) for itself.

    Args:
        tokenizer: any fast tokenizer.
        labelled: pairs of a label and a text.
        progress: told how many more texts were measured.

    Returns:
        Label -> figures, labels sorted.
    """
    found: dict[str, Fertility] = {}
    for batch in _batched(labelled):
        encodings = tokenizer.backend.encode_batch(
            [text for _, text in batch], add_special_tokens=False
        )
        for (label, text), encoding in zip(batch, encodings, strict=True):
            spans = np.array(encoding.offsets, np.int64).reshape(-1, 2)
            found[label] = found.get(label, Fertility()) + _measured(text, spans)
        progress(len(batch))
    return {label: found[label] for label in sorted(found)}


def _measured(text: str, spans: NDArray[np.int64]) -> Fertility:
    """Count one text.

    Args:
        text: the text.
        spans: where each of its tokens begins and ends, in characters, shape ``[tokens, 2]``.
    """
    words = np.array([m.span() for m in _word().finditer(text)], np.int64).reshape(-1, 2)
    begun = np.searchsorted(spans[:, 0], words[:, 1], side="left")
    ended = np.searchsorted(spans[:, 1], words[:, 0], side="right")
    each = begun - ended
    return Fertility(
        texts=1,
        characters=len(text),
        bytes=len(text.encode()),
        tokens=len(spans),
        words=len(words),
        word_tokens=int(each.sum()),
        whole_words=int((each == 1).sum()),
        word_characters=int((words[:, 1] - words[:, 0]).sum()),
        unspaced_characters=sum(map(len, _unspaced().findall(text))),
    )


def _batched(labelled: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    rest = iter(labelled)
    while batch := list(islice(rest, BATCH)):
        yield batch


@cache
def _word() -> re.Pattern[str]:
    marks = (c for c in map(chr, range(0x300, 0x20000)) if unicodedata.category(c)[0] == "M")
    held = "".join(c for c in marks if not re.match(f"[{_UNSPACED}]", c))
    return re.compile(rf"[^\W{_UNSPACED}](?:[^\W{_UNSPACED}]|[{held}])*")


@cache
def _unspaced() -> re.Pattern[str]:
    return re.compile(f"[{_UNSPACED}]+")
