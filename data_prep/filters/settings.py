"""A recipe's ``filters``: which there are, and how they judge a row one after another."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, Field

from data_prep.filters.blacklist import BlacklistFilter
from data_prep.filters.candidate import Candidate, Filter
from data_prep.filters.characters import CharactersFilter
from data_prep.filters.code import CodeFilter
from data_prep.filters.language import LanguageFilter
from data_prep.filters.pattern import PatternFilter
from data_prep.filters.perplexity import PerplexityFilter
from data_prep.filters.personal import PersonalFilter
from data_prep.filters.refusals import RefusalsFilter
from data_prep.filters.repetition import RepetitionFilter
from data_prep.filters.symbols import SymbolsFilter
from data_prep.filters.tokens import TokensFilter
from data_prep.filters.words import WordsFilter

FilterConfig = Annotated[
    BlacklistFilter
    | CharactersFilter
    | CodeFilter
    | LanguageFilter
    | PatternFilter
    | PerplexityFilter
    | PersonalFilter
    | RefusalsFilter
    | RepetitionFilter
    | SymbolsFilter
    | TokensFilter
    | WordsFilter,
    Field(discriminator="kind"),
]
"""One filter as a recipe says it: ``{kind: tokens, max: 2048}``."""


def _one_perplexity(filters: tuple[FilterConfig, ...]) -> tuple[FilterConfig, ...]:
    if sum(entry.kind == "perplexity" for entry in filters) > 1:
        raise ValueError("perplexity is listed more than once; give min and max in one")
    return filters


FilterConfigs = Annotated[tuple[FilterConfig, ...], AfterValidator(_one_perplexity)]
"""The filters of a recipe, in the order in which they judge."""


def judge_all(
    filters: Sequence[Filter], candidates: Sequence[Candidate]
) -> list[tuple[str, str] | None]:
    """Ask every filter in turn about the rows that those before it have left.

    Returns:
        For each row the kind of the first filter that drops it, and its detail; None when it stays.

    Raises:
        DataError: a filter asks for the perplexity, and a candidate has none.
    """
    found: list[tuple[str, str] | None] = [None] * len(candidates)
    for entry in filters:
        left = [i for i, dropped in enumerate(found) if dropped is None]
        some = [candidates[i] for i in left]
        verdicts = (
            entry.judge_many(some)
            if isinstance(entry, PatternFilter)
            else [entry.judge(each) for each in some]
        )
        for i, verdict in zip(left, verdicts, strict=True):
            if verdict is not True:
                found[i] = entry.kind, verdict[1]
    return found


def perplexity_filter(filters: Sequence[Filter]) -> PerplexityFilter | None:
    """The filter that wants rows scored before they are judged, if there is one."""
    return next((entry for entry in filters if isinstance(entry, PerplexityFilter)), None)
