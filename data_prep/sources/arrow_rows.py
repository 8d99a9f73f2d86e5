"""Arrow tables -> rows, as Parquet files and hub data sets hold them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from data_prep.errors import DataError

if TYPE_CHECKING:
    import pyarrow

ROWS_AT_ONCE = 1024
"""Rows made into Python values together: enough to be quick, few enough for long ones."""


def arrow_rows(table: "pyarrow.RecordBatch | pyarrow.Table") -> Iterator[dict[str, Any]]:
    """Rows of the columns that hold JSON values; dates, decimals, bytes: no format reads them."""
    plain = table.select([field.name for field in table.schema if _holds_json(field.type)])
    for start in range(0, table.num_rows, ROWS_AT_ONCE):
        yield from plain.slice(start, ROWS_AT_ONCE).to_pylist()


def _holds_json(kind: "pyarrow.DataType") -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):  # categories
        return _holds_json(kind.value_type)
    if types.is_nested(kind):
        return all(_holds_json(kind.field(i).type) for i in range(kind.num_fields))
    tests = ("string", "large_string", "string_view", "integer", "floating", "boolean", "null")
    return any(getattr(types, f"is_{test}")(kind) for test in tests)


def refuse_filled_structs(where: str, schema: "pyarrow.Schema") -> None:
    """Refuse call arguments and parameters as structs: Arrow gives each the keys of all others.

    Raises:
        DataError: there is such a column.
    """
    import pyarrow

    def look(kind: pyarrow.DataType) -> None:
        for index in range(kind.num_fields):
            field = kind.field(index)
            if field.name in ("arguments", "properties") and pyarrow.types.is_struct(field.type):
                raise DataError(
                    f"{where}: {field.name!r} is a struct column. Arrow fills in null for every "
                    "key that another row has, and that would be trained. Store it as JSON text."
                )
            look(field.type)

    look(pyarrow.struct(list(schema)))
