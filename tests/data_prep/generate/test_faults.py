"""What is wrong with answers and with evolved instructions."""

import pytest

from data_prep.generate.asking import Reply
from data_prep.generate.elimination import REASONS, grew_by, leaked
from data_prep.generate.evol_prompts import OPERATIONS, evolving
from data_prep.generate.faults import fault_of, refuses, says_nothing


@pytest.mark.parametrize(
    ("text", "finish", "fault"),
    [
        ("Paris is the capital.", "stop", None),
        ("42", "stop", None),
        ("Yes, of the 3.", "stop", None),
        ("", "stop", "empty answer"),
        ("... and so of the!", "stop", "empty answer"),
        ("No.", "stop", "empty answer"),
        ("I'm sorry, but I cannot do that.", "stop", "refusal"),
        ("Sorry.", "stop", "refusal"),
        ("As an AI language model, I do not have feelings about it.", "stop", "refusal"),
        ("He said sorry. " + "word " * 90, "stop", None),
        ("It begins well and then", "length", "cut answer"),
        ("the prompt is too long", "refused", "unanswered"),
        ("anything", "content_filter", "unanswered"),
    ],
)
def test_faults_of_answers(text: str, finish: str, fault: str | None):
    assert fault_of(Reply(text, finish, 1, 1)) == fault
    assert fault is None or fault in REASONS


def test_a_refusal_is_shorter_than_eighty_words():
    assert refuses("sorry " + "word " * 78)
    assert not refuses("sorry " + "word " * 79)


def test_letters_of_any_script_say_something():
    assert not says_nothing("Да")
    assert not says_nothing("是")
    assert says_nothing("!?")


@pytest.mark.parametrize(
    ("child", "parent", "is_leak"),
    [
        ("Tell me of cats", "Tell me", False),
        ("Do as the Given Instruction says", "Tell me", True),
        ("#New Instruction# Tell me", "Tell me", True),
        ("Improve the rewritten prompt", "Tell me", True),
        ("Improve the given prompt of mine", "Improve the given prompt", False),
    ],
)
def test_words_of_the_request_are_leaks_unless_the_parent_had_them(
    child: str, parent: str, is_leak: bool
):
    assert leaked(child, parent) is is_leak


def test_growth_is_counted_in_words():
    assert grew_by("a b  c\nd", "a b") == 2


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_request_holds_the_instruction_as_it_is(operation):
    braces = 'Write {"a": {}} in {language} with 100% \\n and "quotes"'
    prompt = evolving(operation, braces, (10, 20))
    assert f"#Given Instruction#\n{braces}\n" in prompt
    assert "{" not in prompt.replace(braces, "")
