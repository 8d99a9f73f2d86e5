"""What counts as an evaluation text in the training data, and what is done about it.

A text is compared by its words (see `data_prep.dedup.kernels`): case, punctuation and spacing do
not count. Openings and endings that many texts of one evaluation set share (the template around
the questions) are left out of the comparison, and runs of words that many of them share are no
evidence.

Source:
    Brown et al. (2020), arXiv 2005.14165, appendix C: runs of N words, N being the 5th percentile
    of a set's lengths, at least 8 and at most 13. Here N adapts to each text: a text of 8 to 13
    words is one run. Touvron et al. (2023), arXiv 2307.09288, appendix A.6: the share of a text
    that is covered decides, not one run that both have.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

Side = Literal["prompt", "response"]
Method = Literal["exact", "ngram", "fuzzy", "semantic"]
METHODS: tuple[Method, ...] = ("exact", "ngram", "fuzzy", "semantic")
"""Strongest evidence first."""
Kind = Literal["leak", "look-alike"]


class EvaluationSet(BaseModel):
    """An evaluation set, and which of its fields hold text that must not be trained on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(min_length=1)
    """Anything that a source of rows can be."""
    name: str = ""
    """What the report calls it; the path when empty."""
    fields: list[str] = []
    """Fields with questions: ``prompt``, ``doc.question`` (nested), ``turns`` (each text of the
    list), ``messages`` (the user's turns), ``instruction+input`` (one text of both). When empty,
    the first of the usual names that a record has; the report says which."""
    answers: list[str] = []
    """Fields with reference answers, looked for in training responses; none by default."""
    on: Literal["prompt", "response", "both"] = "both"
    """Where questions are looked for. A question in a response teaches it as well."""

    @property
    def title(self) -> str:
        """What the report calls the set."""
        return self.name or self.path


class NgramConfig(BaseModel):
    """Runs of words that both texts have."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int = Field(default=13, ge=2, le=100)
    """Words in a run; a shorter text is one run."""
    coverage: float = Field(default=0.4, gt=0, le=1)
    """The share of the evaluation text's runs that the training text has."""


class FuzzyConfig(BaseModel):
    """Sets of words that are alike."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    threshold: float = Field(default=0.6, gt=0, le=1)
    """Jaccard similarity of the evaluation text's words and those of the most similar stretch of
    the training text that has as many words."""
    min_words: int = Field(default=20, ge=4)
    """In a shorter text, one other word may make another question: it is not compared so."""


class SemanticConfig(BaseModel):
    """Meanings that are alike, under a sentence-embedding model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    threshold: float = Field(default=0.9, gt=0, le=1)
    """Cosine of the two texts' embeddings."""
    model: str = Field(default="all-minilm-l6-v2", min_length=1)
    """The sentence-embedding model: a catalogue name, a sentence-transformers folder, a hub id."""


class ContaminationConfig(BaseModel):
    """Which evaluation texts are looked for in the training rows, how, and what follows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    against: list[
        Annotated[
            EvaluationSet,
            BeforeValidator(lambda value: {"path": value} if isinstance(value, str) else value),
            WithJsonSchema({"anyOf": [{"type": "string"}, EvaluationSet.model_json_schema()]}),
        ]
    ] = Field(min_length=1)
    """Evaluation sets; a plain string is short for ``{path: ...}``."""
    exact: bool = True
    """The whole evaluation text stands in the training text, word for word."""
    ngram: NgramConfig | None = NgramConfig()
    fuzzy: FuzzyConfig | None = FuzzyConfig()
    semantic: SemanticConfig | None = None
    """Needs a sentence-embedding model."""
    min_words: int = Field(default=8, ge=2)
    """A question with fewer words counts only where it is the whole prompt or a line of it;
    an answer, which is less telling, needs ``ngram.size`` words or it is not looked for."""
    numbers: Literal["distinct", "merge"] = "distinct"
    """A question with other figures: a look-alike, reported and kept; or a leak like others."""
    action: Literal["drop", "report", "refuse"] = "drop"
    """What happens to training rows with a leak: dropped and counted, kept and reported, or
    preparation refuses to go on."""
    examples: int = Field(default=5, ge=0, le=1000)
    """Leaks, and look-alikes, that the report shows of each set."""

    @property
    def run_words(self) -> int:
        """Words in a run: whole texts are found by their runs, too."""
        return (self.ngram or NgramConfig()).size

    @property
    def answer_words(self) -> int:
        """Words from which an answer is looked for."""
        return max(self.min_words, self.run_words)

    @model_validator(mode="after")
    def _something_to_do(self) -> Self:
        titles = [each.title for each in self.against]
        for title in titles:
            if titles.count(title) > 1:
                raise ValueError(f"{title} is listed more than once; give each a name of its own")
        if not (self.exact or self.ngram or self.fuzzy or self.semantic):
            raise ValueError(
                "every method is off; allowed: exact, ngram, fuzzy, semantic, at least one"
            )
        return self
