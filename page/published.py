"""The result that stands at an output path: what its manifest says, and its files on this machine."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from movielens.contract import BadInputError, BusyError, UsageError
from movielens.history import HISTORY, read_history
from movielens.manifest import read_manifest
from movielens.publishing import JOURNAL, JOURNAL_OF_EARLIER_VERSIONS, MANIFEST
from movielens.storage import in_parallel
from movielens.storage.disk import DiskStorage
from movielens.storage.paths import absolute, bucket_and_key, is_local, join
from movielens.storage.s3 import S3Storage, refusals_of

if TYPE_CHECKING:
    from pathlib import Path

    from movielens.storage import Storage


@dataclass(frozen=True)
class Result:
    """A published result: its manifest, as it stands there and read, and the lines of its history, the oldest first."""

    output: str
    storage: Storage
    content: bytes
    manifest: dict[str, Any]
    history: list[dict[str, Any]]

    def files(self, dataset: str) -> list[str]:
        """The files of a dataset, as paths below the output; none where it has none."""
        return list(self.manifest["datasets"].get(dataset, {"files": []})["files"])

    def is_still_there(self) -> bool:
        """Whether no other result has taken its place, or is taking it."""
        return self.storage.read(join(self.output, MANIFEST)) == self.content


def find_result(output_path: str) -> Result:
    """The result that is published at a folder or at s3://bucket/folder.

    Raises BadInputError where there is none, BusyError where one is being moved in, UsageError where the path is
    neither, StorageError where a store refuses.
    """
    output = absolute(output_path)
    if not is_local(output) and not output.startswith(("s3://", "s3a://")):
        raise UsageError(f"{output_path} is neither a folder nor s3://bucket/folder")
    storage: Storage = DiskStorage() if is_local(output) else S3Storage()
    content = storage.read(join(output, MANIFEST))
    if content is None:
        if {entry.name for entry in storage.entries(output)} & {JOURNAL, JOURNAL_OF_EARLIER_VERSIONS}:
            raise BusyError(
                f"{output} is being published by a run; try again when that is over, or run the job, which finishes "
                "what a killed run left"
            )
        raise BadInputError(f"{output} holds no result: it has no {MANIFEST}; run the job first")
    try:
        read_manifest(storage, join(output, MANIFEST))  # for what it refuses
        manifest = json.loads(content)
    except ValueError as error:
        raise BadInputError(f"{join(output, MANIFEST)} is damaged; run the job again") from error
    return Result(output, storage, content, manifest, read_history(storage.read(join(output, HISTORY)) or b""))


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
