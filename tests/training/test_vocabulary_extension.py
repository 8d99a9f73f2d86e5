"""A model with new tokens: old rows and logits as they were, new rows the mean of their pieces."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from data_prep.errors import DataError
from data_prep.tokenizer import load_tokenizer
from data_prep.vocabulary import propose_tokens, tokens_for_words
from llmkit.errors import CheckFailed, UsageError
from llmkit.models import vocabulary
from llmkit.models.settings import ModelConfig
from llmkit.models.vocabulary import EXTENSION, extend_model, read_extension
from llmkit.training.settings import LoraAdapter, TrainingConfig
from llmkit.training.train import Places, train

WORDS = ["kubernetes", "Größe", "verify"]
CORPUS = ["serve the model, verify the recipe and merge the data"] * 9
OLD_TEXT = "how do I train a model?"


def write_model(tiny: Path, folder: Path, *, dtype: torch.dtype, **settings: Any) -> Path:
    """A random model beside the tiny tokenizer."""
    shutil.copytree(tiny, folder)
    torch.manual_seed(1)
    values = json.loads((tiny / "config.json").read_text()) | settings
    LlamaForCausalLM(LlamaConfig(**values)).to(dtype).save_pretrained(folder)
    return folder


@pytest.fixture(params=["tied", "untied", "untied bfloat16"])
def model(request: pytest.FixtureRequest, tiny: Path, tmp_path: Path) -> Path:
    tied = request.param == "tied"
    dtype = torch.bfloat16 if "bfloat16" in request.param else torch.float32
    return write_model(tiny, tmp_path / "model", dtype=dtype, tie_word_embeddings=tied)


def matrices(folder: Path) -> dict[str, torch.Tensor]:
    found = load_file(folder / "model.safetensors")
    return {name: found[name] for name in found if "embed" in name or "lm_head" in name}


def test_old_rows_stay_and_new_ones_are_the_mean_of_their_pieces(model, tmp_path) -> None:  # type: ignore[no-untyped-def]
    old = load_tokenizer(model)
    tokens = tokens_for_words(old, WORDS)
    extension = extend_model(model, tokens, tmp_path / "out")
    before, after = matrices(model), matrices(tmp_path / "out")
    assert before.keys() == after.keys()
    for name, matrix in before.items():
        assert torch.equal(after[name][: len(matrix)], matrix)
        assert after[name].dtype == matrix.dtype
        assert len(after[name]) == len(matrix) + len(tokens) == extension.rows
        for row, token in zip(extension.added, tokens):
            mean = matrix[list(token.pieces)].float().mean(0).to(matrix.dtype)
            assert torch.equal(after[name][row.id], mean)


def test_everything_but_the_matrices_is_the_same(model, tmp_path) -> None:  # type: ignore[no-untyped-def]
    extend_model(model, tokens_for_words(load_tokenizer(model), WORDS), tmp_path / "out")
    before, after = (load_file(f / "model.safetensors") for f in (model, tmp_path / "out"))
    assert before.keys() == after.keys()
    for name in before.keys() - matrices(model).keys():
        assert torch.equal(before[name], after[name])
    configs = [json.loads((f / "config.json").read_text()) for f in (model, tmp_path / "out")]
    sizes = [config.pop("vocab_size") for config in configs]
    assert configs[0] == configs[1]
    assert sizes[1] == len(after["model.embed_tokens.weight"]) > sizes[0]


def test_logits_of_old_tokens_on_a_text_without_new_ones_are_unchanged(model, tmp_path) -> None:  # type: ignore[no-untyped-def]
    tokens = tokens_for_words(load_tokenizer(model), WORDS)
    extend_model(model, tokens, tmp_path / "out")
    ids = [AutoTokenizer.from_pretrained(f).encode(OLD_TEXT) for f in (model, tmp_path / "out")]
    assert ids[0] == ids[1]
    with torch.no_grad():
        before, after = (
            AutoModelForCausalLM.from_pretrained(f, dtype="auto")(torch.tensor([ids[0]])).logits
            for f in (model, tmp_path / "out")
        )
    old_size = before.shape[-1]
    assert after.shape[-1] == old_size + len(tokens)
    torch.testing.assert_close(after[..., :old_size], before)
    # A mean of rows has the mean of their logits: no new token stands out.
    for place, token in enumerate(tokens):
        mean = before[..., list(token.pieces)].mean(-1)
        torch.testing.assert_close(after[..., old_size + place], mean, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("multiple", [64, 7])
def test_rows_are_rounded_up_and_filled_with_the_mean_of_the_old_ones(
    tiny, tmp_path, multiple
) -> None:  # type: ignore[no-untyped-def]
    tokens = tokens_for_words(load_tokenizer(tiny), WORDS)
    done = extend_model(tiny, tokens, tmp_path / "out", pad_to_multiple_of=multiple)
    assert done.rows % multiple == 0
    assert 0 <= done.rows - done.old_rows - len(tokens) < multiple
    for name, matrix in matrices(tiny).items():
        filler = matrices(tmp_path / "out")[name][done.old_rows + len(tokens) :]
        assert len(filler) == done.rows - done.old_rows - len(tokens)
        assert torch.equal(filler, matrix.mean(0).expand_as(filler))


def test_spare_rows_of_the_model_are_used_first(tiny, tmp_path) -> None:  # type: ignore[no-untyped-def]
    size = len(matrices(tiny)["lm_head.weight"])
    spare = write_model(tiny, tmp_path / "spare", dtype=torch.float32, vocab_size=size + 50)
    tokens = tokens_for_words(load_tokenizer(spare), [" verify"])
    done = extend_model(spare, tokens, tmp_path / "out")
    assert (done.old_tokens, done.old_rows, done.rows) == (size, size + 50, size + 50)
    before, after = (matrices(f)["lm_head.weight"] for f in (spare, tmp_path / "out"))
    changed = (before != after).any(-1).nonzero().flatten().tolist()
    assert changed == [row.id for row in done.added]


def test_chat_template_and_generation_settings_are_carried_along(tiny, tmp_path) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    text = '{"temperature": 0.3, "do_sample": false, "eos_token_id": [2, 0]}'  # saving refuses it
    (folder / "generation_config.json").write_text(text)
    extend_model(folder, tokens_for_words(load_tokenizer(folder), WORDS), tmp_path / "out")
    assert (tmp_path / "out" / "generation_config.json").read_text() == text
    old, new = load_tokenizer(folder), load_tokenizer(tmp_path / "out")
    assert (new.chat_template, new.special) == (old.chat_template, old.special)
    assert new.chat_template


def test_the_folder_says_what_was_added_and_goes_on_saying_it(tiny, tmp_path) -> None:  # type: ignore[no-untyped-def]
    first = tokens_for_words(load_tokenizer(tiny), ["kubernetes"])
    done = extend_model(tiny, first, tmp_path / "one")
    assert read_extension(tmp_path / "one") == done
    assert read_extension(tiny) is None
    second = tokens_for_words(load_tokenizer(tmp_path / "one"), ["Größe"])
    again = extend_model(tmp_path / "one", second, tmp_path / "two")
    assert again.old_tokens == done.old_tokens
    assert [row.token for row in again.added] == [token.token for token in first + second]
    (tmp_path / "one" / EXTENSION).write_text("{")
    with pytest.raises(UsageError, match="damaged"):
        read_extension(tmp_path / "one")


def test_models_that_cannot_be_extended_are_refused_and_nothing_is_left(tiny, tmp_path) -> None:  # type: ignore[no-untyped-def]
    tokens = tokens_for_words(load_tokenizer(tiny), WORDS)
    small = write_model(tiny, tmp_path / "small", dtype=torch.float32, vocab_size=250)
    with pytest.raises(UsageError, match="the model has only 250 rows"):
        extend_model(small, tokens, tmp_path / "out")
    config = json.loads((tiny / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    shutil.copytree(tiny, tmp_path / "packed")
    (tmp_path / "packed" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="weights are quantised"):
        extend_model(tmp_path / "packed", tokens, tmp_path / "out")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "x").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        extend_model(tiny, tokens, tmp_path / "taken")
    assert {path.name for path in tmp_path.iterdir()} == {"small", "packed", "taken"}


def test_a_reader_that_ignores_the_new_tokens_is_noticed(tiny, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """As transformers did when new tokens came by ``ignore_merges``, which some classes drop."""
    original = AutoTokenizer.from_pretrained(tiny)

    class Old:
        @staticmethod
        def from_pretrained(*_args: Any, **_kwargs: Any) -> Any:
            return original

    monkeypatch.setattr(vocabulary, "AutoTokenizer", Old)
    with pytest.raises(CheckFailed, match="reads other ids for"):
        extend_model(tiny, tokens_for_words(load_tokenizer(tiny), WORDS), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_new_tokens_train_or_are_refused(tiny, tmp_path) -> None:  # type: ignore[no-untyped-def]
    from data_prep.chat_templates import load_template
    from data_prep.pipeline import DataConfig, prepare
    from llmkit.console import QuietView

    def training_on(folder: Path, name: str, *, new_tokens: bool) -> None:
        rows = [{"prompt": f"{index}", "completion": "verify the recipe"} for index in range(8)]
        source = tmp_path / f"{name}.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        (tmp_path / name).mkdir()
        config = DataConfig.model_validate({"sources": [{"path": str(source)}], "max_tokens": 64})
        data = prepare(config, load_template("keep", load_tokenizer(folder)), tmp_path / name)
        (tmp_path / name / "result").mkdir()
        places = Places(
            folder,
            tmp_path / name / "checkpoints",
            tmp_path / name / "events.jsonl",
            tmp_path / name / "result",
        )
        config = TrainingConfig(max_steps=1, adapter=LoraAdapter(new_tokens=new_tokens))
        model = ModelConfig(base=str(folder), device="cpu")
        train(config, model, data, places, QuietView(), resume_from=None)

    old = load_tokenizer(tiny)
    used = extend_model(tiny, propose_tokens(old, CORPUS, count=9), tmp_path / "used")
    with pytest.raises(UsageError, match=r"the data uses \d of the 9 tokens that were added"):
        training_on(tmp_path / "used", "data-used", new_tokens=False)
    training_on(tmp_path / "used", "data-trained", new_tokens=True)
    extend_model(tiny, tokens_for_words(old, ["kubernetes"]), tmp_path / "unused")
    training_on(tmp_path / "unused", "data-unused", new_tokens=False)
    assert (tmp_path / "data-unused" / "result" / "adapter_config.json").is_file()
    assert len(used.added) == 9
