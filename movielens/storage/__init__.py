"""What the job needs of a file system or an object store; disk, S3 and Hadoop give it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import IO

What = TypeVar("What")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Entry:
    """A file or folder: its size in bytes, and when it was last changed, in seconds by the clock of the store.

    `version` is what else tells its content from an earlier one: the ETag of an object, the change time of an inode.
    """

    path: str
    size: int
    modified: float
    is_folder: bool
    version: str = ""

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


class Storage(Protocol):
    """What publishing needs of a file system or an object store. Each operation can be repeated.

    Each raises StorageError where the store refuses.
    """

    def entries(self, folder: str) -> list[Entry]:
        """What is directly in the folder; nothing when it is missing or a file."""

    def now(self, folder: str) -> float:
        """The time by the clock that `Entry.modified` is of. Makes the folder, if the store needs it to tell."""

    def require_writable(self, folder: str, *names: str) -> None:
        """Raises StorageError where the folder, or one of these in it, is there and files cannot be moved into it.

        Raises UsageError where the folder is a file, or below one, or one of those in it is a link.
        """

    def uploads(self, folder: str) -> list[Entry]:
        """What is directly in the folder and has files begun and not completed below it, as S3 keeps them unseen.

        Its time is when the last one was begun.
        """

    def abort_uploads(self, path: str) -> None:
        """Does away with what was begun and not completed at the path, or below it."""

    def read(self, path: str) -> bytes | None:
        """The content of a file; None when it is missing."""

    def part(self, path: str, start: int, length: int) -> bytes:
        """So many bytes of a file from a place in it on, or as many as there are; a file that is gone has none."""

    def open(self, path: str) -> IO[bytes]:
        """A file for reading its bytes from the beginning: itself, or a copy on this machine that goes when closed."""

    def create(self, path: str, content: bytes) -> bool:
        """Creates a file unless there is one; tells whether it did. Of several at once one succeeds.

        Nobody ever sees half of it, unless the file system has neither links nor a rename that replaces nothing.
        """

    def replace(self, path: str, content: bytes) -> None:
        """Writes a file, in place of the one that may be there; nobody ever sees half of it.

        A loss of power may bring the earlier content back.
        """

    def move(self, source: str, target: str) -> None:
        """Moves a file, replacing the target. A source that is missing was moved before."""

    def delete(self, *files: str) -> None:
        """Deletes files; one that is missing was deleted before."""

    def delete_empty_folder(self, folder: str) -> None:
        """Deletes a folder unless something is in it."""

    def flush(self, files: Iterable[str]) -> None:
        """Has files or folders, and their names, outlive a loss of power."""

    def delete_folder(self, folder: str) -> None:
        """Deletes a folder with all in it, and what was begun and not completed below it."""


def last_begun(folder: str, begun: Iterable[tuple[str, float]]) -> list[Entry]:
    """What is directly in the folder, of paths below it and times, with the last time of each."""
    last: dict[str, float] = {}
    for path, time in begun:
        name = path.partition("/")[0]
        last[name] = max(last.get(name, 0.0), time)
    return [Entry(f"{folder}/{name}", 0, time, is_folder=True) for name, time in sorted(last.items())]


def in_parallel(operation: Callable[[What], Answer], on: Iterable[What]) -> list[Answer]:
    """Does independent operations of a storage several at once, because on S3 each takes a few round trips."""
    with ThreadPoolExecutor(max_workers=16) as pool:
        return list(pool.map(operation, on))
