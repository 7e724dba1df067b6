"""S3 through AWS's own client, for the engine that brings none for folders."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from movielens.storage import Entry, last_begun
from movielens.storage.paths import bucket_and_key, join
from movielens.storage.refusals import CODES, NO_CREDENTIALS, StorageError, unreachable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import IO

COPY_BYTES = 256 * 2**20  # S3 copies at most 5 GB in one request, and these in parallel
KEYS_AT_ONCE = 1000


class S3Storage:
    """Storage on S3."""

    @cached_property
    def client(self) -> Any:
        """Made at the first use, where a profile that is not there is found out."""
        return s3_client()

    def entries(self, folder: str) -> list[Entry]:
        bucket, prefix = bucket_and_prefix(folder)
        entries: list[Entry] = []
        with refusals_of(folder):
            for page in self.pages("list_objects_v2", Bucket=bucket, Prefix=prefix, Delimiter="/"):
                entries += (
                    Entry(join(folder, found["Prefix"][len(prefix) : -1]), 0, 0.0, is_folder=True)
                    for found in page.get("CommonPrefixes", [])
                )
                entries += (
                    Entry(join(folder, name), found["Size"], found["LastModified"].timestamp(), False, found["ETag"])
                    for found in page.get("Contents", [])
                    if (name := found["Key"][len(prefix) :])  # without one it is the mark of the folder itself
                )
        return entries

    def now(self, folder: str) -> float:
        bucket, prefix = bucket_and_prefix(folder)
        with refusals_of(folder):
            answer = self.client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
        return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()

    def require_writable(self, folder: str, *names: str) -> None:
        pass  # rights are on keys: what may be written to staging may be written beside it

    def uploads(self, folder: str) -> list[Entry]:
        bucket, prefix = bucket_and_prefix(folder)
        with refusals_of(folder):
            pages = self.pages("list_multipart_uploads", Bucket=bucket, Prefix=prefix)
            begun = [
                (upload["Key"][len(prefix) :], upload["Initiated"].timestamp())
                for page in pages
                for upload in page.get("Uploads", [])
            ]
        return last_begun(folder, begun)

    def abort_uploads(self, path: str) -> None:
        bucket, key = bucket_and_key(path)
        with refusals_of(path):
            for page in self.pages("list_multipart_uploads", Bucket=bucket, Prefix=key):
                for upload in page.get("Uploads", []):
                    if upload["Key"] != key and not upload["Key"].startswith(f"{key}/"):
                        continue
                    with suppress(self.client.exceptions.NoSuchUpload):  # completed or aborted meanwhile
                        self.client.abort_multipart_upload(
                            Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                        )

    def read(self, path: str) -> bytes | None:
        bucket, key = bucket_and_key(path)
        with refusals_of(path):
            try:
                return bytes(self.client.get_object(Bucket=bucket, Key=key)["Body"].read())
            except self.client.exceptions.NoSuchKey:
                return None

    def part(self, path: str, start: int, length: int) -> bytes:
        bucket, key = bucket_and_key(path)
        with refusals_of(path):
            try:
                found = self.client.get_object(Bucket=bucket, Key=key, Range=f"bytes={start}-{start + length - 1}")
                return bytes(found["Body"].read())
            except self.client.exceptions.ClientError as error:
                if code_of(error) in ("NoSuchKey", "InvalidRange"):
                    return b""
                raise

    def open(self, path: str) -> IO[bytes]:
        # a copy, for a stream breaks with its connection
        bucket, key = bucket_and_key(path)
        copy = tempfile.TemporaryFile()  # noqa: SIM115  # for the caller to close
        with refusals_of(path):
            self.client.download_fileobj(bucket, key, copy)
        copy.seek(0)
        return copy

    def create(self, path: str, content: bytes) -> bool:
        bucket, key = bucket_and_key(path)
        with refusals_of(path):
            try:
                self.client.put_object(Bucket=bucket, Key=key, Body=content, IfNoneMatch="*")
            except self.client.exceptions.ClientError as error:
                if code_of(error) in ("PreconditionFailed", "ConditionalRequestConflict"):
                    return False
                raise
        return True

    def replace(self, path: str, content: bytes) -> None:
        bucket, key = bucket_and_key(path)
        with refusals_of(path):
            self.client.put_object(Bucket=bucket, Key=key, Body=content)

    def move(self, source: str, target: str) -> None:
        from boto3.s3.transfer import TransferConfig

        (bucket, key), (target_bucket, target_key) = bucket_and_key(source), bucket_and_key(target)
        in_parts = TransferConfig(multipart_threshold=COPY_BYTES, multipart_chunksize=COPY_BYTES)
        with refusals_of(target):
            try:
                self.client.copy({"Bucket": bucket, "Key": key}, target_bucket, target_key, Config=in_parts)
            except self.client.exceptions.ClientError as error:
                if code_of(error) in ("404", "NoSuchKey"):
                    return
                raise
            self.client.delete_object(Bucket=bucket, Key=key)

    def delete(self, *files: str) -> None:
        keys = [{"Key": bucket_and_key(file)[1]} for file in files]
        for start in range(0, len(keys), KEYS_AT_ONCE):
            bucket, _ = bucket_and_key(files[0])
            chunk = {"Objects": keys[start : start + KEYS_AT_ONCE], "Quiet": True}
            with refusals_of(files[start]):
                refused = self.client.delete_objects(Bucket=bucket, Delete=chunk).get("Errors", [])
            for error in refused:
                meaning = CODES.get(error["Code"], f"it could not be deleted: {error['Code']}: {error['Message']}")
                raise StorageError(f"s3://{bucket}/{error['Key']}: {meaning}")

    def delete_folder(self, folder: str) -> None:
        bucket, prefix = bucket_and_prefix(folder)
        with refusals_of(folder):
            for page in self.pages("list_objects_v2", Bucket=bucket, Prefix=prefix):
                self.delete(*(f"s3://{bucket}/{found['Key']}" for found in page.get("Contents", [])))
        self.abort_uploads(folder)

    def delete_empty_folder(self, folder: str) -> None:
        pass  # a folder is there as long as something is in it

    def flush(self, files: Iterable[str]) -> None:
        pass  # what is written is kept

    def pages(self, operation: str, **arguments: str) -> Any:
        """The pages of an operation that lists."""
        return self.client.get_paginator(operation).paginate(**arguments)


def bucket_and_prefix(folder: str) -> tuple[str, str]:
    """The bucket, and what the keys below the folder begin with."""
    bucket, key = bucket_and_key(folder)
    return bucket, f"{key}/" if key else ""


def s3_client() -> Any:
    """A client of S3 with bounded patience; credentials come from wherever the AWS command line takes them."""
    import boto3
    from botocore.config import Config

    endpoint = s3_endpoint()
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=aws_region(),
        config=Config(
            connect_timeout=5,
            read_timeout=20,
            retries={"mode": "standard", "total_max_attempts": 5},
            s3={"addressing_style": "path" if endpoint else "auto"},
        ),
    )


def s3_endpoint() -> str | None:
    """The address of a store that speaks S3, as AWS's own tools take it; None for AWS."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def aws_region() -> str | None:
    """The region that the environment names."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")


def code_of(error: Any) -> str:
    """The code of what S3 answered."""
    return str(error.response["Error"]["Code"])


@contextmanager
def refusals_of(path: str) -> Iterator[None]:
    """Turns what AWS's client raises into StorageError, by the code of the answer or the class of the error."""
    from boto3.exceptions import Boto3Error
    from botocore import exceptions

    try:
        yield
    except exceptions.ClientError as error:
        code = code_of(error)
        status = str(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
        meaning = CODES.get(code) or CODES.get(status) or str(error)
        raise StorageError(f"{path}: {meaning}") from error
    except (
        exceptions.NoCredentialsError,
        exceptions.PartialCredentialsError,
        exceptions.CredentialRetrievalError,
        exceptions.ProfileNotFound,
        exceptions.TokenRetrievalError,
    ) as error:
        raise StorageError(f"{path}: {NO_CREDENTIALS}") from error
    except (exceptions.HTTPClientError, exceptions.ConnectionError) as error:
        raise StorageError(f"{path}: {unreachable(path)}") from error
    except (exceptions.BotoCoreError, Boto3Error) as error:
        raise StorageError(f"{path}: {' '.join(str(error).split())}") from error
