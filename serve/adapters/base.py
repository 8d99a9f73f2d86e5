"""The served base, as adapters must fit it: its hash, its chat template, its layers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

FLOATS = frozenset({"F16", "BF16", "F32"})
"""Number formats of weights, as safetensors calls them."""
_HEADER_LIMIT = 100_000_000
"""Bytes; the limit of the safetensors format itself."""


@dataclass(frozen=True)
class ServedBase:
    """Facts about a model folder, read when first needed. Reading blocks."""

    folder: Path
    """The model that is served."""

    template: Path | None = None
    """The file that is served instead of the folder's own chat template, if one is."""

    memory: Path | None = None
    """A file to remember the hash in, which takes a second for every gigabyte or so."""

    @cached_property
    def sha256(self) -> str:
        """The hash that llmkit's runs record of their base: of config and weights."""
        weights = sorted([*self.folder.glob("*.safetensors"), *self.folder.glob("*.bin")])
        files = [*weights, self.folder / "config.json"]
        stamp = ";".join(f"{f} {f.stat().st_size} {f.stat().st_mtime_ns}" for f in files)
        if (remembered := _recall(self.memory, stamp)) is not None:
            return remembered
        parts = [f"{file.name} {file_hash(file)}" for file in weights]
        parts.append(file_hash(self.folder / "config.json"))
        found = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        if self.memory is not None:
            self.memory.write_text(json.dumps({"stamp": stamp, "sha256": found}))
        return found

    @cached_property
    def template_sha256(self) -> str | None:
        """The hash of the chat template's text; None if there is no single one."""
        text = self._template_text()
        return None if text is None else hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def layers(self) -> Mapping[str, tuple[int, ...] | None]:
        """Shapes of the weights by their layers' paths, ``[out, in]`` of a linear one.

        None where the weight is stored otherwise (quantised). Empty if no file is safetensors.
        """
        shapes: dict[str, tuple[int, ...] | None] = {}
        for file in sorted(self.folder.glob("*.safetensors")):
            for name, entry in safetensors_header(file).items():
                layer, _, kind = name.rpartition(".")
                plain = kind == "weight" and entry["dtype"] in FLOATS
                shapes[layer] = tuple(entry["shape"]) if plain else shapes.get(layer)
        return shapes

    def _template_text(self) -> str | None:
        if self.template is not None:
            return self.template.read_text(encoding="utf-8")
        own = self.folder / "chat_template.jinja"
        if own.is_file():
            return own.read_text(encoding="utf-8")
        config = self.folder / "tokenizer_config.json"
        if not config.is_file():
            return None
        text = json.loads(config.read_text(encoding="utf-8")).get("chat_template")
        return text if isinstance(text, str) else None


def safetensors_header(file: Path) -> dict[str, dict[str, Any]]:
    """What a safetensors file says of its tensors, by name.

    Raises:
        ValueError: it is not such a file.
    """
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if not 2 <= length <= _HEADER_LIMIT:
            raise ValueError(f"{file.name} is not a safetensors file")
        header = json.loads(opened.read(length))
    if not isinstance(header, dict):
        raise ValueError(f"{file.name} is not a safetensors file")
    header.pop("__metadata__", None)
    return header


def file_hash(file: Path) -> str:
    """SHA-256 of a file's content."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def folder_hash(folder: Path) -> str:
    """SHA-256 of a folder's relative names and contents, as llmkit's runs record it."""
    files = (file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    return hash_of_files({file.relative_to(folder): file_hash(file) for file in files})


def hash_of_files(hashes: Mapping[Path, str]) -> str:
    """`folder_hash`, of the hashes of its files by their relative names."""
    digest = hashlib.sha256()
    for name in sorted(hashes):
        digest.update(f"{name}\0{hashes[name]}\n".encode())
    return digest.hexdigest()


def _recall(memory: Path | None, stamp: str) -> str | None:
    if memory is None or not memory.is_file():
        return None
    try:
        known = json.loads(memory.read_text())
        return str(known["sha256"]) if known["stamp"] == stamp else None
    except (ValueError, LookupError, TypeError):
        return None
