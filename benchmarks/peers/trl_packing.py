"""The peer of benchmarks/packing.py: `trl.data_utils.pack_dataset` as SFTTrainer calls it.

    python benchmarks/peers/trl_packing.py STRATEGY FOLDER OUT CAPACITY [CAPACITY ...]

FOLDER holds the sets, each as a .npy file of row lengths. The rows are made of one-byte tokens, the
lightest that its function takes: it moves tokens as it packs, and its cost holds that.
"""

import json
import sys
import time
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
from trl.data_utils import pack_dataset


def main() -> None:
    """Pack every set at every capacity, and write down what came out and what it cost."""
    strategy, folder, out, *capacities = sys.argv[1:]
    datasets.disable_progress_bars()
    found = {}
    for path in sorted(Path(folder).glob("*.npy")):
        lengths = np.load(path)
        offsets = pa.array(np.concatenate(([0], np.cumsum(lengths))), pa.int32())
        values = pa.array(np.zeros(int(lengths.sum()), np.int8))
        table = pa.table({"input_ids": pa.ListArray.from_arrays(offsets, values)})
        for capacity in capacities:
            rows = datasets.Dataset(table)
            began = time.process_time()
            packed = pack_dataset(rows, seq_length=int(capacity), strategy=strategy)
            spent = time.process_time() - began
            columns = packed.data.column("input_ids").chunks
            tokens = sum(len(chunk.flatten()) for chunk in columns)
            found[f"{path.stem}/{capacity}"] = {
                "packs": len(packed),
                "tokens": tokens,
                "packing_cpu_seconds": spent,
            }
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
