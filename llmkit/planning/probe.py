"""Run the longest step of a training in a process of its own, and see what it takes."""

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_prep.prepared import PreparedDataset
from data_prep.sequences import ROW_KINDS, SCHEMA
from llmkit.errors import LlmkitError
from llmkit.planning.workload import Workload
from llmkit.recipe import Recipe
from llmkit.training import batching

STEPS = 2
"""The second step is the first that has the optimiser's moments from its beginning."""


@dataclass(frozen=True)
class Probed:
    """What was measured."""

    peak: int
    """Bytes: resident memory, or those of the GPU."""
    tokens_per_second: float
    """Of the last step."""


def probe(recipe: Recipe, folder: Path, workload: Workload, teacher: Path | None = None) -> Probed:
    """Train for two of the longest steps on the weights themselves, and keep nothing.

    Args:
        recipe: what to train, and how.
        folder: the base model's folder.
        workload: the heaviest sequences.
        teacher: the folder of the model that is distilled.

    Raises:
        LlmkitError: the process failed; out of memory it is killed without a word of its own.
    """
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        accumulate = recipe.training.batch.accumulate
        _write(place / "train.arrow", [*workload.batch] * accumulate)
        _write(place / "validation.arrow", [workload.watched])
        (place / "ledger.json").write_text("{}")
        asked = {
            "model": str(folder.resolve()),
            "teacher": str(teacher.resolve()) if teacher else None,
            "training": recipe.training.model_dump(mode="json"),
            "base": recipe.model.model_dump(mode="json"),
        }
        (place / "asked.json").write_text(json.dumps(asked))
        command = [sys.executable, "-m", "llmkit.planning.probe", name]
        root = str(Path(__file__).parents[2])
        done = subprocess.run(command, capture_output=True, text=True, cwd=root)
        answer = place / "answer.json"
        if not answer.is_file():
            words = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
            how = "it was killed: memory is gone" if done.returncode == -9 else words[0]
            raise LlmkitError(f"the probe did not end its {STEPS} steps: {how}")
        return Probed(**json.loads(answer.read_text()))


def _write(path: Path, sequences: Sequence[batching.Sequence]) -> None:
    columns: dict[str, Any] = {
        "input_ids": [each.input_ids for each in sequences],
        "supervised": [each.supervised.astype("uint8") for each in sequences],
        "row_lengths": [each.row_lengths for each in sequences],
    }
    if all(each.row_kinds is not None for each in sequences):
        columns[ROW_KINDS.name] = [each.row_kinds for each in sequences]
    fields = [field for field in (*SCHEMA, ROW_KINDS) if field.name in columns]
    table = pa.table(
        {field.name: pa.array(columns[field.name], field.type) for field in fields},
    )
    with pa.ipc.new_file(str(path), table.schema) as file:
        file.write_table(table)


class _Silent:
    def step(self, event: Mapping[str, Any], total_steps: int) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""


def _run(place: Path) -> None:
    import torch

    from llmkit.models.settings import ModelConfig
    from llmkit.training.events import read_events
    from llmkit.training.progress import Diverged
    from llmkit.training.settings import TrainingConfig
    from llmkit.training.train import Places, train

    asked = json.loads((place / "asked.json").read_text())
    still = {"learning_rate": 1e-9, "warmup_steps": 0, "max_steps": STEPS, "trackers": ()}
    still |= {"evaluate_every": None, "early_stopping": None, "keep": "last"}
    config = TrainingConfig.model_validate(asked["training"] | still)
    (place / "result").mkdir()
    places = Places(
        Path(asked["model"]),
        place / "out",
        place / "events.jsonl",
        place / "result",
        Path(asked["teacher"]) if asked["teacher"] else None,
    )
    with suppress(Diverged):  # what its loss is says nothing here
        train(
            config,
            ModelConfig.model_validate(asked["base"]),
            PreparedDataset.open(place),
            places,
            _Silent(),
            resume_from=None,
        )
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_reserved()
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    steps = [event for event in read_events(place / "events.jsonl") if event["event"] == "step"]
    last = steps[-1]
    answer = {"peak": peak, "tokens_per_second": last["tokens"] / last["seconds"]}
    (place / "answer.json").write_text(json.dumps(answer))


if __name__ == "__main__":
    _run(Path(sys.argv[1]))
