"""A few rows kept beside the sequences, for stages that render and ask them again."""

import numpy as np
from numpy.typing import NDArray

from data_prep.rendering import Rendered
from data_prep.row_codec import decode_row
from data_prep.rows import Row
from data_prep.shards import Rows

SAMPLES = 64
"""Rows kept; held-out rows first."""


def choose_samples(
    rows: Rows, train: NDArray[np.int64], validation: NDArray[np.int64]
) -> list[tuple[str, Row, Rendered]]:
    """Evenly spread rows: what verification asks the server to render again."""
    # Of a cut or split row, the prompt before its last answer may be gone.
    kept = rows.array("kept")
    whole = (kept == rows.array("tokens")) & (rows.array("prompt_tokens") < kept)
    whole &= rows.array("piece_count") == 1
    chosen = _spread(validation[whole[validation]], SAMPLES)
    more = _spread(train[whole[train]], SAMPLES - len(chosen))
    columns = ("where", "row", "ids", "supervised", "prompt_tokens", "stop_id")
    found = rows.take(np.concatenate([chosen, more]), *columns).to_pylist()
    return [
        (
            each["where"],
            decode_row(each["row"]),
            Rendered(
                each["ids"],
                [bool(flag) for flag in each["supervised"]],
                each["prompt_tokens"],
                each["stop_id"],
            ),
        )
        for each in found
    ]


def _spread(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    count = min(most, len(rows))
    spread: NDArray[np.int64] = rows[np.arange(count) * len(rows) // max(1, count)]
    return spread
