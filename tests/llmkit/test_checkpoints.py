"""Checkpoints that are whole or ignored, and what may be resumed."""

import json
from pathlib import Path

import pytest

from llmkit.errors import UsageError
from llmkit.training.checkpoints import (
    DIVERGED,
    NOTE,
    WHOLE,
    Divergence,
    all_checkpoints,
    goes_on_from,
    is_whole,
    keep_newest,
    last_good,
    last_whole,
    mark_whole,
    note_divergence,
    prepare_folder,
    step_of,
)

INPUTS = {"training.adapter.alpha": "16.0", "data": "a" * 64}


def save(folder: Path, step: int) -> Path:
    checkpoint = folder / f"checkpoint-{step}"
    (checkpoint / "sub").mkdir(parents=True)
    (checkpoint / "adapter.safetensors").write_bytes(b"x" * 100)
    (checkpoint / "sub" / "state.json").write_text("{}")
    mark_whole(checkpoint)
    return checkpoint


def truncate(checkpoint: Path) -> None:
    (checkpoint / "adapter.safetensors").write_bytes(b"x" * 40)


def lose_file(checkpoint: Path) -> None:
    (checkpoint / "sub" / "state.json").unlink()


def lose_mark(checkpoint: Path) -> None:
    (checkpoint / WHOLE).unlink()


def cut_mark(checkpoint: Path) -> None:
    (checkpoint / WHOLE).write_text('{"adapter.saf')


def empty_mark(checkpoint: Path) -> None:
    (checkpoint / WHOLE).write_text("{}")


def strange_mark(checkpoint: Path) -> None:
    (checkpoint / WHOLE).write_text("[1]")


BREAKS = [truncate, lose_file, lose_mark, cut_mark, empty_mark, strange_mark]


@pytest.mark.parametrize("damage", BREAKS)
def test_a_checkpoint_cut_short_is_ignored_and_the_one_before_found(tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    good, bad = save(tmp_path, 9), save(tmp_path, 10)
    assert last_whole(tmp_path) == bad
    damage(bad)
    assert not is_whole(bad)
    assert last_whole(tmp_path) == good


def test_checkpoints_are_ordered_by_step_not_by_name(tmp_path: Path) -> None:
    for step in (100, 9, 20):
        save(tmp_path, step)
    assert [step_of(path) for path in all_checkpoints(tmp_path)] == [9, 20, 100]


def test_a_folder_of_another_name_is_no_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 5)
    (tmp_path / "checkpoint-best").mkdir()
    keep_newest(tmp_path, 1)
    assert [step_of(path) for path in all_checkpoints(tmp_path)] == [5]
    assert (tmp_path / "checkpoint-best").is_dir()


def test_the_newest_whole_ones_are_kept_and_broken_ones_removed(tmp_path: Path) -> None:
    for step in (10, 20, 30, 40):
        save(tmp_path, step)
    lose_mark(tmp_path / "checkpoint-20")
    lose_mark(tmp_path / "checkpoint-40")
    keep_newest(tmp_path, 2)
    assert [step_of(path) for path in all_checkpoints(tmp_path)] == [10, 30]


def test_broken_ones_are_kept_while_there_is_no_whole_one(tmp_path: Path) -> None:
    lose_mark(save(tmp_path, 10))
    keep_newest(tmp_path, 1)
    assert len(all_checkpoints(tmp_path)) == 1


def test_a_killed_training_is_resumed_from_its_last_whole_checkpoint(tmp_path: Path) -> None:
    assert prepare_folder(tmp_path / "c", INPUTS, None, print) is None
    good, bad = save(tmp_path / "c", 10), save(tmp_path / "c", 20)
    truncate(bad)
    assert prepare_folder(tmp_path / "c", INPUTS, None, print) == good
    assert not bad.exists(), "a broken one only takes space"


def test_resuming_with_other_settings_is_refused_and_the_difference_shown(tmp_path: Path) -> None:
    prepare_folder(tmp_path / "c", INPUTS, None, print)
    save(tmp_path / "c", 10)
    other = {"training.adapter.alpha": "32.0", "data": "b" * 64}
    with pytest.raises(UsageError) as caught:
        prepare_folder(tmp_path / "c", other, None, print)
    said = str(caught.value)
    assert "unfinished training (step 10)" in said
    assert "training.adapter.alpha: 16.0 -> 32.0" in said
    assert f"data: {'a' * 12} -> {'b' * 12}" in said
    assert "Go back to those inputs" in said
    assert prepare_folder(tmp_path / "c", INPUTS, None, print) == tmp_path / "c" / "checkpoint-10"


def test_a_training_without_a_whole_checkpoint_does_not_block_another(tmp_path: Path) -> None:
    prepare_folder(tmp_path / "c", INPUTS, None, print)
    lose_mark(save(tmp_path / "c", 10))
    assert prepare_folder(tmp_path / "c", {"other": "1"}, None, print) is None
    assert all_checkpoints(tmp_path / "c") == []


