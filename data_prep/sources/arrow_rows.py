"""Arrow tables -> rows, as Parquet files and hub data sets hold them."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from data_prep.errors import DataError
from data_prep.formats.unused import KNOWN_FIELDS
from data_prep.strict_json import loads

if TYPE_CHECKING:
    import pyarrow

ROWS_AT_ONCE = 1024
"""Rows made into Python values together: enough to be quick, few enough for long ones."""


def arrow_rows(table: "pyarrow.RecordBatch | pyarrow.Table") -> Iterator[dict[str, Any]]:
    """Rows of what JSON could hold; dates, decimals and bytes no format reads, nor are they here.

    Raises:
        ValueError: a column of JSON text holds something else.
    """
    plain = _without_others(table)
    kinds = {field.name: _reader(field.type) for field in plain.schema}
    readers = {name: reader for name, reader in kinds.items() if reader}
    for start in range(0, table.num_rows, ROWS_AT_ONCE):
        for row in plain.slice(start, ROWS_AT_ONCE).to_pylist():
            for name, reader in readers.items():
                row[name] = reader(row[name])
            yield row


def _without_others(
    table: "pyarrow.RecordBatch | pyarrow.Table",
) -> "pyarrow.RecordBatch | pyarrow.Table":
    import pyarrow

    kinds = {field.name: _readable(field.type) for field in table.schema}
    wanted = pyarrow.schema([(name, kind) for name, kind in kinds.items() if kind is not None])
    plain = table.select(wanted.names)
    same = all(field.type == wanted.field(field.name).type for field in plain.schema)
    return plain if same else plain.cast(wanted)


def _readable(kind: "pyarrow.DataType") -> "pyarrow.DataType | None":
    """A type without the fields of its structs that JSON has no value for; None: it has none."""
    import pyarrow
    from pyarrow import JsonType, types

    if types.is_dictionary(kind):  # categories
        return kind if _readable(kind.value_type) else None
    if types.is_struct(kind):
        fields = [(field.name, _readable(field.type)) for field in kind]
        left = [(name, inner) for name, inner in fields if inner is not None]
        same = left == [(field.name, field.type) for field in kind]
        return kind if same else pyarrow.struct(left) if left else None
    if types.is_list(kind) or types.is_large_list(kind):
        inner = _readable(kind.value_type)
        if inner is None or inner == kind.value_type:
            return None if inner is None else kind
        return (pyarrow.list_ if types.is_list(kind) else pyarrow.large_list)(inner)
    if types.is_nested(kind):
        inside = [kind.field(i).type for i in range(kind.num_fields)]
        return kind if all(_readable(each) == each for each in inside) else None
    tests = ("string", "large_string", "string_view", "integer", "floating", "boolean", "null")
    plain = isinstance(kind, JsonType) or any(getattr(types, f"is_{test}")(kind) for test in tests)
    return kind if plain else None


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


def refuse_unreadable(where: str, schema: "pyarrow.Schema") -> None:
    """Refuse columns that formats read and that cannot be read as they are.

    Call arguments and parameters as structs: Arrow gives each the keys of all others. And bytes,
    dates and decimals under a name that says there is something to be learned in it.

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
    for field in schema:
        if field.name in KNOWN_FIELDS and _readable(field.type) is None:
            raise DataError(
                f"{where}: the column {field.name!r} holds {field.type}, and text or JSON's values "
                "are wanted. Store it as text."
            )
