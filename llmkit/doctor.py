"""`llmkit doctor`: what this machine can do."""

import os
import platform
import shutil

import psutil

import llmkit


def examine() -> dict[str, str]:
    """Findings by name, in the order in which they matter."""
    import torch

    from llmkit.models.catalog import cache_folder
    from llmkit.models.loading import choose_device, compute_dtype
    from llmkit.run import package_versions

    device = choose_device("auto")
    memory = psutil.virtual_memory()
    found = {
        "llmkit": llmkit.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "memory": f"{memory.total / 2**30:.1f} GiB, {memory.available / 2**30:.1f} GiB free",
        "disk free here": f"{shutil.disk_usage('.').free / 2**30:.1f} GiB",
        "computes on": str(device),
        "computes in": str(compute_dtype(device)).removeprefix("torch."),
        "model cache": str(cache_folder()),
    }
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name()
        found["gpu"] = f"{name}, {total / 2**30:.1f} GiB, {free / 2**30:.1f} GiB free"
    else:
        found["gpu"] = "none; everything runs on the CPU"
    return found | package_versions()
