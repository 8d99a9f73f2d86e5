"""Which teacher, how fast, for how much."""

import json
import re
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from data_prep.generate.asking import SamplingConfig


class LimitsConfig(BaseModel):
    """How fast a teacher is asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    concurrency: int = Field(default=16, ge=1, le=4096)
    """Calls under way at a time."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    """Calls begun in a minute, evenly; null: no limit."""
    tokens_per_minute: int | None = Field(default=None, ge=1)
    """Tokens of questions and answers in a minute; null: no limit."""
    timeout: float = Field(default=120, gt=0, allow_inf_nan=False)
    """Seconds that one call may take."""
    retries: int = Field(default=8, ge=0)
    """More attempts at a call that met 408, 409, 429, a 5xx, a time-out or a broken connection. A
    Retry-After is obeyed, by all calls; else waits double from half a second to a minute."""
    patience: float = Field(default=900, gt=0, allow_inf_nan=False)
    """Seconds of the longest Retry-After that is waited for."""


class BudgetConfig(BaseModel):
    """What all calls together may take, those of earlier runs into the same folder included.

    When it is spent nothing more is asked, calls under way are waited for, and the run ends well.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    calls: int | None = Field(default=None, ge=1)
    tokens: int | None = Field(default=None, ge=1)
    """Tokens of questions and answers."""
    cost: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """In the currency of ``prices``."""


class PricesConfig(BaseModel):
    """What a teacher costs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: float = Field(ge=0, allow_inf_nan=False)
    """A million tokens of questions."""
    output: float = Field(ge=0, allow_inf_nan=False)
    """A million tokens of answers."""
    currency: str = Field(default="USD", min_length=1)


class TeacherConfig(BaseModel):
    """The model that writes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(min_length=1)
    """Its name at the endpoint; without ``base_url`` a model's folder, a name of the catalogue or a
    hub id, which is loaded and answers in this process, without a server."""
    base_url: str | None = None
    """An OpenAI-compatible endpoint, ending in /v1: a provider's, or `llmkit serve`'s."""
    api_key_env: str = Field(default="OPENAI_API_KEY", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """The environment variable that holds the key. Keys do not stand in recipes."""
    sampling: SamplingConfig = SamplingConfig()
    send_seed: bool = True
    """Give the endpoint a seed with each call; leave it out for one that refuses seeds."""
    json_schema: bool = True
    """Have the endpoint enforce the schema of answers that are data, where it can."""
    extra_body: dict[str, Any] = {}
    """More fields of each request, such as ``{chat_template_kwargs: {enable_thinking: false}}``."""
    limits: LimitsConfig = LimitsConfig()
    budget: BudgetConfig = BudgetConfig()
    prices: PricesConfig | None = None

    @field_validator("base_url")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"https?://[^/?#\s]+[^?#\s]*", value):
            raise ValueError(f"an address such as https://host/v1 is wanted, not {value!r}")
        return value

    @property
    def says(self) -> str:
        """What decides an answer beside the call: the model and the fields of each request.

        The address is no part of it: an endpoint may move.
        """
        more = json.dumps(self.extra_body, sort_keys=True) if self.extra_body else ""
        return self.model + more + ("" if self.send_seed else " without seed")

    @model_validator(mode="after")
    def _cost_needs_prices(self) -> Self:
        if self.budget.cost is not None and self.prices is None:
            raise ValueError(
                "budget.cost needs prices: {input: ..., output: ...}, a million tokens each"
            )
        return self
