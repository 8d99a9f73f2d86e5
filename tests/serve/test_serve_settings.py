import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from serve.device import Device, choose_device, computes_bfloat16
from serve.errors import DeviceNotAvailable
from serve.model import ServedModel
from serve.settings import ServeSettings
from serve.vllm_settings import dtype_of, engine_arguments, environment

MODEL = ServedModel(Path("/models/demo"), "demo")
TWO_ADAPTERS = ServedModel(Path("/m"), "m", {"a": Path("/a"), "b": Path("/b")}, 32)


def test_the_defaults_are_loopback_and_no_field_is_required() -> None:
    assert ServeSettings().host == "127.0.0.1"


def test_every_field_is_described() -> None:
    assert all(field.description for field in ServeSettings.model_fields.values())


@pytest.mark.parametrize(
    "wrong",
    [{"port": 70000}, {"port": -1}, {"prot": 1}, {"kv_cache_gib": 0}, {"dtype": "int8"}],
)
def test_a_wrong_setting_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ServeSettings.model_validate(wrong)


def test_cpu_is_eager_and_cuda_compiled_unless_asked() -> None:
    for device, compile_, eager in [
        ("cpu", None, True),
        ("cuda", None, False),
        ("cpu", True, False),
        ("cuda", False, True),
    ]:
        arguments = engine_arguments(MODEL, ServeSettings(compile=compile_), device)
        assert arguments["enforce_eager"] is eager


def test_a_models_own_code_is_never_run() -> None:
    assert "trust_remote_code" not in ServeSettings.model_fields
    everything = ServeSettings(
        chat_template=Path("t.jinja"),
        tool_parser="hermes",
        adapters_folder=Path("runs"),
        batches_folder=Path("batches"),
        otlp_endpoint="http://localhost:4318/v1/traces",
    )
    for settings in (ServeSettings(), everything):
        for device in ("cpu", "cuda"):
            for model in (MODEL, TWO_ADAPTERS):
                assert engine_arguments(model, settings, device)["trust_remote_code"] is False  # type: ignore[arg-type]


def test_no_cpu_argument_is_passed_on_cuda() -> None:
    settings = ServeSettings(kv_cache_gib=0.5)
    assert engine_arguments(MODEL, settings, "cpu")["kv_cache_memory_bytes"] == 2**29
    assert "kv_cache_memory_bytes" not in engine_arguments(MODEL, settings, "cuda")
    assert "gpu_memory_utilization" not in engine_arguments(MODEL, settings, "cpu")
    cuda_only = environment(settings, "cuda")
    assert not {"OMP_NUM_THREADS", "VLLM_ENABLE_V1_MULTIPROCESSING"} & set(cuda_only)


def test_one_adapter_slot_is_left_to_spare() -> None:
    arguments = engine_arguments(TWO_ADAPTERS, ServeSettings(), "cpu")
    assert (arguments["max_loras"], arguments["max_lora_rank"]) == (3, 32)
    assert "enable_lora" not in engine_arguments(MODEL, ServeSettings(), "cpu")


def test_adapters_have_our_products_on_cpu_unless_the_model_is_compiled() -> None:
    def extension(model: ServedModel, device: Device, compile_: bool) -> str:
        arguments = engine_arguments(model, ServeSettings(compile=compile_), device)
        return str(arguments["worker_extension_cls"]).rpartition(".")[2]

    assert extension(TWO_ADAPTERS, "cpu", False) == "CpuLoraGuard"
    assert extension(TWO_ADAPTERS, "cpu", True) == "CpuGuard"
    assert extension(TWO_ADAPTERS, "cuda", False) == "EngineGuard"
    assert extension(MODEL, "cpu", False) == "CpuGuard"


def test_the_number_of_threads_that_the_user_chose_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert environment(ServeSettings(), "cpu")["OMP_NUM_THREADS"] == "7"
    monkeypatch.delenv("OMP_NUM_THREADS")
    threads = int(environment(ServeSettings(), "cpu")["OMP_NUM_THREADS"])
    assert 1 <= threads <= max(1, len(os.sched_getaffinity(0)) - 1)


def test_auto_is_what_the_build_and_the_machine_have() -> None:
    assert choose_device("auto", build="cpu", gpu=True) == "cpu"
    assert choose_device("auto", build="cuda", gpu=True) == "cuda"


@pytest.mark.parametrize(("asked", "build"), [("cuda", "cpu"), ("cuda", "cuda"), ("auto", "cuda")])
def test_cuda_without_a_gpu_says_how_to_run_on_cpu(asked: str, build: str) -> None:
    with pytest.raises(DeviceNotAvailable, match="device: cpu"):
        choose_device(asked, build=build, gpu=False)  # type: ignore[arg-type]


def test_calls_that_are_demanded_need_no_parser_of_ones_own() -> None:
    plain = engine_arguments(MODEL, ServeSettings(), "cpu")
    assert (plain["tool_call_parser"], plain["enable_auto_tool_choice"]) == ("hermes", True)
    chosen = engine_arguments(MODEL, ServeSettings(tool_parser="llama3_json"), "cpu")
    assert (chosen["tool_call_parser"], chosen["enable_auto_tool_choice"]) == ("llama3_json", True)


@pytest.mark.parametrize(
    ("flags", "can"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 sse2", True),
        ("flags\t\t: fpu amx_bf16", True),
        ("Features\t: fp asimd bf16 i8mm", True),
        ("flags\t\t: fpu avx2 avx512f avx512_vnni", False),
        ("Features\t: fp asimd", False),
        ("power management:", True),
    ],
)
def test_whether_a_cpu_computes_in_bfloat16_stands_in_its_flags(
    flags: str, can: bool, tmp_path: Path
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\n{flags}\n")
    assert computes_bfloat16(cpuinfo) is can
    assert computes_bfloat16(tmp_path / "missing")


def test_auto_is_float32_on_a_cpu_without_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    for can, meant in ((True, "auto"), (False, "float32")):
        monkeypatch.setattr("serve.vllm_settings.computes_bfloat16", lambda can=can: can)
        assert dtype_of(ServeSettings(), "cpu") == meant
        assert engine_arguments(MODEL, ServeSettings(), "cpu")["dtype"] == meant
        assert dtype_of(ServeSettings(), "cuda") == "auto"
        assert dtype_of(ServeSettings(dtype="bfloat16"), "cpu") == "bfloat16"
