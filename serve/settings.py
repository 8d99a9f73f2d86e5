"""How to serve a model: the recipe's ``serve`` section and the server's options."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ServeSettings(BaseModel):
    """Everything about serving but the model itself, which is `serve.model.ServedModel`.

    The defaults serve a small model on this machine only. Device-specific fields say which
    device they are for and are not passed on elsewhere.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=()
    )

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 is every interface."""

    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on; 0 picks a free one."""

    max_model_len: int | None = Field(default=None, ge=1)
    """Longest prompt plus answer, in tokens; the model's own limit if not given."""

    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Number format of weights and activations; auto is the one in the model's config, and float32
    on a CPU that has no arithmetic for bfloat16."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run; auto is CUDA where the installed vLLM and the machine have it."""

    compile: bool | None = None
    """Whether vLLM compiles the model. Not given: yes on CUDA, no on CPU, where compiling takes
    minutes at every start."""

    kv_cache_gib: float = Field(default=1.0, gt=0)
    """Memory for the KV cache on CPU, in GiB. CUDA uses gpu_memory_utilization instead."""

    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    """Share of the GPU's memory for weights and KV cache together, on CUDA."""

    prefix_caching: bool = True
    """Whether requests that begin alike share the KV cache of their beginning, where the model
    has one to share."""

    database: str | None = None
    """Where keys and what they used are kept: a file, or a URL such as postgresql://USER@HOST/NAME.
    Not given: what LLMKIT_DATABASE names, or llmkit.db among the user's data. none: no keys."""

    drain_seconds: float = Field(default=30.0, ge=0)
    """How long requests in flight may go on after the first SIGTERM or Ctrl-C."""

    max_running: int | None = Field(default=None, ge=1)
    """Requests that the engine is given at a time; more wait in the server's queue. Not given: as
    many as the engine batches (vLLM's max_num_seqs)."""

    max_queue: int = Field(default=1000, ge=0)
    """Requests that may wait for the engine; one more is refused."""

    queue_seconds: float = Field(default=60.0, gt=0)
    """Longest wait for the engine; then the request is refused."""

    request_seconds: float = Field(default=600.0, gt=0)
    """Longest time for a request from its arrival to the end of its answer; then it is ended."""

    max_connections: int = Field(default=2000, ge=1)
    """Connections at a time; one more is refused."""

    playground: bool = True
    """Whether the server offers its web page at /."""

    chat_template: Path | None = None
    """A .jinja file to use instead of the chat template beside the model."""

    tool_parser: str | None = None
    """Name of vLLM's parser for the model's tool calls, such as hermes or llama3_json. Without
    one, tools are called only where a request demands it (tool_choice)."""

    max_logprobs: int = Field(default=20, ge=0)
    """Most alternatives that a request may ask for at each token."""

    max_body_bytes: int = Field(default=4 * 2**20, ge=1024)
    """Largest body of a request; files for batches have a limit of their own."""

    max_bodies_bytes: int = Field(default=256 * 2**20, ge=1024)
    """Bytes that the bodies of all requests under way may take together, as they were sent and as
    they were read; one more is refused."""

    max_messages: int = Field(default=2_000, ge=1)
    """Most messages in a conversation."""

    max_choices: int = Field(default=128, ge=1)
    """Most answers to one request: its prompts times n."""

    max_schema_chars: int = Field(default=65_536, ge=1)
    """Most characters in a request's JSON schemas together, tools' among them."""

    access_log: Path | None = None
    """File for one JSON object a line about every request, such as /dev/stdout. None if not
    given."""

    otlp_endpoint: str | None = Field(default=None, pattern=r"^https?://\S+$")
    """Where OpenTelemetry traces go, by OTLP over HTTP: http://localhost:4318/v1/traces. None are
    made if not given."""

    metrics_label_limit: int = Field(default=100, ge=1)
    """How many keys, and how many models and adapters, have metrics of their own; later ones
    share the label "other"."""

    log_level: Literal["debug", "info", "warning", "error"] = "error"
    """What vLLM writes to the terminal. Its warnings are about its own internals and come
    by the dozen at every start, hence errors only."""

    batches_folder: Path | None = None
    """Folder for files and offline batches (/v1/files, /v1/batches), which are not offered without
    one. Batches that have not ended go on from there after a restart."""

    batch_concurrency: int = Field(default=16, ge=1)
    """Lines of batches that run at a time while nobody else asks anything, though never more than
    half of max_running; an eighth of that beside other requests."""

    max_batch_bytes: int = Field(default=200 * 2**20, ge=1024)
    """Largest file for a batch."""

    max_batch_lines: int = Field(default=50_000, ge=1)
    """Most requests in a batch."""

    max_batches: int = Field(default=100, ge=1)
    """Batches of one key that have not ended."""

    max_files_bytes: int = Field(default=10 * 2**30, ge=1024)
    """What the files of one key may hold together before it may add no more."""

    adapters_folder: Path | None = None
    """Folder below which LoRA adapters may be loaded while the server runs (/v1/adapters), such
    as runs/. What is served is recorded there, and served again after a restart."""

    max_adapters: int = Field(default=4, ge=1, le=256)
    """Adapters from adapters_folder that can be loaded at a time; each takes memory from the
    start."""

    max_adapter_rank: int = Field(default=64, ge=1, le=512)
    """Largest rank of an adapter from adapters_folder."""
