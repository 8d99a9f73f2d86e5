"""What a person says about data: where it comes from and how it becomes training sequences."""

from itertools import combinations
from math import inf
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from data_prep.contamination.settings import ContaminationConfig
from data_prep.dedup.deduplicate import DedupConfig
from data_prep.filters.settings import FilterConfigs
from data_prep.mixture import MixtureConfig
from data_prep.overlong import Overlong
from data_prep.reading import RolesPolicy
from data_prep.rendering import Supervise
from data_prep.selection.settings import SelectionConfig
from data_prep.sources.config import SourceConfig


class DataConfig(BaseModel):
    """What data, and how it becomes training sequences."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sources: list[SourceConfig] = Field(min_length=1)
    """Where the rows come from, in order."""
    validation: int | float | SourceConfig = Field(default=0, union_mode="left_to_right")
    """Held out: a fraction of the rows (0.1), a number of rows (100), or a source of its own."""
    filters: FilterConfigs = ()
    """Rules by which rows are left out, in the order in which they judge."""
    keep_together: Literal["near-duplicates", "questions"] = "near-duplicates"
    """Rows that must not be parted by the split: those that ask the same question, and by default
    also those whose words are nearly the same, in chains."""
    max_tokens: int = Field(default=2048, ge=8)
    """The training context length: the longest row and the size of a pack; where two answers are
    compared, that of one row, and a pack has room for two."""
    overlong: Overlong = "drop"
    """Rows longer than ``max_tokens``: left out; cut (the cut end is never taught as an end); or
    split into pieces, between turns wherever there are any."""
    packing: bool = True
    """Several rows in one sequence; they never see each other."""
    dedup: DedupConfig = DedupConfig()
    contamination: ContaminationConfig | None = None
    """Evaluation sets that must not be trained on; null looks for none."""
    select: SelectionConfig | None = None
    """Which of the rows that are left are trained on; null takes all of them."""
    mixture: MixtureConfig | None = None
    """How the sources' weights are understood."""
    max_duplicates: float = Field(default=0.5, ge=0, le=1)
    """The largest share of rows that may be duplicates, or rows whose question is in the
    validation source, before preparation refuses to go on."""
    on_error: Literal["fail", "skip"] = "fail"
    """Rows that cannot be used: all named in one error, or dropped and counted in the ledger."""
    roles: RolesPolicy = "refuse"
    """Two turns of one role in a row and the like: as ``on_error`` says, dropped, or merged."""
    markers: Literal["refuse", "drop", "escape"] = "refuse"
    """Special tokens typed inside a message: as ``on_error`` says, dropped, or changed so that
    they are read as text."""
    supervise: Supervise = "answers"
    """What carries loss: every assistant turn, the ``last`` one alone, or ``all`` tokens."""
    seed: int = Field(default=0, ge=0, lt=2**64)
    """Decides which rows are held out."""
    workers: int | None = Field(default=None, ge=1, le=1024)
    """Processes that rows are made in, by default one a core; the result is the same for any."""
    shard_rows: int = Field(default=2048, ge=1)
    """Rows that are made and kept on disk at a time; the result is the same for any number."""

    @property
    def all_sources(self) -> list[SourceConfig]:
        """Every source that is read, the validation's own one last."""
        own = [self.validation] if isinstance(self.validation, SourceConfig) else []
        return [*self.sources, *own]

    @property
    def weights(self) -> list[float]:
        """The sources' weights; none when no shares were asked for."""
        return [source.weight for source in self.sources if source.weight is not None]

    @field_validator("sources")
    @classmethod
    def _each_once(cls, value: list[SourceConfig]) -> list[SourceConfig]:
        for first, second in combinations(value, 2):
            if first.shares_records_with(second):
                raise ValueError(
                    f"{first.path} is listed more than once; give the entries a skip and a take "
                    "that do not overlap"
                )
        return value

    @model_validator(mode="after")
    def _weights(self) -> Self:
        weighed = [source.weight is not None for source in self.sources]
        if any(weighed) and not all(weighed):
            missing = self.sources[weighed.index(False)].path
            raise ValueError(f"sources: either all have a weight or none; {missing} has none")
        if self.mixture and not any(weighed):
            raise ValueError("mixture: needs weights; give every source a weight")
        if self.select and any(weighed):
            raise ValueError(
                "select chooses rows whatever their source, and weights say how many of each "
                "source there are: leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _validation_apart(self) -> Self:
        own = self.validation
        for source in self.sources:
            if isinstance(own, SourceConfig) and own.shares_records_with(source):
                raise ValueError(
                    f"validation: {own.path} is trained on as well; hold out a fraction of it "
                    "(validation: 0.02), or give both a skip and a take that do not overlap"
                )
        return self

    @field_validator("validation", mode="before")
    @classmethod
    def _not_yes_or_no(cls, value: object) -> object:
        if isinstance(value, bool):
            raise ValueError("wants a fraction (0.1), a number of rows (100), or a source")
        return value

    @field_validator("validation")
    @classmethod
    def _fraction_or_number(cls, value: float | SourceConfig) -> float | SourceConfig:
        if isinstance(value, int | float) and not 0 <= value < inf:
            raise ValueError("wants 0 or more")
        if isinstance(value, float) and value >= 1:
            raise ValueError("wants a fraction below 1, or a whole number of rows without a point")
        return value
