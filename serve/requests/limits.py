"""Checks of single fields against what the engine can take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from serve.requests.bounds import Bounds
from serve.requests.refusal import RequestRefused, shown
from serve.settings import ServeSettings


@dataclass(frozen=True)
class Engine:
    """What requests are checked against."""

    bounds: Bounds
    """What the engine can take."""

    settings: ServeSettings
    """What its owner allows."""


def check_model(name: str, bounds: Bounds) -> None:
    """Refuse a model that is not served."""
    models = bounds.models()
    if name not in models:
        served = ", ".join(list(models)[:20])
        raise RequestRefused(
            f"the model {shown(name)} does not exist. Served: {served}.",
            code="model_not_found",
            param="model",
            status=404,
        )


def at_most(field: str, count: int, most: int, of: str = "") -> None:
    """Refuse a number, or a number of things (``of``), above ``most``."""
    if count > most:
        raise RequestRefused(
            f"'{field}' {'has' if of else 'is'} {shown(count)}{of and ' ' + of}; at most "
            f"{most} {'are' if of else 'is'} allowed.",
            code="array_above_max_length" if of else "number_above_max_value",
            param=field,
        )


def fits_model(field: str, tokens: int | None, bounds: Bounds) -> None:
    """Refuse more tokens than the model's context has."""
    if tokens is not None and tokens > bounds.max_model_len:
        raise RequestRefused(
            f"'{field}' is {shown(tokens)}, but this model's maximum context length is "
            f"{bounds.max_model_len} tokens, prompt and answer together.",
            code="context_length_exceeded",
            param=field,
        )


def in_vocabulary(field: str, ids: Sequence[int] | None, bounds: Bounds) -> None:
    """Refuse ids that are no tokens. Those below 0 were refused with the shape."""
    if ids and max(ids) >= bounds.vocabulary:
        raise RequestRefused(
            f"'{field}' has the id {shown(max(ids))}; this model's tokens are 0 to "
            f"{bounds.vocabulary - 1}.",
            param=field,
        )
