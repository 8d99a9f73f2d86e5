"""Several processes train as one: the same sequences, losses, norms and weights."""

import io
import json
import sys
import time
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch
from preference_units import labelled, pairs, prepared_of
from safetensors.torch import load_file

from data_prep.prepared import PreparedDataset
from llmkit import cli
from llmkit.errors import LlmkitError, UsageError
from llmkit.models.settings import ModelConfig
from llmkit.training import launching
from llmkit.training.checkpoints import last_whole
from llmkit.training.events import read_events
from llmkit.training.launching import train_together
from llmkit.training.process_settings import (
    Processes,
    read_processes,
    refuse_what_cannot_run_together,
    shipped,
)
from llmkit.training.progress import Diverged
from llmkit.training.reference import REFERENCE
from llmkit.training.settings import TrainingConfig
from llmkit.training.shares import Share
from llmkit.training.step_count import plan_steps
from llmkit.training.train import Places, train
from llmkit.training.worker import failure_path

LORA, FULL = {"rank": 4}, {"kind": "full"}
METHODS = {
    method: {"method": method, "learning_rate": 1e-3} for method in ("dpo", "kto", "orpo", "reward")
}
METHODS["distill"] = {"method": "distill", "distillation": {"teacher": "tiny", "weight": 0.5}}
SHARED = {"kto": ("kto", LORA), "dpo-full": ("dpo", FULL), "distill-full": ("distill", FULL)}
"""Of other objectives, those that look ahead, and those that compute with a head that trains."""
SETTINGS = {
    "learning_rate": 3e-3,
    "warmup_steps": 1,
    "epochs": 2,
    "evaluate_every": 2,
    "checkpoint_every": 3,
    "keep_checkpoints": 9,
}
MODEL = ModelConfig(base="tiny", device="cpu")
TWO = Processes(2, shipped()["ddp"], "ddp")


def rows(count):
    """Conversations of different lengths."""
    for number in range(count):
        question, answer = "how " * (1 + number % 7), f"run {number} " * (1 + number % 4)
        messages = [("user", question), ("assistant", answer)]
        yield {"messages": [{"role": role, "content": text} for role, text in messages]}


class View:
    """Nobody looks."""

    def step(self, event, total_steps):
        pass

    def say(self, text):
        pass


