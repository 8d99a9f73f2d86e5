"""Filters that look for phrases: the instruction blacklist and refusals."""

import pytest
from chat_rows import conversation

from data_prep.filters.blacklist import BlacklistFilter
from data_prep.filters.candidate import Candidate
from data_prep.filters.refusals import RefusalsFilter


def asked(instruction: str, **settings: object):
    return BlacklistFilter(kind="blacklist", **settings).judge(
        Candidate(conversation(instruction, "An image.", "Draw it.", "No."), 9)
    )


@pytest.mark.parametrize(
    ("instruction", "detail"),
    [
        ("Draw a house.", "the instruction says 'draw'"),
        ("Describe the  images below", "the instruction says 'images'"),
        ("Go\tto the shop", "the instruction says 'go to'"),
        ("Make a flowchart.", "the instruction says 'flowchart'"),
        ("Write a program that sorts.", "the instruction begins with 'Write a program'"),
        ("- a list item", "the instruction begins with '-'"),
        ("¿Qué es?", "the instruction begins with '¿', outside ASCII"),
        ("Что это?", "the instruction begins with 'Ч', outside ASCII"),
    ],
)
def test_an_instruction_that_breaks_a_rule_goes(instruction, detail):
    assert asked(instruction) == (False, detail)


@pytest.mark.parametrize(
    "instruction",
    [
        "Explain what a paragraph is.",  # graph
        "Profile this imagery and drawing.",  # file, image, draw
        "Please write a program.",
        "What is café culture?",
        "Summarise this text.\nThe map shows a picture.",
        "",
    ],
)
def test_parts_of_words_and_material_below_the_first_line_do_not_count(instruction):
    assert asked(instruction) is True


def test_the_list_can_be_replaced_and_extended():
    assert asked("Draw a house.", words=("house party",)) is True
    assert asked("A House  Party!", words=("house party",)) == (
        False,
        "the instruction says 'house party'",
    )
    assert asked("Draw a house.", more_words=("tree",)) is not True
    assert asked("Plant a tree.", more_words=("tree",)) is not True
    assert asked("Что это?", non_ascii=False) is True
    assert asked("- point", punctuation=False) is True
    assert asked("Draw", words=(), prefixes=()) is True
    assert asked("C++ rules", words=("c++",)) is not True


def answered(*answers: str, **settings: object):
    turns = [text for answer in answers for text in ("Why?", answer)]
    return RefusalsFilter(kind="refusals", **settings).judge(Candidate(conversation(*turns), 9))


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I can't help with that.",
        "I\u2019m  sorry, but\nI cannot do this.",
        "I AM SORRY, BUT I AM UNABLE TO ANSWER.",
        "Sorry, I don't have access to the web.",
        "As an AI language model, I do not have feelings.",
        "Hello! As an AI assistant, I\u2019m not able to see pictures.",
        "I cannot fulfill this request.",
        "I'm unable to provide medical advice.",
        "I must decline.",
        "Als KI-Sprachmodell habe ich keine Meinung.",
        "En tant que modèle de langage, je ne peux pas prédire l'avenir.",
        "Lo siento, pero no puedo ayudarte.",
        "作为一个AI语言模型\uff0c我无法回答。",
        "很抱歉\uff0c我无法回答这个问题。",
        "Désolé, mais je ne peux pas vous aider.",
        "Desculpe, mas não posso ajudar.",
        "Извините, я не могу помочь.",
        "申し訳ありませんが、その質問にはお答えできません。",
        "죄송하지만 도와드릴 수 없습니다.",
    ],
)
def test_a_refusal_goes(answer):
    assert answered(answer) is not True
    assert answered("Because.", answer) is not True


@pytest.mark.parametrize(
    "answer",
    [
        "As an AI assistant, I'd be happy to help you plan your trip!",
        "I was trained by researchers as a language model. I don't sleep.",
        "She said she was sorry, but she can't come.",
        "I cannot recommend this book enough.",
        "You can't provide what you do not have.",
        "Was an AI involved? It was not.",
    ],
)
def test_an_answer_that_only_sounds_like_it_stays(answer):
    assert answered(answer) is True


def test_a_phrase_counts_near_the_beginning_unless_all_of_the_answer_is_looked_at():
    late = "A long answer. " * 20 + "I'm sorry, but I can't say more."
    assert answered(late) is True
    assert answered(late, within=None) == (
        False,
        "an answer says \"i'm sorry, but i can't\" at character 300",
    )
    assert answered("I must decline", within=1) is not True
    assert answered(" " * 900 + "I must decline") is not True


def test_phrases_can_be_replaced_and_extended():
    assert answered("I must decline.", phrases=("no comment",)) is True
    assert answered("No  comment!", phrases=("no comment",)) is not True
    assert answered("No commentary", phrases=("no comment",)) is True
    assert answered("No comment", more_phrases=("no comment",)) is not True
    assert answered("I must decline.", more_phrases=("no comment",)) is not True
    assert answered("I must decline.", phrases=()) is True
