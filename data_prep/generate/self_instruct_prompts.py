"""What a teacher is told by Self-Instruct and by Alpaca, and how its answers are read.

The steps are those of Self-Instruct (Wang et al., 2022, arXiv 2212.10560) and Stanford Alpaca
(Taori et al., 2023); the words are our own, for models that follow instructions.
"""

import re
from collections.abc import Sequence

from data_prep.generate.tasks import Instance, Task

NO_INPUT = "<noinput>"


def more_instructions(examples: Sequence[str], wanted: int) -> str:
    """The request to go on with a list of instructions."""
    listed = _numbered(examples)
    first = len(examples) + 1
    return f"""Below is the beginning of a list of tasks that people give to an AI assistant, \
which can read and write text and nothing else.

{listed}

Go on with the list: write tasks {first} to {first + wanted - 1}, one a line, each with its \
number. Make them differ from those above and from each other in topic, verb, form and length; \
let some ask and some command; let some be open, some be about classifying, editing, extracting, \
summarising, translating, mathematics, code, or everyday life. Write only the tasks, no \
answers."""


def _numbered(examples: Sequence[str]) -> str:
    return "\n".join(f"{n}. {' '.join(each.split())}" for n, each in enumerate(examples, 1))


_ITEM = re.compile(r"^[ \t]*(?:\*\*)?(?:task\s*)?(\d+)\s*[.):](?:\*\*)?[ \t]*", re.M | re.I)


def instructions_in(text: str, *, whole: bool) -> list[str]:
    """The instructions of a numbered list.

    Args:
        text: the teacher's answer.
        whole: false when it was cut off: its last one may lack its end, and is left out.
    """
    _, *parts = _ITEM.split(text)
    items = [" ".join(body.split()).strip("*") for body in parts[1::2]]
    return [item for item in (items if whole else items[:-1]) if item]


def is_classification(instruction: str, examples: Sequence[Task]) -> str:
    """The question whether an instruction's outputs are a few labels."""
    shown = "\n\n".join(
        f"Task: {' '.join(each.instruction.split())}\n"
        f"Classification: {'yes' if each.is_classification else 'no'}"
        for each in examples
    )
    return f"""Is this task a classification task? It is one when its output is one of a few \
labels that are known beforehand.

{shown}

Task: {" ".join(instruction.split())}

Answer with a JSON object and nothing else: {{"classification": true}} or \
{{"classification": false}}."""


_INPUT_FIRST = """Write examples of a task. Where the task needs an input to work on, make one \
up; where it stands alone, write {no_input} as its input. Give up to {most} examples with \
different inputs, or one when there is no input. Each output has to be correct and complete.

{shown}Task: {instruction}
"""

_OUTPUT_FIRST = """Write examples of a classification task: for each of its labels the label \
first, then an input to which it belongs. Where the instruction itself holds all that is to be \
classified, write {no_input} as the input. Give up to {most} examples.

{shown}Task: {instruction}
"""


def examples_of(instruction: str, shown: Sequence[Task], most: int, *, labels_first: bool) -> str:
    """The request for cases of an instruction.

    For classification the label comes before its input: asked for inputs first, models write
    inputs of one label.
    """
    form = _OUTPUT_FIRST if labels_first else _INPUT_FIRST
    written = "".join(
        f"Task: {' '.join(task.instruction.split())}\n"
        + "".join(
            _example(n, each, labels_first=labels_first) for n, each in enumerate(task.instances, 1)
        )
        + "\n"
        for task in shown
    )
    return form.format(no_input=NO_INPUT, most=most, shown=written, instruction=instruction)


def _example(number: int, instance: Instance, *, labels_first: bool) -> str:
    given = f"Input: {instance.input or NO_INPUT}\n"
    if labels_first:
        return f"Example {number}\nLabel: {instance.output}\n{given}"
    return f"Example {number}\n{given}Output: {instance.output}\n"


_EXAMPLE = re.compile(r"^[ \t]*(?:[#*]+[ \t]*)?Example\s*\d+[.:]?[ \t*]*$", re.M | re.I)
_FIELD = re.compile(r"^[ \t]*\**(Input|Output|Label|Class label)\**[ \t]*:\**[ \t]*", re.M | re.I)


def instances_in(text: str, *, whole: bool) -> list[Instance]:
    """The cases that a teacher wrote, input or label first.

    An answer without any ``Example`` or ``Output`` is the output of the instruction alone.
    """
    parts = [part for part in _EXAMPLE.split(text) if part.strip()]
    found = []
    for part in parts if whole else parts[:-1]:
        _, *fields = _FIELD.split(part)
        held = {
            name.lower(): said.strip() for name, said in zip(fields[::2], fields[1::2], strict=True)
        }
        output = held.get("output") or held.get("label") or held.get("class label")
        if output is None and not fields and len(parts) == 1:
            output = part.strip()
        if output:
            found.append(Instance(_input(held.get("input", "")), output))
    return found


def _input(text: str) -> str:
    bare = text.strip().strip("<>().*").replace(" ", "").lower()
    return "" if bare in ("noinput", "none", "n/a", "na", "") else text.strip()


def tasks_at_once(examples: Sequence[Task], wanted: int) -> str:
    """Alpaca's request: instructions, inputs and outputs in one answer."""
    shown = "\n".join(
        _block(number, each.instruction, each.instances[0] if each.instances else Instance("", ""))
        for number, each in enumerate(examples, 1)
    )
    first = len(examples) + 1
    return f"""Make up tasks for an AI assistant, each with an instruction, an input where it \
needs one, and the output that a good assistant would write.

1. Use different verbs, and mix questions with commands.
2. Vary the kinds: open questions, classifying, editing, summarising, code, mathematics, \
advice, stories.
3. An assistant that can only read and write text must be able to do it: nothing to look at, \
listen to, open, draw, or do at a certain time.
4. Each instruction is in English, one or two sentences long.
5. The input holds real data for the instruction, of less than 100 words, and no placeholders. \
Where an instruction stands alone, the input is {NO_INPUT}.
6. The output fits the instruction and the input, in less than 100 words.

Go on with this list up to number {first + wanted - 1}, in the same form, with ### before each task.

{shown}
###
{first}. Instruction:"""


def _block(number: int, instruction: str, instance: Instance) -> str:
    return (
        f"###\n{number}. Instruction: {' '.join(instruction.split())}\n"
        f"{number}. Input:\n{instance.input or NO_INPUT}\n{number}. Output:\n{instance.output}"
    )


_BLOCK = re.compile(
    r"(?:^|\n)[ \t*]*\d*\.?\s*(Instruction|Input|Output)[ \t*]*:[ \t*]*", re.IGNORECASE
)


def tasks_in(text: str, *, whole: bool) -> list[tuple[str, Instance]]:
    """The tasks of an answer to `tasks_at_once`; a last one that was cut off is left out."""
    blocks = [block for block in text.split("###") if block.strip()]
    if blocks and not _BLOCK.match(blocks[0]):
        # The request ends in "Instruction:", and the answer may go on behind it.
        blocks[0] = f"Instruction: {blocks[0].strip()}"
    found = []
    for block in blocks if whole else blocks[:-1]:
        _, *fields = _BLOCK.split(f"\n{block.strip()}")
        held = {
            name.lower(): said.strip() for name, said in zip(fields[::2], fields[1::2], strict=True)
        }
        instruction = " ".join(held.get("instruction", "").split())
        if instruction and held.get("output"):
            found.append((instruction, Instance(_input(held.get("input", "")), held["output"])))
    return found
