"""``llmkit tokenizer``: train, extend, report, from the command line."""

import gzip
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from backports import zstd
from rich.console import Console

from data_prep.tokenizer import load_tokenizer
from data_prep.tokenizer_training import TokenizerSettings, train_tokenizer
from llmkit import cli
from llmkit.console import TerminalView
from llmkit.corpus import Corpus

TEXT = "The quick brown fox jumps.\n\nThe lazy dog, the quick dog: it does not mind.\n" * 4
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths must not touch the repository, nor anything the network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(cli, "_settings", {"debug": False})
    Path("text.txt").write_text(TEXT, encoding="utf-8")


@pytest.fixture
def tokenizer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run ``llmkit tokenizer`` in this process; answers the exit code, output and errors."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["llmkit", "tokenizer", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        assert isinstance(ended.value.code, int)
        return ended.value.code, captured.out, captured.err

    return call


def last_json(out: str) -> Any:
    return json.loads(out.splitlines()[-1])


def write_rows(path: str, rows: list[Any]) -> str:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    Path(path).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def test_a_tokenizer_is_trained_and_its_fertility_said(tokenizer: Call) -> None:
    code, out, err = tokenizer("train", "text.txt", "--vocab-size", "280", "--out", "new")
    assert (code, err) == (0, "")
    assert "280 tokens in new" in out
    assert "tokens/word" in out
    trained = load_tokenizer(Path("new"))
    settings = TokenizerSettings(vocab_size=280)
    assert trained.backend.to_str() == train_tokenizer([TEXT], settings).to_str()
    assert trained.chat_template
    assert trained.special["eos_token"] == "<|im_end|>"


def test_quiet_is_quiet_and_json_is_json(tokenizer: Call) -> None:
    words = ("train", "text.txt", "--vocab-size", "280", "--out")
    assert tokenizer(*words, "one", "--quiet") == (0, "", "")
    code, out, _ = tokenizer(*words, "two", "--json")
    assert code == 0
    assert all(isinstance(json.loads(line), dict) for line in out.splitlines())
    assert last_json(out)["tokens"] == 280
    assert last_json(out)["fertility"][0]["words"] == TEXT.count(" ") + TEXT.count("\n\n") * 2


def test_a_vocabulary_that_the_corpus_cannot_fill_is_said(tokenizer: Call) -> None:
    code, out, _ = tokenizer("train", "text.txt", "--vocab-size", "9000", "--out", "new")
    assert code == 0
    assert "tokens in place of 9000: no other pair occurs 2 times in this corpus" in " ".join(
        out.split()
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train text.txt --vocab-size 9 --out new", "vocab_size=9 is too small"),
        (
            "train text.txt --vocab-size 0 --out new",
            "'vocab_size': must be greater than 0 (found 0)",
        ),
        (
            f"train text.txt --vocab-size {10**14} --out new",
            "'vocab_size': must be less than or equal to 4000000",
        ),
        (
            f"train text.txt --vocab-size 999 --min-frequency {10**20} --out new",
            "'min_frequency': must be less than or equal to",
        ),
        (
            f"extend MODEL --out new --from text.txt --pad-to-multiple-of {10**9}",
            "Invalid value for '--pad-to-multiple-of'",
        ),
        (
            "train text.txt --vocab-size 999 --out new --pre-tokenizer x",
            "'pre_tokenizer': must be 'single-digits', 'llama-3' or 'gpt-2' (found \"x\")",
        ),
        (
            "train text.txt --vocab-size 999 --out new --special <a> --special <a>",
            "'special_tokens': special tokens given twice: '<a>'",
        ),
        (
            "train text.txt --vocab-size 999 --out new --chat-template x",
            "'x' is not known. Allowed: none, alpaca, chatml, ",
        ),
        (
            "train text.txt --vocab-size 999 --out new --special <a>",
            "does not begin with a special token",
        ),
        ("train none.txt --vocab-size 999 --out new", "none.txt: no such file"),
        ("train empty.txt --vocab-size 999 --out new", "empty.txt: no text was found"),
        ("train latin.txt --vocab-size 999 --out new", "latin.txt:1: not UTF-8"),
        ("train other.jsonl --vocab-size 999 --out new", "other.jsonl:1"),
        ("train text.txt --vocab-size 999 --out taken", "taken: the folder is not empty"),
        ("extend MODEL --out new", "give either --from SOURCE"),
        ("extend MODEL --out new --from text.txt --tokens text.txt", "give either --from"),
        ("extend MODEL --out new --tokens none.txt", "'none.txt' does not exist"),
        ("extend MODEL --out new --tokens empty.txt", "empty.txt: no words in it"),
        ("extend MODEL --out new --tokens text.txt", "white space inside"),
        ("extend MODEL --out taken --from text.txt", "taken: the folder is not empty"),
        ("extend nothing-here --out new --from text.txt", "was not found. Tried"),
        (
            "extend MODEL --out new --from text.txt --min-frequency 99999",
            "stand together 99999 times within a word. Try --min-frequency 2, or more text.",
        ),
        (
            "extend MODEL --out new --from short.txt --min-frequency 1",
            "stand together 1 times within a word. Try more text.",
        ),
        ("report nothing-here --on text.txt", "was not found. Tried"),
        ("train  --vocab-size 999 --out new", "a source has no name"),
        ("train empty.txt.gz --vocab-size 999 --out new", "no text was found in it. It is empty."),
        ("train broken.txt.gz --vocab-size 999 --out new", "damaged gzip data"),
        (
            "report MODEL --on text.jsonl --by lang",
            "no text in field 'lang'. Name another field to",
        ),
        ("report MODEL --on text.jsonl --by lang", "tell texts apart by: --by NAME, or leave it"),
        ("report MODEL --on rows-without.jsonl --by lang", "apart by: --by NAME, or leave it out"),
        ("report MODEL --on text.jsonl --field a --by lang", "Name the fields that hold text:"),
        ("report MODEL --on text.txt --by lang", "text has no fields, so it has no 'lang' either"),
    ],
)
def test_wrong_usage_ends_with_two_and_leaves_nothing(
    tokenizer: Call, tiny: Path, words: str, said: str
) -> None:
    Path("empty.txt").write_text("")
    Path("latin.txt").write_bytes("señor".encode("latin-1"))
    Path("empty.txt.gz").write_bytes(gzip.compress(b""))
    Path("broken.txt.gz").write_bytes(gzip.compress(b"one\n" * 99)[:-4])
    Path("short.txt").write_text("x.y")
    Path("taken").mkdir()
    Path("taken", "file").write_text("mine")
    write_rows("other.jsonl", [{"a": 1}])
    write_rows("text.jsonl", [{"text": "x"}])
    write_rows("rows-without.jsonl", [{"instruction": "q", "output": "a"}])
    code, _, err = tokenizer(*[str(tiny) if word == "MODEL" else word for word in words.split(" ")])
    assert code == 2
    assert said in " ".join(err.split())
    assert not Path("new").exists()
    assert not Path("new.partial").exists()


