"""S3: both engines read from and publish to a real S3 server, and every promise holds there, too."""

from __future__ import annotations

import bz2
import gzip
import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from movielens import contract, tables
from movielens.history import HISTORY
from movielens.storage.hadoop import HadoopStorage
from tests import stress
from tests.support import s3server
from tests.support.golden import assert_golden
from tests.support.inputs import MOVIES, RATINGS, movie_lines, rating_lines, real_data, write_input
from tests.support.jobs import ELSEWHERE, GONE, Main, Publish, disturb_when_all_is_written, job_command, job_environment
from tests.support.places import Bucket
from tests.support.project import ROOT
from tests.support.results import DATASETS, assert_equal_by_check

pytestmark = pytest.mark.thorough


@pytest.fixture
def s3_input(s3_server: s3server.S3Server, input_path: Path, bucket_path: Bucket) -> str:
    """The small input in the bucket."""
    return s3_server.upload(input_path, f"{bucket_path.prefix}-input")


def visible(place: Bucket) -> set[str]:
    """What stands at the top of the place, without the journal, the manifests and the history."""
    return {name.partition("/")[0] for name in place.files()} - {"_journal", "_manifests", HISTORY}


# ---------------------------------------------------------------------------------------------------------------
# Reading and publishing


@pytest.mark.parametrize("scheme", ["s3", "s3a"])
def test_a_bucket_is_read_and_published_to(
    engine: str, publish: Publish, s3_input: str, bucket_path: Bucket, input_path: Path, scheme: str
) -> None:
    address = f"{scheme}{bucket_path.address[2:]}"
    for _ in range(2):  # the second replaces the first
        publish(engine, f"{scheme}{s3_input[2:]}", f"{address}/")
        assert_equal_by_check(input_path, address)
        assert visible(bucket_path) == DATASETS | {"_manifest.json"}
        manifest = json.loads(bucket_path.read("_manifest.json") or b"")
        listed = {file for dataset in manifest["datasets"].values() for file in dataset["files"]}
        found = {name for name in bucket_path.files() if not name.startswith(("_journal/", "_manifests/"))}
        assert found == listed | {"_manifest.json", HISTORY}
        assert not bucket_path.unfinished()


def test_from_a_folder_to_a_bucket_and_back(
    engine: str, publish: Publish, s3_input: str, bucket_path: Bucket, input_path: Path, output_path: Path
) -> None:
    publish(engine, input_path, bucket_path.address)
    assert_equal_by_check(input_path, bucket_path.address)
    publish(engine, s3_input, output_path)
    assert_equal_by_check(s3_input, output_path)


def test_names_in_a_bucket_may_hold_anything(
    engine: str, publish: Publish, s3_server: s3server.S3Server, input_path: Path, tmp_path: Path
) -> None:
    name = f"{tmp_path.name}/odd [n]ame #1 50% ü?*{{x}}"
    odd = Bucket(s3_server, f"{name}/out", tmp_path)
    s3_server.upload(input_path, f"{name}/in")
    publish(engine, f"s3://{s3server.BUCKET}/{name}/in", odd.address)
    assert_equal_by_check(input_path, odd.snapshot())


def test_parts_compressed_or_not_and_old_encodings_are_read_from_a_bucket(
    engine: str, publish: Publish, s3_server: s3server.S3Server, bucket_path: Bucket, tmp_path: Path
) -> None:
    folder = tmp_path / "parts"
    (folder / "ratings.dat").mkdir(parents=True)
    (folder / "ratings.dat" / "part-0").write_bytes(rating_lines(RATINGS[:2]))
    (folder / "ratings.dat" / "part-1.gz").write_bytes(gzip.compress(rating_lines(RATINGS[2:4])))
    (folder / "ratings.dat" / "part-2.bz2").write_bytes(bz2.compress(rating_lines(RATINGS[4:])))
    (folder / "ratings.dat" / "_SUCCESS").touch()
    (folder / "movies.dat.gz").write_bytes(gzip.compress(movie_lines(MOVIES, "iso-8859-1")))
    publish(engine, s3_server.upload(folder, f"{bucket_path.prefix}-input"), bucket_path.address)
    assert_equal_by_check(folder, bucket_path.address)


