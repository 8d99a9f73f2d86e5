"""``POST /v1/responses``, without what needs answers to be stored."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from serve.requests.sampling import Bias, BiasKey, Penalty, SomeIds, Stop
from serve.requests.shape import CacheSalt, HandedBack, Metadata, Name, Shape
from serve.requests.structured import JsonFormat, StructuredOutputs, TextFormat
from serve.requests.tools import FunctionName

Id = Annotated[str, Field(max_length=256)]


class InputText(Shape):
    """A piece of what is asked."""

    type: Literal["input_text"]
    text: str


class OutputText(HandedBack):
    """A piece of an earlier answer."""

    type: Literal["output_text"]
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


Part = Annotated[InputText | OutputText, Field(discriminator="type")]
Content = str | Annotated[list[Part], Field(min_length=1, max_length=1024, fail_fast=True)]


class InputMessage(HandedBack):
    """A turn of the conversation."""

    type: Literal["message"] | None = None
    role: Literal["user", "assistant", "system", "developer"]
    content: Content
    id: Id | None = None
    status: str | None = None


class Call(HandedBack):
    """A function that an earlier answer called."""

    type: Literal["function_call"]
    call_id: Id
    name: Name
    arguments: str
    id: Id | None = None
    status: str | None = None


class CallOutput(HandedBack):
    """What the function answered."""

    type: Literal["function_call_output"]
    call_id: Id
    output: str
    id: Id | None = None
    status: str | None = None


def _type(given: Any) -> str | None:
    """The type of an item; messages may leave it out."""
    kind = given.get("type") if isinstance(given, dict) else getattr(given, "type", None)
    return "message" if kind is None else str(kind)


Item = Annotated[
    Annotated[InputMessage, Tag("message")]
    | Annotated[Call, Tag("function_call")]
    | Annotated[CallOutput, Tag("function_call_output")],
    Discriminator(_type),
]


class FunctionTool(Shape):
    """A function that the model may call."""

    type: Literal["function"]
    name: FunctionName
    description: Annotated[str, Field(max_length=16384)] | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class NamedFunctionTool(Shape):
    """The one function that must be called."""

    type: Literal["function"]
    name: FunctionName


class SchemaText(Shape):
    """JSON that fits a schema."""

    type: Literal["json_schema"]
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: Annotated[str, Field(max_length=4096)] | None = None
    json_schema: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None


class TextConfig(Shape):
    """The form of the answer's text."""

    format: Annotated[TextFormat | JsonFormat | SchemaText, Field(discriminator="type")] | None = (
        None
    )
    verbosity: Any = None


class Reasoning(Shape):
    """For chat templates that know reasoning efforts."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    summary: Any = None


class ResponsesRequest(Shape):
    """The next turn of a conversation, as OpenAI's newer API puts it."""

    null_is_absent = ("service_tier", "truncation")

    model: str
    input: str | Annotated[list[Item], Field(min_length=1, fail_fast=True)]
    """What is asked, alone or after earlier turns."""

    instructions: str | None = None
    """What the model is told about its task."""

    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    """Most tokens of the answer."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=4, fail_fast=True)] | None = None
    stop_token_ids: SomeIds | None = None
    logit_bias: Annotated[dict[BiasKey, Bias], Field(max_length=1024, fail_fast=True)] | None = None
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    top_logprobs: Annotated[int, Field(ge=0)] | None = None
    include: (
        Annotated[
            list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]],
            Field(max_length=8),
        ]
        | None
    ) = None
    text: TextConfig | None = None
    structured_outputs: StructuredOutputs | None = None
    tools: Annotated[
        list[FunctionTool], Field(default_factory=list, max_length=128, fail_fast=True)
    ]
    tool_choice: Literal["none", "auto", "required"] | NamedFunctionTool = "auto"
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    include_reasoning: bool = True
    truncation: Literal["auto", "disabled"] | None = "disabled"
    cache_salt: CacheSalt | None = None
    stream: bool | None = None
    stream_options: Any = None
    """OpenAI's; taken and ignored."""

    store: bool | None = None
    """Taken and ignored: nothing is stored."""

    metadata: Metadata | None = None
    user: Annotated[str, Field(max_length=512)] | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority"] | None = "auto"
    prompt_cache_key: Annotated[str, Field(max_length=512)] | None = None
    safety_identifier: Annotated[str, Field(max_length=512)] | None = None
