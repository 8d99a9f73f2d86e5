"""Sentence embeddings: whole texts, unit vectors, whatever else is in the batch."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmkit.errors import UsageError
from llmkit.models.embedding import SentenceEmbedder, load_embedder, spelled, windows

WORDS = [f"{a}{b}" for a in "bcdfghklmn" for b in ("ado", "eck", "ill", "ong", "ust", "ane")]
LONGEST = 40


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random 2-layer BERT that sees 40 tokens at once and knows 60 words."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    bare, whole = tmp_path_factory.mktemp("bare"), tmp_path_factory.mktemp("model")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: i for i, word in enumerate([*special, *WORDS, *"вджзи", "##д", "##в"])}
    pieces = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    pieces.normalizer = normalizers.BertNormalizer()
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(
        tokenizer_object=pieces,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=LONGEST,
    ).save_pretrained(bare)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    BertModel(config).save_pretrained(bare)
    transformer = Transformer(str(bare), max_seq_length=LONGEST)
    SentenceTransformer(modules=[transformer, Pooling(32)], device="cpu").save(str(whole))
    return whole


@pytest.fixture(scope="session")
def embedder(folder: Path) -> SentenceEmbedder:
    return load_embedder(str(folder), device="cpu")


def sentence(seed: int, words: int) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, words))


def test_vectors_are_float32_of_length_one_whatever_the_text(embedder) -> None:
    vectors = embedder.embed(["", "bado", sentence(0, 10), sentence(1, 500), "\n \t"])
    assert vectors.dtype == np.float32
    assert vectors.shape == (5, 32)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert embedder.embed([]).shape == (0, 32)


def test_a_vector_does_not_depend_on_the_other_texts(embedder, monkeypatch) -> None:
    texts = [sentence(seed, 1 + seed * 7 % 100) for seed in range(40)]
    together = embedder.embed(texts)
    assert np.allclose(np.vstack([embedder.embed([t]) for t in texts]), together, atol=1e-6)
    assert np.allclose(embedder.embed(texts[::-1])[::-1], together, atol=1e-6)
    monkeypatch.setattr("llmkit.models.embedding.TEXTS", 7)
    assert np.allclose(embedder.embed(texts), together, atol=1e-6)


def test_texts_that_only_begin_alike_are_not_alike(embedder) -> None:
    one, other = (f"{sentence(0, 300)} {sentence(seed, 300)}" for seed in (1, 2))
    cut = embedder._model.encode([one, other], normalize_embeddings=True, show_progress_bar=False)
    assert cut[0] @ cut[1] > 0.9999
    vectors = embedder.embed([one, other])
    assert vectors[0] @ vectors[1] < 0.999


def test_the_model_sees_every_token_of_a_long_text(embedder) -> None:
    text = sentence(3, 1000)
    (pieces,) = embedder._cut([text])
    lengths = [len(embedder._model.tokenizer(piece)["input_ids"]) for piece, _ in pieces]
    assert max(lengths) <= LONGEST
    assert sum(lengths) - 2 * len(lengths) == sum(tokens for _, tokens in pieces) == 1000


def test_a_text_that_the_model_cannot_read_has_no_vector(embedder) -> None:
    texts = ["你好吗 世界", "двдв двдд вдв", sentence(0, 20), f"{sentence(0, 20)} 你好"]
    vectors = embedder.embed(texts)
    assert vectors.any(axis=1).tolist() == [False, False, True, True]


def test_the_name_says_which_model_and_changes_with_its_files(folder, tmp_path) -> None:
    import shutil

    names = []
    for change in (None, "README.md", "1_Pooling/config.json"):
        copy = tmp_path / f"of {change}".replace("/", " ") / "model"
        shutil.copytree(folder, copy)
        if change:
            with (copy / change).open("a") as file:
                file.write(" ")
        names.append(load_embedder(str(copy), device="cpu").name)
    assert names[0] == names[1] != names[2]
    assert names[0].startswith("model@")


def test_a_folder_of_another_kind_is_refused(tiny: Path) -> None:
    with pytest.raises(UsageError, match=r"has no modules\.json"):
        load_embedder(str(tiny))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("modules.json", "[]"),
        ("modules.json", '[{"idx": 0, "name": "0", "path": "", "type": "own.code.Model"}]'),
        ("modules.json", "{"),
        ("config.json", "{}"),
        ("model.safetensors", "not weights"),
    ],
)
def test_a_folder_that_cannot_be_loaded_is_refused_with_its_name(
    folder: Path, tmp_path: Path, file: str, content: str
) -> None:
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / file).write_text(content)
    with pytest.raises(UsageError, match="broken: cannot be loaded to embed sentences"):
        load_embedder(str(broken), device="cpu")


def test_nothing_is_printed(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_embedder(str(folder), device="cpu").embed([sentence(0, 100)] * 50)
    assert capfd.readouterr() == ("", "")


@given(st.text("ab  \n", max_size=80), st.integers(2, 9))
def test_windows_make_up_the_text_and_none_is_too_large(text, size) -> None:
    starts = [i for i, letter in enumerate(text) if not letter.isspace()]
    cut = windows(text, starts, size)
    assert "".join(piece for piece, _ in cut) == text
    for piece, tokens in cut:
        assert len("".join(piece.split())) == tokens or (tokens == 1 and not piece.strip())
        assert tokens <= size


def test_windows_end_between_words_where_there_are_any() -> None:
    text = "aaa bbb ccc ddd"
    starts = [i for i, letter in enumerate(text) if letter != " "]
    assert windows(text, starts, 7) == [("aaa bbb ", 6), ("ccc ddd", 6)]
    assert windows("abcdefgh", range(8), 3) == [("abc", 3), ("def", 3), ("gh", 2)]


@pytest.mark.parametrize(
    ("text", "offsets", "share"),
    [
        ("3+4=7", [(i, i + 1) for i in range(5)], 0),
        ("где й", [(0, 1), (1, 2), (2, 3), (4, 5)], 1),
        ("где й", [(0, 3), (4, 5)], 0.5),
        ("안녕", [(0, 1), (0, 1), (1, 2), (1, 2)], 0.5),
        ("日本", [(0, 1), (1, 2)], 0),
        ("", [], 0),
    ],
)
def test_spelling_is_told_from_reading(text, offsets, share) -> None:
    assert spelled(text, offsets) == share
