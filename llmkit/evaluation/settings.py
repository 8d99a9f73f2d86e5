"""The recipe's ``evaluation`` section."""

from pydantic import BaseModel, ConfigDict, Field


class EvaluationConfig(BaseModel):
    """What is asked of the base and of the tuned model, side by side."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    generate: int = Field(default=0, ge=0)
    """How many validation prompts both models answer over HTTP."""
    questions: str | None = None
    """A .jsonl file of ``question`` and ``expect`` (phrases that a right answer contains)."""
    max_new_tokens: int = Field(default=96, ge=1)