def test_lines_that_are_not_valid_are_named_with_their_file_in_the_bucket(
    engine: str, publish: Publish, s3_server: s3server.S3Server, bucket_path: Bucket, tmp_path: Path
) -> None:
    folder = write_input(tmp_path / "bad", rating_lines(RATINGS) + b"1::2::9::3\n\x03::1\n")
    address = s3_server.upload(folder, f"{bucket_path.prefix}-input")
    said = publish(engine, address, bucket_path.address, "--max_rejects", 2)
    scheme = {"sail": "s3", "spark": "s3a"}[engine]
    assert f"{scheme}{address[2:]}/ratings.dat: rating not in 0.5..5: '1::2::9::3'\n" in said
    assert_equal_by_check(folder, bucket_path.address)


def test_the_real_release_is_right_from_bucket_to_bucket(
    publish: Publish, s3_server: s3server.S3Server, bucket_path: Bucket
) -> None:
    folder = real_data("ml-1m")
    publish("sail", s3_server.upload(folder, f"{bucket_path.prefix}-input"), bucket_path.address)
    assert_equal_by_check(folder, bucket_path.address)


def test_spark_writes_with_the_magic_committer(use_engine: Any, bucket_path: Bucket) -> None:
    # given the summary that Hadoop's committers for S3 write, where others leave an empty file
    spark = use_engine("spark")
    tables.write_dataset(
        spark.createDataFrame([(1, "A", "B")], contract.SCHEMAS["movies"]), bucket_path.address, "movies"
    )
    success = json.loads(bucket_path.read("movies/_SUCCESS") or b"")
    assert success["committer"] == "magic"
    assert len(success["filenames"]) == len([name for name in bucket_path.files() if name.endswith(".parquet")])


# requests of a first publish of the bundled dataset, from the journal on, and of a whole run; docs/aws.md names them
MOST_REQUESTS = {"sail": (78, 228), "spark": (150, 490)}


