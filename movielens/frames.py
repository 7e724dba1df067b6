"""The columns of a frame that somebody hands in: looked at when a function is called, before any work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from movielens.contract import SCHEMAS, SchemaError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pyspark.sql import DataFrame

INTEGERS = ("tinyint", "smallint", "int", "bigint")
NUMBERS = (*INTEGERS, "float", "double", "decimal")

# The types that each type of a dataset takes in without loss
WIDENED = {
    "int": ("tinyint", "smallint"),
    "bigint": ("tinyint", "smallint", "int"),
    "float": ("tinyint", "smallint"),
    "double": ("tinyint", "smallint", "int", "float"),
    "string": (),
}


def require_columns(frame: DataFrame, name: str, expected: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Returns the type of each expected column, as pyspark names it (`decimal(3,1)`).

    `expected` gives for each column the types it may have; `decimal` is a decimal of any precision. Further columns
    and their order do not matter. Raises SchemaError if a column is missing, is there twice, or has another type.
    """
    found: dict[str, str] = {}
    for column, types in expected.items():
        wanted = " or ".join(kind.upper() for kind in types)
        # engines do not tell names apart that differ in case only
        named = [other for other in frame.dtypes if other[0].lower() == column.lower()]
        if [other for other, _ in named] != [column]:
            columns = ", ".join(frame.columns) or "no column"
            raise SchemaError(f"{name} must have exactly one column {column} ({wanted}); it has: {columns}")
        [(_, found[column])] = named
        if found[column].partition("(")[0] not in types:
            raise SchemaError(f"{name}: column {column} is {found[column].upper()}, expected {wanted}; cast it first")
    return found


def conform(frame: DataFrame, name: str) -> DataFrame:
    """The frame with exactly the columns of a dataset, in their order and types; widens types without loss.

    Returns the frame itself if it conforms already. Raises SchemaError if a column is missing or would lose something.
    """
    schema = [(column, kind.lower()) for column, kind in (field.split() for field in SCHEMAS[name].split(", "))]
    if frame.dtypes == schema:
        return frame
    found = require_columns(frame, name, {column: (kind, *WIDENED[kind]) for column, kind in schema})
    return frame.select(*(F.col(column).cast(kind) if found[column] != kind else column for column, kind in schema))
