"""The check finds what differs, and only that."""

from __future__ import annotations

import gzip
import itertools
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

import check_local_results
from check_local_results import derive, main, published_files, sql_list
from tests.support.inputs import write_input
from tests.support.jobs import Publish
from tests.support.project import ROOT
from tests.support.results import manifest_of

Check = Callable[..., tuple[int, str]]


@pytest.fixture
def published(publish: Publish, input_path: Path, output_path: Path) -> Path:
    publish("sail", input_path, output_path)
    return output_path


@pytest.fixture
def check(input_path: Path, output_path: Path, capfd: pytest.CaptureFixture[str]) -> Check:
    def run(input_folder: Path = input_path) -> tuple[int, str]:
        capfd.readouterr()
        status = main(["--input_path", str(input_folder), "--output_path", str(output_path)])
        return status, capfd.readouterr().out

    return run


def rewrite(output_path: Path, dataset: str, select: str) -> None:
    """Replaces a published dataset by a query over it."""
    files = published_files(output_path, dataset)
    connection = duckdb.connect()
    connection.execute(f"CREATE TABLE published AS FROM read_parquet({sql_list(files)})")
    for file in files:
        Path(file).unlink()
    connection.execute(f"COPY ({select}) TO '{files[0]}' (FORMAT parquet)")
    manifest = manifest_of(output_path)
    manifest["datasets"][dataset]["files"] = [str(Path(files[0]).relative_to(output_path))]
    (output_path / "_manifest.json").write_text(json.dumps(manifest))


@pytest.mark.usefixtures("published")
def test_equal_datasets_are_reported_line_by_line(check: Check) -> None:
    assert check() == (
        0,
        "ratings: equal: 6 rows, 0 missing, 0 extra\n"
        "movies: equal: 5 rows, 0 missing, 0 extra\n"
        "movies_with_stats: equal: 5 rows, 0 missing, 0 extra\n"
        "top_movies_per_user: equal: 5 rows, 0 missing, 0 extra\n"
        "rejects: equal: 0 rows\n",
    )


@pytest.mark.parametrize(
    ("dataset", "select", "report"),
    [
        ("ratings", "FROM published WHERE userId <> 2", "ratings: DIFFERENT: 4 rows, 2 missing, 0 extra\n"),
        ("ratings", "FROM published UNION ALL (FROM published LIMIT 1)", "DIFFERENT: 7 rows, 0 missing, 1 extra\n"),
        ("movies", "SELECT * REPLACE (trim(title, '\"') AS title) FROM published", "5 rows, 1 missing, 1 extra\n"),
        (
            "movies_with_stats",
            "SELECT * REPLACE (avg_rating + 1e-15 AS avg_rating) FROM published",
            "missing (10, 'First (2001)', 'Drama', 5.0, 0.5, 2.75)\n",
        ),
        (
            "top_movies_per_user",
            "SELECT * REPLACE ((rank % 3 + 1)::INTEGER AS rank) FROM published",
            "top_movies_per_user: DIFFERENT: 5 rows, 5 missing, 5 extra\n",
        ),
        (
            "movies_with_stats",
            "SELECT * REPLACE (avg_rating::FLOAT AS avg_rating) FROM published",
            "its columns are movieId INTEGER, title VARCHAR, genres VARCHAR, max_rating FLOAT, min_rating FLOAT, "
            "avg_rating FLOAT; expected",
        ),
        ("movies", "SELECT title, movieId, genres FROM published", "its columns are title VARCHAR, movieId INTEGER"),
    ],
)
def test_a_difference_is_counted_and_shown(
    published: Path, check: Check, dataset: str, select: str, report: str
) -> None:
    rewrite(published, dataset, select)
    status, said = check()
    assert status == 1
    assert report in said


def test_a_dataset_that_is_missing_is_a_difference(published: Path, check: Check) -> None:
    for file in published_files(published, "movies"):
        Path(file).unlink()
    (published / "_manifest.json").unlink()
    status, said = check()
    assert status == 1
    assert f"movies: DIFFERENT: {published}/movies has no Parquet file\n" in said


def test_rejects_are_counted(publish: Publish, tmp_path: Path, output_path: Path, check: Check) -> None:
    ratings = b"\xef\xbb\xbf1::10::5::100\n1::11\n\n2::12::5::1\x03\n"
    folder = write_input(tmp_path / "bad", ratings, b"10::A::B\n10::C::D\n")
    publish("sail", folder, output_path, "--max_rejects", 5)
    assert check(folder)[0] == 0
    (folder / "ratings.dat").write_bytes(b"1::10::5::100\n1::11\n2\n3\n")
    status, said = check(folder)
    assert status == 1
    assert "rejects: DIFFERENT: expected 4: 3 rows\n" in said
    # more than expected are as wrong as fewer
    (folder / "ratings.dat").write_bytes(b"1::10::5::100\n1::11\n")
    status, said = check(folder)
    assert status == 1
    assert "rejects: DIFFERENT: expected 2: 3 rows\n" in said


def test_a_file_that_the_manifest_does_not_list_does_not_count(published: Path, check: Check) -> None:
    # given files of another run, as a publish that goes on leaves them for a moment
    for dataset in ("ratings", "movies", "rejects"):
        (published / dataset).mkdir(exist_ok=True)
        duckdb.execute(f"COPY (SELECT 1 AS one) TO '{published / dataset}/another.parquet' (FORMAT parquet)")
    status, said = check()
    assert status == 0, said


