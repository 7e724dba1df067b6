"""The local disk."""

from __future__ import annotations

import errno
import io
import os
import secrets
import shutil
import stat
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from movielens.contract import UsageError
from movielens.storage import Entry
from movielens.storage.paths import join
from movielens.storage.refusals import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import IO


# What file systems say that have no links, so that half of a file may be seen while it is written
WITHOUT_LINKS = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK)

BYTES_READ_AT_ONCE = 2**17
TRIES = 10  # to delete a folder that others delete from

# fcntl.h and linux/fs.h
AT_FDCWD, RENAME_NOREPLACE = -100, 1


class DiskStorage:
    """Storage on the local disk, by the operating system's own means, which exclude a second creator."""

    def entries(self, folder: str) -> list[Entry]:
        entries, found = [], []
        with refusals_of(folder, "read"), suppress(FileNotFoundError, NotADirectoryError):
            found = list(os.scandir(folder))
        for one in found:
            path = join(folder, one.name)
            with refusals_of(path, "read"), suppress(FileNotFoundError):  # gone meanwhile
                try:
                    status = one.stat()
                except OSError:  # of a link that leads nowhere it is the link that is there
                    status = one.stat(follow_symlinks=False)
                is_folder, changed = stat.S_ISDIR(status.st_mode), str(status.st_ctime_ns)
                entries.append(Entry(path, status.st_size, status.st_mtime, is_folder, changed))
        return entries

    def now(self, folder: str) -> float:
        # a folder of another machine has that one's clock
        with refusals_of(folder, "written"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder, prefix=".clock-") as file:
                return Path(file.name).stat().st_mtime

    def require_writable(self, folder: str, *names: str) -> None:
        nearest = folder
        while not os.path.isdir(nearest):  # noqa: PTH112  # a Path raises where it may not look
            if os.path.lexists(nearest):
                is_file = os.path.exists(nearest)  # noqa: PTH110  # as above
                kind = "file" if is_file else "link that leads nowhere"
                raise UsageError(f"{nearest} is a {kind}: choose another --output_path")
            nearest = str(Path(nearest).parent)
        below = [join(folder, name) for name in names]
        for path in filter(os.path.islink, below):
            raise UsageError(f"{path} is a link: let it be a folder, or choose another --output_path")
        require_access(nearest, folder)
        for path in filter(os.path.isdir, below):
            require_access(path, path)

    def uploads(self, folder: str) -> list[Entry]:  # noqa: ARG002  # the protocol's
        return []

    def abort_uploads(self, path: str) -> None:
        pass

    def read(self, path: str) -> bytes | None:
        with refusals_of(path, "read"), suppress(FileNotFoundError, NotADirectoryError):
            if Path(path).is_fifo():
                raise StorageError(f"{path} cannot be read: it is a pipe")  # which waits for somebody to write
            return Path(path).read_bytes()
        return None

    def part(self, path: str, start: int, length: int) -> bytes:
        with refusals_of(path, "read"), suppress(FileNotFoundError), Path(path).open("rb") as file:
            file.seek(start)
            return file.read(length)
        return b""

    def open(self, path: str) -> IO[bytes]:
        with refusals_of(path, "read"):
            return io.BufferedReader(ReadFile(path), BYTES_READ_AT_ONCE)

    def create(self, path: str, content: bytes) -> bool:
        folder, aside = Path(path).parent, temporary_name(path)
        with refusals_of(path, "written"):
            make_folder(folder)
            try:
                write_new(aside, content)
                link_or_rename(aside, path)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in WITHOUT_LINKS:
                    raise
                with suppress(FileExistsError):
                    write_new(Path(path), content)
                    return True
                return False
            finally:
                aside.unlink(missing_ok=True)
            flush(str(folder))
        return True

    def replace(self, path: str, content: bytes) -> None:
        aside = temporary_name(path)
        with refusals_of(path, "written"):
            make_folder(aside.parent)
            try:
                write_new(aside, content)
                aside.replace(path)
            finally:
                aside.unlink(missing_ok=True)

    def move(self, source: str, target: str) -> None:
        with refusals_of(target, "written"):
            make_folder(Path(target).parent)
            try:
                os.rename(source, target)  # noqa: PTH104  # as below
            except FileNotFoundError:  # moved before, or deleted
                return
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                copy_into_place(source, target)
        # two names of one file, as a loss of power may leave them, stay both when one is renamed to the other
        if os.path.lexists(source):
            self.delete(source)

    def delete(self, *files: str) -> None:
        for file in files:
            with refusals_of(file, "deleted"):
                Path(file).unlink(missing_ok=True)

    def delete_empty_folder(self, folder: str) -> None:
        with refusals_of(folder, "deleted"):
            try:
                Path(folder).rmdir()
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.ENOTDIR):
                    raise

    def flush(self, files: Iterable[str]) -> None:
        paths = list(files)
        for path in [*paths, *dict.fromkeys(path.rpartition("/")[0] for path in paths)]:
            with refusals_of(path, "written"), suppress(FileNotFoundError):
                flush(path)

    def delete_folder(self, folder: str) -> None:
        with refusals_of(folder, "deleted"):
            if os.path.islink(folder):  # noqa: PTH114  # a Path raises if it may not look
                Path(folder).unlink(missing_ok=True)
            for _ in range(TRIES):
                with suppress(FileNotFoundError):  # another run deletes it, too
                    shutil.rmtree(folder)
                    return


