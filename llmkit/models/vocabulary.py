"""Give a model rows for new tokens, each the mean of the rows of the pieces it stands for.

A new row drawn at random has a logit near zero, which can be far above those of all old tokens: the
model then writes new tokens only. A mean of old rows cannot (Hewitt 2021, "Initializing New Word
Embeddings for Pretrained Language Models"); the mean of the token's own pieces also starts near
what the token means (Gee et al. 2022, arXiv 2402.09977).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedModel

from data_prep.folders import new_folder
from data_prep.new_tokens import NewToken
from data_prep.tokenizer import load_tokenizer
from data_prep.tokenizer_extension import write_extended
from llmkit.errors import CheckFailed, UsageError
from llmkit.files import said_when_full
from llmkit.models.loading import load_base, quiet

EXTENSION = "llmkit_extension.json"
"""Says which rows of a model folder were added and never trained."""


class AddedRow(BaseModel):
    """One token that was added."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: int
    token: str
    """As the vocabulary spells it."""
    pieces: list[int]
    """The old ids whose rows it is the mean of."""


class Extension(BaseModel):
    """What was added to a model, beside it in ``llmkit_extension.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    old_tokens: int
    """Ids from here on are new."""
    old_rows: int
    """Rows of the embedding matrix before."""
    rows: int
    """Rows of the embedding matrix now."""
    initialisation: str
    added: list[AddedRow]
    """Those of an earlier extension of the same model too: nothing trained them in between."""


@dataclass(frozen=True)
class _Rows:
    """Where the new rows are."""

    old_tokens: int
    old: int
    now: int


def extend_model(
    model_folder: Path,
    tokens: Sequence[NewToken],
    out: Path,
    *,
    pad_to_multiple_of: int | None = None,
) -> Extension:
    """Write a model folder whose tokenizer has new tokens and whose matrices have their rows.

    Old rows stay as they are, bit for bit. Rows that only fill the matrix up get the mean of all
    old ones. Generation settings, special tokens and chat template are carried along.

    Args:
        model_folder: a model folder with safetensors weights that are not quantised.
        tokens: in the order of their merges.
        out: a new folder.
        pad_to_multiple_of: round the rows of the matrices up to a multiple of this.

    Raises:
        DataError: ``out`` is not empty, or the tokens do not fit the tokenizer.
        UsageError: the model cannot be loaded, is quantised, or has fewer rows than its tokenizer
            has tokens.
        CheckFailed: transformers reads other ids from the new folder than was written.
    """
    quiet()
    with said_when_full(out), new_folder(out) as beside:
        ids = write_extended(model_folder, tokens, beside)
        model = load_base(
            model_folder,
            quantization="none",
            device=torch.device("cpu"),
            dtype=_dtype(model_folder),
        )
        rows = _place(model, model_folder, ids, pad_to_multiple_of)
        pieces = [token.pieces for token in tokens]
        model.resize_token_embeddings(rows.now, mean_resizing=False)
        for matrix in _matrices(model):
            _fill(matrix, ids, pieces, rows)
        earlier = read_extension(model_folder)
        added = [
            AddedRow(id=index, token=token.token, pieces=list(token.pieces))
            for index, token in zip(ids, tokens, strict=True)
        ]
        extension = Extension(
            old_tokens=earlier.old_tokens if earlier else rows.old_tokens,
            old_rows=rows.old,
            rows=rows.now,
            initialisation="mean of the rows of the pieces",
            added=[*(earlier.added if earlier else []), *added],
        )
        _save(model, model_folder, beside)
        text = extension.model_dump_json(indent=2) + "\n"
        (beside / EXTENSION).write_text(text, encoding="utf-8")
        _check_transformers_agrees(beside, extension)
    return extension


def read_extension(folder: Path) -> Extension | None:
    """What was added to a model, or None.

    Raises:
        UsageError: the file that says so is damaged.
    """
    path = folder / EXTENSION
    if not path.is_file():
        return None
    try:
        return Extension.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path}: damaged, so it is unknown which tokens were never trained: {error}\n"
            "Make the folder again: llmkit tokenizer extend"
        ) from None


def _dtype(folder: Path) -> torch.dtype:
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    if getattr(config, "quantization_config", None) is not None:
        raise UsageError(f"{folder}: its weights are quantised. Extend the model it was made from.")
    found = config.dtype
    return found if isinstance(found, torch.dtype) else torch.float32


def _place(model: PreTrainedModel, folder: Path, ids: Sequence[int], multiple: int | None) -> _Rows:
    old = len(model.get_input_embeddings().weight)  # type: ignore[arg-type]
    old_tokens = max(load_tokenizer(folder).backend.get_vocab().values()) + 1
    if old < old_tokens:
        raise UsageError(
            f"{folder}: the tokenizer has ids up to {old_tokens - 1}, but the model has only {old} "
            "rows. Its own tokens would have to be given rows first; choose a whole model folder."
        )
    now = max([old, *(index + 1 for index in ids)])
    if multiple:
        now = -(-now // multiple) * multiple
    return _Rows(old_tokens, old, now)


def _matrices(model: PreTrainedModel) -> list[torch.nn.Parameter]:
    """The embeddings, and head and its bias where they are matrices of their own."""
    head: Any = model.get_output_embeddings()
    found = [model.get_input_embeddings().weight, *([] if head is None else head.parameters())]
    return list({parameter.data_ptr(): parameter for parameter in found}.values())


@torch.no_grad()
def _fill(
    matrix: torch.nn.Parameter,
    ids: Sequence[int],
    pieces: Sequence[Sequence[int]],
    rows: _Rows,
) -> None:
    """Set the new rows of one matrix, ``[rows, width]`` or ``[rows]``; means in float32."""
    average = matrix[: rows.old_tokens].float().mean(0)
    matrix[rows.old :] = average.to(matrix.dtype)
    for index, old in zip(ids, pieces, strict=True):
        matrix[index] = matrix[list(old)].float().mean(0).to(matrix.dtype)


def _save(model: PreTrainedModel, model_folder: Path, folder: Path) -> None:
    settings = model_folder / "generation_config.json"
    model.generation_config = GenerationConfig()
    model.save_pretrained(folder)
    written = folder / settings.name
    written.unlink(missing_ok=True)
    if settings.is_file():  # as it was: saving refuses some that loading takes
        written.write_bytes(settings.read_bytes())


def _check_transformers_agrees(folder: Path, extension: Extension) -> None:
    """Measure that the tokenizer that servers load gives the same ids, and uses the new tokens."""
    ours = load_tokenizer(folder)
    theirs = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    texts = [ours.decode([row.id]) for row in extension.added]
    probes = [text for text in [*texts, " ".join(texts)] if "\ufffd" not in text]
    for text, ids in zip(probes, ours.encode(probes), strict=True):
        if theirs.encode(text, add_special_tokens=False) != ids:
            raise CheckFailed(
                f"{folder}: transformers ({type(theirs).__name__}) reads other ids for "
                f"{text[:80]!r} from these files than the tokenizers library, so a server would "
                "use the new tokens in another way than training. Nothing was kept."
            )
