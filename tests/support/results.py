"""Looking at results."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import duckdb

import check_local_results
from movielens.history import HISTORY, read_history

DATASETS = set(check_local_results.COLUMNS)


def numbers_of(output_path: Path) -> list[int]:
    """The numbers of the manifests at an output path, the lowest first."""
    return sorted(int(path.stem) for path in output_path.glob("_manifests/*.json"))


def manifest_of(output_path: Path) -> dict[str, Any]:
    """The manifest of the result that stands, also if version 0.6 published it."""
    numbers = numbers_of(output_path)
    name = f"_manifests/{numbers[-1]}.json" if numbers else "_manifest.json"
    manifest: dict[str, Any] = json.loads((output_path / name).read_bytes())
    return manifest


def has_manifest(output_path: Path) -> bool:
    """Whether a manifest says what is published."""
    return bool(numbers_of(output_path)) or (output_path / "_manifest.json").exists()


def published_files(output_path: Path, dataset: str) -> list[str]:
    """The files of a published dataset; none if it has none."""
    listed = manifest_of(output_path)["datasets"].get(dataset, {"files": []})["files"]
    return [str(output_path / file) for file in listed]


def history_of(output_path: Path) -> list[dict[str, Any]]:
    """The history beside a published result, the oldest run first."""
    return read_history((output_path / HISTORY).read_bytes())


def rows_of(output_path: Path, dataset: str) -> list[tuple[Any, ...]]:
    """The rows of a published dataset, sorted, read with DuckDB from the files that the manifest lists."""
    listed = check_local_results.sql_list(published_files(output_path, dataset))
    return duckdb.connect().execute(f"SELECT * FROM read_parquet({listed}) ORDER BY ALL").fetchall()


def assert_equal_by_check(input_path: Path | str, output_path: Path | str) -> None:
    """The independent check finds all datasets equal."""
    assert is_equal_by_check(input_path, output_path)


# What the check found, by all that it looks at: tests of publishing see the same two results hundreds of times
FOUND: dict[str, bool] = {}


def is_equal_by_check(input_path: Path | str, output_path: Path | str) -> bool:
    """Whether the independent check finds all datasets equal."""
    if isinstance(input_path, str) or isinstance(output_path, str) or not numbers_of(output_path):
        return check_local_results.check(input_path, output_path)
    seen = digest(input_path, output_path)
    if seen not in FOUND:
        FOUND[seen] = check_local_results.check(input_path, output_path)
    return FOUND[seen]


def digest(input_path: Path, output_path: Path) -> str:
    """What tells an input and a result apart from others: the files, and what the manifest says of its own."""
    manifest = manifest_of(output_path)
    listed = [output_path / file for dataset in manifest["datasets"].values() for file in dataset["files"]]
    found = hashlib.sha256(json.dumps([manifest["datasets"], manifest["rejects"]]).encode())
    for file in [*sorted(input_path.rglob("*")), *listed]:
        if file.is_file():
            found.update(f"{file.name} {file.stat().st_size} ".encode())
            found.update(file.read_bytes())
    return found.hexdigest()


def visible_names(folder: Path) -> set[str]:
    """What a folder holds, without the journal, the manifests, the history and an empty staging folder."""
    if not folder.is_dir():
        return set()
    hidden = {"_journal", "_manifests", HISTORY} | (set() if any(folder.glob("_staging/*")) else {"_staging"})
    return {entry.name for entry in folder.iterdir()} - hidden
