"""Where adapters may come from: folders below one, and no link out of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from serve.adapters.refusal import AdapterRefused, unfit

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_LONGEST = 1024


@dataclass(frozen=True)
class Source:
    """A folder with an adapter in it."""

    path: str
    """As it was given, relative to the adapters' folder."""

    adapter: Path
    """The folder that PEFT saved."""

    manifest: Path | None
    """The record of the llmkit run that trained it, if one did."""


def find_source(root: Path, path: str) -> Source:
    """Find an adapter below ``root``: a folder that PEFT saved, or a run with one in it.

    Args:
        root: the adapters' folder, resolved.
        path: relative to it, as the request gave it.

    Raises:
        AdapterRefused: the path leads elsewhere, or to no adapter.
    """
    try:
        return _find(root, path)
    except OSError as error:
        raise unfit(f"{path[:100]!r} cannot be looked at: {error.strerror}.") from error


def _find(root: Path, path: str) -> Source:
    folder = _confined(root, root / _relative(path), path)
    adapter = folder
    if not (folder / CONFIG).exists() and (folder / "adapter").is_dir():
        adapter = _confined(root, folder / "adapter", path)
    for name in (CONFIG, WEIGHTS):
        # Also keeps out pipes and devices, which a read would hang on.
        if not _confined(root, adapter / name, path).is_file():
            raise unfit(
                f"{path!r} is no adapter: there is no {name} in it. Give the path of a run "
                "directory or of a folder that PEFT saved, below the server's adapters_folder."
            )
    manifest = adapter.parent / "manifest.json"
    in_run = adapter.name == "adapter" and adapter != root and manifest.is_file()
    return Source(path, adapter, _confined(root, manifest, path) if in_run else None)


def _relative(path: str) -> PurePosixPath:
    given = PurePosixPath(path)
    hidden = any(part.startswith(".") for part in given.parts)
    printable = path.isprintable() and "\\" not in path
    if not given.parts or given.is_absolute() or hidden or not printable or len(path) > _LONGEST:
        raise AdapterRefused(
            400,
            "invalid_path",
            "path must be relative to the server's adapters_folder, without '..', hidden "
            "folders, backslashes or control characters.",
            param="path",
        )
    return given


def _confined(root: Path, place: Path, path: str) -> Path:
    """The place behind every link, if that is still below ``root``."""
    try:
        real = place.resolve()
    except (OSError, RuntimeError):  # a loop of links
        real = root.parent
    if not real.is_relative_to(root):
        raise AdapterRefused(
            400,
            "invalid_path",
            f"{path!r} leads out of adapters_folder by a link; copy the adapter into it.",
            param="path",
        )
    return real
