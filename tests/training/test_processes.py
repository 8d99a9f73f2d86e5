"""Several processes train as one: the same sequences, losses, norms and weights."""

import json
import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from llmkit.errors import LlmkitError, UsageError
from llmkit.models.settings import ModelConfig
from llmkit.training import launching
from llmkit.training.checkpoints import last_whole
from llmkit.training.launching import Processes, read_processes, train_together
from llmkit.training.planning import plan_steps
from llmkit.training.progress import Diverged, read_events
from llmkit.training.settings import TrainingConfig
from llmkit.training.shares import Share
from llmkit.training.train import Places

SETTINGS = {"learning_rate": 3e-3, "warmup_steps": 1, "epochs": 2, "evaluate_every": 2}


class View:
    """Remembers what it is told."""

    def __init__(self):
        self.said, self.steps = [], []

    def step(self, event, total_steps):
        self.steps.append(event)

    def say(self, text):
        self.said.append(text)


@pytest.fixture
def together(tiny, monkeypatch):
    """Train in two processes of one thread each, in float32."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def go(data, folder, *, view=None, resume=False, **settings):
        (folder / "result").mkdir(parents=True, exist_ok=True)
        checkpoints = folder / "checkpoints"
        return train_together(
            Processes(2, launching.shipped()["ddp"], "ddp"),
            TrainingConfig.model_validate({"adapter": {"rank": 4}, **SETTINGS, **settings}),
            ModelConfig(base="tiny", device="cpu"),
            data,
            Places(tiny, checkpoints, folder / "events.jsonl", folder / "result"),
            view or View(),
            device="cpu",
            resume_from=last_whole(checkpoints) if resume else None,
            folder=folder / "processes",
        )

    return go


def _steps(folder):
    return [e for e in read_events(folder / "events.jsonl") if e["event"] == "step"]


def test_try(together, prepared, tmp_path, run):
    data = prepared(23, validation=3, packing=False)
    began = time.time()
    figures = together(data, tmp_path / "two", batch={"rows": 1, "accumulate": 2})
    print(figures, time.time() - began)
    run(data, tmp_path / "one", batch={"rows": 2, "accumulate": 2}, **SETTINGS)
    for a, b in zip(_steps(tmp_path / "one"), _steps(tmp_path / "two")):
        print(a)
        print(b)
