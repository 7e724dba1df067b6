"""What engines raise, turned into what the person who runs the job can act on.

Stores and disks translate what they refuse themselves; engines hand on text, about the input, the output or their own
temporary files.
"""

from __future__ import annotations

import re
import tempfile
import urllib.parse
from contextlib import contextmanager
from typing import TYPE_CHECKING

from movielens.contract import BadInputError, PipelineError
from movielens.storage.paths import bucket_and_key, is_local
from movielens.storage.refusals import meaning_of

if TYPE_CHECKING:
    from collections.abc import Iterator

CHARACTERS_OF_DETAIL = 200
TEMPORARY_FILES = "<temporary>"

# What a failure means whatever place it is about, by its signs
WHEREVER = (
    (
        ("RETRIES_EXCEEDED", "StatusCode.UNAVAILABLE", "failed to connect to all addresses"),
        "the engine ended while it worked: look whether it was killed, or the memory was not enough",
    ),
    (
        ("OutOfMemoryError", "Resources exhausted", "Failed to allocate", "Cannot allocate memory"),
        "out of memory; for the sail engine SAIL_RUNTIME__MEMORY_POOL__FAIR__MAX_SIZE sets more bytes, "
        "for spark --driver-memory",
    ),
    (("Too many open files",), "too many open files: allow this process more of them (ulimit -n)"),
    (("File too large",), "a file would be larger than this process, or the disk, allows (ulimit -f)"),
)
NO_SPACE = (
    "No space left on device",
    "Disk quota exceeded",
)
GONE = (
    "FAILED_READ_FILE",
    "FileNotFoundException",
    "NoSuchFileException",
    "FileNotFoundError",
    "PATH_NOT_FOUND",
    "No such file",
    r"Object .*not found",
)
DAMAGED = (
    "gzip",
    "deflate",
    "(?i)bzip2?",
    "unexpected end of file",
    "Unexpected end of input",
)
REFUSED = (
    "Permission denied",
    "Read-only file system",
    "Not a directory",
    "File exists",
)
UNWRITABLE = (
    "Unable to create dir",
    "Mkdirs failed",
    "<output>/_",
    *REFUSED,
)
# Where Java was when it failed: in the client of HDFS, or in one of S3
OF_HDFS = (r"org\.apache\.hadoop\.(ipc|hdfs)\.",)
OF_S3 = ("(?i)s3a", "awssdk")


@contextmanager
def explaining(input_path: str, output: str) -> Iterator[None]:
    """Turns what an engine raises that reads and writes into a PipelineError where it is expected to happen.

    A bug passes as it is.
    """
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:
        expected = explained(str(error), input_path, output)
        if expected is None:
            raise
        raise expected from error


def explained(said: str, input_path: str, output: str) -> PipelineError | None:
    """The expected failure that the words of an engine tell of; None where they tell of none."""
    places = ((output, "<output>"), (input_path, "<input>"), (tempfile.gettempdir(), TEMPORARY_FILES))
    signs = without_paths(said, places)
    for telling, meaning in WHEREVER:
        if tells_of(telling, signs):
            return PipelineError(meaning)
    if tells_of(NO_SPACE, signs):
        return PipelineError(f"no space left on the disk of {output} or of the temporary files")
    place, detail = place_of(signs, input_path, output), detail_of(said)
    if place == TEMPORARY_FILES and tells_of(GONE, signs):
        return PipelineError(f"temporary files went away while they were needed: {detail}")
    return refused(signs, place, input_path, output) or inaccessible(signs, place, input_path, output, detail)


def place_of(signs: str, input_path: str, output: str) -> str | None:
    """What a failure is about: the input, the output or temporary files; None where that is not told.

    That is the last that is named, for causes are told after what they lead to, or else the one that is in the kind of
    store that failed.
    """
    named = re.findall(r"<(input|output|temporary)>|\bblockmgr-[0-9a-f]{8}-", signs)
    if named:
        return {"input": input_path, "output": output}.get(named[-1], TEMPORARY_FILES)
    stores = [place for place in (input_path, output) if not is_local(place)]
    if len(stores) > 1:
        of_hdfs, of_s3 = tells_of(OF_HDFS, signs), tells_of(OF_S3, signs)
        stores = [place for place in stores if (of_hdfs if place.startswith("hdfs:") else of_s3)]
    return stores[0] if len(stores) == 1 else None


def refused(signs: str, place: str | None, input_path: str, output: str) -> PipelineError | None:
    """The refusal of a store, of the output's where it is not told of which; None where it is none."""
    store = next((one for one in (place, output, input_path) if one and not is_local(one)), None)
    meaning = meaning_of(signs, store) if store else None
    if meaning is None:
        return None
    return (BadInputError if store == input_path else PipelineError)(f"{store}: {meaning}")


def inaccessible(signs: str, place: str | None, input_path: str, output: str, detail: str) -> PipelineError | None:
    """The input that cannot be read, or the output that cannot be written; None where neither is told."""
    of_input = {input_path: GONE + DAMAGED + REFUSED, None: DAMAGED}.get(place, ())
    if tells_of(of_input, signs):
        return BadInputError(f"{input_path} cannot be read: {detail}")
    if place != input_path and tells_of(UNWRITABLE, signs):
        return PipelineError(f"{output} cannot be written: {detail}")
    return None


def tells_of(signs: tuple[str, ...], said: str) -> bool:
    """Whether one of the signs, regular expressions, is in what was said."""
    return any(re.search(sign, said) for sign in signs)


def without_paths(said: str, places: tuple[tuple[str, str], ...]) -> str:
    """What was said, with the names of places for their paths, of which words are no signs."""
    for path, name in places:
        for form in forms_of(path):
            said = re.sub(rf"(?<![\w.-]){re.escape(form)}(?![\w.-])", name, said)
    return said


def forms_of(path: str) -> list[str]:
    """How engines write a path: as it is, or quoted; of a store also without the bucket."""
    short = [] if is_local(path) else [bucket_and_key(path)[1]]
    return [form for plain in (path, *short) for form in (plain, urllib.parse.quote(plain, safe="/:")) if form]


def detail_of(said: str) -> str:
    """The last cause that an engine names, in a line."""
    causes = re.findall(r"^(?:Caused by|:) ?:? ?[\w.$]+(?:Exception|Error): (.+)$", said, re.MULTILINE)
    lines = causes or said.splitlines() or ["no reason was given"]
    return re.sub(r"\s+", " ", lines[-1])[:CHARACTERS_OF_DETAIL]
