"""Several processes train as one: the same sequences, losses, norms and weights."""

import json
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llmkit.errors import LlmkitError, UsageError
from llmkit.models.settings import ModelConfig
from llmkit.training import launching
from llmkit.training.checkpoints import last_whole, prepare_folder
from llmkit.training.launching import (
    Processes,
    read_processes,
    refuse_what_cannot_run_together,
    train_together,
)
from llmkit.training.planning import plan_steps
from llmkit.training.progress import Diverged, read_events
from llmkit.training.settings import TrainingConfig
from llmkit.training.shares import Share
from llmkit.training.train import Places, train
from llmkit.training.worker import failure_path

LORA, FULL = {"rank": 4}, {"kind": "full"}
SETTINGS = {
    "learning_rate": 3e-3,
    "warmup_steps": 1,
    "epochs": 2,
    "evaluate_every": 2,
    "checkpoint_every": 3,
    "keep_checkpoints": 9,
}
TWO = Processes(2, launching.shipped()["ddp"], "ddp")


class View:
    """Remembers what it is told."""

    def __init__(self):
        self.said, self.steps = [], []

    def step(self, event, total_steps):
        self.steps.append(event["step"])

    def say(self, text):
        self.said.append(text)


@pytest.fixture
def data(prepared):
    """Twenty rows to train on: two processes of two passes a step end an epoch with one pass."""
    found = prepared(24, validation=3, packing=False)
    assert found.sequences("train").num_rows == 21
    return found


