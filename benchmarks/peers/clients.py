"""What the Python clients get of a server: openai, langchain-openai and litellm. Run by clients.py.

    python benchmarks/peers/clients.py URL MODEL

Prints one JSON object: client -> check -> "ok", or what went wrong.
"""

import asyncio
import io
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would ask the network for prices

import litellm
import openai
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

KEY = os.environ.get("LLMKIT_API_KEY", "unused")
ASKED: Any = [{"role": "user", "content": "What is the capital of France?"}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
NAMED: Any = {"type": "function", "function": {"name": "get_weather"}}


class Person(BaseModel):
    """What a structured answer must hold."""

    name: str
    age: int


def short(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema whose strings end, since a small model may write one without end."""
    schema["properties"]["name"]["maxLength"] = 20
    schema["properties"]["age"] |= {"minimum": 0, "maximum": 150}
    return schema


FORMAT: Any = {
    "type": "json_schema",
    "json_schema": {"name": "person", "schema": short(Person.model_json_schema()), "strict": True},
}


class OpenAI:
    """The official client."""

    def __init__(self, url: str, model: str) -> None:
        self.client = openai.OpenAI(base_url=url, api_key=KEY, max_retries=0, timeout=120)
        self.asynchronous = openai.AsyncOpenAI(base_url=url, api_key=KEY, timeout=120)
        self.model = model

    def chat(self, **more: Any) -> Any:
        return self.client.chat.completions.create(
            model=self.model, messages=ASKED, temperature=0, **{"max_completion_tokens": 100} | more
        )

    def check_chat(self) -> None:
        answer = self.chat()
        assert "Paris" in answer.choices[0].message.content
        assert answer.usage.total_tokens > 10
        assert answer.choices[0].finish_reason in ("stop", "length")
        assert answer._request_id

    def check_streaming(self) -> None:
        chunks = list(self.chat(stream=True, stream_options={"include_usage": True}))
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert "Paris" in text
        assert chunks[-1].usage.completion_tokens > 3
        plain = list(self.chat(stream=True))
        assert all(chunk.choices for chunk in plain), "a chunk without choices, not asked for"
        assert all(getattr(chunk, "usage", None) is None for chunk in plain)

    def check_asynchronous(self) -> None:
        async def three() -> list[Any]:
            return await asyncio.gather(
                *(
                    self.asynchronous.chat.completions.create(
                        model=self.model, messages=ASKED, temperature=0, max_tokens=20
                    )
                    for _ in range(3)
                )
            )

        assert len({answer.choices[0].message.content for answer in asyncio.run(three())}) == 1

    def check_completions(self) -> None:
        answer = self.client.completions.create(
            model=self.model, prompt="The capital of France is", max_tokens=5, temperature=0
        )
        assert "Paris" in answer.choices[0].text

    def check_tools_named(self) -> None:
        call = self.chat(tools=[TOOL], tool_choice=NAMED).choices[0].message.tool_calls[0]
        assert call.function.name == "get_weather"
        assert set(json.loads(call.function.arguments)) == {"city"}

    def check_tools_required(self) -> None:
        answer = self.chat(tools=[TOOL], tool_choice="required", max_completion_tokens=100)
        calls = answer.choices[0].message.tool_calls
        assert calls
        for call in calls:
            assert set(json.loads(call.function.arguments)) == {"city"}

    def check_tools_streamed(self) -> None:
        text = ""
        for chunk in self.chat(tools=[TOOL], tool_choice=NAMED, stream=True):
            for choice in chunk.choices:
                for call in choice.delta.tool_calls or []:
                    text += call.function.arguments or ""
        assert set(json.loads(text)) == {"city"}

    def check_tools_auto(self) -> None:
        message = self.chat(tools=[TOOL], tool_choice="auto").choices[0].message
        assert message.content or message.tool_calls

    def check_structured_output(self) -> None:
        answer = self.chat(response_format=FORMAT, max_completion_tokens=80)
        Person.model_validate_json(answer.choices[0].message.content)
        answer = self.chat(response_format={"type": "json_object"}, max_completion_tokens=80)
        if answer.choices[0].finish_reason == "stop":
            json.loads(answer.choices[0].message.content)

    def check_logprobs(self) -> None:
        answer = self.chat(logprobs=True, top_logprobs=3)
        content = answer.choices[0].logprobs.content
        assert len(content) == answer.usage.completion_tokens
        for token in content:
            assert len(token.top_logprobs) >= 3
            assert token.logprob <= 0

    def check_models(self) -> None:
        assert self.model in [model.id for model in self.client.models.list()]
        assert self.client.models.retrieve(self.model).id == self.model

    def check_embeddings_error(self) -> None:
        try:
            self.client.embeddings.create(model=self.model, input="x")
        except (openai.BadRequestError, openai.NotFoundError) as error:
            assert error.code, error.body
        else:
            raise AssertionError("a model that embeds nothing answered")

    def check_errors(self) -> None:
        for change, kind, code in (
            ({"model": "other"}, openai.NotFoundError, "model_not_found"),
            (
                {"messages": [{"role": "user", "content": "a b " * 9000}]},
                openai.BadRequestError,
                "context_length_exceeded",
            ),
            ({"temperature": 9}, openai.BadRequestError, None),
            ({"messages": [{"role": "pope", "content": "x"}]}, openai.BadRequestError, None),
        ):
            asked = {"model": self.model, "messages": ASKED} | change
            try:
                self.client.chat.completions.create(**asked)
            except kind as error:
                assert code in (None, error.code), error.body
                assert error.type, error.body
            else:
                raise AssertionError(f"{change} was accepted")

    def check_responses(self) -> None:
        answer = self.client.responses.create(
            model=self.model,
            input="What is the capital of France?",
            temperature=0,
            max_output_tokens=40,
        )
        assert "Paris" in answer.output_text

    def check_batches(self) -> None:
        lines = [
            {
                "custom_id": f"ask-{number}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {
                    "model": self.model,
                    "messages": ASKED,
                    "max_tokens": 20,
                    "temperature": 0,
                },
            }
            for number in range(3)
        ]
        data = "\n".join(json.dumps(line) for line in lines).encode()
        file = self.client.files.create(file=("asks.jsonl", io.BytesIO(data)), purpose="batch")
        batch = self.client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        until = time.monotonic() + 120
        while batch.status not in ("completed", "failed", "expired", "cancelled"):
            assert time.monotonic() < until, batch
            time.sleep(0.5)
            batch = self.client.batches.retrieve(batch.id)
        assert batch.status == "completed", batch
        assert batch.request_counts.completed == 3
        text = self.client.files.content(batch.output_file_id).text
        answers = [json.loads(line) for line in text.splitlines()]
        assert {each["custom_id"] for each in answers} == {"ask-0", "ask-1", "ask-2"}
        for each in answers:
            content = each["response"]["body"]["choices"][0]["message"]["content"]
            assert "Paris" in content
        self.client.files.delete(file.id)


class LangChain:
    """langchain-openai's chat model."""

    def __init__(self, url: str, model: str) -> None:
        made: dict[str, Any] = {"base_url": url, "api_key": KEY, "model": model}
        self.model = ChatOpenAI(**made, temperature=0, max_tokens=60, timeout=120)
        self.logged = ChatOpenAI(**made, max_tokens=5, logprobs=True, top_logprobs=2)
        self.other = ChatOpenAI(**made | {"model": "other"})

    def check_chat(self) -> None:
        answer = self.model.invoke([HumanMessage("What is the capital of France?")])
        assert "Paris" in str(answer.content)
        assert answer.usage_metadata["total_tokens"] > 10

    def check_streaming(self) -> None:
        chunks = list(self.model.stream("What is the capital of France?"))
        assert len(chunks) > 3
        assert "Paris" in "".join(str(chunk.content) for chunk in chunks)

    def check_tools_required(self) -> None:
        bound = self.model.bind_tools([TOOL], tool_choice="required")
        calls = bound.invoke("How is the weather in Paris?").tool_calls
        assert calls
        for call in calls:
            assert set(call["args"]) == {"city"}

    def check_tools_any(self) -> None:
        bound = self.model.bind_tools([TOOL], tool_choice="any")
        assert bound.invoke("How is the weather in Paris?").tool_calls

    def check_tools_named(self) -> None:
        bound = self.model.bind_tools([TOOL], tool_choice="get_weather")
        (call,) = bound.invoke("How is the weather in Paris?").tool_calls
        assert set(call["args"]) == {"city"}

    def check_structured_output(self) -> None:
        schema = short(Person.model_json_schema())
        for method in ("json_schema", "function_calling"):
            asked = self.model.with_structured_output(schema, method=method)
            Person.model_validate(asked.invoke("Ada is 36 years old."))

    def check_logprobs(self) -> None:
        answer = self.logged.invoke("Hello")
        assert len(answer.response_metadata["logprobs"]["content"]) > 0

    def check_errors(self) -> None:
        try:
            self.other.invoke("x")
        except openai.NotFoundError as error:
            assert error.code == "model_not_found"
        else:
            raise AssertionError("an unknown model answered")


class LiteLLM:
    """litellm, which calls us an OpenAI-compatible endpoint."""

    def __init__(self, url: str, model: str) -> None:
        litellm.suppress_debug_info = True
        self.url, self.name = url, model
        self.common: dict[str, Any] = {"api_base": url, "api_key": KEY}

    def ask(self, **more: Any) -> Any:
        return litellm.completion(
            model=f"openai/{self.name}",
            messages=ASKED,
            temperature=0,
            **self.common | {"max_tokens": 60} | more,
        )

    def check_chat(self) -> None:
        assert "Paris" in self.ask().choices[0].message.content

    def check_streaming(self) -> None:
        chunks = list(self.ask(stream=True))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert "Paris" in text

    def check_tools_named(self) -> None:
        call = self.ask(tools=[TOOL], tool_choice=NAMED).choices[0].message.tool_calls[0]
        assert set(json.loads(call.function.arguments)) == {"city"}

    def check_structured_output(self) -> None:
        answer = self.ask(response_format=FORMAT)
        Person.model_validate_json(answer.choices[0].message.content)

    def check_logprobs(self) -> None:
        answer = self.ask(logprobs=True, top_logprobs=2)
        assert len(answer.choices[0].logprobs.content) == answer.usage.completion_tokens

    def check_errors(self) -> None:
        try:
            litellm.completion(model="openai/other", messages=ASKED, **self.common)
        except litellm.exceptions.NotFoundError:
            return
        raise AssertionError("an unknown model answered")

    def check_embeddings_error(self) -> None:
        try:
            litellm.embedding(model=f"openai/{self.name}", input=["x"], **self.common)
        except (litellm.exceptions.NotFoundError, litellm.exceptions.BadRequestError):
            return
        raise AssertionError("a model that embeds nothing answered")

    def check_batches(self) -> None:
        line = {
            "custom_id": "one",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": self.name, "messages": ASKED, "max_tokens": 20},
        }
        file: Any = litellm.create_file(
            file=("asks.jsonl", io.BytesIO(json.dumps(line).encode())),
            purpose="batch",
            custom_llm_provider="openai",
            **self.common,
        )
        batch: Any = litellm.create_batch(
            completion_window="24h",
            endpoint="/v1/chat/completions",
            input_file_id=file.id,
            custom_llm_provider="openai",
            **self.common,
        )
        until = time.monotonic() + 60
        while batch.status != "completed":
            assert batch.status not in ("failed", "expired"), batch
            assert time.monotonic() < until
            time.sleep(0.5)
            batch = litellm.retrieve_batch(
                batch_id=batch.id, custom_llm_provider="openai", **self.common
            )


def result_of(check: Callable[[], None]) -> str:
    """The word ok, or what went wrong and where."""
    try:
        check()
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)
        mine = [frame.lineno for frame in where if frame.filename == __file__]
        return f"line {mine[-1]}: {type(error).__name__}: {str(error)[:300]}"
    return "ok"


def main() -> None:
    """Every check of every client."""
    url, model = sys.argv[1:]
    found: dict[str, dict[str, str]] = {}
    for name, kind in (("openai", OpenAI), ("langchain-openai", LangChain), ("litellm", LiteLLM)):
        client = kind(url, model)
        found[name] = {
            check.removeprefix("check_"): result_of(getattr(client, check))
            for check in vars(kind)
            if check.startswith("check_")
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
