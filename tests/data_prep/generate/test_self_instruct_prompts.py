"""What teachers write is read, in the forms in which models write it."""

import pytest

from data_prep.generate.instruction_filters import usable
from data_prep.generate.self_instruct_prompts import (
    examples_of,
    instances_in,
    instructions_in,
    more_instructions,
    tasks_at_once,
    tasks_in,
)
from data_prep.generate.tasks import Instance, Task


@pytest.mark.parametrize(
    "text",
    [
        "9. Tell me a joke\n10. Name a\nriver",
        "9) Tell me a joke\n10) Name a river",
        "Here they are:\n\nTask 9: Tell me a joke\n\nTask 10: Name a river\n",
        "  9. Tell me a joke\n  10. Name a river",
        "**9.** Tell me a joke\n**10.** Name a river",
    ],
)
def test_numbered_lists_are_read(text: str):
    assert instructions_in(text, whole=True) == ["Tell me a joke", "Name a river"]
    assert instructions_in(text, whole=False) == ["Tell me a joke"]


def test_numbers_inside_an_instruction_do_not_part_it():
    assert instructions_in("9. Add 3.5 and 2. Round the sum", whole=True) == [
        "Add 3.5 and 2. Round the sum"
    ]


def test_text_without_a_list_has_no_instructions():
    assert instructions_in("I would rather not.", whole=True) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Example 1\nInput: a\nOutput: b", [Instance("a", "b")]),
        ("Example 1\nInput: <noinput>\nOutput: b\nmore", [Instance("", "b\nmore")]),
        ("Example 1:\nInput: N/A\nOutput: b", [Instance("", "b")]),
        ("### Example 1\n**Input:** a\n**Output:** b", [Instance("a", "b")]),
        (
            "Example 1\nInput: a\nOutput: b\n\nExample 2\nInput: c\nOutput: d",
            [Instance("a", "b"), Instance("c", "d")],
        ),
        ("Example 1\nLabel: good\nInput: a", [Instance("a", "good")]),
        ("Example 1\nClass label: good\nInput:\na\nb", [Instance("a\nb", "good")]),
        ("Output: b", [Instance("", "b")]),
        ("Just the answer.", [Instance("", "Just the answer.")]),
        ("Example 1\nInput: a", []),
        ("", []),
    ],
)
def test_cases_are_read(text: str, found: list[Instance]):
    assert instances_in(text, whole=True) == found


def test_a_case_that_was_cut_off_is_left_out():
    text = "Example 1\nInput: a\nOutput: b\n\nExample 2\nInput: c\nOutput: d and th"
    assert instances_in(text, whole=False) == [Instance("a", "b")]


def test_what_a_request_shows_can_be_read_back():
    task = Task("a", "Judge it", (Instance("fine", "good"), Instance("", "bad")), True)
    for labels_first in (True, False):
        shown = examples_of("New task", [task], 5, labels_first=labels_first)
        block = shown.split("Task: Judge it\n")[1].split("Task: New task")[0]
        assert instances_in(block, whole=True) == list(task.instances)
    listed = more_instructions(["One task here", "Another\ntask there"], 4)
    assert "write tasks 3 to 6" in listed
    assert instructions_in(listed.split("\n\n")[1], whole=True) == [
        "One task here",
        "Another task there",
    ]


def test_tasks_at_once_are_read_whether_or_not_the_first_heading_is_repeated():
    rest = (
        "\n4. Input:\n<noinput>\n4. Output:\nDone.\n"
        "###\n5. Instruction: Two\n5. Input:\nx\n5. Output:\ny"
    )
    expected = [("One", Instance("", "Done.")), ("Two", Instance("x", "y"))]
    for first in (
        " One",
        "4. Instruction: One",
        "###\n4. Instruction: One",
        "**Instruction:** One",
    ):
        assert tasks_in(first + rest, whole=True) == expected
        assert tasks_in(first + rest, whole=False) == expected[:1]


def test_what_alpacas_request_shows_can_be_read_back():
    shown = [
        Task("a", "First", (Instance("in", "out"),)),
        Task("b", "Second", (Instance("", "o"),)),
    ]
    written = tasks_at_once(shown, 5).split("before each task.\n\n")[1].rsplit("###", 1)[0]
    assert tasks_in(written, whole=True) == [
        ("First", Instance("in", "out")),
        ("Second", Instance("", "o")),
    ]
    assert tasks_at_once(shown, 5).endswith("###\n3. Instruction:")


@pytest.mark.parametrize(
    ("instances", "left"),
    [
        ([("a", "b"), ("a", "b")], [("a", "b")]),
        ([("a", "b"), ("a", "c")], []),
        ([("", "b"), ("", "c")], [("", "b"), ("", "c")]),
        ([("a", "a")], []),
        ([("a", "")], []),
        ([("a", "as follows:"), ("list:", "b"), ("c", "d")], [("c", "d")]),
    ],
)
def test_cases_that_teach_nothing_are_left_out(instances, left):
    assert usable([Instance(*each) for each in instances]) == [Instance(*each) for each in left]
