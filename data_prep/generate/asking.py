"""What a teacher is asked, and what it answers."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from data_prep.errors import DataError


class SamplingConfig(BaseModel):
    """How a teacher chooses its tokens; what is left out is the endpoint's own choice."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float | None = Field(default=0.7, ge=0, le=2)
    top_p: float | None = Field(default=0.95, gt=0, le=1)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    max_tokens: int = Field(default=1024, ge=1)
    """The most tokens of one answer; a budget and limits a minute count on it."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a question."""

    role: str
    content: str

    def as_dict(self) -> dict[str, str]:
        """As the OpenAI API spells it."""
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True, slots=True)
class Ask:
    """One call to a teacher."""

    purpose: str
    """What for, in the journal and in the figures: ``deepen``, ``answer``, ``judge gain``."""
    messages: tuple[Turn, ...]
    sampling: SamplingConfig
    seed: int
    """Tells apart calls that ask the same; a teacher that takes seeds is given it."""
    schema: Mapping[str, Any] | None = None
    """A JSON schema that the answer must fit, which a server may enforce."""

    def key(self, teacher: str) -> str:
        """A hash of everything that decides the answer, of which the purpose is no part.

        Args:
            teacher: the model, and whatever else is said to it with each call.
        """
        said = [
            teacher,
            [turn.as_dict() for turn in self.messages],
            self.sampling.model_dump(),
            self.seed,
            self.schema,
        ]
        written = json.dumps(said, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(written.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    @property
    def most_tokens(self) -> int:
        """How many tokens the call may take at most, about: four characters are one."""
        return self.prompt_tokens + self.sampling.max_tokens

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the question, about."""
        return sum(len(turn.content) // 4 + 4 for turn in self.messages)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a teacher answered."""

    text: str
    """Without the thoughts that some models write before their answer."""
    finish_reason: str
    """``stop``, ``length`` (cut off), ``content_filter``, or ``refused``: the endpoint would not
    take this question (too long, forbidden), and the text says why."""
    prompt_tokens: int
    completion_tokens: int

    @property
    def is_whole(self) -> bool:
        """Whether the teacher ended it by itself."""
        return self.finish_reason not in ("length", "max_tokens", "content_filter", "refused")


class Teacher(Protocol):
    """Whoever answers; `data_prep.generate.teacher.Teacher` is the real one."""

    async def ask(self, ask: Ask) -> Reply:
        """Answer one call. Many may wait at a time.

        Raises:
            GenerationStopped: there will be no more answers in this run.
        """


class GenerationStopped(DataError):
    """No more answers come for now; all that were paid for are in the journal."""

    exit_code = 1


class BudgetSpent(GenerationStopped):
    """The budget is used up: what was asked for was done."""

    exit_code = 0


def ask_of(
    purpose: str,
    prompt: str,
    sampling: SamplingConfig,
    seed: int,
    *,
    system: str = "",
    schema: Mapping[str, Any] | None = None,
) -> Ask:
    """A call of one user message, behind a system message if there is one."""
    first = (Turn("system", system),) if system else ()
    return Ask(purpose, (*first, Turn("user", prompt)), sampling, seed, schema)


def seed_of(*parts: object) -> int:
    """A seed below 2**31 that depends on what a call is for, and not on when it is made."""
    written = json.dumps([str(part) for part in parts]).encode()
    return int.from_bytes(hashlib.sha256(written).digest()[:4], "big") >> 1
