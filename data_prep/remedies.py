"""What a person can do about rows that cannot be used, by the reason why."""

from collections.abc import Iterable

from data_prep.decisions import IN_VALIDATION
from data_prep.ledger import FILTERED

_REMEDIES = {
    "refused by the chat template": "model.chat_template names another one, which renders them",
    "role order": "data.roles=merge joins repeated turns, data.roles=drop drops such rows",
    "special token in the text": "data.markers=escape makes plain text of them, data.markers=drop "
    "drops such rows",
    "template loses the tools": "none of the templates known by name writes tools; "
    "model.chat_template=keep does with a model that was made to call them (Qwen2.5 and its "
    "like), or name a .jinja file that does",
    "preference row": "training.method=sft teaches every answer as a good one; rows that say which "
    "is better are for a method that learns from preferences, and llmkit prep --convert "
    "preference (or kto, where each answer has a label) writes them for one",
    "over max_tokens": "raise data.max_tokens, or keep parts of them: data.overlong=split",
    IN_VALIDATION: "take other rows to validate with",
    "nothing supervised left": "their prompts fill the window: raise data.max_tokens",
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
