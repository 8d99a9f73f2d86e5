"""What can be wrong with an answer, as far as that can be told without asking anybody.

Source: WizardLM (Xu et al., 2023, arXiv 2304.12244), section 3.2: a short answer with "sorry" in
it, and one of only punctuation and stop words.
"""

import re
from collections.abc import Mapping
from typing import Literal

from data_prep.filters.candidate import Candidate
from data_prep.filters.refusals import RefusalsFilter
from data_prep.generate.asking import Reply
from data_prep.rows import Conversation, Message

AnswerFault = Literal[
    "unanswered", "cut answer", "empty answer", "refusal", "low score", "unscored"
]

ANSWER_FAULTS: Mapping[str, str] = {
    "unanswered": "the teacher did not answer, or not in a way that could be read",
    "cut answer": "the answer ran into sampling.max_tokens",
    "empty answer": "the answer has nothing but punctuation and stop words",
    "refusal": "the answer is short and refuses",
    "low score": "the judge's scores are below those that are asked for",
    "unscored": "the judge's answer could not be read",
}

SHORT = 80
"""Words below which an answer that says sorry counts as a refusal."""


def fault_of(reply: Reply) -> AnswerFault | None:
    """What is wrong with an answer; None when nothing is."""
    if reply.finish_reason in ("refused", "content_filter"):
        return "unanswered"
    if says_nothing(reply.text):
        return "empty answer"
    if refuses(reply.text):
        return "refusal"
    return None if reply.is_whole else "cut answer"


def refuses(answer: str) -> bool:
    """Whether an answer is short and says sorry, or begins with a refusal."""
    if len(answer.split()) >= SHORT:
        return False
    return "sorry" in answer.lower() or _begins_with_refusal(answer)


def _begins_with_refusal(answer: str) -> bool:
    row = Conversation((Message("user", ""), Message("assistant", answer)))
    return RefusalsFilter(kind="refusals").judge(Candidate(row, 0)) is not True


def says_nothing(answer: str) -> bool:
    """Whether an answer is only punctuation and stop words."""
    return all(word in STOP_WORDS for word in re.findall(r"[^\W_]+(?:'[^\W_]+)?", answer.lower()))


_STOP_WORDS = """
a about above after again against all am an and any are aren't as at be because been before
being below between both but by can can't cannot could couldn't did didn't do does doesn't doing
don't down during each few for from further had hadn't has hasn't have haven't having he her
here hers herself him himself his how i i'd i'll i'm i've if in into is isn't it it's its itself
let's me more most mustn't my myself no nor not of off on once only or other ought our ours
ourselves out over own same shan't she should shouldn't so some such than that that's the their
theirs them themselves then there there's these they this those through to too under until up
very was wasn't we were weren't what when where which while who whom why with won't would
wouldn't you your yours yourself yourselves
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
