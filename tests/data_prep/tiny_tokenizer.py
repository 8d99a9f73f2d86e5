"""A tiny byte-level tokenizer, and rows in and out, for the tests of data_prep."""

import json
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors, trainers

from data_prep.prepared import PreparedDataset
from data_prep.rendering import Rendered
from data_prep.tokenizer import Tokenizer

SENTENCES = [
    "The quick brown fox jumps over the lazy dog, and the dog does not mind.",
    "What is the capital of France? The capital of France is Paris.",
    "Give three tips for staying healthy. Eat well, sleep well, and walk every day.",
    "Write a function that adds two numbers: def add(a, b): return a + b",
    "### Human: Who are you? ### Assistant: I am an assistant, here to help you.",
]
SPECIAL = [
    *("<unk>", "<s>", "</s>", "<pad>"),
    *("<|im_start|>", "<|im_end|>"),
    *("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    *("<start_of_turn>", "<end_of_turn>"),
    "<|end|>",
]


def build_tokenizer(folder: Path, special: list[str] = SPECIAL, **settings: object) -> Path:
    """Train the tiny tokenizer and save it as transformers does."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken(token, special=True) for token in special],
        show_progress=False,
    )
    backend.train_from_iterator(SENTENCES, trainer)
    if "<s>" in special:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))]
        )
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    pad = {"__type": "AddedToken", "content": "<pad>", "special": True}  # the longer spelling
    config = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": pad} | settings
    named = {key: value for key, value in config.items() if value is not None}
    (folder / "tokenizer_config.json").write_text(json.dumps(named), encoding="utf-8")
    return folder


def supervised_runs(row: Rendered, tokenizer: Tokenizer) -> list[str]:
    """The text of every unbroken run of supervised tokens."""
    runs: list[list[int]] = []
    before = False
    for index, supervised in zip(row.ids, row.supervised, strict=True):
        if supervised and not before:
            runs.append([])
        if supervised:
            runs[-1].append(index)
        before = supervised
    return [tokenizer.decode(run) for run in runs]


def write_jsonl(path: Path, rows: list[object]) -> str:
    """Write rows, which may also be ready lines, and answer the path as a recipe spells it."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return str(path)


def alpaca(number: int, answer: str | None = None) -> dict[str, str]:
    """A good row, different for every number."""
    return {
        "instruction": f"What is {number} plus one?",
        "output": f"It is {number + 1}." if answer is None else answer,
    }


def dropped(prepared: PreparedDataset) -> list[dict[str, object]]:
    """What dropped.jsonl says."""
    text = (prepared.folder / "dropped.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line]
