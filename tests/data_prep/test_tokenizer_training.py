"""Training a tokenizer: nothing unknown, the same bytes every time, and files that others read."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tiny_tokenizer import SENTENCES

from data_prep.chat_templates import load_template
from data_prep.errors import DataError
from data_prep.tokenizer import load_tokenizer
from data_prep.tokenizer_training import TokenizerSettings, save_tokenizer, train_tokenizer

CORPUS = [
    *SENTENCES * 3,
    "In 2024 there were 1234567 of them.\n\nThe  end\t!",
    "Größe, señor, 中文",
]
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
TRAINED = {
    choice: train_tokenizer(CORPUS, TokenizerSettings(vocab_size=400, pre_tokenizer=choice))  # type: ignore[arg-type]
    for choice in ("single-digits", "llama-3", "gpt-2")
}


@pytest.mark.parametrize("choice", TRAINED)
@given(text=TEXTS | st.sampled_from(CORPUS))
def test_every_text_comes_back_as_it_was(choice, text):
    backend = TRAINED[choice]
    ids = backend.encode(text, add_special_tokens=False).ids
    assert backend.decode(ids, skip_special_tokens=False) == text


def test_the_three_pre_tokenisers_cut_numbers_differently():
    def numbers(choice):
        cut = TRAINED[choice].pre_tokenizer.pre_tokenize_str("a 1234567")
        return [piece for piece, _ in cut if piece.strip("Ġ").isdigit()]

    assert numbers("single-digits") == list("1234567")
    assert numbers("llama-3") == ["123", "456", "7"]
    assert numbers("gpt-2") == ["Ġ1234567"]


def test_no_token_holds_two_digits_when_digits_stand_apart():
    vocabulary = TRAINED["single-digits"].get_vocab()
    assert not [t for t in vocabulary if sum(c.isdigit() for c in t) > 1]


CODE = """
import sys
from tiny_tokenizer import SENTENCES
from data_prep.tokenizer_training import TokenizerSettings, train_tokenizer
texts = [s[i:] for s in SENTENCES for i in range(len(s))]
backend = train_tokenizer(iter(texts), TokenizerSettings(vocab_size=500))
sys.stdout.write(backend.to_str())
"""


def test_the_same_corpus_gives_the_same_bytes_on_any_number_of_threads():
    hashes = set()
    for threads in ("1", "2", "5"):
        environment = os.environ | {
            "RAYON_NUM_THREADS": threads,
            "PYTHONPATH": os.pathsep.join([str(Path.cwd()), str(Path(__file__).parent)]),
        }
        done = subprocess.run(
            [sys.executable, "-c", CODE], env=environment, capture_output=True, check=True
        )
        hashes.add(hashlib.sha256(done.stdout).hexdigest())
    assert len(hashes) == 1


def test_the_same_corpus_gives_the_same_bytes_however_it_is_cut_into_batches(monkeypatch):
    settings = TokenizerSettings(vocab_size=400)
    expected = TRAINED["single-digits"].to_str()
    for size in (1, 3):
        monkeypatch.setattr("data_prep.tokenizer_training.BATCH", size)
        assert train_tokenizer(CORPUS, settings).to_str() == expected


def test_special_tokens_in_the_corpus_teach_no_merges():
    plain = [f"word{i}" for i in range(9)] * 3
    marked = [f"<|im_start|>{text}<|im_end|>" for text in plain]
    settings = TokenizerSettings(vocab_size=300)
    assert train_tokenizer(marked, settings).to_str() == train_tokenizer(plain, settings).to_str()


def test_of_two_special_tokens_that_begin_alike_the_longer_one_is_left_out_whole():
    settings = TokenizerSettings(vocab_size=300, special_tokens=("<a>", "<a>bc"))
    assert not [t for t in train_tokenizer(["x<a>bc"] * 9, settings).get_vocab() if t == "bc"]


def test_a_vocabulary_that_cannot_be_filled_stays_smaller():
    backend = train_tokenizer(["ab ab ab"], TokenizerSettings(vocab_size=1000))
    assert backend.get_vocab_size() < 1000


@pytest.mark.parametrize("texts", [[], [""], ["", "<|im_end|>"]])
def test_an_empty_corpus_is_refused(texts):
    with pytest.raises(DataError, match="the corpus is empty"):
        train_tokenizer(texts, TokenizerSettings(vocab_size=300))


def test_a_vocabulary_smaller_than_the_bytes_is_refused():
    assert train_tokenizer(["a"], TokenizerSettings(vocab_size=259)).get_vocab_size() == 259
    with pytest.raises(DataError, match="256 bytes and 3 special tokens need 259"):
        train_tokenizer(["a"], TokenizerSettings(vocab_size=258))


def test_half_a_character_is_refused_with_its_place():
    with pytest.raises(DataError, match=r"text 2 of the corpus: \\ud800 at character 3"):
        train_tokenizer(["good", "ab\ud800"], TokenizerSettings(vocab_size=300))


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (("<a>", "<b>", "<a>"), "given twice: '<a>'"),
        ((), "at least one"),
        (("<a>", " <b>"), "inside ordinary text"),
        (("<a>", "."), "inside ordinary text"),
    ],
)
def test_special_tokens_that_cannot_be_are_refused(tokens, message):
    with pytest.raises(ValidationError, match=message):
        TokenizerSettings(vocab_size=300, special_tokens=tokens)


def test_transformers_and_llmkit_read_the_same_tokenizer(tmp_path):
    from transformers import AutoTokenizer

    from data_prep.chat_templates import TEMPLATES

    settings = TokenizerSettings(vocab_size=400)
    source = (TEMPLATES / "chatml.jinja").read_text(encoding="utf-8")
    save_tokenizer(TRAINED["single-digits"], settings, tmp_path / "t", source)
    ours = load_tokenizer(tmp_path / "t")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "t")
    texts = [
        *CORPUS,
        "<|im_start|>user\nhi <|im_end|>",
        "  spaces  .",
        "it 's , done",
        "\x00\u2028",
    ]
    for text, ids in zip(texts, ours.encode(texts)):
        assert theirs.encode(text, add_special_tokens=False) == theirs.encode(text) == ids
        assert theirs.decode(ids) == ours.decode(ids) == text
    assert (theirs.pad_token, theirs.eos_token) == ("<|endoftext|>", "<|im_end|>")
    assert ours.special["eos_token"] == "<|im_end|>"
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    assert load_template("keep", ours).text(turns, generation_prompt=False) == (
        theirs.apply_chat_template(turns, tokenize=False)
    )


def test_without_a_template_a_text_ends_with_the_first_special_token(tmp_path):
    save_tokenizer(TRAINED["gpt-2"], TokenizerSettings(vocab_size=400), tmp_path / "t")
    assert set(load_tokenizer(tmp_path / "t").special.values()) == {"<|endoftext|>"}


def test_nothing_is_replaced_and_nothing_half_written_stays(tmp_path, monkeypatch):
    settings = TokenizerSettings(vocab_size=400)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("mine")
    with pytest.raises(DataError, match="taken: the folder is not empty"):
        save_tokenizer(TRAINED["gpt-2"], settings, tmp_path / "taken")
    with pytest.raises(DataError, match="file of this name"):
        save_tokenizer(TRAINED["gpt-2"], settings, tmp_path / "taken" / "file")
    assert [p.name for p in tmp_path.rglob("*")] == ["taken", "file"]

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        save_tokenizer(TRAINED["gpt-2"], settings, tmp_path / "new")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["taken"]


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "empty").mkdir()
    save_tokenizer(TRAINED["gpt-2"], TokenizerSettings(vocab_size=400), tmp_path / "empty")
    assert load_tokenizer(tmp_path / "empty").id_of("<|im_end|>") == 2


def test_progress_is_told_of_every_text(monkeypatch):
    monkeypatch.setattr("data_prep.tokenizer_training.BATCH", 2)
    seen: list[int] = []
    train_tokenizer(["a", "b", "c", "d", "e"], TokenizerSettings(vocab_size=300), seen.append)
    assert sum(seen) == 5
