"""The least and the most of something, as several filters have them."""

from data_prep.filters.candidate import Verdict


def check_limits(least: float | None, most: float | None) -> None:
    """Refuse limits that say nothing, or that no row could keep.

    Raises:
        ValueError: both are left out, or the least is above the most.
    """
    if least is None and most is None:
        raise ValueError("says neither min nor max, so it would drop nothing; give one or both")
    if least is not None and most is not None and least > most:
        raise ValueError(f"min ({least}) is above max ({most}), so every row would be dropped")


def within(found: float, least: float | None, most: float | None, what: str) -> Verdict:
    """Judge a figure by its limits; both belong to what is allowed.

    Args:
        found: the figure.
        least: the smallest that stays; None for no limit.
        most: the largest that stays; None for no limit.
        what: the figure in words, as the ledger shows it: ``12 tokens``.
    """
    if least is not None and found < least:
        return False, f"{what}, min={least}"
    if most is not None and found > most:
        return False, f"{what}, max={most}"
    return True


def within_share(
    part: int, total: int, least: float | None, most: float | None, what: str
) -> Verdict:
    """Judge the share that a part has of a text; of an empty text nothing is known, and it stays.

    Args:
        part: characters of the part.
        total: characters of the text.
        least: the smallest share that stays; None for no limit.
        most: the largest share that stays; None for no limit.
        what: what the part is: ``of response is code``.
    """
    if not total:
        return True
    share = part / total
    return within(share, least, most, f"{share:.1%} {what}")
