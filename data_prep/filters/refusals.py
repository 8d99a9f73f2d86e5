"""Answers that refuse.

Read by hand: of 27 hits in 999 Alpaca rows 24 refuse or deny, of 13 in 489 OpenAssistant ones 12.
The others hedge ("I cannot provide a definitive answer") or speak for somebody who refuses.
"""

import re
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from data_prep.filters.candidate import Candidate, Verdict
from data_prep.filters.words import HAN_AND_KANA

Phrase = Annotated[str, Field(pattern=r"\S")]
PHRASES = (
    "i'm sorry, but i {cannot}",
    "i am sorry, but i {cannot}",
    "i'm sorry, i {cannot}",
    "sorry, but i {cannot}",
    "sorry, i {cannot}",
    "i apologize, but i {cannot}",
    "i apologise, but i {cannot}",
    "i apologize for the inconvenience, but i {cannot}",
    "i apologize for any confusion, but i {cannot}",
    "unfortunately, i {cannot}",
    "i {cannot} fulfill",
    "i {cannot} fulfil",
    "i {cannot} comply",
    "i {cannot} assist",
    "i {cannot} help you with",
    "i {cannot} help with",
    "i {cannot} provide",
    "i {cannot} and will not",
    "i must decline",
    "i must respectfully decline",
    "i must refuse",
    "against my programming",
    *("lo siento, pero no puedo", "lo siento, no puedo"),
    *("désolé, mais je ne peux pas", "désolé, je ne peux pas"),
    *("tut mir leid, aber ich kann", "tut mir leid, ich kann", "tut mir leid, das kann ich nicht"),
    *("desculpe, mas não posso", "sinto muito, mas não posso"),
    *("извините, но я не могу", "извините, я не могу", "к сожалению, я не могу"),
    *(
        "抱歉,我无法",
        "抱歉,但我无法",
        "抱歉,我不能",
        "对不起,我无法",
        "对不起,但我无法",
        "对不起,我不能",
    ),
    *("お答えできません", "お答えすることはできません", "お手伝いできません"),
    *("도와드릴 수 없습니다", "답변할 수 없습니다", "답변드릴 수 없습니다"),
)
"""Refusals, normalised: lower case, plain apostrophes and commas, single spaces. ``{cannot}``
stands for any way to say it: can't, am unable to, don't have."""
_I_CANNOT = (
    "i(?: |'m | am )(?:can't|cannot|can not|couldn't|could not|won't be able to|"
    "will not be able to|unable to|not able to|don't have|do not have)"
)
_ROLES = (
    "as an ai",
    "as an artificial intelligence",
    "as a language model",
    "as a large language model",
    "as an llm",
    "i'm just an ai",
    "i am just an ai",
    "i'm an ai",
    "i am an ai",
    "als ki",
    "als ki-sprachmodell",
    "en tant que modèle de langage",
    "en tant qu'ia",
    "como modelo de lenguaje",
    "como un modelo de lenguaje",
    "como inteligencia artificial",
    "como modelo de linguagem",
    "как языковая модель",
    "как искусственный интеллект",
    "作为一个ai",
    "作为一个人工智能",
    "作为ai",
    "作为人工智能",
)
"""What models call themselves when they refuse, and also when they do not."""
_DENIAL = (
    r"(?:\b(?:can't|cannot|can not|don't|do not|doesn't|does not|haven't|have not|"
    r"am not|i'm not|won't|unable|incapable|nicht|kein|keine|keinen|ne|n'ai|no|não|не|нет)\b"
    "|无法|不|没有)"
)
_SAME_SENTENCE = "[^.!?\u3002\uff01\uff1f]{0,150}"


class RefusalsFilter(BaseModel):
    """Drops rows in which an answer begins by refusing.

    Phrases are found whole, whatever their case, apostrophes, commas and white space; any answer of
    a conversation counts. "As an AI language model" and its like count when the same sentence
    denies something: "As an AI assistant, I'd be happy to" is no refusal.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["refusals"]
    phrases: tuple[Phrase, ...] | None = None
    """What a refusal says; null for the list of its own, in English and, for the commonest, in
    German, French, Spanish, Portuguese, Russian, Chinese, Japanese and Korean."""
    more_phrases: tuple[Phrase, ...] = ()
    """Phrases beside those of the list."""
    within: int | None = Field(default=200, ge=1)
    """Characters from the beginning of each answer in which a phrase must begin; null for all of
    it. Further on, phrases are mostly quoted, or qualify one point of a real answer."""

    def judge(self, candidate: Candidate) -> Verdict:
        """Keep a row none of whose answers refuses."""
        pattern = _any_of(self.phrases, self.more_phrases)
        for answer in candidate.turns("response"):
            # White space may shrink, so that more than ``within`` is read; and a phrase may end
            # beyond it.
            read = answer if self.within is None else answer[: 2 * self.within + 1000]
            found = pattern.search(_normal(read))
            if found and (self.within is None or found.start() < self.within):
                return False, f"an answer says {found[0]!r} at character {found.start()}"
        return True


def _normal(text: str) -> str:
    return " ".join(text.translate(_PLAIN).lower().split())


_PLAIN = str.maketrans({**dict.fromkeys("\u2018\u2019\u02bc\u00b4`\uff07", "'"), "\uff0c": ","})


@lru_cache(maxsize=64)
def _any_of(phrases: tuple[str, ...] | None, more: tuple[str, ...]) -> re.Pattern[str]:
    """The expression of all phrases; one that matches nothing when there are none."""
    wanted = [_whole(phrase) for phrase in (phrases or ()) + more]
    if phrases is None:
        wanted += [_whole(phrase).replace(r"i\ \{cannot\}", _I_CANNOT) for phrase in PHRASES]
        roles = "|".join(_whole(role) for role in _ROLES)
        wanted.append(f"(?:{roles})(?={_SAME_SENTENCE}?{_DENIAL})")
    return re.compile(f"(?<!{_LETTER})(?:{'|'.join(wanted)})" if wanted else "(?!)")


def _whole(phrase: str) -> str:
    return re.escape(_normal(phrase)) + f"(?!{_LETTER})"


_LETTER = rf"[^\W{HAN_AND_KANA}]"
"""Of a script that is written with spaces; Chinese words have no visible ends."""
