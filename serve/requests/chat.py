"""``POST /v1/chat/completions``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from serve.requests.messages import Messages
from serve.requests.sampling import Sampling
from serve.requests.tools import ToolChoice, Tools

Documents = Annotated[
    list[Annotated[dict[str, str], Field(max_length=16, fail_fast=True)]],
    Field(max_length=128, fail_fast=True),
]


class ChatRequest(Sampling):
    """The next turn of a conversation."""

    messages: Messages
    """The turns so far."""

    n: Annotated[int, Field(ge=1)] | None = None
    """Answers to make."""

    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Most tokens of an answer; OpenAI's older name."""

    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    """Most tokens of an answer."""

    logprobs: bool | None = None
    """Whether to give the log-probabilities of the answer's tokens."""

    top_logprobs: Annotated[int, Field(ge=0)] | None = None
    """Alternatives to give for each token."""

    tools: Tools | None = None
    """Functions the model may call."""

    tool_choice: ToolChoice | None = None
    """Whether it must call one, and which."""

    parallel_tool_calls: bool | None = None
    """Whether it may call several at once."""

    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = (
        None
    )
    """For chat templates that know reasoning efforts."""

    include_reasoning: bool = True
    """Whether a reasoning model's thoughts are part of the answer."""

    echo: bool = False
    """Whether a last message of the assistant's own is repeated in the answer."""

    add_generation_prompt: bool = True
    """Whether the template opens the assistant's turn."""

    add_special_tokens: bool = False
    """Whether the tokenizer adds its special tokens to what the template has."""

    continue_final_message: bool = False
    """Whether the last message is continued instead of answered."""

    return_prompt_text: bool | None = None
    """Whether the answer holds the prompt as the chat template rendered it."""

    documents: Documents | None = None
    """Texts for chat templates that have a place for them."""

    modalities: Annotated[list[Literal["text"]], Field(max_length=1)] | None = None
    """Text is the only one."""

    safety_identifier: Annotated[str, Field(max_length=512)] | None = None
    """OpenAI's; taken and ignored."""

    prompt_cache_key: Annotated[str, Field(max_length=512)] | None = None
    """OpenAI's; taken and ignored: every prefix is looked for in the cache."""

    prompt_cache_retention: Any = None
    """OpenAI's; taken and ignored."""

    prediction: Any = None
    """OpenAI's; taken and ignored."""

    verbosity: Any = None
    """OpenAI's; taken and ignored."""
