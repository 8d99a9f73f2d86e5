"""The words of a text as the audit finds them: with a regular expression.

The rules are those that `data_prep.dedup.kernels` states, said once more in a different way.
"""

import re
import unicodedata

FIGURE = "0"
"""Stands for every word with a digit in it, and for every operator."""

_NO_SPACES = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff"
_BREAKS = "\u0080-\u00bf\u2000-\u206f\u3000-\u303f"
_SIGNS = "\u00b1\u00d7\u00f7\u2200-\u22ff"
_WORD = re.compile(
    rf"(?P<pairs>[{_NO_SPACES}]+)|(?:[a-z0-9_]|[^\x00-\x7f{_BREAKS}{_NO_SPACES}{_SIGNS}])+"
    rf"|[%&*+/<=>^|~{_SIGNS}]|-(?=[0-9])|(?<=[0-9])-|(?<= )-(?= )"
)
_FIGURE = re.compile(rf"[0-9]|^[-%&*+/<=>^|~{_SIGNS}]$")


def plain_words(text: str) -> list[str]:
    """The words of a text, in order."""
    words: list[str] = []
    folded = unicodedata.normalize("NFKC", text).casefold()
    plain = "".join(str(int(c)) if c.isdecimal() else c for c in folded)
    for match in _WORD.finditer(plain):
        piece = match.group()
        if match.lastgroup:
            words += [piece[i : i + 2] for i in range(len(piece) - 1)]
        else:
            words.append(piece)
    return words


def is_figure(word: str) -> bool:
    """Whether a word carries the sense of a sum."""
    return _FIGURE.search(word) is not None


def masked(word: str) -> str:
    """A word, or what stands for it when it is a figure."""
    return FIGURE if is_figure(word) else word