@pytest.fixture(scope="module")
def in_float32():
    """One thread and float32, in this process and in those that it starts."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("OMP_NUM_THREADS", "1")
        patched.setenv("PYTHONPATH", str(Path(__file__).parent))
        patched.setattr(launching, "WORKER", "cpu_worker")
        patched.setattr("llmkit.training.loss.CHUNK", 16)
        for module in ("llmkit.training.train", "llmkit.models.loading"):
            patched.setattr(f"{module}.compute_dtype", lambda device: torch.float32)
        yield patched


@pytest.fixture(scope="module")
def recipe(tiny, tmp_path_factory):
    """21 rows to train on: with 4 a step, an epoch ends with a step that has 1 for 2 processes."""
    folder = tmp_path_factory.mktemp("together")
    lines = [json.dumps(row) for row in rows(24)]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    said = {
        "name": "demo",
        "model": {"base": str(tiny), "device": "cpu"},
        "data": {
            "sources": [{"path": str(folder / "rows.jsonl")}],
            "validation": 3,
            "max_tokens": 256,
            "packing": False,
        },
        "training": {**SETTINGS, "adapter": LORA, "batch": {"rows": 1, "accumulate": 2}},
    }
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(said))  # JSON is YAML
    return path


def command(*words):
    """Run the command line in this process: its exit code and what it says of errors."""
    out, error = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(out), redirect_stderr(error):
        patched.setattr(sys, "argv", ["llmkit", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return ended.value.code, out.getvalue(), error.getvalue()


def settings(adapter, row_count, method=None):
    batch = {"rows": row_count, "accumulate": 2}
    said = {**SETTINGS, "adapter": adapter, "batch": batch, **METHODS.get(method, {})}
    return TrainingConfig.model_validate(said)


def places(tiny, folder, method=None):
    (folder / "result").mkdir(parents=True, exist_ok=True)
    teacher = tiny if method == "distill" else None
    files = folder / "checkpoints", folder / "events.jsonl", folder / "result"
    return Places(tiny, *files, teacher)


def alone(tiny, data, folder, adapter, method=None):
    """Train in this process, with rows=2."""
    config, where = settings(adapter, 2, method), places(tiny, folder, method)
    train(config, MODEL, data, where, View(), resume_from=None)


def job(tiny, data, folder, adapter, resume_from=None, method=None):
    """A training with rows=1 that the processes of another do after it."""
    (folder / "processes").mkdir(parents=True)
    path = folder / "processes" / launching.JOB
    config, where = settings(adapter, 1, method), places(tiny, folder, method)
    launching.write_job(path, config, MODEL, data, where, "cpu", resume_from)
    return str(path)


def units(folder, method, conversations):
    """What a method learns from: 21 units, one in a sequence, and 3 held out."""
    if method == "distill":
        return conversations
    made = labelled([index % 3 > 0 for index in range(24)]) if method == "kto" else pairs(24)
    return prepared_of(folder / f"{method}-units", made[:21], made[21:])


@pytest.fixture(scope="module")
def done(in_float32, recipe, tiny):
    """The command, whose second process is killed in step 5; another number; the command again."""
    runs, folder = recipe.parent / "runs", recipe.parent
    words = ["train", recipe, "--runs", runs, "--quiet"]
    in_float32.setenv("DIE_AT", "5")
    said = {"killed": command(*words, "--processes", 2)}
    in_float32.delenv("DIE_AT")
    said["last good"] = last_whole(runs / "demo" / "checkpoints").name
    said["another"] = command(*words, "--processes", 3)
    data = PreparedDataset.open(runs / "demo" / "data")
    assert data.sequences("train").num_rows == 21
    more = [job(tiny, data, folder / name, a) for name, a in {"lora": LORA, "full": FULL}.items()]
    of = {method: units(folder, method, data) for method in METHODS}
    more += [job(tiny, of[m], folder / m, LORA, method=m) for m in METHODS]
    in_float32.setenv("MORE_JOBS", json.dumps(more))
    said["again"] = command(*words[:-1], "--json", "--processes", 2)
    in_float32.delenv("MORE_JOBS")
    for name, adapter in {"lora-alone": LORA, "full-alone": FULL}.items():
        alone(tiny, data, folder / name, adapter)
    for method in METHODS:
        alone(tiny, of[method], folder / f"{method}-alone", LORA, method)
    return said, folder


def steps(folder):
    return [e for e in read_events(folder / "events.jsonl") if e["event"] == "step"]


def losses(folder):
    seen = [e["loss"] for e in read_events(folder / "events.jsonl") if e["event"] == "validation"]
    return [e["loss"] for e in steps(folder)] + seen


def weights(folder):
    (path,) = folder.glob("*.safetensors")
    return load_file(path)


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def assert_same_training(one, two):
    """Up to rounding: gradients are added in another order.

    Adam divides a gradient by its own size, so where one is as good as nothing its rounding becomes
    a step of its own: weights are compared less closely than losses. Where weights are shared out,
    layers compute in their plain forms, which add in yet another order.
    """
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    close = {"gradient_norm": 1e-4, "learning_rate": 0, "tokens": 0}
    close |= dict.fromkeys(("supervised", "pairs", "good", "bad", "chosen_tokens"), 0)
    close |= dict.fromkeys(("margin", "kl", "divergence"), 5e-4)
    for expected, found in zip(steps(one), steps(two), strict=True):
        assert found.keys() == expected.keys()
        for name in close.keys() & expected.keys():
            assert found[name] == pytest.approx(expected[name], rel=close[name], abs=5e-6)
        # The first step's learning rate is zero. Until the third, a model is its own reference, and
        # which of two differences of zero is larger is a matter of rounding.
        if expected["step"] > 2:
            assert found.get("accuracy") == expected.get("accuracy")
    expected, found = weights(one / "result"), weights(two / "result")
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_two_processes_train_as_one_with_twice_the_rows(done, kind):
    _, folder = done
    assert_same_training(folder / f"{kind}-alone", folder / kind)
    assert len(steps(folder / kind)) == 12
    assert steps(folder / kind)[-1]["loss"] < 0.9 * steps(folder / kind)[0]["loss"]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_in_two_processes_as_in_one(done, method):
    _, folder = done
    assert_same_training(folder / f"{method}-alone", folder / method)
    one, two = (folder / name / "checkpoints" / REFERENCE for name in (f"{method}-alone", method))
    assert one.exists() == two.exists() == (method in ("dpo", "kto"))
    if one.exists():
        expected, found = load_file(one), load_file(two)
        assert found.keys() == expected.keys() == {"train", "validation"}
        for name, values in expected.items():
            assert torch.equal(found[name], values)
    if method == "kto":
        assert any(event["kl"] > 0 for event in steps(folder / method))


def test_a_killed_process_is_named_and_the_command_goes_on_from_the_last_checkpoint(done):
    said, folder = done
    code, _, error = said["killed"]
    assert code == 1
    assert "process 1 of 2 was ended by SIGKILL, as systems do" in error
    assert "Traceback" not in error
    assert said["last good"] == "checkpoint-3"
    code, out, error = said["again"]
    assert code == 0, error
    shown = [json.loads(line) for line in out.splitlines()]
    assert [line["step"] for line in shown if line.get("event") == "step"] == list(range(4, 13))
    assert any("resuming after step 3" in line.get("note", "") for line in shown)
    assert_equal(weights(folder / "runs" / "demo" / "adapter"), weights(folder / "lora" / "result"))
    manifest = json.loads((folder / "runs" / "demo" / "manifest.json").read_text())
    assert manifest["stages"]["train"]["inputs"]["processes"] == "2"
    assert manifest["stages"]["train"]["figures"]["processes"] == 2


def test_an_unfinished_training_is_not_resumed_by_another_number_of_processes(done):
    code, _, error = done[0]["another"]
    assert code == 2
    assert "processes: 2 -> 3" in error


def test_weights_shared_out_by_fsdp2_train_as_in_one_process(done, in_float32, tiny):
    _, folder = done
    data = PreparedDataset.open(folder / "runs" / "demo" / "data")
    kept = folder / "full-fsdp" / "checkpoints" / "checkpoint-6"
    ended = folder / "full-fsdp-ended"  # killed after its last checkpoint, before its result
    ended.mkdir()
    (ended / "events.jsonl").symlink_to(folder / "full-fsdp" / "events.jsonl")
    more = [
        job(tiny, data, folder / "full-fsdp", FULL),
        job(tiny, data, folder / "full-fsdp-again", FULL, resume_from=kept),
        job(tiny, data, ended, FULL, resume_from=kept.with_name("checkpoint-12")),
    ]
    for name, (method, adapter) in SHARED.items():
        those = units(folder / f"{name}-shared", method, data)
        more.append(job(tiny, those, folder / f"{name}-fsdp", adapter, method=method))
        if not (folder / f"{name}-alone").exists():
            alone(tiny, those, folder / f"{name}-alone", adapter, method)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("FSDP_ON_CPU", "1")
        patched.setenv("MORE_JOBS", json.dumps(more))
        train_together(
            Processes(2, shipped()["fsdp2"], "fsdp"),
            settings(LORA, 1),
            MODEL,
            data,
            places(tiny, folder / "lora-fsdp"),
            View(),
            device="cpu",
            resume_from=None,
            folder=folder / "lora-fsdp" / "processes",
        )
    assert_same_training(folder / "lora-alone", folder / "lora-fsdp")
    assert_same_training(folder / "full-alone", folder / "full-fsdp")
    for name in SHARED:
        assert_same_training(folder / f"{name}-alone", folder / f"{name}-fsdp")
    for other in ("again", "ended"):
        assert_equal(
            weights(folder / "full-fsdp" / "result"),
            weights(folder / f"full-fsdp-{other}" / "result"),
        )


@pytest.mark.parametrize("processes", [1, 2, 3, 5])
@pytest.mark.parametrize("rows", [1, 2])
def test_every_sequence_is_counted_once_an_epoch(processes, rows):
    shares = [Share(22, rows, 0, rank, processes) for rank in range(processes)]
    batches = [list(share) for share in shares]
    assert {len(each) for each in batches} == {len(shares[0])}  # or some would wait for ever
    counted = [turn.place for each in batches for batch in each for turn in batch if turn.counted]
    assert Counter(counted) == Counter(range(22))
    alone = list(Share(22, rows * processes, 0, 0, 1))
    together = [{t.place for b in step for t in b if t.counted} for step in zip(*batches)]
    assert together == [{turn.place for turn in batch} for batch in alone]
    shares[0].set_epoch(1)
    assert list(shares[0]) != batches[0]


def test_a_plan_counts_the_batches_of_every_process():
    config = TrainingConfig(batch={"rows": 2, "accumulate": 2}, epochs=1)
    assert plan_steps(config, 100, processes=4).steps == 7
    alone = TrainingConfig(batch={"rows": 8, "accumulate": 2}, epochs=1)
    assert plan_steps(alone, 100).steps == 7


def test_every_configuration_that_ships_is_one_of_accelerates(monkeypatch):
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    kinds = {}
    for name, path in shipped().items():
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
    text = shipped()["fsdp2"].read_text()
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


def test_the_stage_of_a_file_of_deepspeeds_counts(tmp_path):
    path, inner = tmp_path / "mine.yaml", tmp_path / "deepspeed.json"
    text = shipped()["deepspeed_zero2"].read_text().partition("deepspeed_config:")[0]
    path.write_text(f"{text}deepspeed_config:\n  deepspeed_config_file: {inner}\n")
    with pytest.raises(UsageError, match=r"says no zero_optimization\.stage"):
        read_processes(2, str(path), "cuda")
    inner.write_text('{"zero_optimization": {"stage": 3}}')
    assert read_processes(2, str(path), "cuda").shares_weights


def test_the_document_names_every_configuration_that_ships():
    text = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    assert all(f"| `{name}`" in text for name in shipped())


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
