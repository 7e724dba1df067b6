"""The local disk."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from movielens.storage import Entry
from movielens.storage.paths import join
from movielens.storage.refusals import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator


class DiskStorage:
    """Storage on the local disk, by the operating system's own means, which exclude a second creator."""

    def entries(self, folder: str) -> list[Entry]:
        entries = []
        with refusals_of(folder, "read"), suppress(FileNotFoundError, NotADirectoryError):
            for found in os.scandir(folder):
                with suppress(FileNotFoundError):  # gone meanwhile
                    status = found.stat()
                    path, changed = join(folder, found.name), str(status.st_ctime_ns)
                    entries.append(Entry(path, status.st_size, status.st_mtime, found.is_dir(), changed))
        return entries

    def uploads(self, folder: str) -> list[str]:  # noqa: ARG002  # the protocol's
        return []

    def read(self, path: str) -> bytes | None:
        with refusals_of(path, "read"), suppress(FileNotFoundError):
            return Path(path).read_bytes()
        return None

    def part(self, path: str, start: int, length: int) -> bytes:
        with refusals_of(path, "read"), suppress(FileNotFoundError), Path(path).open("rb") as file:
            file.seek(start)
            return file.read(length)
        return b""

    def create(self, path: str, content: bytes) -> bool:
        with refusals_of(path, "written"):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError), Path(path).open("xb") as file:
                file.write(content)
                return True
        return False

    def move(self, source: str, target: str) -> None:
        if os.path.lexists(source):
            with refusals_of(target, "written"):
                Path(target).parent.mkdir(parents=True, exist_ok=True)
                shutil.move(source, target)

    def delete(self, *files: str) -> None:
        for file in files:
            with refusals_of(file, "deleted"):
                Path(file).unlink(missing_ok=True)

    def delete_folder(self, folder: str) -> None:
        while Path(folder).is_dir():
            with refusals_of(folder, "deleted"), suppress(FileNotFoundError):  # another run deletes it, too
                shutil.rmtree(folder)


@contextmanager
def refusals_of(path: str, done: str) -> Iterator[None]:
    """Turns what the operating system refuses into StorageError."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(f"no space left on the disk of {path}") from error
        raise StorageError(f"{path} cannot be {done}: {reason}") from error
