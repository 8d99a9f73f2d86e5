"""The names of a table's columns."""

from collections.abc import Sequence

from data_prep.errors import DataError


def refuse_repeated(path: str, columns: Sequence[str]) -> None:
    """Refuse a table in which one column would hide another.

    Raises:
        DataError: two columns have one name.
    """
    repeated = sorted({name for name in columns if columns.count(name) > 1})
    if repeated:
        raise DataError(f"{path}: several columns are named {', '.join(map(repr, repeated))}.")
