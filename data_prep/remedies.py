"""What a person can do about rows that cannot be used, by the reason why."""

from collections.abc import Iterable

from data_prep.decisions import IN_VALIDATION
from data_prep.dedup.certificates import CONTRADICTING
from data_prep.ledger import FILTERED
from data_prep.overlong import NOTHING_LEFT, TOO_LONG
from data_prep.units import EQUAL_WITHIN, OTHER_KIND

_REMEDIES = {
    "refused by the chat template": "model.chat_template names another one, which renders them",
    "role order": "data.roles=merge joins repeated turns, data.roles=drop drops such rows",
    "special token in the text": "data.markers=escape makes plain text of them, data.markers=drop "
    "drops such rows",
    "template loses the tools": "none of the templates known by name writes tools; "
    "model.chat_template=keep does with a model that was made to call them (Qwen2.5 and its "
    "like), or name a .jinja file that does",
    OTHER_KIND["rows"]: "training.method=sft, pretrain and distill teach every answer as a good "
    "one; dpo, orpo or reward learns from chosen and rejected answers, kto from labelled ones",
    OTHER_KIND["pairs"]: "training.method=sft learns from rows with one answer, kto from those "
    "that are labelled",
    OTHER_KIND["labelled"]: "training.method=sft learns from rows with one answer, dpo, orpo and "
    "reward from chosen and rejected ones",
    TOO_LONG: "raise data.max_tokens, or keep parts of them: data.overlong=split, or truncate "
    "where answers are preferred to others",
    EQUAL_WITHIN: "raise data.max_tokens",
    CONTRADICTING: "of rows that say opposite things keep the right one in the source",
    IN_VALIDATION: "take other rows to validate with",
    NOTHING_LEFT: "their prompts fill the window: raise data.max_tokens",
}


def remedies(reasons: Iterable[str]) -> list[str]:
    """What helps against some reasons, each once; nothing for those that only mending helps."""
    known = (_REMEDIES.get(reason) for reason in sorted(reasons))
    return list(dict.fromkeys(remedy for remedy in known if remedy))


def remedy_of_the_most_frequent(reason: str) -> str:
    """A sentence on why most rows went, and what to do about it."""
    if reason.startswith(FILTERED):
        found = "set it otherwise in data.filters, or take it out"
    else:
        found = "; ".join(remedies([reason])) or "mend them in the source"
    return f" Most frequent: {reason}; {found}."