@pytest.fixture
def both(tiny, data, monkeypatch):
    """Train in one process with rows=2 and in two with rows=1, all in float32."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setattr(launching, "WORKER", "cpu_worker")
    for module in ("llmkit.training.train", "llmkit.models.loading"):
        monkeypatch.setattr(f"{module}.compute_dtype", lambda device: torch.float32)

    def settings(adapter, rows):
        batch = {"rows": rows, "accumulate": 2}
        return TrainingConfig.model_validate({**SETTINGS, "adapter": adapter, "batch": batch})

    def places(folder):
        (folder / "result").mkdir(parents=True, exist_ok=True)
        return Places(tiny, folder / "checkpoints", folder / "events.jsonl", folder / "result")

    class Both:
        model = ModelConfig(base="tiny", device="cpu")

        def one(self, folder, adapter):
            config = settings(adapter, rows=2)
            return train(config, self.model, data, places(folder), View(), resume_from=None)

        def two(self, folder, adapter, *, processes=TWO, view=None, resume_from=None):
            return train_together(
                processes,
                settings(adapter, rows=1),
                self.model,
                data,
                places(folder),
                view or View(),
                device="cpu",
                resume_from=resume_from,
                folder=folder / "processes",
            )

        def job(self, folder, adapter, resume_from=None):
            """A job to be done by the processes of another."""
            (folder / "processes").mkdir(parents=True)
            job = folder / "processes" / launching.JOB
            config = settings(adapter, rows=1)
            launching.write_job(job, config, self.model, data, places(folder), "cpu", resume_from)
            return str(job)

    return Both()


def steps(folder):
    return [e for e in read_events(folder / "events.jsonl") if e["event"] == "step"]


def losses(folder):
    seen = [e["loss"] for e in read_events(folder / "events.jsonl") if e["event"] == "validation"]
    return [e["loss"] for e in steps(folder)] + seen


def weights(folder):
    (path,) = (folder / "result").glob("*.safetensors")
    return load_file(path)


def assert_same_training(one, two):
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    for name, close in {
        "gradient_norm": 1e-4,
        "learning_rate": 0,
        "tokens": 0,
        "supervised": 0,
    }.items():
        expected = [event[name] for event in steps(one)]
        assert [event[name] for event in steps(two)] == pytest.approx(expected, rel=close)
    expected, found = weights(one), weights(two)
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-3, atol=1e-4)


def test_two_processes_train_as_one_with_twice_the_rows(both, tmp_path, monkeypatch):
    both.one(tmp_path / "lora-1", LORA)
    both.one(tmp_path / "full-1", FULL)
    view = View()
    monkeypatch.setenv("MORE_JOBS", json.dumps([both.job(tmp_path / "full-2", FULL)]))
    figures = both.two(tmp_path / "lora-2", LORA, view=view)
    assert_same_training(tmp_path / "lora-1", tmp_path / "lora-2")
    assert_same_training(tmp_path / "full-1", tmp_path / "full-2")
    assert figures["processes"] == 2
    assert view.steps == list(range(1, figures["steps"] + 1))
    assert any("validation loss" in line for line in view.said)
    assert len({event["loss"] for event in steps(tmp_path / "lora-2")}) > 5


def test_a_killed_process_is_named_and_the_training_goes_on_bitwise(both, tmp_path, monkeypatch):
    monkeypatch.setenv("DIE_AT", "5")
    with pytest.raises(LlmkitError, match=r"process 1 of 2 was ended by SIGKILL, as systems do"):
        both.two(tmp_path / "cut", LORA)
    monkeypatch.delenv("DIE_AT")
    good = last_whole(tmp_path / "cut" / "checkpoints")
    assert good.name == "checkpoint-3"
    monkeypatch.setenv("MORE_JOBS", json.dumps([both.job(tmp_path / "whole", LORA)]))
    both.two(tmp_path / "cut", LORA, resume_from=good)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_weights_shared_out_by_fsdp2_train_as_in_one_process(both, tmp_path, monkeypatch):
    monkeypatch.setenv("FSDP_ON_CPU", "1")
    both.one(tmp_path / "lora-1", LORA)
    both.one(tmp_path / "full-1", FULL)
    kept = tmp_path / "full-2" / "checkpoints" / "checkpoint-6"
    more = [
        both.job(tmp_path / "full-2", FULL),
        both.job(tmp_path / "again", FULL, resume_from=kept),
    ]
    monkeypatch.setenv("MORE_JOBS", json.dumps(more))
    sharded = Processes(2, launching.shipped()["fsdp2"], "fsdp")
    both.two(tmp_path / "lora-2", LORA, processes=sharded)
    assert_same_training(tmp_path / "lora-1", tmp_path / "lora-2")
    assert_same_training(tmp_path / "full-1", tmp_path / "full-2")
    one, other = weights(tmp_path / "full-2"), weights(tmp_path / "again")
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("processes", [1, 2, 3, 5])
@pytest.mark.parametrize("rows", [1, 2])
def test_every_sequence_is_counted_once_an_epoch(processes, rows):
    shares = [Share(22, rows, 0, rank, processes) for rank in range(processes)]
    batches = [list(share) for share in shares]
    assert {len(each) for each in batches} == {len(shares[0])}  # or some would wait for ever
    counted = [turn.index for each in batches for batch in each for turn in batch if turn.counted]
    assert Counter(counted) == Counter(range(22))
    alone = list(Share(22, rows * processes, 0, 0, 1))
    together = [{t.index for b in step for t in b if t.counted} for step in zip(*batches)]
    assert together == [{turn.index for turn in batch} for batch in alone]
    shares[0].set_epoch(1)
    assert list(shares[0]) != batches[0]


def test_a_plan_counts_the_batches_of_every_process():
    config = TrainingConfig(batch={"rows": 2, "accumulate": 2}, epochs=1)
    assert plan_steps(config, 100, processes=4).steps == 7
    alone = TrainingConfig(batch={"rows": 8, "accumulate": 2}, epochs=1)
    assert plan_steps(alone, 100).steps == 7


def test_an_unfinished_training_is_not_resumed_by_another_number_of_processes(tmp_path):
    folder = tmp_path / "checkpoints"
    assert prepare_folder(folder, {"processes": "2"}, None) is None
    checkpoint = folder / "checkpoint-3"
    checkpoint.mkdir()
    (checkpoint / "whole.json").write_text('{"whole.json": 19}')
    (checkpoint / "weights").write_text("x")
    (checkpoint / "whole.json").write_text('{"weights": 1}')
    assert prepare_folder(folder, {"processes": "2"}, None) == checkpoint
    with pytest.raises(UsageError, match="processes: 2 -> 4"):
        prepare_folder(folder, {"processes": "4"}, None)


def test_every_configuration_that_ships_is_one_of_accelerates(monkeypatch):
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    kinds = {}
    for name, path in launching.shipped().items():
        load_config_from_file(str(path))  # refuses keys that it does not know
        found = read_processes(2, name, "cuda")
        kinds[name] = found.kind, found.shares_weights
        words = launching._command(found, Path("job.json"))[3:]
        arguments = launch_command_parser().parse_args(words)
        arguments, *_ = _validate_launch_command(arguments)
        assert arguments.num_processes == 2
        assert arguments.mixed_precision == "no"
        if found.kind == "fsdp":
            _check_fsdp(prepare_multi_gpu_env(arguments), monkeypatch, "offload" in name)
    assert kinds == {
        "ddp": ("ddp", False),
        "deepspeed_zero2": ("deepspeed", False),
        "deepspeed_zero3": ("deepspeed", True),
        "fsdp2": ("fsdp", True),
        "fsdp2_offload": ("fsdp", True),
    }


def _check_fsdp(environment, monkeypatch, offload):
    """What accelerate makes of a configuration in every process."""
    from accelerate.utils import FullyShardedDataParallelPlugin
    from torch.distributed.fsdp import CPUOffloadPolicy

    with monkeypatch.context() as patched:
        for name, value in environment.items():
            patched.setenv(name, value)
        plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is True
    assert plugin.state_dict_type.name == "FULL_STATE_DICT"
    assert plugin.cpu_ram_efficient_loading is False
    assert isinstance(plugin.cpu_offload, CPUOffloadPolicy) == offload


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_is_configured_as_the_file_says(stage, monkeypatch):
    """As far as it goes without DeepSpeed: what accelerate would hand to it."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils import DeepSpeedPlugin
    from accelerate.utils.launch import prepare_deepspeed_cmd_env

    found = read_processes(2, f"deepspeed_zero{stage}", "cuda")
    words = launching._command(found, Path("job.json"))[3:]
    arguments, *_ = _validate_launch_command(launch_command_parser().parse_args(words))
    arguments.deepspeed_fields_from_accelerate_config = ""
    _, environment = prepare_deepspeed_cmd_env(arguments)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    plugin = DeepSpeedPlugin()
    config = plugin.deepspeed_config
    assert plugin.zero3_init_flag is False
    assert config["zero_optimization"]["stage"] == stage
    assert config["zero_optimization"]["offload_optimizer"]["device"] == "none"
    assert config["gradient_clipping"] == "auto"  # the Trainer fills these in
    assert config["gradient_accumulation_steps"] == "auto"
    gather = config["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"]
    assert gather is (stage == 3)