@pytest.mark.parametrize("inputs", [INPUTS, {"other": "1"}])
def test_a_finished_trainings_leftovers_do_not_block_a_new_one(
    tmp_path: Path, inputs: dict[str, str]
) -> None:
    prepare_folder(tmp_path / "c", INPUTS, None, print)
    save(tmp_path / "c", 10)
    assert prepare_folder(tmp_path / "c", inputs, "2026-01-01T00:00:00", print) is None
    assert all_checkpoints(tmp_path / "c") == []


def test_a_training_done_again_with_the_same_inputs_can_be_resumed_too(tmp_path: Path) -> None:
    """As after a change of the code, or when the adapter was removed."""
    prepare_folder(tmp_path / "c", INPUTS, None, print)
    save(tmp_path / "c", 10)
    assert prepare_folder(tmp_path / "c", INPUTS, "first end", print) is None
    again = save(tmp_path / "c", 5)
    assert prepare_folder(tmp_path / "c", INPUTS, "first end", print) == again


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps(INPUTS)])
def test_checkpoints_of_unknown_origin_are_neither_resumed_nor_removed(
    tmp_path: Path, text: str
) -> None:
    save(tmp_path, 10)
    (tmp_path / NOTE).write_text(text)
    with pytest.raises(UsageError, match="remove"):
        prepare_folder(tmp_path, INPUTS, None, print)
    assert last_whole(tmp_path)


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_resumed(tmp_path: Path) -> None:
    folder, said = tmp_path / "c", list[str]()
    prepare_folder(folder, INPUTS, None, said.append)
    before, newest = save(folder, 10), save(folder, 20)
    file = newest / "adapter.safetensors"
    file.write_bytes(bytes(len(file.read_bytes())))  # as long as it was
    assert prepare_folder(folder, INPUTS, None, said.append) == before
    assert not newest.exists()
    (line,) = said
    assert newest.name in line
    assert file.name in line


def test_steps_that_are_named_are_kept_besides_the_newest(tmp_path: Path) -> None:
    for step in (10, 20, 30, 40):
        save(tmp_path, step)
    keep_newest(tmp_path, 1, {10, 25})
    assert [step_of(path) for path in all_checkpoints(tmp_path)] == [10, 40]


def test_the_last_good_checkpoint_is_whole_and_was_seen_to_be_good(tmp_path: Path) -> None:
    good, cut, _ = save(tmp_path, 10), save(tmp_path, 20), save(tmp_path, 30)
    lose_mark(cut)
    assert last_good(tmp_path, {10, 20}.__contains__) == good
    assert last_good(tmp_path, set[int]().__contains__) is None


def test_where_a_command_goes_on_is_its_last_whole_checkpoint(tmp_path: Path) -> None:
    assert "No checkpoint was written" in goes_on_from(tmp_path)
    save(tmp_path, 10)
    assert goes_on_from(tmp_path).endswith("goes on from " + str(tmp_path / "checkpoint-10") + ".")


OTHER = INPUTS | {"training.learning_rate": "0.0001"}


def stopped(folder: Path, good_step: int | None) -> list[str]:
    """A training that diverged, with checkpoints after steps 10 and 20; what is said is noted."""
    prepare_folder(folder, INPUTS, None, print)
    for step in (10, 20):
        save(folder, step)
    note_divergence(folder, Divergence("step 29: the loss is nan.", good_step))
    return []


@pytest.mark.parametrize("inputs", [INPUTS, OTHER])
def test_ruined_checkpoints_stand_in_nobodys_way_and_go_with_a_word(
    tmp_path: Path, inputs: dict[str, str]
) -> None:
    folder = tmp_path / "c"
    said = stopped(folder, None)
    assert prepare_folder(folder, inputs, None, said.append) is None
    assert all_checkpoints(folder) == []
    (line,) = said
    assert "was stopped: step 29: the loss is nan." in line
    assert "checkpoint-10, checkpoint-20" in line
    assert not (folder / DIVERGED).exists()


def test_the_same_training_goes_on_from_its_last_good_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    said = stopped(folder, 10)
    assert prepare_folder(folder, INPUTS, None, said.append) == folder / "checkpoint-10"
    assert [step_of(path) for path in all_checkpoints(folder)] == [10]
    assert "after its last good checkpoint, checkpoint-10, it left is removed" in said[0]
    assert prepare_folder(folder, INPUTS, None, said.append) == folder / "checkpoint-10"
    assert len(said) == 1


def test_a_good_checkpoint_of_a_stopped_training_is_not_removed_unasked(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    said = stopped(folder, 10)
    with pytest.raises(UsageError) as caught:
        prepare_folder(folder, OTHER, None, said.append)
    refusal = str(caught.value)
    assert "a training that was stopped, with a good checkpoint (step 10)" in refusal
    assert "training.learning_rate: absent -> 0.0001" in refusal
    assert f"another name (name=...), or remove {folder} to start anew" in refusal
    assert len(all_checkpoints(folder)) == 2


@pytest.mark.parametrize("text", ["", "{", "[]", '{"why": 3}', '{"why": "x", "good_step": "y"}'])
def test_a_damaged_word_about_a_stopped_training_counts_for_nothing(
    tmp_path: Path, text: str
) -> None:
    folder = tmp_path / "c"
    stopped(folder, None)
    (folder / DIVERGED).write_text(text)
    assert prepare_folder(folder, INPUTS, None, print) == folder / "checkpoint-20"
