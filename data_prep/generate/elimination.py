"""Which evolved instructions are no good, as far as that can be told without asking anybody.

Source: WizardLM (Xu et al., 2023, arXiv 2304.12244), section 3.2, "Elimination Evolving". Whether
anything was gained is the teacher's to judge; for answers see `data_prep.generate.faults`.
"""

from collections.abc import Mapping
from typing import Literal

from data_prep.generate.evol_prompts import LEAKS
from data_prep.generate.faults import ANSWER_FAULTS, AnswerFault

Reason = Literal["leaked", "too many words", "no gain"] | AnswerFault

REASONS: Mapping[str, str] = {
    "leaked": "words of the request stand in the instruction",
    "too many words": "the instruction grew by more words than allowed",
    "no gain": "the teacher finds that it asks for what its parent asks for",
    **ANSWER_FAULTS,
}


def leaked(instruction: str, parent: str) -> bool:
    """Whether an instruction repeats words of the request that its parent does not have."""
    written, before = instruction.lower(), parent.lower()
    return any(words in written and words not in before for words in LEAKS)


def grew_by(child: str, parent: str) -> int:
    """Words that an instruction has more than its parent."""
    return len(child.split()) - len(parent.split())
