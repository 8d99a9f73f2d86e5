"""What a teacher is told for each operation of Evol-Instruct, and to judge its outcome.

The operations are those of WizardLM (Xu et al., 2023, arXiv 2304.12244); the words are our own.
"""

from typing import Literal

Operation = Literal["constraints", "deepen", "concretise", "reasoning", "complicate", "breadth"]

OPERATIONS: tuple[Operation, ...] = (
    "constraints",
    "deepen",
    "concretise",
    "reasoning",
    "complicate",
    "breadth",
)
IN_DEPTH = OPERATIONS[:-1]

INSTRUCTION = "#Given Instruction#"
EVOLVED = "#New Instruction#"

_HOW = {
    "constraints": "add one more requirement or restriction that the response has to meet",
    "deepen": "where the text asks about something, ask about it more deeply and more broadly",
    "concretise": "replace general notions in it by more specific ones",
    "reasoning": "where a few simple steps of thought would do now, ask explicitly for a solution "
    "that takes several steps of reasoning",
    "complicate": "add input data in a structured format that the response has to work with: a "
    "table, a JSON or XML document, a piece of source code, a database query, or the output of a "
    "command. Write the data itself into the text, whole and in that format",
}
"""What changes, for each operation in depth."""

_DEPTH = """Rewrite an instruction into a more demanding version of itself, one that today's \
well-known AI assistants find somewhat harder to follow.

The rewritten instruction has to make sense, be understood and answered by people, and stand on \
its own. Tables, code and other data of the original stay in it; so does its input, where it has \
one.

Make it more demanding in this one way: {how}.

Do not make it long-winded: {room}. The words "{given}", "{new}", "given instruction" and "new \
instruction" must not appear in what you write.

{given}
{instruction}

Write the rewritten instruction alone, without an answer to it and without remarks.

{new}
"""

_ROOM = "it may have only {least} to {most} words more than the original"
_ROOM_FOR_DATA = "beside the data, only a few words are new"

_BREADTH = """Take the instruction below as an inspiration and invent a wholly new one.

The new instruction belongs to the same domain, but to a rarer corner of it: something that \
people seldom ask. Its length and difficulty are about the same. It has to make sense, be \
understood and answered by people, and stand on its own. The words "{given}", "{new}", "given \
instruction" and "new instruction" must not appear in what you write.

{given}
{instruction}

Write the new instruction alone, without an answer to it and without remarks.

{new}
"""

_GAIN = """Here are two instructions to an AI assistant. Are they the same in what they ask?

They are the same when both hold: they have the same requirements and restrictions, and \
answering them takes the same depth and breadth of thought.

First:
{first}

Second:
{second}

Answer with a JSON object and nothing else: {{"same": true}} when they are the same in this \
sense, {{"same": false}} when the second asks for something else or for more."""


def evolving(operation: Operation, instruction: str, added_words: tuple[int, int]) -> str:
    """The request to evolve an instruction.

    Args:
        operation: in which way.
        instruction: the parent.
        added_words: least and most words that it may grow by.
    """
    names = {"given": INSTRUCTION, "new": EVOLVED, "instruction": instruction}
    if operation == "breadth":
        return _BREADTH.format(**names)
    room = _ROOM.format(least=added_words[0], most=added_words[1])
    if operation == "complicate":
        room = _ROOM_FOR_DATA
    return _DEPTH.format(how=_HOW[operation], room=room, **names)


def judging_gain(parent: str, child: str) -> str:
    """The question whether a child asks for more than its parent, or for something else."""
    return _GAIN.format(first=parent, second=child)


LEAKS = (
    INSTRUCTION.lower(),
    EVOLVED.lower(),
    "given instruction",
    "new instruction",
    "rewritten instruction",
    "given prompt",
    "new prompt",
    "rewritten prompt",
    "created prompt",
)
"""Words of the requests that have no place in an instruction."""
