"""Our settings in vLLM's terms: environment variables and engine arguments. Imports no vLLM."""

from __future__ import annotations

import math
import os
from typing import Any

import psutil

from serve.device import Device, computes_bfloat16
from serve.model import ServedModel, rank_with_kernels
from serve.settings import ServeSettings
from serve.tracing import SERVICE_NAME

_GIB = 2**30
_SHAPES_KEPT = "256"


OVERRIDING = ("VLLM_CPU_KVCACHE_SPACE", "VLLM_API_KEY")
"""Variables that vLLM puts above the settings it is given."""


def environment(settings: ServeSettings, device: Device) -> dict[str, str]:
    """The variables that must be set before vLLM is imported, here and in its children."""
    variables = {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        # The model is a local folder: nothing is to be looked up or fetched.
        "HF_HUB_OFFLINE": "1",
        "VLLM_LOGGING_LEVEL": settings.log_level.upper(),
        "VLLM_LOGGING_STREAM": "ext://sys.stderr",
        # spawn: this process has threads by the time the engine starts, which fork does not bear.
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        # Lets the engine's process know whose death to watch for; see serve.engine_guard.
        "LLMKIT_SERVER_PID": str(os.getpid()),
    }
    if device == "cpu":
        # The worker then runs inside the engine's process instead of one of its own, which
        # saves a third import of vLLM (some 10 s of start-up) and a hop per token. vLLM's
        # reason against it is core binding across several workers; here there is one.
        variables["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        # One core stays free for this process and the scheduler. With a thread on every core
        # each parallel region waits for whichever thread they push aside: 2 tokens/s instead
        # of 32 on a busy machine of 2 cores.
        variables["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(_compute_threads()))
        # oneDNN keeps the code that it makes for every shape of a batch, for 1,024 of them in each
        # of two caches: memory that grows for hours. So few cost no speed that could be measured.
        for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
            variables[name] = os.environ.get(name, _SHAPES_KEPT)
    if settings.otlp_endpoint:
        variables |= {
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            "OTEL_SERVICE_NAME": os.environ.get("OTEL_SERVICE_NAME", SERVICE_NAME),
        }
    if settings.log_level in ("warning", "error"):
        # Python's and torch's own chatter, which vLLM's level does not reach.
        variables |= {"PYTHONWARNINGS": "ignore", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    return variables


def _compute_threads() -> int:
    usable = len(os.sched_getaffinity(0))
    return max(1, min(usable, psutil.cpu_count(logical=False) or usable) - 1)


def compiles(settings: ServeSettings, device: Device) -> bool:
    """Whether vLLM will compile the model."""
    return settings.compile if settings.compile is not None else device == "cuda"


def dtype_of(settings: ServeSettings, device: Device) -> str:
    """The number format in vLLM's terms: ``auto`` is the one in the model's config."""
    if settings.dtype == "auto" and device == "cpu" and not computes_bfloat16():
        return "float32"
    return settings.dtype


def engine_arguments(model: ServedModel, settings: ServeSettings, device: Device) -> dict[str, Any]:
    """What differs from vLLM's defaults, by the names in its parsed arguments."""
    arguments: dict[str, Any] = {
        "model": str(model.path),
        "served_model_name": [model.name],
        "dtype": dtype_of(settings, device),
        "max_model_len": settings.max_model_len,
        "enforce_eager": not compiles(settings, device),
        # None is vLLM's choice: on, but for models that have none. With True those do not start.
        "enable_prefix_caching": None if settings.prefix_caching else False,
        "chat_template": str(settings.chat_template) if settings.chat_template else None,
        # Loading code from the model's folder would let a model run anything.
        "trust_remote_code": False,
        "disable_fastapi_docs": True,
        "max_logprobs": settings.max_logprobs,
        # Whether a model may call tools by its own choice is decided before requests come here.
        "enable_auto_tool_choice": True,
        # vLLM wants a parser for calls that a request demands as well. There the engine itself
        # writes the parser's marks, so that any model can do with any parser.
        "tool_call_parser": settings.tool_parser or "hermes",
        # Arguments fit the tool's schema whether or not the tool says `strict`: without it,
        # vLLM lets a required call have any JSON for arguments, a bare string too.
        "tool_strict_level": "parameter",
        "use_tqdm_on_load": settings.log_level in ("debug", "info"),
        "worker_extension_cls": _ENGINE_GUARD,
        # Only matters when something signals the engine's process itself, as systemd does.
        "shutdown_timeout": math.ceil(settings.drain_seconds),
    }
    if device == "cpu":
        arguments["kv_cache_memory_bytes"] = int(settings.kv_cache_gib * _GIB)
        arguments["worker_extension_cls"] = _CPU_GUARD
    else:
        arguments["gpu_memory_utilization"] = settings.gpu_memory_utilization
    if settings.batches_folder:
        # Lines of batches have a higher number, and wait; see serve.gateway.engine_tokens.
        arguments["scheduling_policy"] = "priority"
    if settings.otlp_endpoint:
        arguments["otlp_traces_endpoint"] = settings.otlp_endpoint
    arguments |= _adapter_arguments(model, settings)
    if "enable_lora" in arguments and device == "cpu" and not compiles(settings, device):
        # A compiled model would keep the first batch's rows for all others.
        arguments["worker_extension_cls"] = _CPU_LORA_GUARD
    return arguments


_ENGINE_GUARD = "serve.engine_guard.EngineGuard"
_CPU_GUARD = "serve.vllm_seeds.CpuGuard"
"""The same on CPU, where requests' seeds need help; see there."""
_CPU_LORA_GUARD = "serve.vllm_lora.CpuLoraGuard"
"""That one with adapters' products of our own; see there."""

BASE = "base"
"""What the base is called beside adapters, next to its own name."""


def _adapter_arguments(model: ServedModel, settings: ServeSettings) -> dict[str, Any]:
    slots, rank = len(model.adapters), model.max_lora_rank
    if settings.adapters_folder is not None:
        slots += settings.max_adapters
        rank = max(rank, rank_with_kernels(settings.max_adapter_rank))
    if not slots:
        return {}
    return {
        "enable_lora": True,
        # One slot to spare, so that the last one is never in use: on CPU, vLLM 0.32 takes the
        # last slot's weights for a base request that is in one batch with an adapter's. It also
        # means that vLLM, which drops the adapter used longest ago when slots run out, never does.
        "max_loras": slots + 1,
        "max_lora_rank": rank,
        "served_model_name": list(base_names(model)),
    }


def base_names(model: ServedModel) -> tuple[str, ...]:
    """What requests may call the base beside adapters; its own name first."""
    taken = {model.name, *model.adapters}
    return (model.name,) if BASE in taken else (model.name, BASE)
