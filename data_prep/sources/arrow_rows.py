"""Arrow tables -> rows, as Parquet files and hub data sets hold them."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from data_prep.errors import DataError
from data_prep.strict_json import loads

if TYPE_CHECKING:
    import pyarrow

ROWS_AT_ONCE = 1024
"""Rows made into Python values together: enough to be quick, few enough for long ones."""


def arrow_rows(table: "pyarrow.RecordBatch | pyarrow.Table") -> Iterator[dict[str, Any]]:
    """Rows of the columns that hold JSON values; dates, decimals, bytes: no format reads them.

    Raises:
        ValueError: a column of JSON text holds something else.
    """
    plain = table.select([field.name for field in table.schema if _holds_json(field.type)])
    kinds = {field.name: _reader(field.type) for field in plain.schema}
    readers = {name: reader for name, reader in kinds.items() if reader}
    for start in range(0, table.num_rows, ROWS_AT_ONCE):
        for row in plain.slice(start, ROWS_AT_ONCE).to_pylist():
            for name, reader in readers.items():
                row[name] = reader(row[name])
            yield row


def _holds_json(kind: "pyarrow.DataType") -> bool:
    from pyarrow import JsonType, types

    if types.is_dictionary(kind):  # categories
        return _holds_json(kind.value_type)
    if types.is_nested(kind):
        return all(_holds_json(kind.field(i).type) for i in range(kind.num_fields))
    tests = ("string", "large_string", "string_view", "integer", "floating", "boolean", "null")
    return isinstance(kind, JsonType) or any(getattr(types, f"is_{test}")(kind) for test in tests)


def _reader(kind: "pyarrow.DataType") -> Callable[[Any], Any] | None:
    """How to parse the JSON text inside a value, where `datasets` keeps what Arrow has no type for.

    Returns:
        From a value to the value meant; None where there is no JSON text in it.
    """
    from pyarrow import JsonType, types

    if isinstance(kind, JsonType):
        return lambda value: None if value is None else loads(value)
    if types.is_struct(kind):
        inside = {kind.field(i).name: _reader(kind.field(i).type) for i in range(kind.num_fields)}
        readers = {name: reader for name, reader in inside.items() if reader}
        return (lambda value: _struct(value, readers)) if readers else None
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        reader = _reader(kind.value_type)
        return (lambda value: value and [reader(item) for item in value]) if reader else None
    return None


def _struct(
    value: dict[str, Any] | None, readers: dict[str, Callable[[Any], Any]]
) -> dict[str, Any] | None:
    return value and value | {name: reader(value[name]) for name, reader in readers.items()}


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
                    "key that another row has, and that would be trained. Store the arguments of "
                    "calls, and tools as a whole, as JSON text."
                )
            look(field.type)

    look(pyarrow.struct(list(schema)))
