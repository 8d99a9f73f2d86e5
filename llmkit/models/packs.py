"""Packs as a decoder is given them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.functional import pad

STEP = 32
"""In bfloat16 on a CPU, the number of tokens in a forward pass is a multiple of it."""


def laid_out(batch: Mapping[str, Any]) -> dict[str, Any]:
    """What a decoder is given of a batch that `llmkit.training.batching.collate` made.

    In bfloat16 on a CPU up to a multiple of `STEP` tokens: what is added is a row of its own, seen
    by nobody. oneDNN prepares code for every number of tokens that it meets, and keeps it; this way
    it meets few.
    """
    ids, positions, starts = batch["input_ids"], batch["position_ids"], batch["row_starts"]
    missing = -ids.shape[1] % STEP
    if missing and ids.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        ids = pad(ids, (0, missing))
        positions = torch.cat([positions, torch.arange(missing)[None]], 1)
        starts = [*starts, ids.shape[1]]
    return {"input_ids": ids, "position_ids": positions, "row_starts": starts}