def test_a_publish_takes_no_more_requests_than_the_readme_says(
    engine: str, publish: Publish, proxy: s3server.FaultyProxy, s3_server: s3server.S3Server, bucket_path: Bucket,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    address = s3_server.upload(ROOT / "dataset", f"{bucket_path.prefix}-input")
    publish(engine, address, bucket_path.address)  # what is to be deleted is part of it
    proxy.reset()
    publish(engine, address, bucket_path.address)
    journal = next(
        number for number, request in enumerate(proxy.requests) if request.startswith("PUT") and "_journal/" in request
    )
    counts = len(proxy.requests) - journal, len(proxy.requests)
    with capfd.disabled():
        print(f" [{engine}: {counts[0]} requests to publish, {counts[1]} in all]", end="")
    assert all(count <= most for count, most in zip(counts, MOST_REQUESTS[engine], strict=True))


# ---------------------------------------------------------------------------------------------------------------
# Publishing when others are there, or were


def test_what_killed_runs_left_in_a_bucket_is_removed_with_their_unfinished_uploads(
    engine: str, publish: Publish, s3_server: s3server.S3Server, bucket_path: Bucket, input_path: Path
) -> None:
    # given uploads of a dead run, one of them the only thing it left, and one of a run elsewhere that may live
    alive = ELSEWHERE
    for name in (f"{GONE}/ratings/a.parquet", f"{alive}/ratings/b.parquet"):
        key = f"{bucket_path.prefix}/_staging/{name}"
        begun = s3_server.client.create_multipart_upload(Bucket=s3server.BUCKET, Key=key)
        s3_server.client.upload_part(
            Bucket=s3server.BUCKET, Key=key, UploadId=begun["UploadId"], PartNumber=1, Body=b"x" * 100
        )
    bucket_path.write(f"_staging/{GONE[:-1]}1/movies/c.parquet", b"c")
    publish(engine, input_path, bucket_path.address)
    assert bucket_path.unfinished() == [f"{bucket_path.prefix}/_staging/{alive}/ratings/b.parquet"]
    assert visible(bucket_path) == DATASETS | {"_manifest.json"}
    assert_equal_by_check(input_path, bucket_path.address)


def test_a_name_that_is_a_file_and_a_folder_is_refused(
    engine: str, run_main: Main, s3_server: s3server.S3Server, s3_input: str, output_path: Path
) -> None:
    # given a bucket with a release, and parts below the name of one of its files
    key = f"{s3_input.partition(s3server.BUCKET)[2].strip('/')}/ratings.dat/part-0"
    s3_server.client.put_object(Bucket=s3server.BUCKET, Key=key, Body=b"1::10::5::100\n")
    status, said = run_main(engine, "--input_path", s3_input, "--output_path", output_path)
    assert status == 3, said
    assert said.splitlines()[-1].endswith("/ratings.dat is there as a file and as a folder: keep one")


def test_an_input_in_a_bucket_that_changes_to_one_of_the_same_size_is_not_published(
    engine: str, run_main: Main, s3_server: s3server.S3Server, s3_input: str, output_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    # given somebody who writes other bytes, as many, perhaps within the second in which the first were written
    key = f"{s3_input.partition(s3server.BUCKET)[2].strip('/')}/ratings.dat"

    def reverse() -> None:
        content = s3_server.client.get_object(Bucket=s3server.BUCKET, Key=key)["Body"].read()
        s3_server.client.put_object(Bucket=s3server.BUCKET, Key=key, Body=content[::-1])

    disturb_when_all_is_written(monkeypatch, reverse)
    status, said = run_main(engine, "--input_path", s3_input, "--output_path", output_path)
    assert status == 3
    assert said.splitlines()[-1].endswith(f"{s3_input} changed while it was read; nothing was published")


# ---------------------------------------------------------------------------------------------------------------
# A store or a network that fails


@pytest.mark.parametrize("what", ["503", "drop", "lose"])
def test_every_request_may_fail_once(
    engine: str, publish: Publish, proxy: s3server.FaultyProxy, s3_input: str, bucket_path: Bucket, what: str,
    input_path: Path,
) -> None:  # fmt: skip
    # given an earlier result, and a store that lets each request fail when it comes for the first time
    publish("sail", s3_input, bucket_path.address)
    seen: set[str] = set()

    def first_time(_number: int, method: str, path: str, _headers: dict[str, str]) -> str | None:
        request = f"{method} {path}"
        if request in seen:
            return None
        seen.add(request)
        # after "slow down" Java's client waits about half a second: there nine of ten are told the other 503 of S3
        return "unavailable" if (engine, what) == ("spark", "503") and len(seen) % 10 else what

    proxy.reset(first_time)
    publish(engine, s3_input, bucket_path.address)
    proxy.reset()
    assert len(seen) > 30
    assert_equal_by_check(input_path, bucket_path.address)
    assert visible(bucket_path) == DATASETS | {"_manifest.json"}


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95])
def test_a_store_that_fails_for_good_is_a_clean_error_and_the_next_run_heals(
    publish: Publish, run_main: Main, proxy: s3server.FaultyProxy, s3_input: str, bucket_path: Bucket,
    s3_server: s3server.S3Server, tmp_path: Path, share: float,
) -> None:  # fmt: skip
    # given a store that answers nothing but 503 from some request on, of as many as an equal run made
    other = write_input(tmp_path / "other", rating_lines(RATINGS[:4]))
    new = s3_server.upload(other, f"{bucket_path.prefix}-other")
    publish("sail", s3_input, bucket_path.address)
    proxy.reset()
    publish("sail", new, bucket_path.address)
    last = int(len(proxy.requests) * share)
    publish("sail", s3_input, bucket_path.address)
    proxy.reset(lambda number, *_: "503" if number >= last else None)
    status, said = run_main("sail", "--input_path", new, "--output_path", bucket_path.address)
    proxy.reset()
    # then the run says so in one line, unless it has committed before; and the old result stands, or the new one
    assert status in (0, 1, 3), said
    if status:
        assert "the store is overloaded or out of order; try again later" in said.splitlines()[-1]
    found = stress.assert_whole([tmp_path / "input", other], bucket_path)
    assert found == ("input" if status else "other")
    publish("sail", new, bucket_path.address)
    assert_equal_by_check(other, bucket_path.address)
    assert visible(bucket_path) == DATASETS | {"_manifest.json"}
    assert not bucket_path.unfinished()