def require_access(folder: str, wanted: str) -> None:
    """Raises StorageError, about what is wanted, where nothing can be made in a folder."""
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        is_read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
        reason = "read-only file system" if is_read_only else "permission denied"
        raise StorageError(f"{wanted} cannot be written: {reason}")


class ReadFile(io.FileIO):
    """A file of which also what the disk refuses later is a StorageError."""

    def readinto(self, buffer: Any) -> int | None:
        with refusals_of(str(self.name), "read"):
            return super().readinto(buffer)

    def readall(self) -> bytes:
        with refusals_of(str(self.name), "read"):
            return super().readall()


def temporary_name(path: str) -> Path:
    """The hidden name beside a path under which the job writes a file before it gets its name."""
    folder, _, name = path.rpartition("/")
    return Path(folder) / f".{name}-{secrets.token_hex(4)}"


def make_folder(folder: Path) -> None:
    """Makes a folder, and has its name outlive a loss of power."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        flush(str(folder.parent))


def link_or_rename(aside: Path, path: str) -> None:
    """Gives a file its name unless another has it. Raises FileExistsError, and OSError if the file system cannot."""
    try:
        os.link(aside, path)
    except OSError as error:
        if error.errno not in WITHOUT_LINKS or not rename_without_replacing(str(aside), path):
            raise


def rename_without_replacing(source: str, target: str) -> bool:
    """Renames a file unless there is one of that name; tells whether this file system can.

    Raises FileExistsError. Linux alone: https://man7.org/linux/man-pages/man2/renameat2.2.html
    """
    import ctypes  # which takes five milliseconds

    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    done = libc.renameat2(AT_FDCWD, os.fsencode(source), AT_FDCWD, os.fsencode(target), RENAME_NOREPLACE)
    if done and ctypes.get_errno() == errno.EEXIST:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
    return bool(done == 0)


def copy_into_place(source: str, target: str) -> None:
    """Moves a file to another file system, where it gets its name when all of it is there."""
    folder, _, name = target.rpartition("/")
    aside = Path(folder) / f".{name}"
    shutil.copyfile(source, aside)
    flush(str(aside))
    aside.replace(target)
    Path(source).unlink(missing_ok=True)


def write_new(path: Path, content: bytes) -> None:
    """Writes a file that is not there yet, to the disk itself."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def flush(path: str) -> None:
    """Forces a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
