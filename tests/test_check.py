"""The check finds what differs, and only that."""

from __future__ import annotations

import gzip
import itertools
import json
import os
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
from check_local_results import TRIES, derive, main, sql_list
from tests.support.inputs import rating_lines, write_input
from tests.support.jobs import Publish
from tests.support.numbered import (
    commit,
    manifest_at,
    newest,
    number_result,
    numbers,
    unnumber_result,
    write_manifest,
)
from tests.support.places import Bucket, Disk, Place
from tests.support.project import ROOT
from tests.support.results import manifest_of, published_files
from tests.support.s3server import FaultyProxy

Check = Callable[..., tuple[int, str]]


@pytest.fixture
def published(publish: Publish, input_path: Path, output_path: Path) -> Path:
    publish("sail", input_path, output_path)
    number_result(Disk(output_path))
    return output_path


@pytest.fixture
def refused(input_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What is wrong where there is nothing to compare."""

    def run(output_path: Path | str) -> str:
        capfd.readouterr()
        assert main(["--input_path", str(input_path), "--output_path", str(output_path)]) == 2
        said = capfd.readouterr()
        assert said.out == ""
        begin, _, problem = said.err.partition(": error: ")
        assert begin == "check_local_results"
        assert problem.count("\n") == 1
        return problem[:-1]

    return run


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
    [rows] = connection.execute(f"SELECT count(*) FROM '{files[0]}'").fetchone() or (0,)
    file, size = str(Path(files[0]).relative_to(output_path)), Path(files[0]).stat().st_size
    change_manifest(output_path, dataset, rows=rows, files=[file], file_bytes=[size])


def change_manifest(output_path: Path, dataset: str, **fields: object) -> None:
    """Changes what the manifest says of a dataset."""
    manifest = manifest_of(output_path)
    manifest["datasets"][dataset].update(fields)
    (output_path / newest(Disk(output_path))).write_text(json.dumps(manifest))


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
    shutil.rmtree(published / "_manifests")
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
    write_manifest(Disk(published), 2, manifest)
    status, said = check()
    assert status == 1
    assert said.endswith("\nusers: DIFFERENT: this check does not know it\n")


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
    found = "has 4 bytes" if content else "is missing"
    assert re.search(rf"^movies: DIFFERENT: movies/{re.escape(file.name)} {found}", said, re.MULTILINE)
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


# ---------------------------------------------------------------------------------------------------------------
# Which result is compared


@pytest.fixture
def newer(publish: Publish, input_path: Path, tmp_path: Path) -> Path:
    """A result of more ratings, which the input has from now on."""
    with (input_path / "ratings.dat").open("ab") as ratings:
        ratings.write(rating_lines([(3, 10, 4.0, 60)]))
    publish("sail", input_path, tmp_path / "newer")
    return tmp_path / "newer"


@pytest.fixture(params=["disk", "bucket"])
def place(request: pytest.FixtureRequest, published: Path) -> Place:
    """A published result with the manifest of number 1."""
    if request.param == "disk":
        return Disk(published)
    bucket: Bucket = request.getfixturevalue("bucket_path")
    bucket.copy_of(published)
    return bucket


@pytest.fixture
def check_at(input_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[[Place], tuple[int, str]]:
    def run(place: Place) -> tuple[int, str]:
        capfd.readouterr()
        status = main(["--input_path", str(input_path), "--output_path", place.address])
        return status, capfd.readouterr().out

    return run


CheckAt = Callable[[Place], tuple[int, str]]


@pytest.mark.parametrize("copy", [b"", b"{", b"[]", b"of the result before", None])
def test_a_copy_of_the_manifest_is_not_looked_at(
    place: Place, newer: Path, check_at: CheckAt, copy: bytes | None
) -> None:
    before = place.read("_manifest.json")
    commit(place, newer)
    place.delete("_manifest.json")
    if copy is not None:
        place.write("_manifest.json", before or b"" if b"before" in copy else copy)
    assert check_at(place)[0] == 0


def test_a_result_of_version_0_6_6_is_compared(place: Place, check_at: CheckAt) -> None:
    unnumber_result(place)
    assert check_at(place)[0] == 0
    manifest = manifest_at(place)
    manifest["datasets"]["movies"]["rows"] += 1
    place.write("_manifest.json", json.dumps(manifest).encode())
    status, said = check_at(place)
    assert status == 1
    assert "movies: DIFFERENT: its files have 5 rows; _manifest.json says 6\n" in said


def test_the_highest_of_thousands_of_numbers_is_compared(published: Path, newer: Path, check: Check) -> None:
    place = Disk(published)
    manifest = manifest_at(place)
    for number in range(2, 3000):
        write_manifest(place, number, manifest)
    commit(place, newer)
    assert numbers(place)[-1] == 3000
    assert check()[0] == 0


@pytest.mark.parametrize("content", [b"", b'{"datasets": ', b"\xff", b"[" * 100_000])
def test_a_manifest_that_is_cut_off_is_skipped(
    place: Place, check_at: CheckAt, refused: Callable[..., str], content: bytes
) -> None:
    place.write("_manifests/2.json", content)
    place.write("_manifests/3.json", content)
    assert check_at(place)[0] == 0
    # given none that is whole
    place.delete("_manifests/1.json")
    place.write("_manifest.json", content)
    assert refused(place.address) == f"{place.address}/_manifests/3.json is damaged; run the job again"


@pytest.mark.parametrize(
    "content",
    [
        b"[]", b"{}", b"null", b'{"datasets": []}', b'{"datasets": {"movies": {"rows": 1, "files": "movies/a"}}}',
        b'{"datasets": {"movies": {"rows": 1, "files": ["movies/../../a"]}}}',
        b'{"datasets": {"movies": {"rows": 1, "files": ["/a"]}}}',
        b'{"datasets": {"movies": {"rows": 1, "files": ["movies/a"], "file_bytes": [1, 2]}}}',
        b'{"datasets": {"movies": {"rows": "1", "files": ["movies/a"]}}}',
    ],
)  # fmt: skip
def test_a_manifest_of_another_program_is_one_line(
    published: Path, refused: Callable[..., str], content: bytes
) -> None:
    file = published / "_manifests" / "2.json"
    file.write_bytes(content)
    line = "is not a manifest of the job: remove it, or check another --output_path"
    assert refused(published) == f"{file} {line}"


def test_what_only_has_the_name_of_a_manifest_is_left_alone(published: Path, check: Check) -> None:
    folder = published / "_manifests"
    os.mkfifo(folder / "7.json")
    (folder / "8.json").mkdir()
    (folder / "9.json").symlink_to(folder / "none")
    (folder / "10.json").symlink_to("10.json")
    for name in ("0.json", "011.json", "12.json.part", ".13.json", "-14.json", "1\u0665.json", "16.json\n"):
        (folder / name).write_bytes(b"{}")
    assert check()[0] == 0


def test_objects_below_the_name_of_a_manifest_are_left_alone(
    published: Path, bucket_path: Bucket, check_at: CheckAt
) -> None:
    bucket_path.copy_of(published)
    for name in ("7.json/a", "8.json/9.json"):
        bucket_path.write(f"_manifests/{name}", b"{}")
    assert check_at(bucket_path)[0] == 0


def test_a_manifest_without_datasets_is_nothing_to_compare(place: Place, refused: Callable[..., str]) -> None:
    name = write_manifest(place, 2, {**manifest_at(place), "datasets": {}})
    assert refused(place.address) == f"{place.address}/{name} lists no dataset: run the job first"


def test_an_output_that_does_not_exist_is_nothing_to_compare(
    tmp_path: Path, bucket_path: Bucket, refused: Callable[..., str]
) -> None:
    for address in (tmp_path / "none", bucket_path.address):
        assert refused(address) == f"{address} not found"
    (tmp_path / "file").touch()
    assert refused(tmp_path / "file") == f"{tmp_path}/file not found"


def test_files_that_are_not_as_the_manifest_says_are_a_difference(place: Place, check_at: CheckAt) -> None:
    manifest = manifest_at(place)
    ratings, movies, tops = (manifest["datasets"][name] for name in ("ratings", "movies", "top_movies_per_user"))
    ratings["rows"] += 1
    movies["file_bytes"][0] += 1000
    tops.update(files=[], file_bytes=[])
    name = write_manifest(place, 2, manifest)
    status, said = check_at(place)
    assert status == 1
    size = len(place.read(movies["files"][0]) or b"")
    assert said.splitlines() == [
        f"ratings: DIFFERENT: its files have 6 rows; {name} says 7",
        f"movies: DIFFERENT: {movies['files'][0]} has {size:,} bytes; {name} says {size + 1000:,}",
        "movies_with_stats: equal: 5 rows, 0 missing, 0 extra",
        f"top_movies_per_user: DIFFERENT: {name} lists no file of it",
        "rejects: equal: 0 rows",
    ]


def test_a_dataset_that_the_manifest_does_not_list_is_a_difference(published: Path, check: Check) -> None:
    manifest = manifest_of(published)
    del manifest["datasets"]["movies"]
    write_manifest(Disk(published), 2, manifest)
    status, said = check()
    assert status == 1
    assert f"movies: DIFFERENT: {published}/movies has no Parquet file\n" in said


# ---------------------------------------------------------------------------------------------------------------
# While others publish


def meanwhile(monkeypatch: pytest.MonkeyPatch, function: str, happens: Callable[[], None], times: int = 1) -> None:
    """Has something happen before the first calls of one of the check's functions."""
    call, left = getattr(check_local_results, function), iter(range(times))

    def called(*arguments: object) -> object:
        if next(left, None) is not None:
            happens()
        return call(*arguments)

    monkeypatch.setattr(check_local_results, function, called)


@pytest.mark.parametrize("function", ["derive", "datasets_of", "compare_all", "damage", "compare"])
def test_a_result_that_is_replaced_while_it_is_read_is_read_anew(
    published: Path, newer: Path, check: Check, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    meanwhile(monkeypatch, function, lambda: commit(Disk(published), newer), times=3)
    status, said = check()
    assert status == 0, said
    assert said.startswith("ratings: equal: 7 rows")
    assert numbers(Disk(published))[-1] > 1


@pytest.mark.thorough
def test_a_result_in_a_bucket_may_be_replaced_at_any_request(
    published: Path, newer: Path, bucket_path: Bucket, check_at: CheckAt, proxy: FaultyProxy
) -> None:
    def commit_before(moment: int) -> None:
        def fault(number: int, *_: object) -> None:
            if number == moment:
                commit(bucket_path, newer)

        proxy.reset(fault)

    moment = 0
    while True:
        bucket_path.copy_of(published)
        commit_before(moment)
        status, said = check_at(bucket_path)
        if len(proxy.requests) <= moment:
            break
        assert status == 0, f"{proxy.requests}\n{said}"
        moment += 1
    assert status == 1  # for it is the result before
    assert moment > 6


def test_a_manifest_that_goes_between_listing_and_reading_is_no_end(
    published: Path, newer: Path, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, output = check_local_results.Folder.read, Disk(published)

    def read_late(folder: check_local_results.Folder, name: str) -> bytes | None:
        if name == "_manifests/1.json":
            commit(output, newer)
        return read(folder, name)

    monkeypatch.setattr(check_local_results.Folder, "read", read_late)
    assert check()[0] == 0


def test_a_result_that_is_replaced_again_and_again_is_given_up(
    published: Path, newer: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = f"{published} was published anew {TRIES} times while it was read; run the check again"
    with monkeypatch.context() as patch:
        meanwhile(patch, "damage", lambda: commit(Disk(published), newer), times=10_000)
        assert refused(published) == line
    # also where it goes before it is read at all
    read = check_local_results.Folder.read

    def read_late(folder: check_local_results.Folder, name: str) -> bytes | None:
        if name.startswith("_manifests/"):
            commit(Disk(published), newer)
        return read(folder, name)

    monkeypatch.setattr(check_local_results.Folder, "read", read_late)
    assert refused(published) == line


def test_a_result_of_version_0_6_6_may_be_replaced_by_a_numbered_one(
    published: Path, newer: Path, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = Disk(published)
    unnumber_result(output)

    def take_over() -> None:
        number_result(output)
        commit(output, newer)

    meanwhile(monkeypatch, "compare", take_over)
    assert check()[0] == 0


def test_a_loss_is_not_taken_for_a_newer_result(published: Path, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    [file, *_] = published_files(published, "ratings")
    meanwhile(monkeypatch, "compare_all", Path(file).unlink)
    status, said = check()
    assert status == 1
    assert re.search("^ratings: DIFFERENT: ratings/.* is missing$", said, re.MULTILINE)
