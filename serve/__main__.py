"""``python -m serve MODEL``: the server on its own, as tests and other programs start it."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from collections.abc import Sequence

from pydantic import ValidationError

from serve.app import run_server
from serve.errors import ServeError
from serve.model import open_model
from serve.parent_watch import watch_parent
from serve.settings import ServeSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, serve, and return the exit code: 0 stopped, 1 engine failed, 2 wrong usage."""
    args = _parser().parse_args(arguments)
    given = {name: getattr(args, name) for name in ServeSettings.model_fields}
    try:
        settings = ServeSettings.model_validate({k: v for k, v in given.items() if v is not None})
        model = open_model(args.model, name=args.name, adapters=dict(args.adapter))
        listening = socket.socket(fileno=args.listen_fd) if args.listen_fd is not None else None
        if args.parent_pid is not None:
            watch_parent(args.parent_pid, lambda: os.kill(os.getpid(), signal.SIGTERM))
        run_server(
            model,
            settings,
            on_ready=lambda url, who: print(f"serving {model.name} at {url}\n{who}", flush=True),
            listening=listening,
        )
    except ValidationError as error:
        for problem in error.errors():
            option = "--" + str(problem["loc"][0]).replace("_", "-")
            print(f"error: {option} {problem['input']}: {problem['msg']}", file=sys.stderr)
        return 2
    except ServeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m serve", description=__doc__)
    parser.add_argument("model", help="local folder in Hugging Face format")
    parser.add_argument("--name", help="the model's name for clients (default: the folder's)")
    parser.add_argument(
        "--adapter",
        metavar="NAME=FOLDER",
        action="append",
        type=_adapter,
        default=[],
        help="a LoRA adapter that requests may name; repeatable",
    )
    for name, field in ServeSettings.model_fields.items():
        default = f" (default: {field.default})"
        text = (field.description or "").replace("%", "%%") + default
        parser.add_argument("--" + name.replace("_", "-"), metavar="VALUE", help=text)
    # For programs that start a server: a socket they hold, and whose death ends the server.
    parser.add_argument("--listen-fd", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--parent-pid", type=int, help=argparse.SUPPRESS)
    return parser


def _adapter(text: str) -> tuple[str, str]:
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FOLDER")
    return name, folder


if __name__ == "__main__":
    sys.exit(main())
