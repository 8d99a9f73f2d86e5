"""Verification against a real server: a planted wrong one fails every check."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from data_prep.prepared import PreparedDataset
from llmkit.models.loading import load_base
from llmkit.verification import (
    Served,
    check_merging,
    check_rendering,
    check_serving,
    check_stopping,
)
from serve.model import open_model
from serve.process import ServerProcess
from serve.settings import ServeSettings

pytestmark = pytest.mark.end_to_end


@pytest.fixture(scope="module")
def planted(quickstart, tmp_path_factory) -> Iterator[Served]:
    """The merged model with another chat template, a damaged layer, and no stop token, served."""
    run, _ = quickstart
    folder = tmp_path_factory.mktemp("planted") / "merged"
    shutil.copytree(run / "merged", folder)
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("You are", "You were"))
    weights = load_file(folder / "model.safetensors")
    name = "model.layers.10.mlp.down_proj.weight"
    weights[name] = weights[name].roll(1, 0)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    for file in ("config.json", "generation_config.json"):
        settings = json.loads((folder / file).read_text())
        settings["eos_token_id"] = 0
        (folder / file).write_text(json.dumps(settings))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer["eos_token"] = "<|endoftext|>"
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    log = folder.parent / "server.log"
    with ServerProcess(
        open_model(folder, name="planted"), log, ServeSettings(max_model_len=1024)
    ) as server:
        yield Served(server.root_url, "planted")


@pytest.fixture(scope="module")
def samples(quickstart):
    return PreparedDataset.open(quickstart[0] / "data").samples()


def test_a_wrong_chat_template_is_caught(planted, samples):
    check = check_rendering(planted, samples)
    assert not check.passed
    assert check.figures["different"] == len(samples)
    assert "not the trained one" in check.problem


def test_wrong_weights_behind_the_server_are_caught(planted, samples, quickstart):
    merged = quickstart[0] / "merged"
    model = load_base(merged, quantization="none", device=torch.device("cpu"))
    check = check_serving([planted.generate(sample, 32) for sample in samples[:6]], model)
    assert not check.passed
    assert "does not compute what transformers computes" in check.problem


def test_a_stop_token_that_the_server_does_not_know_is_caught(planted, samples):
    check = check_stopping(planted, samples, [2])
    assert not check.passed
    assert "does not end generation" in check.problem


def test_a_merge_beyond_its_limit_is_caught():
    figures = {"target": "base", "closeness": {"base": {"kl": 0.5}}}
    assert not check_merging(figures, 0.1).passed
    assert check_merging(figures, 0.6).passed


def test_serve_refuses_a_run_whose_verification_failed(quickstart, tmp_path):
    from commands import llmkit

    run = tmp_path / "copy"
    shutil.copytree(quickstart[0], run, ignore=shutil.ignore_patterns("merged", "checkpoints"))
    verdict = json.loads((run / "verification.json").read_text())
    verdict["passed"] = verdict["checks"][0]["passed"] = False
    Path(run / "verification.json").write_text(json.dumps(verdict))
    done = llmkit("serve", str(run))
    assert done.returncode == 3
    assert "verification failed (rendering)" in done.stderr
    assert "--unverified" in done.stderr
