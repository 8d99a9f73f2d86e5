"""The document of batches names the settings that there are, and their defaults."""

import re
from pathlib import Path

from serve.settings import ServeSettings

DOCUMENT = Path(__file__).parents[3] / "docs" / "serving" / "batches.md"


def test_the_document_names_the_settings_with_their_defaults() -> None:
    text = DOCUMENT.read_text(encoding="utf-8").partition("## Settings")[2]
    told = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", text, re.MULTILINE))
    units = {"MiB": 2**20, "GiB": 2**30}
    assert set(told) == {name for name in ServeSettings.model_fields if "batch" in name} | {
        "max_files_bytes"
    }
    for name, default in told.items():
        number, _, unit = default.strip().partition(" ")
        value = None if number == "none" else int(number) * units.get(unit, 1)
        assert ServeSettings.model_fields[name].default == value, name
