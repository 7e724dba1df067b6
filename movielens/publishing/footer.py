"""The footer of a Parquet file: how many rows it holds, and which columns.

The job reads it by itself: under `spark-submit` there may be no library but PySpark, and pyarrow's reader takes 30 ms
to import. Format: https://parquet.apache.org/docs/file-format/metadata/, in Thrift's compact protocol:
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from movielens.storage import Storage

MAGIC = b"PAR1"
BYTES_OF_END = 8  # the length of the footer, and MAGIC
BYTES_READ = 2**16

# How Parquet stores the types of columns: https://github.com/apache/parquet-format, `enum Type`
STORED_AS = {"int": 1, "bigint": 2, "float": 4, "double": 5, "string": 6}

# Fields of FileMetaData and of SchemaElement
SCHEMA, NUM_ROWS = 2, 3
TYPE, NAME = 1, 4


@dataclass(frozen=True)
class Footer:
    """The rows of a file, and its columns in their order: each a name, and a number of STORED_AS."""

    rows: int
    columns: list[tuple[str, int]]


def read_footer(storage: Storage, path: str, size: int) -> Footer:
    """The footer of a file of so many bytes. Raises ValueError if the file is not Parquet, cut off or gone."""
    end = storage.part(path, max(0, size - BYTES_READ), BYTES_READ)
    length = int.from_bytes(end[-BYTES_OF_END:-4], "little") + BYTES_OF_END
    if end[-4:] != MAGIC or length > size:
        raise ValueError(path)
    if length > len(end):
        end = storage.part(path, size - length, length)
    try:
        metadata = read_struct(io.BytesIO(end[-length:]), NUM_ROWS)
        columns = [(element[NAME].decode(), element[TYPE]) for element in metadata[SCHEMA] if TYPE in element]
        return Footer(metadata[NUM_ROWS], columns)
    except (IndexError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(path) from error


# --------------------------------------------------------------------------------------------------------------------
# Thrift's compact protocol

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, _MAP, STRUCT = range(1, 13)
LONG_LIST = 15


def read_struct(stream: io.BytesIO, last: int | None = None) -> dict[int, Any]:
    """The fields of a struct by their numbers, which ascend; up to the last that is wanted."""
    fields: dict[int, Any] = {}
    number = 0
    while number != last and (header := stream.read(1)[0]):
        step, kind = header >> 4, header & 15
        number = number + step if step else zigzag(read_varint(stream))
        fields[number] = kind == TRUE if kind in (TRUE, FALSE) else read_value(stream, kind)
    return fields


def read_value(stream: io.BytesIO, kind: int) -> Any:
    """A value of a kind. Raises KeyError if footers have none of that kind."""
    if kind in (I16, I32, I64):
        return zigzag(read_varint(stream))
    if kind == BINARY:
        return stream.read(read_varint(stream))
    if kind in (LIST, SET):
        header = stream.read(1)[0]
        size = header >> 4
        return [read_value(stream, header & 15) for _ in range(read_varint(stream) if size == LONG_LIST else size)]
    if kind == STRUCT:
        return read_struct(stream)
    return stream.read({TRUE: 1, FALSE: 1, BYTE: 1, DOUBLE: 8}[kind])


def read_varint(stream: io.BytesIO) -> int:
    """A number without sign, seven bits a byte, the lowest first."""
    value = shift = 0
    while True:
        byte = stream.read(1)[0]
        value |= (byte & 127) << shift
        if byte < 128:  # noqa: PLR2004  # the highest bit says whether another byte follows
            return value
        shift += 7


def zigzag(value: int) -> int:
    """The number with a sign that a number without one stands for."""
    return (value >> 1) ^ -(value & 1)
