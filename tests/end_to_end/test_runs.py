"""`llmkit run` on real rows with the real model, as QLoRA, and its bad inputs."""

import json
import socket

import pytest
from commands import ROOT, llmkit

pytestmark = pytest.mark.end_to_end

ALPACA = ROOT.parent / "shared" / "data" / "alpaca_en_demo" / "alpaca_en_demo.json"


def test_a_qlora_run_on_real_rows_goes_the_whole_way(tmp_path):
    rows = ALPACA if ALPACA.is_file() else ROOT / "recipes" / "data" / "llmkit-helper.jsonl"
    done = llmkit(
        "run",
        "recipes/smollm2-alpaca-cpu.yaml",
        f"data.sources.0.path={rows}",
        "data.sources.0.format=auto",
        "data.max_tokens=256",
        "training.max_steps=6",
        "model.quantization=nf4",
        "evaluation.generate=0",
        "--runs",
        str(tmp_path),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    run = tmp_path / "smollm2-alpaca-cpu"
    stages = json.loads((run / "manifest.json").read_text())["stages"]
    closeness = stages["merge"]["figures"]["closeness"]
    assert stages["merge"]["figures"]["target"] == "dequantized"
    assert closeness["dequantized"]["kl"] < 0.02 < closeness["base"]["kl"]
    assert stages["train"]["figures"]["trainable_dtype"] == ["float32"]
    assert json.loads((run / "verification.json").read_text())["passed"]
    ledger = json.loads((run / "data" / "ledger.json").read_text())
    assert ledger["rows_in"] == (
        ledger["rows_kept"] + ledger["rows_truncated"] + ledger["rows_dropped"]
    )


def test_a_port_in_use_is_named_before_anything_is_loaded(smollm2, llmkit_here):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = llmkit_here("serve", "smollm2-135m-instruct", "--port", str(port))
    assert done.returncode == 2
    assert f"port {port}" in done.stderr
    assert "--port" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["data.sources.0.path=absent.json"], 2, "absent.json"),
        (["model.base=no-such-model"], 2, "Tried: the catalogue"),
        (["model.device=cuda"], 2, "no CUDA GPU answers"),
        (["training.warmup_steps=9999"], 2, "warmup_steps"),
        (["model.chat_template=nonesuch"], 2, "nonesuch"),
        (["training.adapter.targets=[q_pro]"], 2, "q_proj"),
        (["data.max_tokens=8"], 2, "No row is left"),
        (["data.overlog=drop"], 2, "did you mean 'overlong'"),
    ],
)
def test_bad_input_is_one_message_and_leaves_nothing_half_written(
    words, code, says, smollm2, tmp_path, llmkit_here
):
    import torch

    if "cuda" in words[0] and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = llmkit_here("train", "recipes/quickstart.yaml", *words, "--runs", str(tmp_path))
    assert done.returncode == code, done.stdout + done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.partial"))
    assert not list(tmp_path.rglob("adapter"))


def test_a_locked_run_is_refused(tmp_path, llmkit_here):
    from llmkit.run import Run

    with Run(tmp_path / "quickstart"):
        done = llmkit_here("prep", "recipes/quickstart.yaml", "--runs", str(tmp_path))
    assert done.returncode == 2
    assert "another llmkit process" in done.stderr


def test_preview_colours_the_supervised_tokens_alone(smollm2):
    done = llmkit("preview", "recipes/quickstart.yaml", FORCE_COLOR="1", COLUMNS="400")
    assert done.returncode == 0, done.stderr
    green = [part.split("\x1b[0m")[0] for part in done.stdout.split("\x1b[30;42m")[2:]]
    first = json.loads((ROOT / "recipes/data/llmkit-helper.jsonl").read_text().splitlines()[0])
    assert green[0].strip() == first["messages"][-1]["content"] + "<|im_end|>"
