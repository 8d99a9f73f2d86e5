"""How many tokens a request will use: at least and at most, before anything is tokenized."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serve.keys.window import Ask

_ROUTES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "/v1/chat/completions": (
        ("messages", "tools", "documents"),
        ("max_completion_tokens", "max_tokens"),
    ),
    "/v1/completions": (("prompt",), ("max_tokens",)),
    "/v1/responses": (("input", "instructions", "tools"), ("max_output_tokens",)),
    "/v1/embeddings": (("input",), ()),
}
"""Fields that go into the prompt, and those that bound the answer, by route."""

_COMPLETION = 16
"""What vLLM, as OpenAI, takes for ``max_tokens`` of /v1/completions where it is not given."""
_CHARACTERS = 8
"""Hardly any text has fewer tokens than one for so many characters."""
_AROUND = 512
"""Tokens that a chat template may put around the messages: a system prompt of its own."""


@dataclass(frozen=True)
class Estimate:
    """What is known of a request's tokens before anything is tokenized."""

    ask: Ask
    answers: int | None = None
    """Tokens of all its answers together at most, where it names a maximum."""


def estimate(route: str, body: Mapping[str, Any], longest: int) -> Estimate:
    """Bounds on prompt and answer tokens together.

    Args:
        route: the allow-list's path.
        body: the request.
        longest: the model's longest prompt plus answer.

    Returns:
        Nothing for a route without tokens. At least: the answer's named maximum (a token, where
        none is named) and what the prompt's length makes certain. At most: the named maximum, or
        all that the model can write, and a token for each byte of the prompt as indented JSON.
    """
    if route not in _ROUTES:
        return Estimate(Ask())
    prompts, maxima = _ROUTES[route]
    size = _Size()
    for name in prompts:
        size.add(body.get(name))
    sequences = _prompts(body.get("prompt", body.get("input")), route)
    cut = prompt_cut(body, longest)
    least = min(size.characters // _CHARACTERS + size.ids, sequences * cut)
    most = min(size.bytes + _AROUND, sequences * cut)
    if not maxima:
        return Estimate(Ask(min(least, most), most), 0)
    answers = sequences * max(_whole(body.get("n")), 1)
    named = next((of for name in maxima if (of := _whole(body.get(name)))), 0)
    if not named and route == "/v1/completions":
        named = _COMPLETION
    written = answers * min(named or longest, longest)
    ask = Ask(min(least, most) + (written if named else answers), most + written)
    return Estimate(ask, written if named else None)


def prompt_cut(body: Mapping[str, Any], longest: int) -> int:
    """The most tokens that each of a request's prompts has once the engine cut it as asked."""
    asked = _whole(body.get("truncate_prompt_tokens"))
    return min(asked, longest) if asked > 0 else longest


class _Size:
    """How much text, and how many token ids, are in JSON values."""

    def __init__(self) -> None:
        self.characters = self.bytes = self.ids = 0

    def add(self, value: Any) -> None:
        """Count a value and all in it."""
        self.bytes += len(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
        self._look_into(value, 0)

    def _look_into(self, value: Any, depth: int) -> None:
        if isinstance(value, str):
            self.characters += len(value)
        elif isinstance(value, dict | list):
            # Chat templates write tools as JSON, some of them each field on an indented line.
            self.bytes += (1 + 4 * depth) * (len(value) + 1)
            for inner in value.values() if isinstance(value, dict) else value:
                self._look_into(inner, depth + 1)
        elif isinstance(value, int) and not isinstance(value, bool):
            self.ids += 1


def _prompts(prompt: Any, route: str) -> int:
    """How many prompts a request has: a list of texts, or of lists of token ids, has several."""
    several = route in ("/v1/completions", "/v1/embeddings") and isinstance(prompt, list)
    return max(1, len(prompt)) if several and not all(isinstance(of, int) for of in prompt) else 1


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0
