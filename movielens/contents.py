"""What is in the files of a text, found without the engine: bytes, lines, and archives read to their very end."""

from __future__ import annotations

import bz2
import gzip
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

from movielens.contract import BadInputError
from movielens.storage.paths import is_local

try:
    import numpy as np
except ImportError:  # on a cluster whose Python has none
    np = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import IO, Any

    from movielens.storage import Entry, Storage

CHUNK = 2**18  # larger ones take three times as long, for they leave the caches
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
LINE_ENDS = b"\r\n"
BYTES_OF_BEGINNING = 2**20  # bzip2 gives nothing before a block of up to 900,000 bytes is whole
BYTES_OF_PART = 2**24  # of a file in a store, for which a request each is not much
FILES_AT_ONCE = 4


@dataclass(frozen=True)
class Contents:
    """What the files of a text hold.

    `size` is in bytes, decompressed. `in_lines` are those of them that are no line ends, marks or headers. `lines` are
    those that are not empty; None where only the ends of the files were looked at: then `in_lines` has one byte more
    for each line that is not empty, provided that all of them end with one byte, the shortest end there is.
    `last_digits` adds up the numbers that the last two bytes of each line are; None where it was not looked at.
    """

    size: int
    in_lines: int
    lines: int | None
    last_digits: int | None

    def __add__(self, other: Contents) -> Contents:
        return Contents(
            self.size + other.size,
            self.in_lines + other.in_lines,
            None if self.lines is None or other.lines is None else self.lines + other.lines,
            None if self.last_digits is None or other.last_digits is None else self.last_digits + other.last_digits,
        )


def contents_of(storage: Storage, files: Sequence[Entry], header: bytes, *, near: bool) -> Contents:
    """What the files hold that begin with the header, which may be empty.

    Files that are near are read; of others the sizes are known. Raises BadInputError for an archive that is damaged.
    """
    look = look_through if near else look_at_ends
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        return reduce(add, pool.map(lambda file: look(storage, file, header), [file for file in files if file.size]))


def are_near(files: Sequence[Entry]) -> bool:
    """Whether files are on this machine, or there are archives among them, which must be read as a whole."""
    return all(is_local(file.path) for file in files) or any(is_compressed(file) for file in files)


def is_compressed(file: Entry) -> bool:
    """Whether a file is an archive, as its name says."""
    return file.path.endswith((".gz", ".bz2"))


def look_at_ends(storage: Storage, file: Entry, header: bytes) -> Contents:
    """What a file holds, by its size, its beginning and its last byte."""
    beginning = storage.part(file.path, 0, min(file.size, len(BYTE_ORDER_MARK) + len(header) + 2))
    unended = storage.part(file.path, file.size - 1, 1) not in (b"\r", b"\n")
    return Contents(file.size, file.size - length_of_start(beginning, header) + unended, None, None)


def look_through(storage: Storage, file: Entry, header: bytes) -> Contents:
    """What a file holds, all of which is read."""
    size = in_lines = lines = 0
    last_digits: int | None = None if np is None else 0
    before = b"\n\n"  # the last bytes of what was read, at first those of a line that would have ended
    beginning = True
    for piece in pieces(storage, file):
        size += len(piece)
        chunk = piece[length_of_start(piece, header) :] if beginning else piece
        beginning = False
        ends, found, number = tally(before, chunk)
        in_lines += len(chunk) - ends
        lines += found
        last_digits = None if last_digits is None else last_digits + number
        before = (before + chunk)[-2:]
    if not before.endswith((b"\r", b"\n")):  # the last line was not ended
        _, found, number = tally(before, b"\n")
        lines += found
        last_digits = None if last_digits is None else last_digits + number
    return Contents(size, in_lines, lines, last_digits)


def tally(before: bytes, chunk: bytes) -> tuple[int, int, int]:
    """The line ends in a chunk in bytes, the lines that end there and are not empty, and the sum of their last digits.

    Without numpy, empty lines count, and nothing is added up.
    """
    if np is None:
        ends = chunk.count(b"\n") + chunk.count(b"\r")
        return ends, ends - (before[-1:] + chunk).count(b"\r\n"), 0
    data = np.frombuffer(before + chunk, np.uint8)
    is_end = data == ord("\n")
    if b"\r" in chunk or b"\r" in before:
        is_end |= data == ord("\r")
    last = np.flatnonzero(is_end[2:] & ~is_end[1:-1]) + 1
    number = int(data[last].sum()) + 10 * int(data[last - 1].sum()) - 11 * ord("0") * len(last)
    return int(np.count_nonzero(is_end[2:])), len(last), number


