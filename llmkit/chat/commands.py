"""What a line that begins with a slash does."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from llmkit.chat.conversation import DEFAULT, PARAMETERS, Conversation
from llmkit.errors import UsageError


@dataclass(frozen=True)
class Outcome:
    """What a command asks of the terminal."""

    text: str = ""
    """To be shown."""

    ask: bool = False
    """Whether the model is to answer now."""

    end: bool = False
    """Whether the chat is over."""


@dataclass(frozen=True)
class Command:
    """A command: its argument and purpose for the help, and what it does."""

    argument: str
    purpose: str
    run: Callable[[Conversation, str], Outcome]


def run_command(line: str, conversation: Conversation) -> Outcome:
    """Do what a line such as ``/model support@3`` says.

    Raises:
        UsageError: no such command, or an argument that it does not take.
    """
    name, _, argument = line.removeprefix("/").partition(" ")
    command = COMMANDS.get(name.strip())
    if command is None:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f" Did you mean /{near[0]}?" if near else ""
        raise UsageError(
            f"no command /{name}.{hint} /help lists them; a message that begins with a slash "
            "is written with two."
        )
    return command.run(conversation, argument.strip())


def _help(conversation: Conversation, argument: str) -> Outcome:
    del conversation, argument
    left = {name: f"/{name} {command.argument}".rstrip() for name, command in COMMANDS.items()}
    wide = max(map(len, left.values()))
    lines = [f"{left[name]:<{wide}}  {command.purpose}" for name, command in COMMANDS.items()]
    return Outcome("\n".join([*lines, "", *KEYS]))


KEYS = (
    'A line that ends in \\ goes on in the next one; """ begins and ends a message of many lines.',
    "Ctrl-C stops an answer; Ctrl-D ends the chat.",
)


def _model(conversation: Conversation, argument: str) -> Outcome:
    if argument:
        conversation.choose(argument)
        return Outcome(f"{conversation.model} answers from here on")
    marks = (("*" if name == conversation.model else " ", name) for name in conversation.models)
    return Outcome("\n".join(f"{mark} {name}" for mark, name in marks))


def _system(conversation: Conversation, argument: str) -> Outcome:
    if argument:
        conversation.system = None if argument == DEFAULT else argument
    return Outcome(f"system prompt: {conversation.system or 'none'}")


def _reset(conversation: Conversation, argument: str) -> Outcome:
    del argument
    conversation.messages.clear()
    return Outcome("a new conversation; system prompt and settings stay")


def _again(conversation: Conversation, argument: str) -> Outcome:
    del argument
    question = conversation.take_back()
    if question is None:
        raise UsageError("nothing was asked yet")
    conversation.say(question)
    return Outcome(ask=True)


def _settings(conversation: Conversation, argument: str) -> Outcome:
    del argument
    values = {"model": conversation.model, "system": conversation.system or "none"}
    values |= {name: str(conversation.parameters.get(name, DEFAULT)) for name in PARAMETERS}
    return Outcome("\n".join(f"{name:<18} {value}" for name, value in values.items()))


def _parameter(name: str) -> Callable[[Conversation, str], Outcome]:
    def run(conversation: Conversation, argument: str) -> Outcome:
        if argument:
            conversation.set(name, argument)
        return Outcome(f"{name} {conversation.parameters.get(name, DEFAULT)}")

    return run


def _exit(conversation: Conversation, argument: str) -> Outcome:
    del conversation, argument
    return Outcome(end=True)


COMMANDS = {
    "help": Command("", "this list", _help),
    "model": Command("[NAME]", "which models there are; choose one", _model),
    "system": Command("[TEXT]", f"the system prompt; {DEFAULT!r} for none", _system),
    "reset": Command("", "forget the conversation", _reset),
    "again": Command("", "answer the last message again", _again),
    "settings": Command("", "model, system prompt and parameters as they are", _settings),
    **{
        name: Command(
            "[VALUE]", f"{parameter.allowed()}; {DEFAULT!r} is the server's", _parameter(name)
        )
        for name, parameter in PARAMETERS.items()
    },
    "exit": Command("", "end the chat", _exit),
}
