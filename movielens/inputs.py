"""The input of a run: which files a release is made of, and what is wrong where they are not there."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from movielens import archives
from movielens.contents import BYTE_ORDER_MARK, beginning_of
from movielens.contract import HEADER_NOT_EXPECTED, BadInputError, UsageError
from movielens.engines import engine_of
from movielens.formats import FORMATS, Format
from movielens.storage import in_parallel
from movielens.storage.paths import absolute, is_local, is_sayable, join, why_mistaken
from movielens.storage.refusals import StorageError
from movielens.terminal import megabytes, phase, shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pyspark.sql import SparkSession

    from movielens.formats.plain import Plain
    from movielens.storage import Entry, Storage

Answer = TypeVar("Answer")

COMPRESSIONS = ("", ".gz", ".bz2")
# How the usual tools end the name of a file that they are still writing; Hadoop, browsers, and others
UNFINISHED = (
    "._copying_",
    ".tmp",
    ".temp",
    ".part",
    ".partial",
    ".filepart",
    ".crdownload",
    ".download",
    ".opdownload",
)
# How rsync names a file that it is still writing
OF_RSYNC = re.compile(r"\..+\.[A-Za-z0-9]{6}")
# Ends of names that an engine, or its libraries, would take for a compression, and the other would not
OTHER_COMPRESSIONS = (
    ".xz",
    ".lzma",
    ".zst",
    ".zstd",
    ".lz4",
    ".snappy",
    ".lzo",
    ".br",
    ".deflate",
    ".z",
    ".7z",
    ".zip",
)
NAMES_SHOWN = 5


@dataclass(frozen=True)
class Release:
    """The input of a run: its format, the files of its two texts, and how the ratings are to be read.

    With `plain` their lines are taken to be plain, which must be proved afterwards; without, each line is judged. With
    `odd_bytes` some lines hold bytes that only `Engine.lines` survives.
    """

    format: Format
    ratings: tuple[Entry, ...]
    movies: tuple[Entry, ...]
    archive: Entry | None = None
    unpacked_to: str = ""
    plain: Plain | None = None
    odd_bytes: bool = False

    @property
    def files(self) -> tuple[Entry, ...]:
        """All files."""
        return self.movies + self.ratings

    @property
    def given(self) -> tuple[Entry, ...]:
        """All files that were given: those, or the archive that they were unpacked from."""
        return (self.archive,) if self.archive else self.files

    def name_of(self, file: str) -> str:
        """The path of a file as the person who gave it knows it."""
        return file.replace(self.unpacked_to, self.archive.path, 1) if self.archive else file

    def headed(self, name: str) -> tuple[Entry, ...]:
        """The files of a text, `ratings` or `movies`, that begin with a header: one that is empty has none."""
        files = {"ratings": self.ratings, "movies": self.movies}[name]
        return tuple(file for file in files if file.size) if self.format.headers[name] else ()


def found_release(spark: SparkSession, release: str | Release) -> Release:
    """The release, found where only the path of its folder is given."""
    return find_release(spark, release) if isinstance(release, str) else release


def find_release(spark: SparkSession, input_path: str) -> Release:
    """The files of the release in a folder, whichever format it has.

    Raises BadInputError, naming what was looked for and what was found there.
    """
    folder = absolute(input_path)
    return release_at(engine_of(spark).storage(folder), folder)


def release_at(storage: Storage, folder: str) -> Release:
    """The same, in a folder of a storage."""
    entries = storage.entries(folder)
    form = format_of(storage, folder, [entry.name for entry in entries])
    movies, ratings = (find_text(storage, folder, name) for name in (form.movies_file, form.ratings_file))
    release = Release(form, ratings, movies)
    require_headers(storage, release)
    return release


def find_archive(spark: SparkSession, input_path: str) -> Entry | None:
    """The archive that a path names; None where it names none.

    Raises UsageError where what is unpacked on this machine would not be seen by all that are to read it.
    """
    path, engine = absolute(input_path), engine_of(spark)
    archive = archive_at(engine.storage(path), path)
    require_readable((archive,) if archive else ())
    if archive and not engine.on_one_machine:
        raise UsageError(
            f"{path} would be unpacked on this machine, whose files the workers of the cluster do not see: unpack it "
            "where they do, and give its folder"
        )
    return archive


def archive_at(storage: Storage, path: str) -> Entry | None:
    """The archive of this name in a storage; None where the name is none, or there is none."""
    if not path.lower().endswith(archives.SUFFIX):
        return None
    there = storage.entries(path.rpartition("/")[0])
    return next((entry for entry in there if entry.path == path and not entry.is_folder), None)


def given_files(storage: Storage, path: str) -> tuple[Entry, ...]:
    """All files that are given by a path: those of a release, or an archive."""
    archive = archive_at(storage, path)
    return (archive,) if archive else release_at(storage, path).files


@contextmanager
def unpacked(spark: SparkSession, archive: Entry) -> Iterator[Release]:
    """The release in an archive, its files unpacked to a temporary folder for as long as this lasts.

    Raises BadInputError as `find_release` does, and where the archive is not what it should be.
    """
    storage = engine_of(spark).storage(archive.path)
    with archives.folder_for_a_while() as folder:
        with phase("archive", timer=True) as done:
            input_read(lambda: unpack(storage, archive.path, folder))
            try:
                release = replace(find_release(spark, folder), archive=archive, unpacked_to=folder)
            except BadInputError as error:
                raise BadInputError(str(error).replace(folder, archive.path)) from error
            names, size = [file.name for file in release.files], sum(file.size for file in release.files)
            done(f"{' and '.join(names)} ({megabytes(size)}) unpacked, format: {release.format.name}")
        yield release


def unpack(storage: Storage, path: str, folder: str) -> None:
    """Unpacks the files of a release, of whichever format, from the archive at a path of a storage to a folder."""
    with storage.open(path) as file:
        archives.unpack(file, path, [name for form in FORMATS for name in form.files.values()], folder)


def input_read(read: Callable[[], Answer]) -> Answer:
    """What is read of the input; raises BadInputError where its store refuses."""
    try:
        return read()
    except StorageError as error:
        raise BadInputError(str(error)) from error


def format_of(storage: Storage, folder: str, names: list[str]) -> Format:
    """The one format that there are files of in a folder, by their names."""
    texts = {name: form for form in FORMATS for name in form.files.values()}
    present = {name: form for name, form in texts.items() if any(f"{name}{end}" in names for end in COMPRESSIONS)}
    formats = list(dict.fromkeys(present.values()))
    if not formats:
        wanted = ", or ".join(f"{form.movies_file} and {form.ratings_file}" for form in FORMATS)
        raise BadInputError(f"{folder} should hold {wanted}: {what_is_there(storage, folder, sorted(names))}")
    if len(formats) > 1:
        raise BadInputError(f"{folder} holds {', '.join(present)}, of more than one format: keep those of one")
    return formats[0]


def find_text(storage: Storage, folder: str, name: str) -> tuple[Entry, ...]:
    """The files that make up a text: `name`, or `name.gz` or `name.bz2`; a file or a folder of part files."""
    entries = storage.entries(folder)
    found = {entry.name: entry for entry in entries}
    wanted = join(folder, name)
    for entry in entries:
        if entry.name.startswith(name) and entry is not found[entry.name]:
            raise BadInputError(f"{entry.path} is there as a file and as a folder: keep one")
    present = [found[f"{name}{suffix}"] for suffix in COMPRESSIONS if f"{name}{suffix}" in found]
    if not present:
        raise BadInputError(f"{wanted} not found: {what_is_there(storage, folder, sorted(found))}")
    if len(present) > 1:
        names = ", ".join(entry.name for entry in present)
        raise BadInputError(f"{wanted} is there more than once, as {names}: keep one")
    [text] = present
    parts = parts_of(storage, text) if text.is_folder else (text,)
    require_readable(parts)
    if not sum(part.size for part in parts):
        raise BadInputError(f"{text.path} is empty")
    return parts


def parts_of(storage: Storage, folder: Entry) -> tuple[Entry, ...]:
    """The part files in a folder, by their names; one that begins with _ or . is of a program, and no part."""
    found = storage.entries(folder.path)
    for entry in found:
        if entry.name == "_temporary" or OF_RSYNC.fullmatch(entry.name):
            raise BadInputError(f"{folder.path} is still being written, as {entry.name} in it says")
    parts = [part for part in found if not part.name.startswith(("_", "."))]
    for part in parts:
        if part.is_folder:
            raise BadInputError(f"{folder.path} should hold part files only, but {part.name} is a folder")
        require_readable_name(part)
    return tuple(sorted(parts, key=lambda part: part.path))


def require_readable_name(part: Entry) -> None:
    """Raises BadInputError for a part whose name cannot be told to engines, or says that it cannot be read.

    It is not whole then, or compressed in another way.
    """
    if not is_sayable(part.name):
        raise BadInputError(f"{part.path!r}: names of parts are UTF-8, without control characters: rename it")
    if is_local(part.path) and (why := why_mistaken(part.path)):
        raise BadInputError(f"{part.path!r}: {why}")
    lower = part.name.lower()
    if lower.endswith(UNFINISHED):
        raise BadInputError(f"{part.path} is still being copied, as its name says")
    in_capitals = lower.endswith(COMPRESSIONS[1:]) and not part.name.endswith(COMPRESSIONS[1:])
    if lower.endswith(OTHER_COMPRESSIONS) or in_capitals:
        raise BadInputError(f"{part.path}: parts are read as plain text, .gz or .bz2, written so")


def require_headers(storage: Storage, release: Release) -> None:
    """Raises BadInputError for a file that does not begin with the header that its format has."""

    def require_header(path: str) -> None:
        header, line = headers[path], first_line(beginning_of(storage, path))
        if line != header:
            raise BadInputError(f"{path}: {HEADER_NOT_EXPECTED}: it is {shortened(line)} in place of {header}")

    headers = {
        file.path: release.format.headers[name] for name in release.format.headers for file in release.headed(name)
    }
    in_parallel(require_header, headers)


def first_line(beginning: bytes) -> str:
    """The first line that is not blank, as far as it is in what a file begins with."""
    lines = beginning.removeprefix(BYTE_ORDER_MARK).splitlines()
    return next((line.decode("iso-8859-1") for line in lines if line.strip(b" \t")), "")


def require_readable(files: tuple[Entry, ...]) -> None:
    """Raises BadInputError for a file on this machine that is none, or that this user may not read."""
    for path in (file.path for file in files if is_local(file.path)):
        if not os.path.exists(path):  # noqa: PTH110  # a Path raises where it may not look
            raise BadInputError(f"{path} is a link that leads nowhere")
        if not os.path.isfile(path):  # noqa: PTH113  # as above
            raise BadInputError(f"{path} is neither a file nor a folder")  # but a pipe, say, that waits for a writer
        if not os.access(path, os.R_OK):
            raise BadInputError(f"{path} cannot be read: permission denied")


def what_is_there(storage: Storage, folder: str, names: list[str]) -> str:
    """Says what there is in place of what was looked for."""
    if names:
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        return f"{folder} holds {', '.join(names[:NAMES_SHOWN])}{more}"
    above = folder.rpartition("/")[0]
    if above.endswith(":/"):
        return f"the bucket {folder} is empty"
    parent = {entry.path: entry for entry in storage.entries(above)}
    if folder not in parent:
        return f"there is no {folder}"
    is_folder = parent[folder].is_folder
    return f"{folder} is an empty folder" if is_folder else f"{folder} is a file, not the folder that holds it"
