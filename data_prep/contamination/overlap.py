"""What is certified of a training row in which an evaluation text stands."""

from pydantic import BaseModel, ConfigDict

from data_prep.contamination.settings import METHODS, Kind, Method, Side


class Overlap(BaseModel):
    """An evaluation text that stands in a training row: the certificate of a row that is dropped.

    Word numbers count the words that `data_prep.dedup.words` finds, from 0.
    """

    model_config = ConfigDict(frozen=True)

    evaluation_set: str
    where: str
    """The evaluation record's place."""
    field: str
    """Where in the record the text stands."""
    group: str
    """The setting that names this field, or the usual name that was recognised."""
    answer: bool
    """A reference answer, not a question."""
    stem: bool
    """Only what stands before the options of a multiple-choice question."""
    side: Side
    """Where in the training row."""
    method: Method
    kind: Kind
    """A look-alike is the same question with other figures."""
    score: float
    """exact: 1. ngram: the share of the evaluation text's runs of words that the training text
    has; for look-alikes whatever the figures in them. fuzzy: the Jaccard similarity of the two
    sets of words. semantic: the cosine."""
    threshold: float
    core: tuple[int, int]
    """Which words of the evaluation text were compared: all but the template around them."""
    at: int
    """The word of the training text where the match begins."""
    length: int
    """Words that the match, or the stretch that was compared, has there."""
    text: int
    """The evaluation text's number in the index."""
    model: str = ""
    """Of a cosine: the embedder's name, a hash of its files in it."""

    def describe(self) -> str:
        """One line for a ledger."""
        part = " without its options" if self.stem else ""
        return (
            f"{self.evaluation_set}: {self.field} of {self.where}{part}: in the {self.side}, "
            f"{self.method} {self.score:.2f}, threshold {self.threshold:g}"
        )

    @property
    def strength(self) -> tuple[bool, int, float]:
        """Sorts the strongest evidence first."""
        return self.kind != "leak", METHODS.index(self.method), -self.score
