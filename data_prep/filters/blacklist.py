"""Instructions that a language model without eyes, ears or files cannot follow.

The rules are those of Self-Instruct: Wang et al. (2022), arXiv 2212.10560, and its code
(github.com/yizhongw/self-instruct); the words from "video" on are those that Stanford Alpaca added.
"""

import re
import string
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from data_prep.filters.candidate import Candidate, Verdict

Phrase = Annotated[str, Field(pattern=r"\S")]
WORDS = (
    *("image", "images", "graph", "graphs", "picture", "pictures", "file", "files"),
    *("map", "maps", "draw", "plot", "go to"),
    *("video", "audio", "music", "flowchart", "diagram"),
)
PREFIXES = ("Write a program",)


class BlacklistFilter(BaseModel):
    """Drops rows whose first instruction asks for what text cannot do, or does not look like one.

    Only the instruction's first line is looked at: what follows is mostly the material that it is
    about, and Self-Instruct looked at instructions without their material.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["blacklist"]
    words: tuple[Phrase, ...] = WORDS
    """Words and phrases that may not stand in it, whole, in whatever case. Replaces the list."""
    more_words: tuple[Phrase, ...] = ()
    """Words and phrases beside those of the list."""
    prefixes: tuple[Phrase, ...] = PREFIXES
    """What it may not begin with, in this case. Replaces the list."""
    punctuation: bool = True
    """Whether an instruction goes that begins with a punctuation mark."""
    non_ascii: bool = True
    """Whether an instruction goes that begins with a character outside ASCII. Say false for data
    that is not only English: Chinese and Russian begin so, Spanish questions too."""

    def judge(self, candidate: Candidate) -> Verdict:
        """Keep a row whose first instruction breaks no rule."""
        first = next(iter(candidate.instruction.strip().splitlines()), "")
        if not first:
            return True
        listed = _any_of(self.words + self.more_words).search(first)
        if listed:
            return False, f"the instruction says {' '.join(listed[0].lower().split())!r}"
        for prefix in self.prefixes:
            if first.startswith(prefix):
                return False, f"the instruction begins with {prefix!r}"
        if self.punctuation and first[0] in string.punctuation:
            return False, f"the instruction begins with {first[0]!r}"
        if self.non_ascii and not first[0].isascii():
            return False, f"the instruction begins with {first[0]!r}, outside ASCII"
        return True


@lru_cache(maxsize=64)
def _any_of(phrases: tuple[str, ...]) -> re.Pattern[str]:
    """Any of the phrases, whole; an expression that matches nothing when there are none."""
    if not phrases:
        return re.compile(r"(?!)")
    spaced = [r"\s+".join(map(re.escape, phrase.split())) for phrase in phrases]
    return re.compile(rf"(?<!\w)(?:{'|'.join(spaced)})(?!\w)", re.IGNORECASE)
