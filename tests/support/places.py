"""Where results are published to, as the tests look at them: a folder on disk, in a bucket, or on HDFS."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from botocore.exceptions import ClientError

from movielens.storage import Storage
from tests.support import s3server
from tests.support.hdfs import Hdfs


class Disk:
    """A folder on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = str(folder)

    def files(self) -> set[str]:
        """The files in the folder and below, relative to it."""
        # not by rglob(), which raises where a folder goes meanwhile
        walked = ((Path(folder), names) for folder, _, names in os.walk(self.folder))
        return {str((folder / name).relative_to(self.folder)) for folder, names in walked for name in names}

    def missing(self, names: set[str]) -> set[str]:
        """Those of the names that are not there."""
        return {name for name in names if not (self.folder / name).exists()}

    def read(self, name: str) -> bytes | None:
        """The content of a file; None when it is missing."""
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Writes a file."""
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_bytes(content)

    def delete(self, name: str) -> None:
        """Deletes a file."""
        (self.folder / name).unlink()

    def copy_of(self, template: Path) -> None:
        """Becomes a copy of a folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(template, self.folder)

    def snapshot(self) -> Path:
        """A folder with what is here now."""
        return self.folder

    def unfinished(self) -> list[str]:
        """Uploads that were begun and not completed; there are none on disk."""
        return []


class Bucket:
    """A folder in the bucket of the tests' server; snapshots are made below a scratch folder."""

    def __init__(self, server: s3server.S3Server, prefix: str, scratch: Path, scheme: str = "s3") -> None:
        self.server, self.prefix, self.scratch = server, prefix, scratch
        self.address = f"{scheme}://{s3server.BUCKET}/{prefix}"
        self.contents: dict[str, bytes] = {}  # of what was read for a snapshot, by ETag

    def files(self) -> set[str]:
        """The objects below the prefix, relative to it."""
        return self.server.keys(self.prefix)

    def missing(self, names: set[str]) -> set[str]:
        """Those of the names that are not there."""
        return names - self.files()

    def read(self, name: str) -> bytes | None:
        """The content of an object; None when it is missing."""
        try:
            return self.server.read(f"{self.prefix}/{name}")
        except ClientError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Writes an object."""
        self.server.client.put_object(Bucket=s3server.BUCKET, Key=f"{self.prefix}/{name}", Body=content)

    def delete(self, name: str) -> None:
        """Deletes an object."""
        self.server.client.delete_object(Bucket=s3server.BUCKET, Key=f"{self.prefix}/{name}")

    def copy_of(self, template: Path) -> None:
        """Becomes a copy of a folder."""
        self.server.delete_below(f"{self.prefix}/")
        self.server.upload(template, self.prefix)

    def snapshot(self) -> Path:
        """A folder with what is here now."""
        folder = Path(tempfile.mkdtemp(dir=self.scratch))
        for name, etag in self.server.etags(self.prefix).items():
            content = self.contents.get(etag) or self.read(name)
            if content is not None and not name.endswith("/"):
                self.contents[etag] = content
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
        return folder

    def unfinished(self) -> list[str]:
        """The keys of uploads that were begun and not completed."""
        return self.server.uploads(self.prefix)


class HdfsFolder:
    """A folder on the tests' HDFS; snapshots are made below a scratch folder."""

    def __init__(self, hdfs: Hdfs, folder: str, scratch: Path) -> None:
        self.hdfs, self.folder, self.scratch = hdfs, folder, scratch
        self.address = f"{hdfs.endpoint}/{folder}"

    def files(self) -> set[str]:
        """The files in the folder and below, relative to it."""
        return self.hdfs.files(self.folder)

    def missing(self, names: set[str]) -> set[str]:
        """Those of the names that are not there."""
        return names - self.files()

    def read(self, name: str) -> bytes | None:
        """The content of a file; None when it is missing."""
        return self.hdfs.read(f"{self.folder}/{name}")

    def write(self, name: str, content: bytes) -> None:
        """Writes a file."""
        self.hdfs.write(f"{self.folder}/{name}", content)

    def delete(self, name: str) -> None:
        """Deletes a file."""
        self.hdfs.delete(f"{self.folder}/{name}")

    def copy_of(self, template: Path) -> None:
        """Becomes a copy of a folder."""
        self.hdfs.delete(self.folder)
        self.hdfs.upload(template, self.folder)

    def snapshot(self) -> Path:
        """A folder with what is here now."""
        return self.hdfs.download(self.folder, Path(tempfile.mkdtemp(dir=self.scratch)) / "snapshot")

    def unfinished(self) -> list[str]:
        """Uploads that were begun and not completed; there are none on HDFS."""
        return []


Place = Disk | Bucket | HdfsFolder

# What the fixture of this name gives: an implementation of Storage, with a place on it
Storages = Callable[..., tuple[Storage, Place]]
