"""What the model thought of every row before it was trained.

It is computed once, before the first step, with the model that is about to train: adapters start
as nothing, and weights that train have not moved yet. So no second model is held in memory, and no
pass is spent on it again. It is kept beside the checkpoints, where a resumed training finds it.
"""

import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from transformers import PreTrainedModel

from llmkit.models.loading import computing_in
from llmkit.training import processes
from llmkit.training.batching import Sequences, collate, to_device
from llmkit.training.loss import row_log_probabilities

REFERENCE = "reference.safetensors"
"""One log-probability a row of every split."""


def with_references(
    model: PreTrainedModel,
    splits: dict[str, Sequences],
    folder: Path,
    dtype: torch.dtype,
    *,
    resumed: bool,
) -> dict[str, Sequences]:
    """Give every row of every split its log-probability before training.

    Args:
        model: the model that is about to train; on resuming too, before a checkpoint is loaded.
        splits: name of the split -> its sequences.
        folder: where checkpoints are.
        dtype: of the computation.
        resumed: whether what an earlier process left in ``folder`` is of this training.
    """
    path = folder / REFERENCE
    kept = load_file(path) if resumed and path.is_file() else {}
    if {name: len(values) for name, values in kept.items()} != {
        name: split.rows for name, split in splits.items()
    }:
        kept = {name: _log_probabilities(model, split, dtype) for name, split in splits.items()}
        if processes.is_first():  # after all have looked: the values wait for every process
            _write(kept, path)
    return {name: split.with_reference(kept[name]) for name, split in splits.items()}


def _write(values: dict[str, NDArray[np.float32]], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{REFERENCE}.{os.getpid()}")
    save_file(values, beside)
    beside.replace(path)


@torch.no_grad()
def _log_probabilities(
    model: PreTrainedModel, sequences: Sequences, dtype: torch.dtype
) -> NDArray[np.float32]:
    """One a row of the split, in order; processes share the sequences out."""
    was_training = model.training
    model.eval()
    found = [np.zeros(0, np.float32)]
    for place, sequence in enumerate(sequences):
        if place % processes.count() != processes.rank():
            found.append(np.zeros(len(sequence.row_lengths), np.float32))
            continue
        batch = to_device(collate([sequence.without_kinds()]), model.device)
        with computing_in(dtype, model.device):
            found.append(row_log_probabilities(model, batch).cpu().numpy())
    model.train(was_training)
    return processes.total_of_each(np.concatenate(found))
