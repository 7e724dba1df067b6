"""What engines raise, turned into what the person who runs the job can act on.

Stores and disks translate what they refuse themselves; engines hand on text. What it means depends on what was being
done: a message is about the input where only the input was read.
"""

from __future__ import annotations

import re
import urllib.parse
from contextlib import contextmanager
from typing import TYPE_CHECKING

from movielens.contract import BadInputError, PipelineError
from movielens.storage.paths import bucket_and_key, is_local
from movielens.storage.refusals import meaning_of

if TYPE_CHECKING:
    from collections.abc import Iterator

CHARACTERS_OF_DETAIL = 200

ENGINE_GONE = (
    "RETRIES_EXCEEDED",
    "StatusCode.UNAVAILABLE",
    "failed to connect to all addresses",
)
NO_SPACE = (
    "No space left on device",
    "Disk quota exceeded",
)
OUT_OF_MEMORY = (
    "OutOfMemoryError",
    "Resources exhausted",
    "Failed to allocate",
    "Cannot allocate memory",
)
UNWRITABLE = (
    "Unable to create dir",
    "Mkdirs failed",
    "<output>/_",
)
UNREADABLE = (
    "gzip",
    "deflate",
    "(?i)bzip2?",
    "unexpected end of file",
    "Unexpected end of input",
    "FAILED_READ_FILE",
    "FileNotFoundException",
    "FileNotFoundError",
    "PATH_NOT_FOUND",
    "No such file",
    r"Object .*not found",
)
REFUSED = (
    "Permission denied",
    "Read-only file system",
    "Not a directory",
    "File exists",
)


@contextmanager
def explaining(input_path: str, output: str, *, writing: bool) -> Iterator[None]:
    """Turns what an engine raises into a PipelineError where it is expected to happen; a bug passes as it is.

    With `writing` the engine may have been about the output as well as about the input.
    """
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:
        expected = explained(str(error), input_path, output, writing=writing)
        if expected is None:
            raise
        raise expected from error


def explained(said: str, input_path: str, output: str, *, writing: bool) -> PipelineError | None:
    """The expected failure that the words of an engine tell of; None where they tell of none."""
    signs = without_paths(said, input_path, output)
    if tells_of(ENGINE_GONE, signs):
        return PipelineError(
            "the engine ended while it worked: look whether it was killed, or the memory was not enough"
        )
    if tells_of(NO_SPACE, signs):
        return PipelineError(f"no space left on the disk of {output} or of the temporary files")
    if tells_of(OUT_OF_MEMORY, signs):
        return PipelineError(
            "out of memory; for the sail engine SAIL_RUNTIME__MEMORY_POOL__FAIR__MAX_SIZE sets more bytes, "
            "for spark --driver-memory"
        )
    about_output = writing and tells_of(UNWRITABLE, signs)
    places = [output] if about_output else [input_path, output] if writing else [input_path]
    return refused(signs, places, input_path) or inaccessible(signs, places, input_path, detail_of(said))


def refused(signs: str, places: list[str], input_path: str) -> PipelineError | None:
    """The refusal of the store that the first place in a store is in; None where it is no refusal."""
    store = next((place for place in places if not is_local(place)), None)
    meaning = meaning_of(signs, store) if store else None
    if meaning is None:
        return None
    return (BadInputError if store == input_path else PipelineError)(f"{store}: {meaning}")


def inaccessible(signs: str, places: list[str], input_path: str, detail: str) -> PipelineError | None:
    """The input that cannot be read, or else the last of the places, that cannot be written."""
    *_, output = places
    if input_path in places and tells_of(UNREADABLE if input_path != output else UNREADABLE + REFUSED, signs):
        return BadInputError(f"{input_path} cannot be read: {detail}")
    if input_path not in places or tells_of(REFUSED, signs):
        return PipelineError(f"{output} cannot be written: {detail}")
    return None


def tells_of(signs: tuple[str, ...], said: str) -> bool:
    """Whether one of the signs, regular expressions, is in what was said."""
    return any(re.search(sign, said) for sign in signs)


def without_paths(said: str, input_path: str, output: str) -> str:
    """What was said, without words that are there only because they are in the paths of the run."""
    for path, name in ((output, "<output>"), (input_path, "<input>")):
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
