"""What a folder's weight files hold, from their heads: nothing is loaded."""

from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open

_NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}


@dataclass(frozen=True)
class WeightFiles:
    """The safetensors files of a model folder."""

    bytes: int
    dtypes: frozenset[str]
    """As torch names them (``bfloat16``); others as the file does."""


def read_heads(folder: Path) -> WeightFiles | None:
    """The folder's weight files; None where it has none, as before a model is made.

    Of files in torch's older format (``*.bin``) neither size nor types are known: 0, none.
    """
    size, kinds = 0, set()
    for path in sorted(folder.glob("*.safetensors")):
        size += path.stat().st_size
        with safe_open(path, "pt") as file:
            kinds |= {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    if not size and not any(folder.glob("*.bin")):
        return None
    return WeightFiles(size, frozenset(_NAMES.get(kind, kind) for kind in kinds))