@pytest.mark.parametrize(
    ("name", "settings", "model", "words"),
    [
        ("ddp", {}, {}, r"--processes: 4 \(4 on this machine\).*1 answer here.*--processes 1"),
        ("fsdp2", {}, {"quantization": "nf4"}, "quantised weights cannot be shared"),
        ("fsdp2", {"adapter": {"init": "pissa"}}, {}, "init=pissa"),
        ("deepspeed_zero2", {}, {}, "DeepSpeed is not installed"),
    ],
)
def test_what_cannot_run_together_is_refused_before_anything_is_loaded(
    name, settings, model, words, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1 if name == "ddp" else 4)
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    asked = read_processes(4, name, "cuda")
    config, base = TrainingConfig.model_validate(settings), ModelConfig(base="tiny", **model)
    with pytest.raises(UsageError, match=words):
        refuse_what_cannot_run_together(asked, config, base, "cuda")


def test_sharing_weights_out_on_a_cpu_is_refused():
    asked = read_processes(2, "fsdp2", "cpu")
    with pytest.raises(UsageError, match="this trains on the CPU"):
        refuse_what_cannot_run_together(asked, TrainingConfig(), ModelConfig(base="tiny"), "cpu")


def test_a_configuration_is_a_name_or_a_file_of_accelerates(tmp_path):
    assert read_processes(None, None, "cpu") is None
    assert read_processes(1, None, "cpu") is None
    with pytest.raises(UsageError, match=r"no such file.*ddp, .*fsdp2"):
        read_processes(2, "fsdp3", "cpu")
    with pytest.raises(UsageError, match="does not say how many processes"):
        read_processes(None, "ddp", "cpu")
    path = tmp_path / "mine.yaml"
    text = launching.shipped()["fsdp2"].read_text()
    path.write_text(text.replace("num_machines: 1", "num_machines: 2"))
    assert read_processes(8, str(path), "cuda").here == 4
    with pytest.raises(UsageError, match="cannot be divided evenly among 2 machines"):
        read_processes(7, str(path), "cuda")
    path.write_text(text.replace("FULL_STATE_DICT", "SHARDED_STATE_DICT"))
    with pytest.raises(UsageError, match="fsdp_state_dict_type: SHARDED_STATE_DICT; it must be"):
        read_processes(2, str(path), "cuda")
    path.write_text(text + "nonsense: 1\n")
    with pytest.raises(UsageError, match="not a configuration of accelerate"):
        read_processes(2, str(path), "cuda")


def test_the_error_that_began_it_is_told_and_not_those_that_followed(tmp_path):
    log = tmp_path / "output.log"
    log.write_text("noise\nmore noise\n")

    def fail(rank, kind, message, code, at):
        found = {"kind": kind, "message": message, "exit_code": code, "at": at}
        failure_path(tmp_path, rank).write_text(json.dumps(found))

    began = time.time()
    with pytest.raises(LlmkitError, match=r"(?s)without a reason.*more noise"):
        raise launching._reason(TWO, tmp_path, log, began)
    fail(0, "RuntimeError", "connection closed by peer", None, began + 2)
    fail(1, "OutOfMemoryError", "out of memory", None, began + 1)
    with pytest.raises(LlmkitError, match="process 1 of 2 failed: OutOfMemoryError: out of"):
        raise launching._reason(TWO, tmp_path, log, began)
    fail(1, "Diverged", "step 3: the loss is nan.", 1, began + 3)
    with pytest.raises(Diverged, match="the loss is nan"):
        raise launching._reason(TWO, tmp_path, log, began)
    fail(1, "UsageError", "training.adapter.rank: 65", 2, began - 9)  # of an earlier run
    with pytest.raises(LlmkitError, match="connection closed"):
        raise launching._reason(TWO, tmp_path, log, began)