def test_a_folder_that_looks_like_a_partition_is_but_a_folder(
    publish: Publish, tmp_path: Path, input_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "day=1"
    shutil.copytree(input_path, folder / "line=2")
    publish("sail", folder / "line=2", folder / "out")
    status = main(["--input_path", str(folder / "line=2"), "--output_path", str(folder / "out")])
    assert status == 0, capfd.readouterr().out


def test_a_dataset_that_the_check_does_not_know_is_not_equal(published: Path, check: Check) -> None:
    manifest = manifest_of(published)
    manifest["datasets"]["users"] = manifest["datasets"]["movies"]
    (published / "_manifest.json").write_text(json.dumps(manifest))
    status, said = check()
    assert status == 1
    assert said.endswith("\nusers: DIFFERENT: this check does not know it\n")


def test_where_the_manifest_lists_nothing_nothing_was_published(published: Path, check: Check) -> None:
    (published / "_manifest.json").write_text(json.dumps({**manifest_of(published), "datasets": {}}))
    status, said = check()
    assert status == 1
    assert f"ratings: DIFFERENT: {published}/ratings has no Parquet file\n" in said


@pytest.mark.parametrize("chunk", [7, 16 * 2**20])
@pytest.mark.parametrize("ends", list(itertools.permutations([b"\n", b"\r\n", b"\r", b"\r\r\n"])))
def test_line_ends_of_every_kind_are_read_in_one_file(
    tmp_path: Path, chunk: int, ends: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a byte-order mark, and a letter that is in no valid rating
    monkeypatch.setattr(check_local_results, "CHUNK", chunk)
    lines = [b"1::10::5::100", b"2::11::4::101", b"3::12::3::102", b"4::13::\xe9::103", b"5::14::1::104"]
    data = b"\xef\xbb\xbf" + b"".join(line + end for line, end in zip(lines, [*ends, b""], strict=True))
    folder = write_input(tmp_path / "input", data, b"10::A::B" + b"".join(ends) + b"11::C::D")
    connection = duckdb.connect()
    # then what is derived is each line, once
    assert derive(connection, folder, tmp_path) == 1
    assert sorted(connection.execute("FROM expected_ratings").fetchall()) == [
        (1, 10, 5, 100), (2, 11, 4, 101), (3, 12, 3, 102), (5, 14, 1, 104)
    ]  # fmt: skip
    assert len(connection.execute("FROM expected_movies").fetchall()) == 2


@pytest.mark.usefixtures("published")
def test_compressed_input_is_checked_too(check: Check, input_path: Path) -> None:
    ratings = input_path / "ratings.dat"
    (input_path / "ratings.dat.gz").write_bytes(gzip.compress(ratings.read_bytes()))
    ratings.unlink()
    assert check()[0] == 0


@pytest.mark.parametrize("damage", [b"", b"{", b"[]"])
def test_a_damaged_manifest_is_nothing_to_compare(
    published: Path, input_path: Path, damage: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    (published / "_manifest.json").write_bytes(damage)
    assert main(["--input_path", str(input_path), "--output_path", str(published)]) == 2
    assert capfd.readouterr().err == f"check_local_results: error: {published}/_manifest.json is damaged\n"


@pytest.mark.parametrize("content", [None, b"PAR1"])
def test_a_published_file_that_is_gone_or_damaged_is_a_difference(
    published: Path, check: Check, content: bytes | None
) -> None:
    file = Path(published_files(published, "movies")[0])
    file.unlink()
    if content:
        file.write_bytes(content)
    status, said = check()
    assert status == 1
    assert re.search(r"^movies: DIFFERENT: .*" + re.escape(file.name), said, re.MULTILINE)
    assert "movies_with_stats: equal" in said


def test_a_published_file_of_rejects_that_is_damaged_is_a_difference(
    publish: Publish, check: Check, input_path: Path, output_path: Path
) -> None:
    with (input_path / "ratings.dat").open("ab") as ratings:
        ratings.write(b"bad\n")
    publish("sail", input_path, output_path, "--max_rejects", 1)
    assert check()[0] == 0
    file = Path(published_files(output_path, "rejects")[0])
    file.write_bytes(b"PAR1")
    status, said = check()
    assert status == 1
    assert re.search(r"^rejects: DIFFERENT: .*" + re.escape(file.name), said, re.MULTILINE)
    assert "movies_with_stats: equal" in said


def test_input_that_cannot_be_read_is_nothing_to_compare(
    published: Path, input_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (input_path / "ratings.dat.gz").write_bytes(gzip.compress((input_path / "ratings.dat").read_bytes())[:-9])
    (input_path / "ratings.dat").unlink()
    assert main(["--input_path", str(input_path), "--output_path", str(published)]) == 2
    assert capfd.readouterr().err.startswith("check_local_results: error: ")


@pytest.mark.usefixtures("published")
def test_what_lies_deeper_in_an_archive_is_not_of_the_release(check: Check, input_path: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for name in ("ratings.dat", "movies.dat"):
            archive.write(input_path / name, f"a/{name}")
            archive.writestr(f"a/b/c/{name}", b"x")
    assert check(tmp_path / "in.zip")[0] == 0


def test_nothing_to_compare_is_status_2(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "check_local_results.py", "--output_path", tmp_path / "none"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, f"check_local_results: error: {tmp_path}/none not found\n")


def test_the_check_shares_no_code_with_the_job() -> None:
    source = (ROOT / "check_local_results.py").read_text()
    assert "movielens_pipeline" not in source
    assert "pyspark" not in source
