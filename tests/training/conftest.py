"""Small prepared data sets and the tiny model, in float32 where laws are exact."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from data_prep.chat_templates import load_template
from data_prep.pipeline import prepare
from data_prep.prepared import PreparedDataset
from data_prep.settings import DataConfig
from data_prep.tokenizer import load_tokenizer
from llmkit.models.loading import load_base

WORDS = ["train", "run", "merge", "serve", "verify", "model", "data", "recipe", "with", "command"]


def rows(count: int) -> list[dict[str, Any]]:
    """Conversations of different lengths, some of them two turns long."""
    made = []
    for index in range(count):
        pick = [WORDS[(index * 7 + k) % len(WORDS)] for k in range(3 + index % 9)]
        messages = [
            {"role": "user", "content": f"{index} how {' '.join(pick)}?"},
            {"role": "assistant", "content": f"{' '.join(reversed(pick))}."},
        ]
        if index % 4 == 0:
            messages += [
                {"role": "user", "content": "and then?"},
                {"role": "assistant", "content": f"then {pick[0]}."},
            ]
        made.append({"messages": messages})
    return made


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny products wait longer for a second thread than they take, ten times where it is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def prepared(
    tiny: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., PreparedDataset]:
    """Prepare rows with the tiny tokenizer."""

    def make(count: int = 24, **settings: Any) -> PreparedDataset:
        folder = tmp_path_factory.mktemp("data")
        source = folder / "rows.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows(count)))
        out = folder / "prepared"
        out.mkdir()
        values = {"sources": [{"path": str(source)}], "max_tokens": 256, **settings}
        config = DataConfig.model_validate(values)
        return prepare(config, load_template("keep", load_tokenizer(tiny)), out)

    return make


@pytest.fixture
def tiny_model(tiny: Path) -> Any:
    """The tiny model in float32 on the CPU."""
    return load_base(tiny, quantization="none", device=torch.device("cpu"), dtype=torch.float32)


class Silent:
    """A view that remembers what it was told, and can end a training like a power cut."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.said: list[str] = []
        self.stop_after = stop_after

    def step(self, event: Mapping[str, Any], total_steps: int) -> None:
        if self.stop_after and event["step"] >= self.stop_after:
            raise KeyboardInterrupt

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(scope="session")
def run(tiny: Path) -> Callable[..., dict[str, Any]]:
    """Train on prepared rows and leave the result in ``folder/result``."""
    from llmkit.models.settings import ModelConfig
    from llmkit.training.checkpoints import last_whole
    from llmkit.training.settings import TrainingConfig
    from llmkit.training.train import Places, train

    def go(
        data: PreparedDataset,
        folder: Path,
        *,
        model: Path | None = None,
        teacher: Path | None = None,
        quantization: str = "none",
        resume: bool = False,
        stop_after: int | None = None,
        view: Silent | None = None,
        **settings: Any,
    ) -> dict[str, Any]:
        (folder / "result").mkdir(parents=True, exist_ok=True)
        # Two trainings are compared bit by bit: forms chosen by the clock might differ.
        values = {"kernels": "fused", "learning_rate": 1e-2, "adapter": {"rank": 4}} | settings
        values = {"warmup_steps": 1} | values
        values["warmup_steps"] = min(values["warmup_steps"], values.get("max_steps", 9) - 1)
        checkpoints = folder / "checkpoints"
        return train(
            TrainingConfig.model_validate(values),
            ModelConfig(base="tiny", device="cpu", quantization=quantization),
            data,
            Places(model or tiny, checkpoints, folder / "events.jsonl", folder / "result", teacher),
            view or Silent(stop_after),
            resume_from=last_whole(checkpoints) if resume else None,
        )

    return go


@pytest.fixture(scope="session")
def competent(
    tiny: Path, prepared: Callable[..., PreparedDataset], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tiny model, taught the rows: something that a bad training can destroy."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from llmkit.training.batching import Sequences, collate
    from llmkit.training.loss import supervised_loss

    folder = tmp_path_factory.mktemp("competent")
    AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(
        tiny, dtype=torch.float32, attn_implementation="llmkit_rows"
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    batches = [collate([sequence]) for sequence in Sequences(prepared(40).sequences("train"))]
    for batch in batches * 8:
        loss = supervised_loss(model, batch) / len(batch["shift_labels"])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert float(loss.detach()) < 2
    model.save_pretrained(folder)
    return folder
