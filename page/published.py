"""The result that stands at an output path: what its manifest says, and its files on this machine."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from movielens.contract import BadInputError, BusyError, UsageError
from movielens.history import HISTORY, read_history
from movielens.manifest import parse_manifest
from movielens.storage import in_parallel
from movielens.storage.disk import DiskStorage
from movielens.storage.paths import absolute, bucket_and_key, is_local, join
from movielens.storage.s3 import S3Storage, refusals_of

if TYPE_CHECKING:
    from movielens.storage import Storage

TRIES = 10  # as often as a newer result may replace the one that is being read
MANIFESTS = "_manifests"
COPY = "_manifest.json"  # of the highest one; up to version 0.6.6 the only one
JOURNAL = "_journal"


class ReplacedError(BusyError):
    """A newer result took the place of the one that was being read."""

    def __init__(self, output: str) -> None:
        super().__init__(f"{output} was published anew again and again while it was read; try again")


@dataclass(frozen=True)
class Result:
    """A published result: its manifest, as it stands at a path and read, and its history, the oldest run first."""

    output: str
    storage: Storage
    path: str
    content: bytes
    manifest: dict[str, Any]
    history: list[dict[str, Any]]

    def files(self, dataset: str) -> list[str]:
        """The files of a dataset, as paths below the output; none where it has none."""
        return list(self.manifest["datasets"].get(dataset, {"files": []})["files"])

    @property
    def is_numbered(self) -> bool:
        """True if its files stay, unchanged, until a higher number is there."""
        return self.path != join(self.output, COPY)

    def require_still_there(self) -> None:
        """Raises ReplacedError if another result took its place."""
        if newest_manifest(self.storage, self.output) != (self.path, self.content):
            raise ReplacedError(self.output)


def find_result(output_path: str) -> Result:
    """The result that is published at a folder or at s3://bucket/folder.

    Raises BadInputError if there is none, UsageError if the path is neither, StorageError if a store refuses, and what
    newest_manifest raises.
    """
    output = absolute(output_path)
    if not is_local(output) and not output.startswith(("s3://", "s3a://")):
        raise UsageError(f"{output_path} is neither a folder nor s3://bucket/folder")
    storage: Storage = DiskStorage() if is_local(output) else S3Storage()
    path, content = newest_manifest(storage, output)
    manifest = json.loads(content)
    if not manifest["datasets"]:
        raise BadInputError(f"{output} holds no result: {path} lists no dataset; run the job first")
    history = read_history(storage.read(join(output, HISTORY)) or b"")
    return Result(output, storage, path, content, manifest, history)


def newest_manifest(storage: Storage, output: str) -> tuple[str, bytes]:
    """Path and content of the manifest with the highest number, else of `_manifest.json`; skips one that is cut off.

    Raises BadInputError if there is none, BusyError if there is none yet, ReplacedError if it goes before it is read,
    UsageError if the job did not write it.
    """
    numbered, damaged = numbered_manifests(storage, output), ""
    for path in [*numbered, join(output, COPY)]:
        content = storage.read(path)
        if content is None:
            if path in numbered:
                raise ReplacedError(output)
            continue
        try:
            parse_manifest(path, content)
        except ValueError:
            damaged = damaged or path
        else:
            return path, content
    if damaged:
        raise BadInputError(f"{damaged} is damaged; run the job again")
    if JOURNAL in {entry.name for entry in storage.entries(output)}:
        raise BusyError(
            f"{output} holds no result yet: a run is publishing the first one, or was killed; try again, or run the job"
        )
    raise BadInputError(f"{output} holds no result; run the job first")


def numbered_manifests(storage: Storage, output: str) -> list[str]:
    """The paths of the numbered manifests, the highest first."""
    found = {
        int(entry.name[:-5]): entry.path
        for entry in storage.entries(join(output, MANIFESTS))
        if re.fullmatch(r"[1-9][0-9]*\.json", entry.name) and not entry.is_folder
        # on disk it may be a pipe, or a link that leads nowhere
        if not is_local(entry.path) or Path(entry.path).is_file()
    }
    return [found[number] for number in sorted(found, reverse=True)]


def fetch(result: Result, scratch: Path) -> dict[str, list[str]]:
    """The files of each dataset on this machine: where they are, or as copies in the scratch folder."""
    listed = {name: result.files(name) for name in result.manifest["datasets"]}
    if is_local(result.output):
        return {name: [join(result.output, file) for file in files] for name, files in listed.items()}
    client = S3Storage().client

    def download(file: str) -> str:
        bucket, key = bucket_and_key(join(result.output, file))
        copy = scratch / file
        copy.parent.mkdir(parents=True, exist_ok=True)
        with refusals_of(f"s3://{bucket}/{key}"):
            client.download_file(bucket, key, str(copy))
        return str(copy)

    return {name: in_parallel(download, files) for name, files in listed.items()}
