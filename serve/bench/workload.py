"""What is asked of a server: prompts of given lengths, answers of given lengths, from a seed."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve.errors import ServeError

# Common words that nearly every tokenizer holds whole, so that a word is about a token.
_WORDS = [
    "time",
    "year",
    "people",
    "way",
    "day",
    "man",
    "thing",
    "woman",
    "life",
    "child",
    "world",
    "school",
    "state",
    "family",
    "student",
    "group",
    "country",
    "problem",
    "hand",
    "part",
    "place",
    "case",
    "week",
    "company",
    "system",
    "program",
    "question",
    "work",
    "government",
    "number",
    "night",
    "point",
    "home",
    "water",
    "room",
    "mother",
    "area",
    "money",
    "story",
    "fact",
    "month",
    "lot",
    "right",
    "study",
    "book",
    "eye",
    "job",
    "word",
    "business",
    "issue",
    "side",
    "kind",
    "head",
    "house",
    "service",
    "friend",
    "father",
    "power",
    "hour",
    "game",
    "line",
]


class NotARequest(ServeError):
    """A line of a file of requests cannot be asked."""


@dataclass(frozen=True)
class Ask:
    """One request to send."""

    messages: tuple[dict[str, Any], ...]
    """The conversation."""

    max_tokens: int
    """Most tokens of the answer."""

    model: str | None = None
    """Asked for in place of the target's."""


def made_up(
    requests: int,
    input_tokens: int,
    output_tokens: Sequence[int],
    *,
    prefix_tokens: int = 0,
    models: Sequence[str | None] = (None,),
    seed: int = 0,
) -> list[Ask]:
    """Requests of random words.

    Args:
        requests: how many.
        input_tokens: words of each prompt beside the prefix, about as many tokens.
        output_tokens: lengths of answers, taken in turn and shuffled: ``[16, 128]`` gives a mix.
        prefix_tokens: words that all prompts begin with, as a shared system prompt would be.
        models: asked for in turn; None is the target's own.
        seed: the same seed makes the same requests.
    """
    draw = random.Random(seed)
    prefix = " ".join(draw.choices(_WORDS, k=prefix_tokens))
    lengths = [output_tokens[index % len(output_tokens)] for index in range(requests)]
    draw.shuffle(lengths)
    asks = []
    for length, model in zip(lengths, itertools.cycle(models), strict=False):
        words = " ".join(draw.choices(_WORDS, k=input_tokens))
        text = f"{prefix} {words}" if prefix else words
        asks.append(Ask(({"role": "user", "content": text},), length, model))
    return asks


def from_file(path: Path, max_tokens: int) -> list[Ask]:
    """Requests from a JSONL file: each line holds ``messages`` or ``prompt``.

    Args:
        path: the file.
        max_tokens: for lines without ``max_tokens`` of their own.

    Raises:
        NotARequest: a line is not JSON, or has neither; the file and line are named.
    """
    asks = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                asks.append(_ask(line, f"{path}:{number}", max_tokens))
    if not asks:
        raise NotARequest(f"{path}: no requests in it. Write one JSON object a line.")
    return asks


def _ask(line: str, where: str, max_tokens: int) -> Ask:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise NotARequest(f"{where}: not JSON ({error}).") from None
    if not isinstance(row, dict):
        raise NotARequest(f"{where}: not a JSON object.")
    messages = row.get("messages")
    if messages is None and isinstance(row.get("prompt"), str):
        messages = [{"role": "user", "content": row["prompt"]}]
    if not isinstance(messages, list) or not messages:
        raise NotARequest(f"{where}: has neither 'messages' (a list) nor 'prompt' (a string).")
    most = row.get("max_tokens", max_tokens)
    if not isinstance(most, int) or most < 1:
        raise NotARequest(f"{where}: max_tokens is {most!r}; it must be a whole number above 0.")
    return Ask(tuple(messages), most)
