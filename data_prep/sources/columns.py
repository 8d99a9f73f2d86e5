"""The names of a table's columns."""

from collections import Counter
from collections.abc import Sequence

from data_prep.errors import DataError


def refuse_repeated(path: str, columns: Sequence[str]) -> None:
    """Refuse a table in which one column would hide another.

    Raises:
        DataError: two columns have one name.
    """
    repeated = sorted(name for name, count in Counter(columns).items() if count > 1)
    if repeated:
        shown = ", ".join(map(repr, repeated[:5])) + (", ..." if len(repeated) > 5 else "")
        raise DataError(f"{path}: several columns are named {shown}.")
