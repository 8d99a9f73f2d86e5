"""How tokens are drawn and where an answer ends: fields that several routes share."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from serve.requests.shape import CacheSalt, Metadata, Shape, TokenId
from serve.requests.structured import ResponseFormat, StructuredOutputs

MOST_IDS = 1024
"""Token ids in one field; vLLM takes no more in logprob_token_ids (128) and copies the rest."""

Stop = Annotated[str, Field(min_length=1, max_length=256)]
BiasKey = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
Bias = Annotated[float, Field(ge=-100, le=100)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
BadWord = Annotated[str, Field(min_length=1, max_length=256)]
SomeIds = Annotated[list[TokenId], Field(max_length=MOST_IDS, fail_fast=True)]


class StreamOptions(Shape):
    """What a stream carries besides the answer."""

    include_usage: bool | None = None
    """Whether a last chunk counts the tokens."""

    continuous_usage_stats: bool | None = None
    """Whether every chunk counts them."""

    include_obfuscation: bool | None = None
    """OpenAI's padding of chunks; there is none here."""


class Sampling(Shape):
    """Fields of vLLM's sampling that chat and plain completions have in common."""

    model: str
    """The model or adapter that answers; see ``/v1/models``."""

    frequency_penalty: Penalty | None = None
    """Makes tokens less likely for each time they were used."""

    presence_penalty: Penalty | None = None
    """Makes tokens less likely once they were used."""

    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    """Divides the logits of tokens that were used; 1 leaves them."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """0 takes the likeliest token; 1 draws from the model's own distribution."""

    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Draws from the likeliest tokens that have this share of the probability together."""

    top_k: Annotated[int, Field(ge=-1)] | None = None
    """Draws from so many likeliest tokens; 0 and -1 mean all."""

    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Draws from tokens with at least this share of the likeliest one's probability."""

    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    """Makes drawing repeatable, as far as the batch's rounding allows."""

    stop: Stop | Annotated[list[Stop], Field(max_length=4, fail_fast=True)] | None = None
    """Texts that end an answer; they are not part of it."""

    stop_token_ids: SomeIds | None = None
    """Tokens that end an answer."""

    logit_bias: (
        Annotated[dict[BiasKey, Bias], Field(max_length=MOST_IDS, fail_fast=True)] | None
    ) = None
    """Added to the logits of these tokens, by their ids."""

    allowed_token_ids: Annotated[list[TokenId], Field(min_length=1, fail_fast=True)] | None = None
    """The only tokens that may be drawn."""

    bad_words: Annotated[list[BadWord], Field(default_factory=list, max_length=128, fail_fast=True)]
    """Texts that must not appear."""

    min_tokens: Annotated[int, Field(ge=0)] = 0
    """Tokens before which no stop ends the answer."""

    ignore_eos: bool = False
    """Whether to go on after the model's own end; for measurements."""

    include_stop_str_in_output: bool = False
    """Whether the text that ended an answer stays at its end."""

    skip_special_tokens: bool = True
    """Whether special tokens are left out of the answer's text."""

    spaces_between_special_tokens: bool = True
    """Whether special tokens are set apart by spaces."""

    truncate_prompt_tokens: Annotated[int, Field(ge=-1)] | None = None
    """Cuts prompts to so many tokens; -1 to what fits the model."""

    truncation_side: Literal["left", "right"] | None = None
    """Where a prompt is cut."""

    prompt_logprobs: Annotated[int, Field(ge=0)] | None = None
    """Alternatives to give for each token of the prompt."""

    logprob_token_ids: Annotated[list[TokenId], Field(max_length=128, fail_fast=True)] | None = None
    """Tokens whose logprobs to give at each position."""

    return_tokens_as_token_ids: bool | None = None
    """Whether tokens in logprobs are spelled ``token_id:17``."""

    return_token_ids: bool | None = None
    """Whether the answer holds the ids of its tokens and of the prompt's."""

    response_format: ResponseFormat | None = None
    """The form of the answer."""

    structured_outputs: StructuredOutputs | None = None
    """vLLM's own way to say the form of the answer."""

    thinking_token_budget: Annotated[int, Field(ge=-1)] | None = None
    """Most tokens of a reasoning model's thoughts."""

    cache_salt: CacheSalt | None = None
    """Keeps cached prefixes apart from those of requests with another salt."""

    stream: bool | None = None
    """Whether the answer comes in pieces, as server-sent events."""

    stream_options: StreamOptions | None = None
    """What the stream carries besides the answer."""

    stream_interval: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Tokens in one piece of a stream."""

    user: Annotated[str, Field(max_length=512)] | None = None
    """OpenAI's; taken and ignored."""

    metadata: Metadata | None = None
    """OpenAI's; taken and ignored."""

    service_tier: Any = None
    """OpenAI's; taken and ignored."""

    store: bool | None = None
    """OpenAI's; taken and ignored: nothing is stored."""
