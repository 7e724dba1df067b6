#!/usr/bin/env python3
"""Uploads the bundled dataset to s3://<bucket>/dataset, unless one is there. Exit status: 0 it is, 1 it is not."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import movielens_pipeline as job  # noqa: E402  # found through the line above


def upload(bucket: str) -> None:
    """Uploads both files, unless one of them is there, under its name or compressed."""
    client = job.s3_client()
    there = client.list_objects_v2(Bucket=bucket, Prefix="dataset/").get("Contents", [])
    if any(Path(found["Key"]).name.startswith(("movies.dat", "ratings.dat")) for found in there):
        return
    for name in ("movies.dat", "ratings.dat"):
        client.upload_file(str(ROOT / "dataset" / name), bucket, f"dataset/{name}")
    print(f"uploaded the bundled dataset to s3://{bucket}/dataset", file=sys.stderr)


def main(bucket: str) -> int:
    """Uploads, or says in one line why not."""
    try:
        upload(bucket)
    except Exception as error:
        refusal = job.refusal_of_store(error)
        if refusal is None:
            raise
        print(f"upload_dataset: error: s3://{bucket}: {refusal}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
