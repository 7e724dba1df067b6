"""The Parquet files: names, order and types of the columns, to any reader."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from check_local_results import COLUMNS, sql_list
from movielens import contract
from tests.support.inputs import MOVIES, RATINGS
from tests.support.jobs import Publish
from tests.support.results import manifest_of, published_files, rows_of


def test_every_dataset_has_the_contract_s_columns(
    engine: str, publish: Publish, input_path: Path, output_path: Path
) -> None:
    publish(engine, input_path, output_path)
    manifest = manifest_of(output_path)
    for dataset, columns in COLUMNS.items():
        files = published_files(output_path, dataset)
        described = duckdb.connect().execute(f"DESCRIBE FROM read_parquet({sql_list(files)})").fetchall()
        assert ", ".join(f"{name} {kind}" for name, kind, *_ in described) == columns
        # and in the words of Spark, in the manifest
        named = manifest["datasets"][dataset]["columns"]
        assert ", ".join(f"{column['name']} {column['type'].upper()}" for column in named) == contract.SCHEMAS[dataset]
        # and as Parquet has them: plain 32 and 64 bits, strings marked as such
        for file in files:
            schema = pq.read_schema(file)
            assert {str(kind) for kind in schema.types} <= {"int32", "int64", "float", "double", "string"}


def test_text_and_numbers_survive_to_the_letter(
    engine: str, publish: Publish, input_path: Path, output_path: Path
) -> None:
    publish(engine, input_path, output_path)
    assert rows_of(output_path, "ratings") == sorted(RATINGS)
    assert rows_of(output_path, "movies") == MOVIES


def test_a_small_result_is_a_handful_of_files(
    engine: str, publish: Publish, input_path: Path, output_path: Path
) -> None:
    publish(engine, input_path, output_path)
    files = [file for dataset in contract.SCHEMAS for file in published_files(output_path, dataset)]
    assert 4 <= len(files) <= 16
