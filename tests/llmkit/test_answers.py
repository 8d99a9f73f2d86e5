"""Questions that are asked of both models, and the files they are read from."""

from pathlib import Path

import pytest

from llmkit.errors import UsageError
from llmkit.evaluation.answers import Question, read_questions


def test_a_right_answer_holds_every_phrase_whatever_its_case():
    question = Question([], ("llmkit merge", "RUN"))
    assert question.is_answered_by("Type `LLMKIT  merge run`.")
    assert not question.is_answered_by("Type llmkit merge.")


def test_questions_are_read(tmp_path: Path):
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "q", "expect": ["a", "b"]}\n\n', encoding="utf-8")
    (question,) = read_questions(path)
    assert question == Question([{"role": "user", "content": "q"}], ("a", "b"))


@pytest.mark.parametrize(
    "content",
    [
        b'{"question": "q", "expect": "Paris"}',
        b'{"question": "q", "expect": [5]}',
        b'{"question": 5, "expect": ["a"]}',
        b'{"question": "q"}',
        b"[1]",
        b"{",
    ],
)
def test_a_line_of_another_form_is_refused_with_its_place(tmp_path: Path, content: bytes):
    (tmp_path / "q.jsonl").write_bytes(content)
    with pytest.raises(UsageError, match=r"q\.jsonl:1: expected"):
        read_questions(tmp_path / "q.jsonl")


def test_a_file_that_is_no_text_or_not_there_is_refused(tmp_path: Path):
    (tmp_path / "q.jsonl").write_bytes(b"\xff")
    with pytest.raises(UsageError, match="not UTF-8"):
        read_questions(tmp_path / "q.jsonl")
    with pytest.raises(UsageError, match="No such file"):
        read_questions(tmp_path / "none.jsonl")
