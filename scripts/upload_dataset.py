#!/usr/bin/env python3
"""Uploads the bundled dataset to s3://<bucket>/dataset, unless one is there; with --dry_run tells what it would do.

Usage: upload_dataset.py [--dry_run] [ACCOUNT] BUCKET; where an account is given, the bucket must be its own.

Exit status: 0 it is there, 1 it is not.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from movielens.contract import PipelineError  # noqa: E402  # found through the line above
from movielens.storage.s3 import refusals_of, s3_client  # noqa: E402  # as above

RELEASE_FILES = ("movies.dat", "ratings.dat", "movies.csv", "ratings.csv", "u.data", "u.item")


def upload(bucket: str, owner: dict[str, str], *, dry_run: bool) -> None:
    """Uploads both files, unless one of a release is there, of whatever format, under its name or compressed."""
    client = s3_client()
    there = client.list_objects_v2(Bucket=bucket, Prefix="dataset/", **owner).get("Contents", [])
    names = {found["Key"].split("/")[1] for found in there}  # a folder of parts has its name before theirs
    if any(name.startswith(RELEASE_FILES) for name in names):
        return
    for name in ("movies.dat", "ratings.dat"):
        file = str(ROOT / "dataset" / name)
        if dry_run:
            print(shlex.join(["aws", "s3", "cp", "--only-show-errors", file, f"s3://{bucket}/dataset/{name}"]))
        else:
            client.upload_file(file, bucket, f"dataset/{name}", ExtraArgs=owner)
    if not dry_run:
        print(f"uploaded the bundled dataset to s3://{bucket}/dataset", file=sys.stderr)


def main(arguments: list[str]) -> int:
    """Uploads, or says in one line why not."""
    *others, bucket = arguments
    accounts = [other for other in others if other != "--dry_run"]
    owner = {"ExpectedBucketOwner": accounts[0]} if accounts else {}
    try:
        with refusals_of(f"s3://{bucket}"):
            upload(bucket, owner, dry_run="--dry_run" in others)
    except PipelineError as error:
        print(f"upload_dataset: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
