"""Preparing plain text for pre-training: whole texts, cut where they must be, and nothing else."""

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_tokenizer import SENTENCES, build_tokenizer, write_jsonl

from data_prep.chat_templates import ChatTemplate, TemplateError, without_turns
from data_prep.errors import DataError, RowError
from data_prep.pipeline import prepare
from data_prep.prepared import PreparedDataset
from data_prep.rendering import render
from data_prep.rows import Completion, Conversation, Labelled, Message, Preference, Text
from data_prep.settings import DataConfig
from data_prep.tokenizer import Tokenizer, load_tokenizer


@pytest.fixture
def plain(tokenizer: Tokenizer) -> ChatTemplate:
    return without_turns("keep", tokenizer)


def made(folder: Path, template: ChatTemplate, rows: list[object], **settings) -> PreparedDataset:
    out = folder / "out"
    out.mkdir()
    source = {"path": write_jsonl(folder / "rows.jsonl", rows), "format": "text"}
    values = {"sources": [source], "max_tokens": 32, "workers": 1, **settings}
    return prepare(DataConfig.model_validate(values), template, out)


def test_a_tokenizer_without_a_template_will_do(plain: ChatTemplate, tokenizer: Tokenizer):
    assert (plain.source, tokenizer.chat_template) == ("", None)
    (row,) = render([Text("The dog sleeps.")], plain)
    assert not isinstance(row, RowError)
    assert tokenizer.decode(row.ids) == "<s>The dog sleeps.</s>"
    assert row.supervised.tolist() == [False] + [True] * (len(row.ids) - 1)
    assert row.stop_id == plain.stop_id == tokenizer.id_of("</s>")


def test_a_template_that_the_model_carries_is_passed_on_unmeasured(tmp_path: Path):
    broken = "{{ 'no turn of yours is in here' }}"
    folder = build_tokenizer(tmp_path, chat_template=broken)
    assert without_turns("keep", load_tokenizer(folder)).source == broken


def test_a_template_that_is_named_is_measured(tokenizer: Tokenizer):
    assert "<|im_start|>" in without_turns("chatml", tokenizer).source
    with pytest.raises(TemplateError, match="neither a known name"):
        without_turns("chatlm", tokenizer)


def test_a_tokenizer_that_ends_no_text_is_refused(tmp_path: Path):
    folder = build_tokenizer(tmp_path, eos_token=None)
    with pytest.raises(TemplateError, match="no end-of-text token"):
        without_turns("keep", load_tokenizer(folder))


TURNS = (Message("user", "Hi"), Message("assistant", "Hello"))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (Conversation(TURNS), "chat row"),
        (Completion("a", "b"), "prompt with completion row"),
        (Preference("a", "b", "c"), "preference row"),
        (Labelled("a", "b", label=True), "preference row"),
    ],
)
def test_rows_with_an_answer_are_refused(plain: ChatTemplate, row, reason: str):
    (found,) = render([row], plain)
    assert isinstance(found, RowError)
    assert found.reason == reason
    assert "method=sft" in found.detail


def test_chat_rows_among_texts_are_named_or_counted(tmp_path: Path, plain: ChatTemplate):
    chat = {"messages": [{"role": turn.role, "content": turn.content} for turn in TURNS]}
    rows: list[object] = [{"text": SENTENCES[0]}, {"text": SENTENCES[1]}]
    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps(chat) + "\n")
    both = [{"path": write_jsonl(tmp_path / "text.jsonl", rows)}, {"path": str(path)}]
    for folder in ("refused", "skipped"):
        (tmp_path / folder).mkdir()
    with pytest.raises(DataError, match=r"(?s)chat\.jsonl:1.*chat row.*plain text, all of it"):
        made(tmp_path / "refused", plain, rows, sources=both)
    data = made(tmp_path / "skipped", plain, rows, sources=both, on_error="skip")
    assert data.figures["dropped"] == {"chat row": 1}
    assert data.figures["train_rows"] == 2


def test_a_long_text_becomes_several_sequences_that_together_are_it(
    tmp_path: Path, plain: ChatTemplate
):
    text = " ".join(f"{number}: {sentence}" for number, sentence in enumerate(SENTENCES * 4))
    data = made(tmp_path, plain, [{"text": text}], overlong="split", packing=False)
    table = data.sequences("train")
    pieces = table["input_ids"].to_pylist()
    (whole,) = render([Text(text)], plain)
    assert not isinstance(whole, RowError)
    assert [token for piece in pieces for token in piece] == whole.ids.tolist()
    assert {len(piece) for piece in pieces[:-1]} == {32}  # no piece is shorter than it must be
    assert sum(map(sum, table["supervised"].to_pylist())) == len(whole.ids) - 1
    assert data.figures["tokens_cut"] == 0


def test_texts_of_one_sequence_stay_rows_of_their_own(tmp_path: Path, plain: ChatTemplate):
    rows: list[object] = [{"text": f"{n} {SENTENCES[n % 5][:20]}"} for n in range(20)]
    data = made(tmp_path, plain, rows, max_tokens=128)
    table = data.sequences("train")
    assert len(table) < 10
    for ids, lengths in zip(table["input_ids"].to_pylist(), table["row_lengths"].to_pylist()):
        starts = np.cumsum([0, *lengths[:-1]])
        assert [ids[start] for start in starts] == [plain.tokenizer.id_of("<s>")] * len(lengths)
        assert [ids[start + n - 1] for start, n in zip(starts, lengths)] == [plain.stop_id] * len(
            lengths
        )


def test_of_texts_that_are_all_cut_the_server_is_asked_for_their_beginnings(
    tmp_path: Path, plain: ChatTemplate
):
    rows: list[object] = [{"text": f"{n}: {' '.join(SENTENCES)}"} for n in range(3)]
    for overlong in ("split", "truncate"):
        (tmp_path / overlong).mkdir()
        data = made(tmp_path / overlong, plain, rows, overlong=overlong, validation=1)
        samples = data.samples()
        assert len(samples) == 3
        for sample in samples:
            assert len(sample.ids) == 32
            begin = sample.ids[: sample.prompt_tokens]
            assert f"<s>{sample.prompt}" == plain.tokenizer.decode(begin)
            assert any(row["text"].startswith(sample.prompt) for row in rows)
            assert sum(sample.supervised) == 31
