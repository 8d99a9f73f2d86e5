"""The chat itself: lines from a person, answers as they come; or one question from a pipe."""

from __future__ import annotations

import contextlib
import sys
import unicodedata
from collections.abc import Callable
from contextlib import closing

from rich.console import Console
from rich.markup import escape

from llmkit.chat.commands import run_command
from llmkit.chat.conversation import Conversation
from llmkit.chat.endpoint import Answer, Endpoint
from llmkit.errors import LlmkitError, UsageError

_BLOCK = '"""'
_REPLACED = "\N{REPLACEMENT CHARACTER}"


class Interrupted(LlmkitError):
    """Ctrl-C while a script's question was answered."""

    exit_code = 130


def chat(endpoint: Endpoint, conversation: Conversation) -> None:
    """Talk until the person ends it. Ctrl-C stops an answer, and at the prompt drops the line."""
    # Makes input() a line editor with a history, where Python was built with it.
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 (imported for what it does to input)
    console = Console(highlight=False)
    _say(console, f"{conversation.model} at {endpoint.url}; /help lists commands, Ctrl-D ends.")
    while True:
        try:
            line = read_message(input)
        except KeyboardInterrupt:
            console.print()
            continue
        except EOFError:
            console.print()
            return
        if not line.strip():
            continue
        try:
            if line.startswith("/") and not line.startswith("//"):
                outcome = run_command(line, conversation)
                if outcome.text:
                    _say(console, outcome.text)
                if outcome.end:
                    return
                if not outcome.ask:
                    continue
            else:
                conversation.say(line[1:] if line.startswith("//") else line)
            _answer(endpoint, conversation, console)
        except LlmkitError as error:
            console.print(f"[bold red]error:[/] {escape(printable(str(error)))}")


def ask_once(endpoint: Endpoint, conversation: Conversation, question: bytes) -> None:
    """Answer one question on standard output, and nothing else there.

    Raises:
        UsageError: the question is empty, or no UTF-8.
        EndpointError: the server refuses, fails, or breaks off.
        Interrupted: Ctrl-C.
    """
    try:
        text = question.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input is not UTF-8 at byte {error.start}") from None
    if not text:
        raise UsageError("standard input is empty. Write a question to it, or use a terminal.")
    conversation.say(text)
    shown = printable if sys.stdout.isatty() else str
    answer = Answer()
    try:
        for piece in endpoint.ask(conversation.request(), answer):
            sys.stdout.write(shown(piece))
            sys.stdout.flush()
    except KeyboardInterrupt:
        raise Interrupted("stopped before the answer was complete") from None
    finally:
        if answer.text and not answer.text.endswith("\n"):
            sys.stdout.write("\n")


def read_message(read: Callable[[str], str]) -> str:
    r"""A message of one line, or of several: after a ``\`` at an end, or between two ``\"\"\"``.

    Args:
        read: gives a line, having shown a prompt; `input` is one.
    """
    line = read("> ")
    if line.strip() == _BLOCK:
        lines = []
        while (line := read("… ")).strip() != _BLOCK:
            lines.append(line)
        return "\n".join(lines)
    lines = [line]
    while lines[-1].endswith("\\"):
        lines[-1] = lines[-1][:-1]
        lines.append(read("… "))
    return "\n".join(lines)


def printable(text: str) -> str:
    """The text without control characters, which would steer the terminal."""
    return "".join(_REPLACED if _steers(sign) else sign for sign in text)


def _steers(sign: str) -> bool:
    return unicodedata.category(sign) == "Cc" and sign not in "\n\t"


def _answer(endpoint: Endpoint, conversation: Conversation, console: Console) -> None:
    """Show the answer to the last message as it comes, and remember it as far as it came."""
    answer = Answer()
    stopped = False
    try:
        with closing(endpoint.ask(conversation.request(), answer)) as pieces:
            for piece in pieces:
                console.out(printable(piece), end="", highlight=False)
    except KeyboardInterrupt:
        stopped = True
    except LlmkitError:
        # What failed is not part of the conversation: the next message goes without it.
        conversation.take_back()
        if answer.text:
            console.print()
        raise
    conversation.hear(answer.text)
    console.print()
    _say(console, " · ".join(part for part in (stopped and "stopped", answer.figures()) if part))


def _say(console: Console, text: str) -> None:
    console.print(f"[dim]{escape(printable(text))}[/]", soft_wrap=True)
