"""The same questions to the base and to the tuned model, over HTTP, side by side."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.prepared import Sample
from llmkit.errors import UsageError


@dataclass(frozen=True)
class Question:
    """Something to ask, and what a right answer contains."""

    messages: list[dict[str, Any]]
    expect: tuple[str, ...] = ()
    """Phrases that must all occur in a right answer, whatever their case; none: not judged."""

    @property
    def text(self) -> str:
        """What the person says last."""
        return str(self.messages[-1]["content"])

    def is_answered_by(self, answer: str) -> bool:
        """Whether an answer contains every expected phrase."""
        said = " ".join(answer.lower().split())
        return all(" ".join(phrase.lower().split()) in said for phrase in self.expect)


def read_questions(path: Path) -> list[Question]:
    """Read a .jsonl file of ``question`` and ``expect``.

    Raises:
        UsageError: with file and line, when a line is not of that form.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        why = "not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise UsageError(f"{path}: cannot be read: {why}") from None
    questions = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            question, expect = entry["question"], entry["expect"]
            texts = [question, *expect] if isinstance(expect, list) else [None]
            if not all(isinstance(text, str) for text in texts):
                raise TypeError
            questions.append(Question([{"role": "user", "content": question}], tuple(expect)))
        except (ValueError, KeyError, TypeError):
            raise UsageError(
                f'{path}:{number}: expected {{"question": "...", "expect": ["..."]}}'
            ) from None
    return questions


def questions_from(samples: Sequence[Sample], count: int) -> list[Question]:
    """The prompts of held-out rows, not judged."""
    return [Question(sample.messages) for sample in samples if sample.messages][:count]


def ask(url: str, model: str, questions: Sequence[Question], max_tokens: int) -> list[str]:
    """Ask a server every question, greedily.

    Args:
        url: the OpenAI base URL, ending in ``/v1``.
        model: the served name.
        questions: what to ask.
        max_tokens: longest answer.

    Returns:
        The answers, in order.
    """
    from concurrent.futures import ThreadPoolExecutor

    import openai  # here, or every command would wait for it

    # Not through a proxy that is set for others.
    directly = openai.DefaultHttpxClient(timeout=600, trust_env=False)
    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0, http_client=directly)

    def one(question: Question) -> str:
        answer = client.chat.completions.create(
            model=model,
            messages=question.messages,  # type: ignore[arg-type]
            max_tokens=max_tokens,
            temperature=0,
        )
        return answer.choices[0].message.content or ""

    with ThreadPoolExecutor(8) as pool:  # the server batches what comes at once
        return list(pool.map(one, questions))


def side_by_side(
    questions: Sequence[Question], base: Sequence[str], tuned: Sequence[str]
) -> dict[str, Any]:
    """Both models' answers with their scores, for ``evaluation.json``."""
    rows = [
        {
            "question": question.text,
            "expect": list(question.expect),
            "base": before,
            "tuned": after,
            "base_right": question.is_answered_by(before) if question.expect else None,
            "tuned_right": question.is_answered_by(after) if question.expect else None,
        }
        for question, before, after in zip(questions, base, tuned, strict=True)
    ]
    judged = [row for row in rows if row["expect"]]
    return {
        "answers": rows,
        "judged": len(judged),
        "base_right": sum(bool(row["base_right"]) for row in judged),
        "tuned_right": sum(bool(row["tuned_right"]) for row in judged),
    }
