"""Which sequences come when: the same in every process, after every restart."""

from collections import Counter

import pytest
import torch
from safetensors.torch import load_file

from llmkit.training.batching import Sequence, Sequences, collate
from llmkit.training.shares import Share, ShareLoader
from llmkit.training.trainer import ObjectiveTrainer

EPOCHS, PROCESSES, SEQUENCES = 3, 3, 11


def loader(rank: int) -> ShareLoader:
    """One process's, of sequences that are told apart by their tokens."""
    sequences = [Sequence.of_row([number, 1], [False, True]) for number in range(SEQUENCES)]
    share = Share(SEQUENCES, 2, 7, rank, PROCESSES)
    return ShareLoader(sequences, share, collate, pin_memory=False)  # type: ignore[arg-type]


def places(rank: int, epoch: int) -> list[list[int]]:
    """Of the sequences that count, by batch."""
    made = loader(rank)
    made.set_epoch(epoch)
    return [b["input_ids"][0, ::2].tolist() if b["counted"] else [] for b in made]


def test_processes_share_an_epoch_out_and_do_so_again_after_a_restart():
    torch.manual_seed(1)
    first = [[places(rank, epoch) for rank in range(PROCESSES)] for epoch in range(EPOCHS)]
    torch.manual_seed(2)  # a restarted process has drawn other numbers before
    for epoch, shares in enumerate(first):
        counted = Counter(place for share in shares for batch in share for place in batch)
        assert counted == Counter(range(SEQUENCES))
        assert [places(rank, epoch) for rank in range(PROCESSES)] == shares
    assert len({str(shares) for shares in first}) == EPOCHS


def test_a_loader_draws_none_of_the_trainings_own_numbers():
    """Dropout and noise would be others where one begins to load an epoch, or another process."""
    before = torch.get_rng_state()
    for rank in range(PROCESSES):
        assert list(loader(rank))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture
def seen(monkeypatch) -> list[list[int]]:
    """The tokens of every forward pass."""
    found = []

    def compute_loss(self, model, inputs, *rest, **named):
        found.append(inputs["input_ids"].flatten().tolist())
        return plain(self, model, inputs, *rest, **named)

    plain = ObjectiveTrainer.compute_loss
    monkeypatch.setattr(ObjectiveTrainer, "compute_loss", compute_loss)
    return found


@pytest.mark.parametrize("kept", [2, 3], ids=["before the epoch's end", "at its end"])
def test_a_training_that_goes_on_over_an_epochs_end_sees_the_same_batches(
    run, prepared, tmp_path, seen, kept
):
    data = prepared(6, packing=False)
    assert len(Sequences(data.sequences("train"))) == 6
    settings = {
        "epochs": 3,
        "batch": {"rows": 2},
        "checkpoint_every": kept,
        "adapter": {"rank": 4, "dropout": 0.3},
    }
    run(data, tmp_path / "whole", **settings)
    whole = seen.copy()
    assert len(whole) == 9
    seen.clear()
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "cut", stop_after=kept + 1, **settings)
    assert seen == whole[: kept + 1]
    seen.clear()
    run(data, tmp_path / "cut", resume=True, **settings)
    assert seen == whole[kept:]
    one, other = (
        load_file(tmp_path / name / "result" / "adapter_model.safetensors")
        for name in ("whole", "cut")
    )
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
