"""``llmkit chat``: parsing only. Nothing heavy is imported here."""

from __future__ import annotations

import sys
from typing import Annotated

import typer


def chat(
    url: Annotated[
        str, typer.Argument(metavar="URL", help="The server, e.g. http://127.0.0.1:8000")
    ] = "http://127.0.0.1:8000",
    model: Annotated[
        str | None, typer.Option("--model", help="Who answers; the first one served if not given.")
    ] = None,
    system: Annotated[str | None, typer.Option("--system", help="The system prompt.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A sampling parameter, e.g. temperature=0; repeatable.",
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            envvar=["LLMKIT_API_KEY", "OPENAI_API_KEY"],
            help="The API key. Others on this machine can read a command line: "
            "rather use the environment.",
        ),
    ] = None,
) -> None:
    """Talk to a served model.

    In a terminal: a conversation, with /help for its commands. With a question on standard input
    instead, the answer goes to standard output and nothing else does.
    """
    from llmkit.chat.conversation import PARAMETERS, Conversation
    from llmkit.chat.endpoint import Endpoint
    from llmkit.chat.terminal import ask_once
    from llmkit.chat.terminal import chat as talk
    from llmkit.errors import UsageError

    endpoint = Endpoint(url, key)
    models = endpoint.models(
        waiting=lambda: typer.echo("the server is loading its model ...", err=True)
    )
    if not models:
        raise UsageError(f"{endpoint.url} serves no model that this key may use")
    conversation = Conversation(models, models[0], system)
    if model is not None:
        conversation.choose(model)
    for word in settings or []:
        name, equals, value = word.partition("=")
        if not equals or name not in PARAMETERS:
            raise UsageError(f"--set {word!r}: write NAME=VALUE; names: {', '.join(PARAMETERS)}")
        conversation.set(name, value)
    if sys.stdin.isatty():
        talk(endpoint, conversation)
    else:
        ask_once(endpoint, conversation, sys.stdin.buffer.read())
