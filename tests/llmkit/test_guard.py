"""When a training is stopped, what it writes while it runs, and what is read back."""

import json
import math
from pathlib import Path

import pytest
import torch

from llmkit.training.events import Events, read_events
from llmkit.training.objective import Loss
from llmkit.training.progress import MARGIN, Diverged, Guard, Meter


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_stops_at_once(loss: float) -> None:
    with pytest.raises(Diverged, match="step 3"):
        Guard(2.0, patience=100).check(loss, 3)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_model_that_is_broken_before_training_is_not_trained(loss: float) -> None:
    with pytest.raises(Diverged, match="before the first step"):
        Guard(loss, patience=3)


def test_a_loss_above_its_start_stops_after_patience_steps() -> None:
    guard = Guard(2.0, patience=3)
    guard.check(1.9, 1)
    guard.check(2.5, 2)
    guard.check(9.0, 3)
    with pytest.raises(Diverged, match=r"step 4: .*\(2\.41\).*\(2\.00\) for 3 steps"):
        guard.check(2.41, 4)


def test_rows_held_out_that_are_easier_than_those_trained_on_stop_nothing() -> None:
    guard = Guard(0.1, patience=2)
    for step, loss in enumerate((8.9, 8.7, 8.6, 8.1), 1):
        guard.check(loss, step)
    assert guard.streak == 0


def test_weights_that_are_no_numbers_are_not_saved() -> None:
    model = torch.nn.Linear(2, 2)
    Guard(1.0, patience=1).check_weights(model, 3)
    model.weight.data[0, 0] = math.nan
    with pytest.raises(Diverged, match="step 3: weight holds values that are no numbers"):
        Guard(1.0, patience=1).check_weights(model, 3)


def test_a_resumed_training_is_compared_with_its_own_first_step() -> None:
    steps = [(1, 3.0), (2, 1.5), (3, 3.7)]
    before = [{"event": "step", "step": step, "loss": loss} for step, loss in steps]
    guard = Guard(2.0, 9, [{"event": "validation", "step": 0, "loss": 2.0}, *before])
    assert guard.streak == 1
    guard.check(3.5, 4)
    assert guard.streak == 0  # not above 1.2 times 3.0


def test_one_good_step_starts_the_count_again() -> None:
    guard = Guard(2.0, patience=2)
    for step in range(1, 11):
        guard.check(2.0 if step % 2 else 5.0, step)
    guard.check(2.0, 11)
    assert guard.streak == 0


def test_a_loss_within_the_margin_is_no_divergence() -> None:
    guard = Guard(2.0, patience=1)
    guard.check(2.0 * MARGIN, 1)
    assert guard.streak == 0


def test_a_loss_that_starts_near_nothing_may_be_many_times_that() -> None:
    guard = Guard(1e-5, patience=1)
    for step, loss in enumerate((1e-5, 0.003, 0.09), 1):
        guard.check(loss, step)
    guard.check_end(0.09, 3)
    with pytest.raises(Diverged, match="made the model worse"):
        guard.check_end(0.2, 3)
    with pytest.raises(Diverged, match="for 1 steps"):
        guard.check(0.2, 4)


def test_weights_are_good_when_the_loss_of_the_step_after_them_was() -> None:
    guard = Guard(2.0, patience=9)
    for step, loss in enumerate((2.0, 1.9, 50.0, 1.8), 1):
        guard.check(loss, step)
    assert [guard.is_good(step) for step in range(5)] == [True, True, False, True, False]
    with pytest.raises(Diverged):
        guard.check(math.nan, 5)
    assert not guard.is_good(4)


def test_a_validation_vouches_for_weights_and_can_take_it_back() -> None:
    guard = Guard(2.0, patience=9)
    guard.check(1.9, 1)
    guard.see_validation(1.5, 1)
    assert guard.is_good(1)
    guard.check(50.0, 2)  # the same weights
    guard.check(1.9, 3)
    guard.see_validation(50.0, 2)
    assert not guard.is_good(1)
    assert not guard.is_good(2)
    with pytest.raises(Diverged, match="made the model worse"):
        guard.check_end(9.0, 3)
    assert not guard.is_good(3)
    guard.check_end(1.0, 4)
    assert guard.is_good(4)


def test_a_resumed_training_knows_which_weights_were_good() -> None:
    steps = [{"event": "step", "step": s, "loss": x} for s, x in ((1, 2.0), (2, 1.9), (3, 9.0))]
    events = [*steps, {"event": "validation", "step": 3, "loss": 1.9}]
    guard = Guard(2.0, 9, events)
    assert [guard.is_good(step) for step in (1, 2, 3)] == [True, False, True]


def test_divergence_ends_with_exit_code_one() -> None:
    assert Diverged.exit_code == 1


def steps(path: Path) -> list[int]:
    return [event["step"] for event in read_events(path)]


def write(path: Path, first: int, last: int, resume_after: int = 0) -> None:
    events = Events(path, resume_after)
    for step in range(first, last + 1):
        events.write({"event": "step", "step": step, "loss": 1.0 / step})
    events.close()


def test_resuming_forgets_the_steps_that_come_again(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    write(path, 1, 7)
    write(path, 6, 10, resume_after=5)
    assert steps(path) == list(range(1, 11))


def test_a_new_training_forgets_the_old_ones_steps(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    write(path, 1, 7)
    write(path, 1, 3)
    assert steps(path) == [1, 2, 3]


def test_every_event_is_on_disk_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    events = Events(path, 0)
    events.write({"event": "step", "step": 1, "loss": 1.0})
    assert steps(path) == [1]
    events.close()


@pytest.mark.parametrize("tail", ['{"event": "st', "12", "null", '["x"]', "\x00\x00", "\udcff"])
def test_a_cut_or_damaged_last_line_is_tolerated(tmp_path: Path, tail: str) -> None:
    path = tmp_path / "events.jsonl"
    line = json.dumps({"event": "step", "step": 1, "loss": 1.0})
    path.write_bytes(f"{line}\n{tail}".encode(errors="surrogateescape"))
    assert steps(path) == [1]
    write(path, 2, 2, resume_after=1)
    assert steps(path) == [1, 2]


def test_no_file_is_no_events(tmp_path: Path) -> None:
    assert read_events(tmp_path / "none") == []


def test_a_meter_adds_up_the_parts_of_a_step_and_starts_again() -> None:
    meter = Meter()
    for part in (1.5, 0.5):
        figures = {"margin": torch.tensor(part)}
        meter.add(Loss(torch.tensor(part), figures), {"supervised": 2}, tokens=10)
    closed = meter.close()
    assert (closed["loss"], closed["margin"]) == (2.0, 2.0)
    assert (closed["tokens"], closed["supervised"]) == (20, 4)
    assert "loss" not in meter.close()
