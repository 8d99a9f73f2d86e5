"""Answers that are data: read as they are, mended, or asked for again."""

import asyncio

import pytest
from pydantic import BaseModel

from data_prep.generate.asking import Ask, Reply, SamplingConfig, ask_of
from data_prep.generate.judging import Scores
from data_prep.generate.structured import ATTEMPTS, ask_for, parse, schema_of


class Saying:
    """A teacher that says some things, one after the other."""

    def __init__(self, *texts: str, finish: str = "stop") -> None:
        self.texts = list(texts)
        self.asks: list[Ask] = []
        self.finish = finish

    async def ask(self, ask: Ask) -> Reply:
        self.asks.append(ask)
        return Reply(self.texts.pop(0), self.finish, 1, 1)


SCORES = Scores(difficulty=4, quality=7)


@pytest.mark.parametrize(
    "text",
    [
        '{"difficulty": 4, "quality": 7}',
        'Sure!\n```json\n{"difficulty": 4, "quality": 7}\n```\nHope it helps.',
        "{'difficulty': 4, 'quality': 7,}",
        '{"difficulty": 4, "quality": 7',
        "{difficulty: 4, quality: 7}",
        '{"difficulty": 4, "quality": 7} {"difficulty": 1, "quality": 1}',
    ],
)
def test_what_nearly_fits_is_read(text: str):
    assert parse(text, Scores) == SCORES


@pytest.mark.parametrize(
    "text",
    [
        "",
        "four and seven",
        '{"difficulty": 4}',
        '{"difficulty": 0, "quality": 7}',
        '{"difficulty": 11, "quality": 7}',
        '{"difficulty": 4.5, "quality": 7}',
        '{"difficulty": "high", "quality": 7}',
        "[4, 7]",
        "{" * 5000,
    ],
)
def test_what_does_not_fit_is_no_answer(text: str):
    assert parse(text, Scores) is None


def test_the_question_is_asked_again_with_another_seed_and_no_more_than_so_often():
    ask = ask_of("judge", "How good?", SamplingConfig(), 5)
    teacher = Saying("well", "{}", '{"difficulty": 4, "quality": 7}')
    assert asyncio.run(ask_for(teacher, ask, Scores)) == SCORES
    assert len({each.seed for each in teacher.asks}) == ATTEMPTS == 3
    teacher = Saying(*["no"] * 9)
    assert asyncio.run(ask_for(teacher, ask, Scores)) is None
    assert len(teacher.asks) == ATTEMPTS


def test_a_refused_question_is_not_asked_again():
    teacher = Saying("too long", "x", finish="refused")
    assert asyncio.run(ask_for(teacher, ask_of("j", "?", SamplingConfig(), 1), Scores)) is None
    assert len(teacher.asks) == 1


def test_the_schema_wants_every_field_and_no_other():
    class Two(BaseModel):
        one: int = 1
        two: str

    schema = schema_of(Two)
    assert schema["required"] == ["one", "two"]
    assert schema["additionalProperties"] is False
    teacher = Saying('{"one": 1, "two": ""}')
    asyncio.run(ask_for(teacher, ask_of("j", "?", SamplingConfig(), 1), Two))
    assert teacher.asks[0].schema == schema


@pytest.mark.parametrize("text", ['{"a":' + "[" * 3000, '{"a":' * 2000, "{" * 12_000])
def test_an_endless_answer_is_no_answer(text: str):
    assert parse(text, Scores) is None
