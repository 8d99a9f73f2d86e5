"""Rows and templates that the tests of rendering share."""

from pathlib import Path

from data_prep.chat_templates import ChatTemplate
from data_prep.errors import RowError
from data_prep.formats.registry import CONVERTERS
from data_prep.rendering import Rendered, render
from data_prep.rows import Conversation, Message, Row

STOP = {
    "alpaca": "</s>",
    "chatml": "<|im_end|>",
    "gemma": "<end_of_turn>",
    "llama-2": "</s>",
    "llama-3": "<|eot_id|>",
    "mistral": "</s>",
    "phi": "<|end|>",
    "zephyr": "</s>",
}
"""The token that ends a turn in each template."""
TEMPLATES = sorted(STOP)
AROUND = {"mistral": (" ", ""), "llama-2": (" ", " ")}
"""What a template writes around an answer, inside what is learned."""

RECORDS = {
    "alpaca": {"instruction": "Name a fox.", "input": "Any.", "output": "The quick brown fox."},
    "alpaca, with system and history": {
        "system": "Be brief.",
        "history": [["Who are you?", "An assistant."]],
        "instruction": "Capital of France?",
        "output": "Paris.",
    },
    "sharegpt": {
        "conversations": [
            {"from": "system", "value": "Be brief."},
            {"from": "human", "value": "Who are you?"},
            {"from": "gpt", "value": "An assistant."},
            {"from": "human", "value": "Capital of France?"},
            {"from": "gpt", "value": "Paris."},
        ]
    },
    "openai": {
        "messages": [
            {"role": "user", "content": "Add two numbers."},
            {"role": "assistant", "content": "def add(a, b):\n    return a + b"},
            {"role": "user", "content": "Thanks, \U0001f98a!"},
            {"role": "assistant", "content": "You are welcome \U0001f436"},
        ]
    },
    "guanaco": {
        "text": "### Human: Who are you?### Assistant: Me.### Human: And?### Assistant: B."
    },
}


def row_of(name: str) -> Row:
    return CONVERTERS[name.split(",")[0]](RECORDS[name])


def conversation(*said: str, system: str = "") -> Conversation:
    """Questions and answers in turn."""
    first = [Message("system", system)] if system else []
    roles = ("user", "assistant")
    return Conversation((*first, *(Message(roles[i % 2], text) for i, text in enumerate(said))))


def learned(template: ChatTemplate, answers: list[str]) -> list[str]:
    """What is learned of answers: each with its stop token."""
    before, after = AROUND.get(template.name, ("", ""))
    return [before + answer + after + STOP[template.name] for answer in answers]


def answers_of(row: Conversation) -> list[str]:
    return [message.content for message in row.messages if message.role == "assistant"]


def rendered(row: Row, template: ChatTemplate) -> Rendered:
    (found,) = render([row], template)
    assert isinstance(found, Rendered), found
    assert len(found.ids) == len(found.supervised)
    return found


def as_lists(found: Rendered | RowError) -> object:
    """What can be compared of a rendered row, or why there is none."""
    if isinstance(found, RowError):
        return str(found)
    return found.ids.tolist(), found.supervised.tolist(), found.prompt_tokens, found.stop_id


def refused(row: Row, template: ChatTemplate) -> RowError:
    (found,) = render([row], template)
    assert isinstance(found, RowError), found
    return found


def write_template(folder: Path, source: str) -> str:
    path = folder / "own.jinja"
    path.write_text(source, encoding="utf-8")
    return str(path)


CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + "
    "message['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
