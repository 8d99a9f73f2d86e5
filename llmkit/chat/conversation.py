"""What was said, and how the next answer is asked for."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import Any

from llmkit.errors import UsageError

DEFAULT = "default"
"""The word that takes a parameter back to what the server does by itself."""


@dataclass(frozen=True)
class Parameter:
    """A number that a request may carry."""

    kind: type[int] | type[float]
    least: float | None = None
    most: float | None = None

    def parse(self, name: str, text: str) -> int | float:
        """The value that a person wrote.

        Raises:
            UsageError: it is no number of this kind, or out of range.
        """
        try:
            value = self.kind(text)
        except ValueError:
            value = None
        low = -float("inf") if self.least is None else self.least
        high = float("inf") if self.most is None else self.most
        if value is None or not low <= value <= high:
            raise UsageError(f"{name} {text!r}: give {self.allowed()}, or {DEFAULT!r}")
        return value

    def allowed(self) -> str:
        """What is allowed, in words."""
        kind = "a whole number" if self.kind is int else "a number"
        if self.least is not None and self.most is not None:
            return f"{kind} from {self.least:g} to {self.most:g}"
        return kind if self.least is None else f"{kind}, at least {self.least:g}"


PARAMETERS = {
    "temperature": Parameter(float, 0, 2),
    "top_p": Parameter(float, 0, 1),
    "top_k": Parameter(int, -1),
    "min_p": Parameter(float, 0, 1),
    "max_tokens": Parameter(int, 1),
    "seed": Parameter(int),
    "presence_penalty": Parameter(float, -2, 2),
    "frequency_penalty": Parameter(float, -2, 2),
    "repetition_penalty": Parameter(float, 0),
}
"""By the name that the API has for them; the server knows the defaults."""


@dataclass
class Conversation:
    """A chat with one model at a time."""

    models: list[str]
    """What the server offers."""

    model: str
    """Who answers next."""

    system: str | None = None
    parameters: dict[str, int | float] = field(default_factory=dict)
    messages: list[dict[str, str]] = field(default_factory=list)
    """User and assistant in turn."""

    def request(self) -> dict[str, Any]:
        """The body that asks for the next answer."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return {"model": self.model, "messages": [*system, *self.messages], **self.parameters}

    def choose(self, model: str) -> None:
        """Let another model answer from here on.

        Raises:
            UsageError: the server does not offer it.
        """
        if model not in self.models:
            near = difflib.get_close_matches(model, self.models, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise UsageError(f"no model {model!r}.{hint} Served: {', '.join(self.models)}")
        self.model = model

    def set(self, name: str, text: str) -> None:
        """Set a parameter, or with the word ``default`` leave it to the server.

        Raises:
            UsageError: the value is none that the parameter takes.
        """
        if text == DEFAULT:
            self.parameters.pop(name, None)
        else:
            self.parameters[name] = PARAMETERS[name].parse(name, text)

    def say(self, text: str) -> None:
        """Add a message of the user's."""
        self.messages.append({"role": "user", "content": text})

    def hear(self, text: str) -> None:
        """Add an answer."""
        self.messages.append({"role": "assistant", "content": text})

    def take_back(self) -> str | None:
        """Remove the last message of the user's with its answer, and give its text."""
        while self.messages:
            message = self.messages.pop()
            if message["role"] == "user":
                return message["content"]
        return None
