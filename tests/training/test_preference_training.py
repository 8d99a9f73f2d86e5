"""Training on preferences: margins grow, references are the base, resumed = uninterrupted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from preference_units import labelled, learnable, packed, pairs, prepared_of
from safetensors.torch import load_file

from data_prep.prepared import PreparedDataset
from data_prep.tokenizer import load_tokenizer
from llmkit.errors import UsageError
from llmkit.models.adapters import attach, base_of
from llmkit.models.loading import load_base
from llmkit.training import reference
from llmkit.training.batching import Sequences, collate
from llmkit.training.events import read_events
from llmkit.training.loss import row_log_probabilities
from llmkit.training.settings import LoraAdapter

METHODS = ["dpo", "kto", "orpo", "reward"]
FULL = {"kind": "full"}


@pytest.fixture
def exact(monkeypatch):
    """In float32, where laws are exact."""
    for module in ("llmkit.training.train", "llmkit.models.loading"):
        monkeypatch.setattr(f"{module}.compute_dtype", lambda device: torch.float32)


@pytest.fixture
def preferences(tiny: Path, tmp_path: Path) -> Callable[..., PreparedDataset]:
    """Units whose good and bad answers use other words, some of them held out."""
    encode = load_tokenizer(tiny).encode

    def make(method: str, each: int = 2) -> PreparedDataset:
        kind = "labelled" if method == "kto" else "pairs"
        units = learnable(lambda text: encode([text])[0], 20, kind)
        return prepared_of(tmp_path / "data", packed(units[:16], each), packed(units[16:], 2))

    return make


def _events(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [e for e in read_events(folder / "events.jsonl") if e["event"] == kind]


@pytest.mark.parametrize("method", METHODS)
def test_the_margin_grows_and_the_loss_falls(run, preferences, tmp_path, method):
    figures = run(preferences(method), tmp_path, method=method, epochs=4, learning_rate=5e-3)
    first, last = _events(tmp_path, "validation")
    assert last["loss"] < 0.8 * first["loss"]
    assert last["margin"] > first["margin"] + 0.2
    assert last["accuracy"] == 1
    assert last["chosen_reward"] > last["rejected_reward"]
    assert figures["watched"]["margin"] == [first["margin"], last["margin"]]
    assert ("kl" in last) == (method == "kto")
    assert all("margin" in step for step in _events(tmp_path, "step"))


@pytest.mark.parametrize("adapter", [{"rank": 4, "dropout": 0.1}, FULL], ids=["lora", "full"])
@pytest.mark.parametrize("method", METHODS)
def test_resumed_is_uninterrupted_bitwise(run, preferences, tmp_path, monkeypatch, method, adapter):
    data = preferences(method)
    settings = {"method": method, "max_steps": 8, "checkpoint_every": 3, "adapter": adapter}
    settings["learning_rate"] = 2e-3
    run(data, tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "cut", stop_after=5, **settings)

    def again(*_: Any) -> None:
        raise AssertionError("the reference was computed again")

    monkeypatch.setattr(reference, "_log_probabilities", again)
    run(data, tmp_path / "cut", resume=True, **settings)
    for file in (tmp_path / "whole" / "result").glob("*.safetensors"):
        one, other = load_file(file), load_file(tmp_path / "cut" / "result" / file.name)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("method", METHODS)
def test_accumulating_is_one_batch_of_all_units(exact, run, tmp_path, method):
    # Two good rows whose answers are each other's mismatched ones: the estimate becomes positive.
    units = labelled([True, False] * 2 + [True] * 4) if method == "kto" else pairs(8)
    data = prepared_of(tmp_path / "data", units)
    settings = {"method": method, "max_steps": 3, "warmup_steps": 0, "learning_rate": 2e-3}
    run(data, tmp_path / "one", batch={"rows": 8}, **settings)
    run(data, tmp_path / "four", batch={"rows": 2, "accumulate": 4}, **settings)
    one, four = (_events(tmp_path / side, "step") for side in ("one", "four"))
    for whole, parts in zip(one, four, strict=True):
        names = whole.keys() - {"event", "seconds", "memory_mib", "learning_rate"}
        if whole["step"] == 1:  # it is its reference still: which side is ahead is rounding
            names -= {"accuracy"}
        assert {n: parts[n] for n in names} == pytest.approx(
            {n: whole[n] for n in names}, rel=1e-3, abs=1e-5
        )
    if method == "kto":
        assert one[-1]["kl"] > 0


@pytest.mark.parametrize("adapter", [{"rank": 4}, FULL], ids=["lora", "full"])
def test_the_reference_is_the_base(exact, run, tiny, preferences, tmp_path, adapter):
    data = preferences("dpo")
    run(data, tmp_path, method="dpo", max_steps=4, adapter=adapter, learning_rate=2e-3)
    kept = load_file(tmp_path / "checkpoints" / reference.REFERENCE)
    base = load_base(tiny, quantization="none", device=torch.device("cpu"), dtype=torch.float32)
    for name in ("train", "validation"):
        sequences = Sequences(data.sequences(name))
        with torch.no_grad():
            own = [row_log_probabilities(base, collate([s.without_kinds()])) for s in sequences]
        torch.testing.assert_close(kept[name], torch.cat(own), rtol=1e-5, atol=1e-4)
    first, last = _events(tmp_path, "validation")
    assert first["margin"] == pytest.approx(0, abs=1e-4)
    assert last["margin"] > 0.01


def test_a_new_adapter_and_one_turned_off_are_the_base(tiny_model):
    batch = collate([unit.without_kinds() for unit in pairs(4)])
    base = row_log_probabilities(tiny_model, batch).detach()
    model = attach(tiny_model, LoraAdapter(rank=4), seed=0)
    assert torch.equal(row_log_probabilities(base_of(model), batch), base)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    assert not torch.allclose(row_log_probabilities(base_of(model), batch), base, atol=0.1)
    with model.disable_adapter():
        assert torch.equal(row_log_probabilities(base_of(model), batch), base)


def test_every_row_gets_its_own_reference(tiny_model, tmp_path):
    split = Sequences(
        prepared_of(tmp_path / "data", packed(labelled([True, False, True]), 2)).sequences("train")
    )
    found = reference.with_references(
        tiny_model, {"train": split}, tmp_path / "c", torch.float32, resumed=False
    )["train"]
    for sequence in found:
        for index in range(len(sequence.row_lengths)):
            alone = float(row_log_probabilities(tiny_model, collate([sequence.row(index)])))
            assert sequence.reference[index] == pytest.approx(alone, rel=1e-5, abs=1e-4)


def test_a_reference_of_other_rows_is_computed_again(tiny_model, tmp_path):
    few, more = (
        {"train": Sequences(prepared_of(tmp_path / str(n), pairs(n)).sequences("train"))}
        for n in (2, 3)
    )
    folder = tmp_path / "checkpoints"
    for splits in (few, more):
        found = reference.with_references(tiny_model, splits, folder, torch.float32, resumed=True)
        assert all(len(each.reference) == 2 for each in found["train"])
    assert len(load_file(folder / reference.REFERENCE)["train"]) == 6


@pytest.mark.parametrize(
    ("method", "units", "said"),
    [
        ("sft", pairs(2), "rows without a preference"),
        ("kto", pairs(2), "labelled good or bad"),
        ("dpo", labelled([True, False]), "pairs of a chosen and a rejected"),
        ("orpo", [pairs(1)[0].rows_where(pairs(1)[0].row_kinds == 1)] * 2, "pairs of a chosen"),
        ("reward", labelled([True]), "pairs of a chosen"),
    ],
    ids=["pairs for sft", "pairs for kto", "labels for dpo", "half a pair", "labels for reward"],
)
def test_rows_of_another_method_are_refused(run, tmp_path, method, units, said):
    data = prepared_of(tmp_path / "data", units)
    with pytest.raises(UsageError, match=rf"training\.method={method} learns from .*{said}"):
        run(data, tmp_path / "run", method=method, max_steps=2)


def test_rows_without_kinds_are_refused_for_preferences(run, prepared, tmp_path):
    with pytest.raises(UsageError, match="pairs of a chosen and a rejected answer"):
        run(prepared(8), tmp_path, method="dpo", max_steps=2)
