"""Rules by which Self-Instruct and Alpaca leave new instructions and their cases out.

Source: the published code of Self-Instruct (Wang et al., 2022, arXiv 2212.10560) and of Stanford
Alpaca (Taori et al., 2023).
"""

import re
import string
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from data_prep.generate.tasks import Instance


class InstructionFilters(BaseModel):
    """Which new instructions are left out; the defaults are the published ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    novelty: float = Field(default=0.7, gt=0, le=1)
    """The ROUGE-L from which on an instruction repeats an earlier one."""
    min_words: int = Field(default=4, ge=1)
    max_words: int = Field(default=150, ge=1)
    words: tuple[str, ...] = (
        *("image", "images", "graph", "graphs", "picture", "pictures", "file", "files"),
        *("map", "maps", "draw", "plot", "go to", "video", "audio", "music", "flowchart"),
        "diagram",
    )
    """Words that name what a language model cannot read or do."""
    beginnings: tuple[str, ...] = ("write a program",)
    """Beginnings of which models write endlessly many."""
    ascii_beginning: bool = True
    """Leave out what begins with another script than English; false for other languages."""

    def fault_of(self, instruction: str) -> str | None:
        """Why an instruction is left out, novelty aside; None when it is not."""
        words = instruction.split()
        if len(words) < self.min_words:
            return "too short"
        if len(words) > self.max_words:
            return "too long"
        if any(_stands_in(word, instruction) for word in self.words):
            return "not for a language model"
        if instruction.lower().startswith(self.beginnings):
            return "common beginning"
        if instruction[0] in string.punctuation:
            return "begins with punctuation"
        if self.ascii_beginning and not instruction[0].isascii():
            return "not English"
        return None


def _stands_in(word: str, text: str) -> bool:
    return re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) is not None


INSTRUCTION_FAULTS = {
    "too short": "fewer words than filters.min_words",
    "too long": "more words than filters.max_words",
    "not for a language model": "a word of filters.words: images, files, drawing",
    "common beginning": "one of filters.beginnings",
    "begins with punctuation": "a remainder of formatting, mostly",
    "not English": "begins with another script, and filters.ascii_beginning is set",
    "not new": "ROUGE-L to an earlier instruction reaches filters.novelty",
    "no instances": "no case of it could be read, or all contradict each other",
    "unanswered": "the teacher refused",
    "low score": "the judge's scores are below those that are asked for",
    "unscored": "the judge's answer could not be read",
}
"""Every reason for which an instruction is left out."""


def usable(instances: Sequence[Instance]) -> list[Instance]:
    """The cases of an instruction that can be learned from.

    Left out are empty outputs, outputs that only repeat the input, texts that break off at a colon,
    and repetitions. None is left when two cases have one input and different outputs: no telling
    which is right. Without an input, several outputs may be.
    """
    good = [
        each
        for each in dict.fromkeys(instances)
        if each.output
        and each.input != each.output
        and not each.output.endswith(":")
        and not each.input.endswith(":")
    ]
    inputs = [each.input for each in good if each.input]
    return good if len(set(inputs)) == len(inputs) else []
