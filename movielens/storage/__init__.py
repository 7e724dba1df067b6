"""What the job needs of a file system or an object store; disk, S3 and Hadoop give it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


@dataclass(frozen=True)
class Entry:
    """A file or folder: its size in bytes, and when it was last changed, in seconds or another unit of the store.

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

    def uploads(self, folder: str) -> list[str]:
        """The names in the folder below which files were begun and not completed, as S3 keeps them unseen."""

    def read(self, path: str) -> bytes | None:
        """The content of a file; None when it is missing."""

    def part(self, path: str, start: int, length: int) -> bytes:
        """So many bytes of a file from a place in it on, or as many as there are; a file that is gone has none."""

    def create(self, path: str, content: bytes) -> bool:
        """Writes a file unless there is one; tells whether it did. Of several at once one succeeds."""

    def move(self, source: str, target: str) -> None:
        """Moves a file, replacing the target. A source that is missing was moved before."""

    def delete(self, *files: str) -> None:
        """Deletes files; one that is missing was deleted before."""

    def delete_folder(self, folder: str) -> None:
        """Deletes a folder with all in it, and what was begun and not completed below it."""


def in_parallel(operation: Callable[[str], object], paths: Iterable[str]) -> None:
    """Does independent operations of a storage several at once, for on S3 each is a few round trips."""
    with ThreadPoolExecutor(max_workers=16) as pool:
        list(pool.map(operation, paths))


def files_below(storage: Storage, folder: str) -> list[Entry]:
    """All files in a folder and its folders, in no order."""
    files = []
    for entry in storage.entries(folder):
        files += files_below(storage, entry.path) if entry.is_folder else [entry]
    return files
