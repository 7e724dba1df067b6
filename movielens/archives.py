"""The archive in which a release is published: what is taken out of a zip, and where it is kept for a while."""

from __future__ import annotations

import errno
import lzma
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from movielens.contract import BadInputError, PipelineError
from movielens.terminal import megabytes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

SUFFIX = ".zip"
FOLDERS_ABOVE = 1  # of a member: GroupLens packs a folder
CHUNK = 2**20
NAMES_SHOWN = 5
WHAT_READERS_RAISE = (
    zipfile.BadZipFile, NotImplementedError, OSError, RuntimeError, ValueError, lzma.LZMAError, struct.error, zlib.error
)  # fmt: skip
ENCRYPTED = 0x1  # of the flags of a member

# Waits for the end of its input, which is there when the process that started it ends, in whatever way
REMOVER = ["sh", "-c", 'cat; rm -rf -- "$1"', "sh"]


@contextmanager
def folder_for_a_while() -> Iterator[str]:
    """A temporary folder that is removed whatever happens, also when this process is killed."""
    folder = tempfile.mkdtemp(prefix="movielens-")
    # in a session of its own, so that Ctrl-C, which ends what is in the terminal's, leaves it to its work
    with subprocess.Popen([*REMOVER, folder], stdin=subprocess.PIPE, start_new_session=True):
        yield folder


def unpack(file: IO[bytes], path: str, names: Collection[str], folder: str) -> None:
    """Unpacks the members of these names, which are in at most one folder, and no others.

    Nothing goes by a path out of the archive, whose own path is for messages. Raises BadInputError where it is none, is
    cut short or encrypted, holds a name twice or none of them, or more than it says or than the disk has room for;
    PipelineError where the disk fails.
    """
    if not zipfile.is_zipfile(file):
        raise BadInputError(f"{path} is no zip, or one that is cut short")
    with refused_zip(path, folder), zipfile.ZipFile(file) as archive:
        members = chosen_members(archive, path, names)
        require_room(path, folder, sum(member.file_size for member in members.values()))
        for name, member in members.items():
            unpack_member(archive, member, path, Path(folder, name))


def chosen_members(archive: zipfile.ZipFile, path: str, names: Collection[str]) -> dict[str, zipfile.ZipInfo]:
    """The member of each name that there is one of."""
    found = defaultdict(list)
    for member in archive.infolist():
        place = PurePosixPath(member.filename)
        if place.name in names and len(place.parts) <= FOLDERS_ABOVE + 1 and not member.is_dir():
            found[place.name].append(member)
    if not found:
        there = archive.namelist()
        more = f" and {len(there) - NAMES_SHOWN} more" if len(there) > NAMES_SHOWN else ""
        raise BadInputError(f"{path} holds none of {', '.join(names)}, but {', '.join(there[:NAMES_SHOWN])}{more}")
    for name, members in found.items():
        if len(members) > 1:
            places = ", ".join(member.filename for member in members)
            raise BadInputError(f"{path} holds {name} more than once, as {places}: unpack it, and keep one")
        if members[0].flag_bits & ENCRYPTED:
            raise BadInputError(f"{path} is encrypted: unpack it, and give its folder")
    chosen = {name: member for name, [member] in found.items()}
    if len({PurePosixPath(member.filename).parent for member in chosen.values()}) > 1:
        places = " and ".join(member.filename for member in chosen.values())
        raise BadInputError(f"{path} holds {places}, in different folders: unpack it, and keep those of one release")
    return chosen


def require_room(path: str, folder: str, size: int) -> None:
    """Raises BadInputError where the disk of a folder has no room for so many bytes."""
    room = shutil.disk_usage(folder).free
    if size > room:
        raise BadInputError(
            f"{path} takes {megabytes(size)} when it is unpacked, and the disk of {Path(folder).parent} has room for "
            f"{megabytes(room)}: let TMPDIR name a folder where there is more"
        )


def unpack_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: str, target: Path) -> None:
    """Writes a member to a file, as far as it is what it is said to be."""
    size = member.file_size
    member.file_size = sys.maxsize  # or nobody would notice that there is more of it
    written = 0
    with archive.open(member) as source, target.open("xb") as file:
        while written <= size and (chunk := source.read(CHUNK)):
            written += file.write(chunk)
    if written != size:
        raise BadInputError(f"{path} is damaged: {member.filename} is not of the {size:,} bytes that are said of it")


@contextmanager
def refused_zip(path: str, folder: str) -> Iterator[None]:
    """Turns what the reader of archives raises into BadInputError, and what the disk does into PipelineError."""
    try:
        yield
    except EOFError as error:
        raise BadInputError(f"{path} is damaged: it ends too early") from error
    except WHAT_READERS_RAISE as error:
        # a place in the archive that cannot be is an invalid argument, too
        if isinstance(error, OSError) and error.errno not in {None, errno.EINVAL}:
            raise PipelineError(f"{path} cannot be unpacked into {Path(folder).parent}: {error.strerror}") from error
        raise BadInputError(f"{path} cannot be unpacked: {' '.join(str(error).split())}") from error
