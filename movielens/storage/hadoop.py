"""Hadoop's FileSystem, for spark: HDFS, or S3 by what the session itself reads and writes with."""

from __future__ import annotations

import logging
import secrets
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from movielens.contract import PipelineError, UsageError
from movielens.storage import Entry, in_parallel, last_begun
from movielens.storage.paths import bucket_and_key, join
from movielens.storage.refusals import StorageError, meaning_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import IO

    from pyspark.sql import SparkSession


log = logging.getLogger("movielens_pipeline")

# What S3A raises if the file to create is there already
NOT_CREATED = ("FileAlreadyExistsException", "RemoteFileChangedException")
TRIES = 10  # to read a file that others replace
CONDITIONAL = "fs.option.create.conditional.overwrite"


class HadoopStorage:
    """Storage by the FileSystem that Hadoop has for the path."""

    def __init__(self, spark: SparkSession, path: str) -> None:
        self.jvm = cast("Any", spark._jvm)
        self.gateway = cast("Any", spark.sparkContext._gateway)
        # asked once, for each answer of Java takes its time, and so does each part of a name
        self.scheme = hadoop_path(spark, path).partition("://")[0]
        self.new_path = self.jvm.org.apache.hadoop.fs.Path
        self.all_bytes = self.jvm.org.apache.commons.io.IOUtils.toByteArray
        with refusals_of(path):
            self.fs = self.path(path).getFileSystem(spark._jsc.hadoopConfiguration())
        self.is_s3 = str(self.fs.getUri().getScheme()).startswith("s3")
        # EMR may have another client for S3
        self.is_s3a = str(self.fs.getClass().getSimpleName()) == "S3AFileSystem"

    def path(self, path: str) -> Any:
        """Hadoop's Path of a path of ours."""
        place = path.partition("://")[2]
        # the root of a store is a path, too
        return self.new_path(f"{self.scheme}://{place if '/' in place else f'{place}/'}")

    def entries(self, folder: str) -> list[Entry]:
        with refusals_of(folder):
            try:
                found = self.fs.listStatus(self.path(folder))
            except Exception as error:
                if is_java(error, "FileNotFoundException"):
                    return []
                raise
            entries = [
                Entry(
                    join(folder, status.getPath().getName()),
                    status.getLen(),
                    status.getModificationTime() / 1000,
                    status.isDirectory(),
                    str(status.getETag() or "") if self.is_s3a and status.isFile() else "",
                )
                for status in found
            ]
            # of a file Hadoop lists the file itself
            is_file = len(found) == 1 and found[0].getPath().toString() == self.path(folder).toString()
            return [] if is_file else entries

    def now(self, folder: str) -> float:
        # Hadoop tells no time but that of files
        clock = self.path(join(folder, f"_clock-{secrets.token_hex(4)}"))
        with refusals_of(folder):
            self.fs.create(clock, False).close()  # makes the folder, too
            time = self.fs.getFileStatus(clock).getModificationTime() / 1000
            self.fs.delete(clock, False)
        return float(time)

    def require_writable(self, folder: str, *names: str) -> None:
        if self.is_s3a:
            return
        path, writing = self.path(folder), self.jvm.org.apache.hadoop.fs.permission.FsAction.WRITE_EXECUTE
        with refusals_of(folder):
            while not self.fs.exists(path):
                path = path.getParent()
            if self.fs.getFileStatus(path).isFile():
                raise UsageError(f"{path.toString()} is a file: choose another --output_path")
        for below in (folder, *(join(folder, name) for name in names)):
            with refusals_of(below):
                try:
                    self.fs.access(self.path(below), writing)
                except Exception as error:
                    if is_java(error, "AccessControlException"):
                        raise StorageError(f"{below} cannot be written: permission denied") from error
                    if not is_java(error, "FileNotFoundException"):
                        raise

    def uploads(self, folder: str) -> list[Entry]:
        if not self.is_s3a:
            return []
        _, key = bucket_and_key(folder)
        begun = []
        with refusals_of(folder):
            found = self.fs.listUploads(f"{key}/")
            while found.hasNext():
                upload = found.next()
                begun.append((upload.key()[len(key) + 1 :], upload.initiated().toEpochMilli() / 1000))
        return last_begun(folder, begun)

    def abort_uploads(self, path: str) -> None:
        if not self.is_s3a:
            return
        _, key = bucket_and_key(path)
        with refusals_of(path):
            found = self.fs.listUploads(f"{key.rpartition('/')[0]}/")
            while found.hasNext():
                upload = found.next()
                if f"{upload.key()}/".startswith(f"{key}/"):
                    self.fs.abortMultipartUpload(upload)

    def read(self, path: str) -> bytes | None:
        return self.read_with(path, self.all_bytes)

    def part(self, path: str, start: int, length: int) -> bytes:
        def read(stream: Any) -> Any:
            stream.seek(start)
            return stream.readNBytes(length)

        return self.read_with(path, read) or b""

    def read_with(self, path: str, read: Callable[[Any], Any]) -> bytes | None:
        """What is read from the stream of a file; None when it is missing."""
        with refusals_of(path):
            for tries_left in reversed(range(TRIES)):
                try:
                    stream = self.fs.open(self.path(path))
                    try:
                        return bytes(read(stream))  # S3A asks for the object only here
                    finally:
                        stream.close()
                except Exception as error:  # noqa: PERF203  # a try is a request, which takes longer
                    if is_java(error, "FileNotFoundException"):
                        return None
                    # another run replaced it since S3A asked for its size
                    if not (tries_left and is_java(error, "RemoteFileChangedException", "EOFException")):
                        raise
            return None

    def open(self, path: str) -> IO[bytes]:
        # a copy, for bytes come from Java slowly
        with tempfile.TemporaryDirectory() as folder, refusals_of(path):
            copy = f"{folder}/copy"
            target = self.new_path(f"file://{copy}")
            self.fs.copyToLocalFile(False, self.path(path), target, True)
            return Path(copy).open("rb")

    def create(self, path: str, content: bytes) -> bool:
        # The plain create() of S3A looks first and writes then, so that several at once would succeed; asked for a
        # conditional write it leaves the decision to the store. HDFS would show an empty file before its content.
        if not self.is_s3:
            return self.create_by_rename(path, content)
        target = self.path(path)
        with refusals_of(path):
            creation = self.fs.createFile(target).overwrite(False).recursive()
            if self.fs.hasPathCapability(target, CONDITIONAL):
                creation = creation.opt(CONDITIONAL, True)
            else:
                log.warning(
                    "the S3 client of this Hadoop has no conditional writes: see to it that no other run publishes now"
                )
            try:
                write(creation.build(), content)
            except Exception as error:
                if is_java(error, *NOT_CREATED):
                    return False
                raise
        return True

    def create_by_rename(self, path: str, content: bytes) -> bool:
        """Creates a file under another name, and renames it unless there is one; tells whether it did."""
        aside = temporary_name(path)
        with refusals_of(path):
            if self.fs.exists(self.path(path)):
                return False
            try:
                write(self.fs.create(self.path(aside), False), content)
                return self.renamed(aside, path)
            except Exception as error:
                if is_java(error, "FileNotFoundException"):  # another run took it for a leftover
                    return False
                raise
            finally:
                self.fs.delete(self.path(aside), False)

    def replace(self, path: str, content: bytes) -> None:
        target = self.path(path)
        with refusals_of(path):
            if self.is_s3:
                write(self.fs.create(target, True), content)
                return
            aside = self.path(temporary_name(path))
            write(self.fs.create(aside, False), content)
            context = self.jvm.org.apache.hadoop.fs.FileContext.getFileContext(self.fs.getUri(), self.fs.getConf())
            option = getattr(self.jvm.org.apache.hadoop.fs, "Options$Rename")
            overwrite = self.gateway.new_array(option, 1)
            overwrite[0] = option.OVERWRITE
            context.rename(aside, target, overwrite)

    def move(self, source: str, target: str) -> None:
        with refusals_of(target):
            if self.renamed(source, target) or not self.fs.exists(self.path(source)):
                return
            # HDFS wants the folder to be there, and none of the two replaces a target
            self.fs.mkdirs(self.path(target.rpartition("/")[0]))
            self.fs.delete(self.path(target), False)
            if not self.renamed(source, target) and self.fs.exists(self.path(source)):
                raise PipelineError(f"could not move {source} to {target}")

    def renamed(self, source: str, target: str) -> bool:
        """Renames a file; tells whether it did."""
        try:
            return bool(self.fs.rename(self.path(source), self.path(target)))
        except Exception as error:
            if is_java(error, "FileAlreadyExistsException", "FileNotFoundException"):
                return False
            raise

    def delete(self, *files: str) -> None:
        def delete(file: str) -> None:
            with refusals_of(file):
                self.fs.delete(self.path(file), False)

        in_parallel(delete, files)

    def delete_folder(self, folder: str) -> None:
        with refusals_of(folder):
            self.fs.delete(self.path(folder), True)
        self.abort_uploads(folder)

    def delete_empty_folder(self, folder: str) -> None:
        with refusals_of(folder):
            try:
                self.fs.delete(self.path(folder), False)
            except Exception as error:
                if not is_java(error, "PathIsNotEmptyDirectoryException", "IOException"):
                    raise

    def flush(self, files: Iterable[str]) -> None:
        pass  # several machines, or a store, have what is written


