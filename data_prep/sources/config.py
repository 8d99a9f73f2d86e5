"""Where rows come from, and which of them are meant."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from data_prep.formats.registry import FormatName
from data_prep.sources.kinds import kind_of

TextUnit = Literal["line", "paragraph", "file"]


class SourceConfig(BaseModel):
    """One place that rows come from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(min_length=1)
    """A file (.json, .jsonl, .ndjson, .csv, .tsv, .txt, each also as .gz or .zst; .parquet), a
    folder of them or one that `datasets` made, a pattern (``data/**/*.jsonl``), or a data set id
    on the hub (``owner/name``). Several files are read in the order of their names."""
    format: FormatName = "auto"
    """How a record becomes a conversation; ``auto`` looks at the fields and says what it chose."""
    split: str = "train"
    """Which split of a hub data set, or of a folder whose file names name splits."""
    name: str | None = Field(default=None, min_length=1)
    """Which configuration of a hub data set, where it has several."""
    revision: str | None = Field(default=None, min_length=1)
    """Which version of a hub data set: a branch, a tag or a commit; a commit never changes."""
    streaming: bool = False
    """Read a hub data set over the network as rows are asked for, instead of fetching it whole.
    Files are always read piece by piece."""
    text_unit: TextUnit = "line"
    """What a record of a .txt file is: a line, a paragraph (lines up to a blank one), or the
    whole file. Blank lines are no records."""
    skip: int = Field(default=0, ge=0)
    """Records left out at the beginning, readable or not."""
    take: int | None = Field(default=None, ge=1)
    """The most records that are read, readable or not, after ``skip``; all when left out."""
    weight: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """This source's share in a mixture, beside the weights of the others."""
    group: str | None = Field(default=None, min_length=1)
    """A field of the records: rows with one value of it are never parted into training and
    validation."""

    @field_validator("split", "name", "revision", "streaming", "text_unit")
    @classmethod
    def _means_something(cls, value: object, info: ValidationInfo) -> object:
        kind = kind_of(Path(info.data.get("path", "")))
        if not kind or value == cls.model_fields[str(info.field_name)].default:
            return value
        if info.field_name != "text_unit":
            raise ValueError(f"is for hub data sets, and {info.data['path']} is a file")
        if kind.format != "text":
            raise ValueError(f"is for .txt files, and {info.data['path']} is none")
        return value

    def hub_settings(self) -> list[str]:
        """The settings that were made and mean something for a hub data set only."""
        own = {name: field.default for name, field in type(self).model_fields.items()}
        hub = ("split", "name", "revision", "streaming")
        return [name for name in hub if getattr(self, name) != own[name]]

    def shares_records_with(self, other: "SourceConfig") -> bool:
        """Both name one place, and their ``skip`` and ``take`` do not keep them apart."""
        mine, theirs = ((each.path, each.split, each.name, each.revision) for each in (self, other))
        first, second = sorted((self, other), key=lambda each: each.skip)
        apart = first.take is not None and first.skip + first.take <= second.skip
        return mine == theirs and not apart
