"""Rows by their length in words; and what a word is, for every filter that counts them."""

import re
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_prep.filters.candidate import Candidate, Part, Verdict
from data_prep.filters.limits import check_limits, within

HAN_AND_KANA = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff\u3040-\u30ff"
THAI_AND_KIN = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
"""Thai, Lao, Burmese and Khmer; as Han and Kana, written without spaces between words."""
_UNSPACED = HAN_AND_KANA + THAI_AND_KIN
CLINGING = rf"[^\W{_UNSPACED}\uac00-\ud7a3]"
"""A letter, digit or underscore that a number or an address can be a part of. Chinese, Japanese and
Thai letters, and Korean particles, stand beside them without a space."""
_MARKS = (
    "\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u05bf-\u05c7\u0610-\u061a\u064b-\u065f\u0670"
    "\u06d6-\u06ed\u0711\u0730-\u074a\u0900-\u0963\u0966-\u0df3\u1ab0-\u1aff\u1dc0-\u1dff\u200c\u200d"
    "\ufe20-\ufe2f"
)
"""Accents and vowels that stand on letters, and joiners: no letters to an expression's ``\\w``."""
_RUN = rf"[^\W{_UNSPACED}](?:[^\W{_UNSPACED}]+|[{_MARKS}])*"
_WORD = re.compile(rf"[{_UNSPACED}]|{_RUN}(?:['\u2019]{_RUN})*")


def words(text: str) -> list[str]:
    """The words of a text, as they are written.

    A word is a run of letters, the marks on them, digits and underscores, with apostrophes inside:
    ``don't`` is one.
    Of scripts that are written without spaces (Han, Kana, Thai, Lao, Burmese, Khmer) every
    character is one.
    """
    return _WORD.findall(text)


class WordsFilter(BaseModel):
    """Keeps rows of so many words; see `words` for what one is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["words"]
    min: int | None = Field(default=None, ge=0)
    """The fewest words of a row that stays; null for no limit."""
    max: int | None = Field(default=None, ge=0)
    """The most words of a row that stays; null for no limit."""
    on: Part = "both"
    """What is measured: the ``prompt``, the ``response``, or ``both`` together."""

    @model_validator(mode="after")
    def _limits(self) -> Self:
        check_limits(self.min, self.max)
        return self

    def judge(self, candidate: Candidate) -> Verdict:
        """Keep a row whose words lie within the limits."""
        count = len(words(candidate.text(self.on)))
        return within(count, self.min, self.max, f"{count} words in {self.on}")
