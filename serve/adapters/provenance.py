"""Which base and template an adapter was trained on, by the record of the run that did."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve.adapters.base import ServedBase
from serve.adapters.places import Source
from serve.adapters.refusal import AdapterRefused, unfit

_NO_TEMPLATE = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True)
class Provenance:
    """What a run's manifest says of its adapter."""

    base: str
    """The base's hash, as `ServedBase.sha256`."""

    template: str | None
    """The chat template's, as `ServedBase.template_sha256`; None if rows had no turns."""


def read_provenance(source: Source, sha256: str) -> Provenance | None:
    """What is known of an adapter's origin; None if no llmkit run is around it. Blocks.

    Args:
        source: where it comes from.
        sha256: of its folder, as it is now.

    Raises:
        AdapterRefused: the run's record is damaged, or is of another adapter than is there.
    """
    if source.manifest is None:
        return None
    stages = _stages(source.manifest)
    try:
        train, inputs = stages["train"], stages["train"]["inputs"]
        rendered = stages.get("prep", {"inputs": {}})["inputs"]
        recorded, base = train["outputs"]["adapter"]["sha256"], inputs["model"]
        template = rendered.get("chat_template", _NO_TEMPLATE)
        plain = template == _NO_TEMPLATE or rendered.get("rows") == "plain text"
    except (LookupError, TypeError, AttributeError):
        raise unfit(f"{source.path!r}: its manifest.json is not of a finished training.") from None
    if sha256 != recorded:
        raise unfit(
            f"{source.path!r}: the adapter is not the one that its run left. Train it again, or "
            "copy it out of the run and load that with unverified=true."
        )
    return Provenance(str(base), None if plain else str(template))


def check_provenance(path: str, found: Provenance | None, base: ServedBase) -> None:
    """Refuse what was trained on something else than is served. Blocks.

    Raises:
        AdapterRefused: another base or chat template, or nothing is known.
    """
    if found is None:
        raise AdapterRefused(
            400,
            "adapter_unverified",
            f"{path!r} is not in the directory of an llmkit run, so nothing says which base it "
            "was trained on. Load the run's directory, or say unverified=true.",
            param="path",
        )
    if found.base != base.sha256:
        raise unfit(
            f"{path!r} was trained on another base ({found.base[:12]}) than the one served "
            f"({base.sha256[:12]}). Serve its own base, or the run's merged model: llmkit serve."
        )
    if found.template is not None and found.template != base.template_sha256:
        raise unfit(
            f"{path!r} was trained with another chat template than the one served. Start the "
            "server with the run's own: chat_template=RUN/merged/chat_template.jinja."
        )


def _stages(manifest: Path) -> dict[str, Any]:
    try:
        stages = json.loads(manifest.read_text(encoding="utf-8"))["stages"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        stages = None
    return stages if isinstance(stages, dict) else {}
