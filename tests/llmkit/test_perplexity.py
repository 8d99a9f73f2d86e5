"""Perplexity: scores are those of a plain computation, whatever is scored beside a text."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from llmkit.errors import UsageError
from llmkit.models import perplexity
from llmkit.models.perplexity import PerplexityScorer

TEXTS = [
    "how do I train a model?",
    "run",
    "",
    "run the command. " * 30,
    "日本語 \U0001f98a",
    "<|im_end|>",
    "how do I train a model!",
    "model " * 400,
]


ROUNDING = 6e-5
"""Scores have 5 digits."""


@pytest.fixture(scope="module")
def scorer(tiny: Path) -> PerplexityScorer:
    return PerplexityScorer(tiny, "tiny", max_tokens=64, device="cpu")


def reference(folder: Path, text: str, max_tokens: int = 64) -> float:
    """One text at a time, from the model's own logits."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    row = torch.tensor([[*begin, *ids][:max_tokens]])
    if row.shape[1] < 2:
        return float("nan")
    with torch.no_grad():
        logs = model(row).logits[0, :-1].double().log_softmax(-1)
    return float((-logs.gather(-1, row[0, 1:, None])).mean().exp())


def test_scores_are_those_of_a_plain_computation(tiny: Path, scorer: PerplexityScorer):
    expected = [reference(tiny, text) for text in TEXTS]
    assert np.isnan(expected).sum() == 1
    np.testing.assert_allclose(scorer.score(TEXTS), expected, rtol=ROUNDING)


def test_a_text_scores_the_same_alone_in_any_order_and_in_any_batch(
    scorer: PerplexityScorer, monkeypatch: pytest.MonkeyPatch
):
    together = scorer.score(TEXTS)
    np.testing.assert_allclose(scorer.score(TEXTS[::-1])[::-1], together, rtol=ROUNDING)
    np.testing.assert_allclose([scorer.score([text])[0] for text in TEXTS], together, rtol=ROUNDING)
    monkeypatch.setattr(perplexity, "BATCH_TOKENS", 1)
    monkeypatch.setattr(perplexity, "CHUNK", 3)
    np.testing.assert_allclose(scorer.score(TEXTS), together, rtol=ROUNDING)


def test_what_is_written_like_a_special_token_is_text(tiny: Path, scorer: PerplexityScorer):
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    assert len(tokenizer("<|im_end|>")["input_ids"]) == 1
    assert np.isfinite(scorer.score(["<|im_end|>"])[0])


def test_of_a_long_text_the_beginning_is_scored(tiny: Path, scorer: PerplexityScorer):
    long = "run the command. " * 30
    assert scorer.score([long + "zzz"])[0] == scorer.score([long])[0]
    assert PerplexityScorer(tiny, "tiny", max_tokens=10**6, device="cpu").max_tokens == 512


def test_a_text_without_a_token_to_score_is_not_a_number(scorer: PerplexityScorer):
    assert np.isnan(scorer.score(["", "a"])).tolist() == [True, True]  # no beginning token
    assert scorer.score([]).shape == (0,)


def test_the_beginning_token_lets_the_first_token_be_scored(tiny: Path, tmp_path: Path):
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.bos_token = "<|im_start|>"
    AutoModelForCausalLM.from_pretrained(tiny).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    scores = PerplexityScorer(tmp_path, "tiny", device="cpu").score(["a", ""])
    np.testing.assert_allclose(scores[0], reference(tmp_path, "a"), rtol=ROUNDING)
    assert np.isnan(scores[1])


def test_a_model_scores_what_it_was_taught_lower(tiny: Path, tmp_path: Path):
    text = "how do I train a model?"
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(20):
        model(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    taught, other = PerplexityScorer(tmp_path, "taught", device="cpu").score(
        [text, "zq xw vk jy pf"]
    )
    assert taught < 1.5 < other


def test_a_model_that_answers_with_no_number_is_refused(tiny: Path):
    broken = PerplexityScorer(tiny, "broken", device="cpu")
    next(broken._model.parameters()).data[:] = torch.nan
    assert np.isnan(broken.score([""])).all()
    with pytest.raises(UsageError, match=r"broken cannot score .* in torch\.float32, it answers"):
        broken.score(["how do I train a model?"])


def test_a_folder_without_a_model_is_refused(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="nothing cannot be loaded to score perplexity"):
        PerplexityScorer(tmp_path, "nothing", device="cpu")