@pytest.mark.parametrize(
    "words",
    [
        "train text.txt --vocab-size 280 --out new",
        "extend MODEL --out new --from text.txt",
        "report MODEL --on text.txt",
    ],
)
def test_a_terminal_has_its_cursor_back_before_the_results(
    tokenizer: Call, tiny: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    printed = io.StringIO()
    console = Console(file=printed, force_terminal=True)
    monkeypatch.setattr("llmkit.console.choose_view", lambda *_: TerminalView(console))
    tokenizer(*[str(tiny) if word == "MODEL" else word for word in words.split()])
    _, hidden, shown = printed.getvalue().rpartition("\x1b[?25l")
    assert hidden
    assert "\x1b[?25h" in shown


def test_a_model_is_extended_with_tokens_from_a_corpus(tokenizer: Call, tiny: Path) -> None:
    words = ("extend", tiny, "--from", "text.txt", "--count", "12", "--min-frequency", "4")
    code, out, _ = tokenizer(*words, "--out", "new", "--pad-to-multiple-of", "64", "--json")
    assert code == 0
    done = last_json(out)
    assert (done["new_tokens"], done["rows"] % 64) == (12, 0)
    before, after = done["fertility"]
    assert before["tokens"] - after["tokens"] == done["tokens_saved"] > 0
    assert after["tokens_per_word"] < before["tokens_per_word"]
    assert json.loads(Path("new/config.json").read_text())["vocab_size"] == done["rows"]
    assert len(json.loads(Path("new/llmkit_extension.json").read_text())["added"]) == 12


def test_a_model_is_extended_with_the_words_of_a_file(tokenizer: Call, tiny: Path) -> None:
    Path("words.txt").write_text("\ufeffjumps\n\n lazy\r\nGröße\n", encoding="utf-8")
    code, out, _ = tokenizer("extend", tiny, "--tokens", "words.txt", "--out", "new")
    assert code == 0
    assert "new tokens in new" in out
    new = load_tokenizer(Path("new"))
    texts = ["jumps", " jumps", " lazy", "Größe", " Größe", "lazy"]
    assert [len(ids) == 1 for ids in new.encode(texts)] == [True] * 5 + [False]
    code, _, err = tokenizer("extend", "new", "--tokens", "words.txt", "--out", "more")
    assert (code, "every word is one token already" in err) == (2, True)


def test_two_tokenizers_are_compared_by_language(tokenizer: Call, tiny: Path) -> None:
    rows = [
        {"q": "the quick dog", "a": "jumps", "lang": "en"},
        {"q": "hola", "a": "", "lang": "es"},
    ]
    write_rows("rows.jsonl", [*rows, "{broken", {"q": 3}])
    tokenizer("train", "text.txt", "--vocab-size", "300", "--out", "new", "--quiet")
    words = ("report", tiny, "new", "--on", "rows.jsonl", "--field", "q", "--field", "a")
    code, out, _ = tokenizer(*words, "--by", "lang", "--json")
    assert code == 0
    lines = last_json(out)["fertility"]
    assert [(line["tokenizer"], line["label"]) for line in lines] == [
        (name, label) for name in (str(tiny), "new") for label in ("en", "es", "")
    ]
    assert [line["words"] for line in lines] == [4, 1, 5] * 2
    assert "2 rows were left out; the first: rows.jsonl:3" in out
    code, out, _ = tokenizer(*words, "--by", "lang")
    assert [line.split()[1] for line in out.splitlines()[-6:]] == ["en", "es", "all"] * 2


def test_no_fertility_is_shown_of_scripts_without_spaces(tokenizer: Call, tiny: Path) -> None:
    """The words in such a text are a few foreign names, each perhaps one token."""
    texts = {"ja": "東京は日本の首都です。the", "en": "the the the 東", "no": "?!"}
    write_rows("rows.jsonl", [{"text": text, "lang": lang} for lang, text in texts.items()])
    code, out, _ = tokenizer("report", tiny, "--on", "rows.jsonl", "--by", "lang")
    assert code == 0
    lines = {line.split()[1]: line.split()[2:] for line in out.splitlines()[-5:-1]}
    assert lines["ja"][1:4] == ["-", "-", "23%"]
    assert lines["en"][3] == "90%"
    assert lines["en"][1] != "-"
    assert lines["no"][1:4] == ["-", "-", "-"]
    assert "a script that is written without spaces" in out.splitlines()[-1]
    assert "written without" not in tokenizer("report", tiny, "--on", "text.txt")[1]


def test_a_text_files_paragraphs_are_the_whole_file() -> None:
    assert next(Corpus(["text.txt"]).texts()) == "The quick brown fox jumps.\n\n"
    for text in (TEXT, "\n\n a\r\n\r\nb\u2028c", "x" * 200_000, "long line\n" * 20_000):
        Path("some.txt").write_text(text, encoding="utf-8", newline="")
        found = list(Corpus(["some.txt"]).texts())
        assert "".join(found) == text
        assert max(map(len, found)) <= 200_000


@pytest.mark.parametrize("named", ["some.txt.gz", "folder", "folder/*.txt", "some.txt.zst"])
def test_line_ends_are_read_however_a_text_file_is_named_and_packed(named: str) -> None:
    """A tokenizer that never sees them has no token for an empty line."""
    Path("folder").mkdir()
    for path in ("some.txt", "folder/some.txt"):
        Path(path).write_text("\ufeffone\r\n\n\n  two é\n", encoding="utf-8", newline="")
    Path("some.txt.gz").write_bytes(gzip.compress(Path("some.txt").read_bytes()))
    Path("some.txt.zst").write_bytes(zstd.compress(Path("some.txt").read_bytes()))
    corpus = Corpus([named])
    assert list(corpus.texts()) == ["one\r\n\n\n", "  two é\n"]
    assert corpus.read_as == {named: "all of its text"}


def test_each_file_of_a_folder_is_read_as_what_it_is() -> None:
    Path("folder").mkdir()
    Path("folder/a.txt").write_text("a\n\nb")
    write_rows("folder/b.jsonl", [{"text": "c"}])
    write_rows("folder/c.jsonl", [{"prompt": "d", "completion": "e"}])
    assert list(Corpus(["folder"]).texts()) == ["a\n\n", "b", "c", "d\ne"]


def test_rows_of_a_known_format_have_labels_too_and_it_is_said_what_was_read(
    tokenizer: Call, tiny: Path
) -> None:
    rows = [{"instruction": "the dog", "output": "jumps", "lang": lang} for lang in ("de", "en", 3)]
    write_rows("rows.jsonl", rows)
    code, out, _ = tokenizer("report", tiny, "--on", "rows.jsonl", "--by", "lang")
    assert code == 0
    assert [line.split()[1] for line in out.splitlines()[-3:]] == ["de", "en", "all"]
    assert "rows.jsonl: what is asked and answered (alpaca (from its fields))" in out
    assert "1 rows were left out; the first: rows.jsonl:3: no text in field 'lang'" in out
    write_rows("rows.jsonl", [{"text": "a", "lang": "x"}])
    assert "rows.jsonl: the field text" in tokenizer("report", tiny, "--on", "rows.jsonl")[1]


def test_rows_of_a_known_format_are_read_as_text() -> None:
    write_rows("rows.jsonl", [{"instruction": "What?", "input": "", "output": "This."}])
    assert list(Corpus(["rows.jsonl"]).texts()) == ["What?\nThis."]
    write_rows("late.jsonl", [{"text": 5}, {"text": "one"}])
    assert list(Corpus(["late.jsonl"]).texts()) == ["one"]
    write_rows("texts.jsonl", [{"text": "one"}, {"text": None}, {"text": "two"}])
    corpus = Corpus(["texts.jsonl", "rows.jsonl"])
    for _ in range(2):  # it can be read again
        assert list(corpus.texts()) == ["one", "two", "What?\nThis."]
        assert corpus.left_out == ["texts.jsonl:2: no text in field 'text'"]
