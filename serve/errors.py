"""The errors that serving raises on purpose.

A command line prints the message and ends with ``exit_code``; no traceback is needed to
act on any of them. Each message names what was wrong, where, what is allowed and what to
do next.
"""

from __future__ import annotations

from pathlib import Path


class ServeError(Exception):
    """Serving cannot start or go on. ``exit_code`` is the process's exit status."""

    exit_code = 2


class ModelNotFound(ServeError):
    """The folder given is not a model in Hugging Face format."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(
            f"no model to serve at {path}: {problem}. Give a folder in Hugging Face format "
            "(config.json, the weights, the tokenizer), such as a run's merged/ folder."
        )


class AdapterNotUsable(ServeError):
    """A LoRA adapter's folder or name cannot be served."""

    def __init__(self, name: str, path: Path, problem: str) -> None:
        super().__init__(f"adapter {name!r} at {path} cannot be served: {problem}.")


class PortInUse(ServeError):
    """Another process listens on the port already."""

    def __init__(self, host: str, port: int, holder: str | None) -> None:
        by = f" by {holder}" if holder else ""
        super().__init__(
            f"port {port} on {host} is in use{by}. Stop that process, or choose another port: "
            f"--port {port + 1 if port < 65535 else port - 1} (0 picks a free one)."
        )


class AddressNotUsable(ServeError):
    """The host and port cannot be listened on, for a reason other than being in use."""

    def __init__(self, host: str, port: int, reason: str) -> None:
        super().__init__(
            f"cannot listen on {host}:{port}: {reason}. Use --host 127.0.0.1 (this machine "
            "only) or 0.0.0.0 (every interface), and a --port of 1024 or more."
        )


class DeviceNotAvailable(ServeError):
    """The device asked for is not one that the installed vLLM can use here."""


class EngineFailed(ServeError):
    """The engine did not start, or died while serving."""

    exit_code = 1


class ServerDidNotStart(ServeError):
    """A server process ended, or was not ready in time."""

    exit_code = 1