def temporary_name(path: str) -> str:
    """The name beside a path, hidden from Spark, under which the job writes a file before it gets its name."""
    folder, _, name = path.rpartition("/")
    return join(folder, f"_{name}-{secrets.token_hex(4)}")


def write(stream: Any, content: bytes) -> None:
    """Writes a file whose stream Java opened."""
    stream.write(content)
    stream.close()


def hadoop_path(spark: SparkSession, path: str) -> str:
    """The path as Hadoop takes it: on the local disk where no store is named."""
    if path.startswith("s3://") and not spark._jsc.hadoopConfiguration().get("fs.s3.impl"):
        return f"s3a{path[2:]}"  # the name of Hadoop's own S3 client; EMR has one for s3://
    return path if "://" in path else f"file://{path}"


def is_java(error: Exception, *names: str) -> bool:
    """Whether an error is an exception of Java of one of these classes."""
    thrown = getattr(error, "java_exception", None)
    if thrown is None:
        return False
    kind = thrown.getClass().getSimpleName()
    if kind == "RemoteException":  # what a namenode raised
        kind = thrown.getClassName().rpartition(".")[2]
    return kind in names


@contextmanager
def refusals_of(path: str) -> Iterator[None]:
    """Turns what a store refused, as Java's exceptions tell it, into StorageError."""
    try:
        yield
    except Exception as error:
        meaning = meaning_of(str(error), path) if hasattr(error, "java_exception") else None
        if meaning is None:
            raise
        raise StorageError(f"{path}: {meaning}") from error