def test_store_that_fails_when_all_is_written_is_one_line(
    publish: Publish, run_main: Main, proxy: s3server.FaultyProxy, s3_input: str, bucket_path: Bucket,
    input_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    # given an earlier result, and a store that fails when all datasets of the next one are written
    publish("sail", s3_input, bucket_path.address)
    disturb_when_all_is_written(monkeypatch, lambda: proxy.reset(lambda *_: "unavailable"))
    status, said = run_main("sail", "--input_path", s3_input, "--output_path", bucket_path.address)
    proxy.reset()
    # then the run says so in one line, and the earlier result stands
    assert status in (1, 3), said
    assert "the store is overloaded or out of order; try again later; nothing was published" in said.splitlines()[-1]
    assert_equal_by_check(input_path, bucket_path.address)


def test_a_bucket_without_the_input_says_what_is_there(
    engine: str, run_main: Main, s3_server: s3server.S3Server, bucket_path: Bucket, output_path: Path
) -> None:
    s3_server.client.put_object(Bucket=s3server.BUCKET, Key=f"{bucket_path.prefix}/links.csv", Body=b"")
    status, said = run_main(engine, "--input_path", bucket_path.address, "--output_path", output_path)
    assert status == 3
    assert f"error: {bucket_path.address} should hold movies.dat and ratings.dat, or " in said
    assert said.endswith(f": {bucket_path.address} holds links.csv\n")
    # a name that is read as what a store says when it refuses
    nowhere = f"{bucket_path.address}/Forbidden"
    status, said = run_main(engine, "--input_path", nowhere, "--output_path", output_path)
    assert status == 3
    assert said.endswith(f": there is no {nowhere}\n")


@pytest.fixture
def hanging() -> Iterator[str]:
    """An address that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


NO_KEYS = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true"}
ASTRAY = {
    "wrong_key": {"AWS_ACCESS_KEY_ID": "nobody"},
    "wrong_secret": {"AWS_SECRET_ACCESS_KEY": "wrong"},
    "no_keys": NO_KEYS,
    "unknown_profile": {**NO_KEYS, "AWS_PROFILE": "nobody"},
    "no_bucket": {},
    "unreachable": {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
    "unknown_host": {"AWS_ENDPOINT_URL": "http://store.invalid"},
    "hanging": {},
    "another_region": {},
}


@pytest.mark.parametrize(
    ("engine", "case", "side"),
    [
        ("sail", "wrong_key", "input"),
        ("sail", "wrong_secret", "output"),
        ("sail", "no_keys", "output"),
        ("sail", "unknown_profile", "input"),
        ("sail", "no_bucket", "input"),
        ("sail", "no_bucket", "output"),
        ("sail", "unreachable", "input"),
        ("sail", "unknown_host", "output"),
        ("sail", "hanging", "output"),
        ("sail", "another_region", "input"),
        ("sail", "another_region", "output"),
        ("spark", "wrong_key", "output"),
        ("spark", "unknown_profile", "input"),
        ("spark", "no_bucket", "input"),
        ("spark", "hanging", "input"),
    ],
)
def test_what_keeps_a_run_from_a_bucket_is_one_line_within_a_minute(
    engine: str, case: str, side: str, s3_server: s3server.S3Server, proxy: s3server.FaultyProxy, hanging: str,
    input_path: Path, output_path: Path,
) -> None:  # fmt: skip
    def signed_for_another(_number: int, _method: str, _path: str, headers: dict[str, str]) -> str | None:
        return "region" if f"/{s3server.REGION}/s3/" in headers.get("Authorization", "") else None

    proxy.reset(signed_for_another if case == "another_region" else None)
    endpoint = {"hanging": hanging}.get(case, proxy.endpoint)
    environment = {**job_environment(), **s3_server.environment(endpoint), **ASTRAY[case]}
    environment = {name: value for name, value in environment.items() if value}
    address = f"s3://{'no-such-bucket' if case == 'no_bucket' else s3server.BUCKET}/astray"
    if side == "input":
        s3_server.upload(input_path, "astray")
    paths = {"input": input_path, "output": output_path, side: address}
    started = time.monotonic()
    done = subprocess.run(
        job_command(engine, "--input_path", paths["input"], "--output_path", paths["output"]),
        env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    seconds = time.monotonic() - started
    said = done.stderr if engine == "sail" else done.stdout
    assert done.returncode == {"input": 3, "output": 1}[side], done.stdout + done.stderr
    assert_golden(f"s3_{case}", said.splitlines()[-1] + "\n", store=address)
    assert "Traceback" not in done.stdout + done.stderr
    assert seconds < 120  # a minute, and another for a busy machine
    if side == "output" and case != "no_bucket":
        assert not s3_server.keys("astray") - {"movies.dat", "ratings.dat"}
    assert not (output_path / "_manifest.json").exists()


def test_what_another_run_deletes_while_it_is_read_is_missing(
    use_engine: Callable[[str], Any], bucket_path: Bucket
) -> None:
    # given a journal that goes after it was opened and before its first byte was asked for
    storage = HadoopStorage(use_engine("spark"), bucket_path.address)
    bucket_path.write("_journal/1.json", b"journal")

    class Deleting:
        def __init__(self, fs: Any) -> None:
            self.fs = fs

        def open(self, path: Any) -> Any:
            stream = self.fs.open(path)
            bucket_path.delete("_journal/1.json")
            return stream

    storage.fs = Deleting(storage.fs)
    assert storage.read(f"{bucket_path.address}/_journal/1.json") is None


def test_an_s3_client_without_conditional_writes_is_a_warning(
    use_engine: Callable[[str], Any], bucket_path: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    # given a Hadoop whose S3 client cannot leave the decision to the store, as older ones
    spark = use_engine("spark")
    storage = HadoopStorage(spark, f"s3a://{bucket_path.address.removeprefix('s3://')}")
    configuration = spark._jvm.org.apache.hadoop.conf.Configuration(spark._jsc.hadoopConfiguration())
    configuration.set("fs.s3a.create.conditional.enabled", "false")
    storage.fs = spark._jvm.org.apache.hadoop.fs.FileSystem.newInstance(storage.fs.getUri(), configuration)
    # when it creates the journal
    assert storage.create(f"{bucket_path.address}/_journal/1.json", b"journal")
    # then it says what that means
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith("the S3 client of this Hadoop has no conditional writes")


def test_a_store_that_ignores_conditions_is_said(
    engine: str, publish: Publish, proxy: s3server.FaultyProxy, s3_server: s3server.S3Server, bucket_path: Bucket,
    input_path: Path,
) -> None:  # fmt: skip
    # given a store that overwrites what a condition would keep: here the object is gone just before each such request
    def overwritten(_: int, method: str, path: str, headers: dict[str, str]) -> None:
        if method == "PUT" and "if-none-match" in {name.lower() for name in headers}:
            key = path.partition(f"/{s3server.BUCKET}/")[2].partition("?")[0]
            s3_server.client.delete_object(Bucket=s3server.BUCKET, Key=key)

    proxy.reset(overwritten)
    said = publish(engine, input_path, bucket_path.address)
    assert f"the store of {bucket_path.address} ignores If-None-Match: see to it that no other run publishes" in said


def test_unfinished_copies_into_the_datasets_are_removed_by_the_next_run(
    engine: str, publish: Publish, s3_server: s3server.S3Server, bucket_path: Bucket, input_path: Path
) -> None:
    for folder in ("ratings", "theirs"):
        key = f"{bucket_path.prefix}/{folder}/a.parquet"
        s3_server.client.create_multipart_upload(Bucket=s3server.BUCKET, Key=key)
    publish(engine, input_path, bucket_path.address)
    assert bucket_path.unfinished() == [f"{bucket_path.prefix}/theirs/a.parquet"]
