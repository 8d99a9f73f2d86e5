"""What is known of a file and of a batch: the part that outlives the server.

Reference:
    https://platform.openai.com/docs/api-reference/batch
    https://platform.openai.com/docs/api-reference/files
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Status = Literal[
    "validating",
    "failed",
    "in_progress",
    "finalizing",
    "completed",
    "expired",
    "cancelling",
    "cancelled",
]
Outcome = Literal["completed", "expired", "cancelled", "failed"]
Purpose = Literal["batch", "batch_output"]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class FileRecord(_Record):
    """A file, beside its content."""

    id: str
    owner: str | None
    """Id of the key that made it; None if the server was open then."""
    filename: str
    purpose: Purpose
    bytes: int
    created: float
    """Seconds since 1970, as every time here."""
    expires: float | None = None

    def body(self) -> dict[str, Any]:
        """As OpenAI's API shows it."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": int(self.created),
            "expires_at": _whole(self.expires),
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
        }


class LineProblem(_Record):
    """Why a batch did not run: OpenAI's batch error."""

    code: str
    message: str
    line: int | None = None
    """The input file's line, from 1."""
    param: str | None = None


class Counts(_Record):
    """What the results say."""

    completed: int = 0
    failed: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


class BatchRecord(_Record):
    """A batch: what was asked, and how far it is."""

    id: str
    owner: str | None
    """Id of the key that made it, which is charged; None if the server was open then."""
    endpoint: str
    input_file_id: str
    completion_window: str
    metadata: dict[str, str] | None = None
    output_seconds: int | None = None
    """How long the files it makes are kept, where its maker said so."""
    created: float
    expires: float
    """When what has not run by then never will."""
    output_id: str
    """The id that the file of answers will have, if there are any."""
    error_id: str
    """Likewise of the requests that failed."""

    status: Status = "validating"
    times: dict[Status, float] = Field(default_factory=dict)
    """When it got into each status."""
    outcome: Outcome | None = None
    """How it ends; set when nothing is left but to put its files in place."""
    errors: list[LineProblem] = Field(default_factory=list)
    total: int = 0
    counts: Counts = Field(default_factory=Counts)
    has_output: bool = False
    has_errors: bool = False
    crashes: int = 0
    """Starts since a line was finished or the server ended in order."""

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to it."""
        return self.status in ("failed", "completed", "expired", "cancelled")

    def enter(self, status: Status, now: float) -> None:
        """Get into a status."""
        self.status = status
        self.times[status] = now

    def body(self) -> dict[str, Any]:
        """As OpenAI's API shows it."""
        counts = self.counts
        errors = [problem.model_dump() for problem in self.errors]
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "errors": {"object": "list", "data": errors} if errors else None,
            "input_file_id": self.input_file_id,
            "completion_window": self.completion_window,
            "status": self.status,
            "output_file_id": self.output_id if self.ended and self.has_output else None,
            "error_file_id": self.error_id if self.ended and self.has_errors else None,
            "created_at": int(self.created),
            "expires_at": int(self.expires),
            **{f"{name}_at": _whole(self.times.get(name)) for name in _TIMED},
            "request_counts": {
                "total": self.total,
                "completed": counts.completed,
                "failed": counts.failed,
            },
            "usage": {
                "input_tokens": counts.input_tokens,
                "input_tokens_details": {"cached_tokens": counts.cached_tokens},
                "output_tokens": counts.output_tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": counts.input_tokens + counts.output_tokens,
            },
            "metadata": self.metadata,
        }


_TIMED: tuple[Status, ...] = (
    "in_progress",
    "finalizing",
    "completed",
    "failed",
    "expired",
    "cancelling",
    "cancelled",
)


def _whole(moment: float | None) -> int | None:
    return None if moment is None else int(moment)
