"""Multiple-choice questions: a question is the same with other options, or with none."""

import re

_OPTIONS = re.compile(
    r"^[ \t]*\(?A[.):][ \t].*$(?:\n.*$){0,3}?\n[ \t]*\(?B[.):][ \t]", re.MULTILINE
)
"""A line "A. ..." or "(A) ...", and one "B. ..." at most four lines below it."""


def stem(text: str) -> str:
    """The question before its options; empty when there are none."""
    options = _OPTIONS.search(text)
    return text[: options.start()] if options else ""
