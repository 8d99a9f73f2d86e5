"""What cannot be trained is refused before rows are prepared; interrupted, it says what is kept."""

import errno
from pathlib import Path

import pytest
import torch

from llmkit import preparing, stages
from llmkit.console import choose_view
from llmkit.errors import LlmkitError, UsageError
from llmkit.files import said_when_full
from llmkit.project import Project
from llmkit.recipe import load_recipe
from llmkit.run import Run
from llmkit.training.checkpoints import last_whole
from llmkit.training.settings import TrainingConfig
from llmkit.training.step_count import plan_steps


@pytest.fixture
def project(tiny, tmp_path, monkeypatch):
    """A project of given settings, whose rows must not be prepared."""

    def never(*_, **__):
        raise AssertionError("rows were prepared")

    monkeypatch.setattr(preparing, "prepare", never)
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "completion": "b"}\n')
    file = tmp_path / "recipe.yaml"
    file.write_text(
        f"name: x\nmodel: {{base: {tiny}, device: cpu}}\ndata:\n  sources: [{{path: {rows}}}]\n"
        "  max_tokens: 64\n"
    )

    def make(*words):
        return Project(load_recipe(file, words), Run(tmp_path / "runs"), choose_view(True, False))

    return make


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["training.adapter.rank=65"], r"adapter\.rank: 65 is above 32, the smallest dimension"),
        (["training.adapter.targets=[q_prj]"], r"'q_prj' matches no linear.*Nearest: q_proj"),
        (["training.adapter.targets=['a[b']"], "is not a regular expression"),
        (["training.adapter.modules_to_save=[lm_haed]"], r"no 'lm_haed'.*Nearest: lm_head"),
        (["training.adapter={kind: freeze, layers: 3}"], r"layers: 3 of 2 layers.*at most"),
        (["training.optimizer=paged_adamw"], r"paged_adamw .* trains on cpu\. Use adamw"),
        (["training.method=reward", "training.adapter.rank=65"], "smallest dimension"),
        pytest.param(
            ["model.device=cuda"],
            "no CUDA GPU answers",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_cannot_train_is_refused_before_rows_are_prepared(project, words, said):
    with pytest.raises(UsageError, match=said):
        stages.check_training_ahead(project(*words))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("training.learning_rate=0", "'training.learning_rate': must be greater than 0 (found 0)"),
        ("training.learning_rate=-0.1", "must be greater than 0 (found -0.1)"),
        ("training.learning_rate=.nan", "must be a finite number"),
        ("training.learning_rate=.inf", "must be a finite number"),
        ("training.max_steps=0", "'training.max_steps': must be greater than or equal to 1"),
        ("training.epochs=0", "'training.epochs': must be greater than 0"),
        ("training.adapter.alpha=0", "'training.adapter.alpha': must be greater than 0"),
        ("training.adapter.rank=0", "must be greater than or equal to 1 (found 0)"),
        ("training.optimizer=adamx", "did you mean 'adamw'?"),
        ("training.method=dppo", "did you mean 'dpo'?"),
        ("training.adapter.kind=loar", "did you mean 'lora'?"),
        ("training.adapter={layers: 2}", "not for kind lora, but for freeze"),
    ],
)
def test_values_that_train_nothing_are_refused_with_what_is_allowed(project, words, said):
    with pytest.raises(UsageError) as caught:
        project(words)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "settings", [{"keep": "best"}, {"early_stopping": {}}], ids=["keep", "early stopping"]
)
def test_evaluations_that_come_after_the_end_cannot_be_compared(settings):
    config = TrainingConfig(evaluate_every=20, epochs=2, **settings)
    with pytest.raises(UsageError, match=r"evaluate_every: 20 of 20 steps.*Lower evaluate_every"):
        plan_steps(config, 10)
    assert plan_steps(config, 11).steps == 22
    assert plan_steps(TrainingConfig(evaluate_every=20, epochs=2), 10).steps == 20


def test_an_interrupted_training_says_which_checkpoint_is_kept(run, prepared, tmp_path):
    from conftest import Silent

    for stop, said in ((1, "No checkpoint was written"), (3, r"checkpoint-2")):
        view = Silent(stop_after=stop)
        folder = tmp_path / str(stop)
        with pytest.raises(KeyboardInterrupt):
            run(prepared(24), folder, view=view, max_steps=4, checkpoint_every=2)
        assert view.said[-1].startswith("interrupted. ")
        assert said in view.said[-1]


def test_a_disk_that_is_full_at_a_checkpoint_keeps_the_one_before(
    run, prepared, tmp_path, monkeypatch
):
    """Resuming goes on from it, to bitwise the same end."""
    data = prepared(24)
    settings = {"max_steps": 4, "checkpoint_every": 1}
    save, calls = torch.save, []

    def full(value, file, *rest, **named):
        calls.append(file)
        if Path(str(file)).name == "optimizer.pt" and "checkpoint-3" in str(file):
            Path(file).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device", str(file))
        return save(value, file, *rest, **named)

    run(data, tmp_path / "whole", **settings)
    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", full)
        with pytest.raises(LlmkitError, match="the disk is full"):  # noqa: SIM117
            with said_when_full(tmp_path / "cut"):
                run(data, tmp_path / "cut", **settings)
    assert calls
    assert last_whole(tmp_path / "cut" / "checkpoints").name == "checkpoint-2"
    run(data, tmp_path / "cut", resume=True, **settings)
    adapter = "result/adapter_model.safetensors"
    assert (tmp_path / "whole" / adapter).read_bytes() == (tmp_path / "cut" / adapter).read_bytes()