def length_of_start(beginning: bytes, header: bytes) -> int:
    """How many bytes of a file are before its first line: a byte-order mark, the header and its end."""
    mark = len(BYTE_ORDER_MARK) if beginning.startswith(BYTE_ORDER_MARK) else 0
    if not header or not beginning.startswith(header, mark):
        return mark
    start = mark + len(header)
    return start + (2 if beginning.startswith(b"\r\n", start) else beginning[start : start + 1] in (b"\r", b"\n"))


def count_lines(storage: Storage, files: Sequence[Entry]) -> int:
    """How many lines there are that hold more than spaces and tabs."""
    lines = 0
    for file in files:
        rest, mark = b"", BYTE_ORDER_MARK
        for piece in pieces(storage, file) if file.size else ():
            *whole, rest = (rest + piece.removeprefix(mark)).replace(b"\r", b"\n").split(b"\n")
            lines += sum(1 for line in whole if line.strip(b" \t"))
            mark = b""
            rest = rest.strip(b" \t")[:1]  # all that must be known of a line that goes on
        lines += bool(rest)
    return lines


def beginning_of(storage: Storage, path: str) -> bytes:
    """The first bytes of a file, decompressed. Raises BadInputError for an archive that is damaged there."""
    beginning = storage.part(path, 0, BYTES_OF_BEGINNING)
    with refused_archives(path):
        if path.endswith(".gz"):
            return unpacked_beginning(lambda: zlib.decompressobj(zlib.MAX_WBITS + 16), beginning)
        if path.endswith(".bz2"):
            return unpacked_beginning(bz2.BZ2Decompressor, beginning)
    return beginning


def unpacked_beginning(decompressor: Callable[[], Any], packed: bytes) -> bytes:
    """The beginning of what is in archives, one behind another; a line may go from one into the next."""
    unpacked = b""
    while packed and len(unpacked) < BYTES_OF_BEGINNING:
        member = decompressor()
        unpacked += member.decompress(packed, BYTES_OF_BEGINNING - len(unpacked))
        packed = member.unused_data
    return unpacked


# --------------------------------------------------------------------------------------------------------------------
# Archives


def pieces(storage: Storage, file: Entry) -> Iterator[bytes]:
    """The bytes of a file, decompressed, some at a time; the first piece is long enough for any header.

    Raises BadInputError for an archive that is damaged, or has anything behind its end but further archives.
    """
    if not is_local(file.path) and not is_compressed(file):
        for start in range(0, file.size, BYTES_OF_PART):
            yield storage.part(file.path, start, BYTES_OF_PART)
        return
    with storage.open(file.path) as stream, refused_archives(file.path):
        if file.path.endswith(".gz"):
            yield from read_in_pieces(gzip.GzipFile(fileobj=stream))
        elif file.path.endswith(".bz2"):
            yield from unpacked_bz2(stream)
        else:
            yield from read_in_pieces(stream)


def read_in_pieces(stream: IO[bytes] | gzip.GzipFile) -> Iterator[bytes]:
    """All that is in a stream."""
    while piece := stream.read(CHUNK):
        yield piece


def unpacked_bz2(stream: IO[bytes]) -> Iterator[bytes]:
    """What is in an archive of bzip2; Python's own file would keep silent about what is behind its end."""
    member, packed, unpacked = bz2.BZ2Decompressor(), b"", b""
    while True:
        if member.eof:
            packed = member.unused_data or stream.read(CHUNK)
            if not packed:
                break
            member = bz2.BZ2Decompressor()
        elif member.needs_input:
            packed = stream.read(CHUNK)
            if not packed:
                raise EOFError
        unpacked += member.decompress(packed, CHUNK)
        packed = b""
        if len(unpacked) >= CHUNK:
            yield unpacked
            unpacked = b""
    yield unpacked


@contextmanager
def refused_archives(path: str) -> Iterator[None]:
    """Turns what the decompressors raise into BadInputError."""
    try:
        yield
    except EOFError as error:
        raise BadInputError(f"{path} is damaged: it ends too early") from error
    except (OSError, zlib.error) as error:
        if getattr(error, "errno", None):
            raise
        raise BadInputError(f"{path} is damaged: {error}") from error
