"""A release is read as it was downloaded: from a zip, whose files are unpacked, and removed whatever happens."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from movielens import archives
from tests.support.golden import assert_golden
from tests.support.inputs import MOVIES, RATINGS, movie_lines, rating_lines, real_data, write_input
from tests.support.jobs import Main, Publish, job_command, job_environment, run_job
from tests.support.places import Bucket
from tests.support.project import ROOT
from tests.support.results import assert_equal_by_check, manifest_of, rows_of, visible_names

RATINGS_DAT, MOVIES_DAT = rating_lines(RATINGS), movie_lines(MOVIES)


def zipped(path: Path, members: dict[str, bytes | Path], **options: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, content in members.items():
            if isinstance(content, Path):
                archive.write(content, name)
            else:
                archive.writestr(name, content)
    return path


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files, of which there is none at first."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.mark.parametrize("name", [pytest.param("ml-1m", marks=pytest.mark.thorough), "ml-latest-small"])
def test_a_release_is_read_from_its_archive(
    engine: str, publish: Publish, tmp_path: Path, output_path: Path, temporary: Path, name: str
) -> None:
    # given an archive as GroupLens makes it
    release = real_data(name)
    archive = zipped(tmp_path / f"{name}.zip", {f"{name}/{file.name}": file for file in sorted(release.iterdir())})
    said = publish(engine, archive, output_path)
    # then the datasets are right, by the archive and by the folder
    assert_equal_by_check(archive, output_path)
    assert_equal_by_check(release, output_path)
    # and the first line names the format, the manifest the archive, and nothing is left
    manifest = manifest_of(output_path)
    [given] = manifest["input_files"]
    assert (given["path"], given["bytes"]) == (str(archive), archive.stat().st_size)
    assert manifest["input_format"] == {"ml-1m": "dat", "ml-latest-small": "csv"}[name]
    assert f"unpacked, format: {manifest['input_format']} in " in said.splitlines()[0]
    assert not list(temporary.iterdir())


def test_an_archive_in_a_bucket_is_fetched(
    engine: str, publish: Publish, bucket_path: Bucket, tmp_path: Path, output_path: Path, temporary: Path
) -> None:
    # given
    archive = zipped(tmp_path / "in" / "small.zip", {"ratings.dat": RATINGS_DAT, "movies.dat": MOVIES_DAT})
    bucket_path.write("small.zip", archive.read_bytes())
    # when
    publish(engine, f"{bucket_path.address}/small.zip", output_path)
    # then
    assert rows_of(output_path, "ratings") == sorted(RATINGS)
    assert_equal_by_check(f"{bucket_path.address}/small.zip", output_path)
    assert not list(temporary.glob("movielens-*"))


def test_other_members_and_names_deeper_down_do_not_matter(
    publish: Publish, tmp_path: Path, output_path: Path, temporary: Path
) -> None:
    members = {
        "a/movies.dat": MOVIES_DAT, "a/ratings.dat": RATINGS_DAT, "a/README": b"", "a/links.csv": b"x",
        "__MACOSX/a/._ratings.dat": b"x", "a/old/ratings.dat": b"x", "../../movies.csv": b"x", "a/ratings.dat/": b"",
    }  # fmt: skip
    publish("sail", zipped(tmp_path / "IN.ZIP", members), output_path)
    assert rows_of(output_path, "ratings") == sorted(RATINGS)
    assert not list(temporary.iterdir())
    assert not list(tmp_path.rglob("movies.csv"))


def test_rejects_are_shown_with_the_archive(engine: str, run_main: Main, tmp_path: Path, output_path: Path) -> None:
    archive = zipped(tmp_path / "in.zip", {"movies.dat": MOVIES_DAT, "ratings.dat": RATINGS_DAT + b"1::2\n"})
    status, said = run_main(engine, "--input_path", archive, "--output_path", output_path)
    assert f"{archive}/ratings.dat: fields missing: '1::2'" in said.splitlines()
    assert status == 3


# --------------------------------------------------------------------------------------------------------------------
# What is wrong with an archive


def good(folder: Path) -> Path:
    return zipped(folder / "in.zip", {"m/movies.dat": MOVIES_DAT, "m/ratings.dat": RATINGS_DAT * 1000})


def no_zip(folder: Path) -> Path:
    (folder / "in.zip").write_bytes(b"no zip" * 100)
    return folder / "in.zip"


def cut_short(folder: Path) -> Path:
    good(folder).write_bytes(good(folder).read_bytes()[:-60])
    return folder / "in.zip"


def empty(folder: Path) -> Path:
    (folder / "in.zip").touch()
    return folder / "in.zip"


def damaged(folder: Path) -> Path:
    data = bytearray(good(folder).read_bytes())
    data[300:310] = bytes(10)
    (folder / "in.zip").write_bytes(data)
    return folder / "in.zip"


def encrypted(folder: Path) -> Path:
    data = good(folder).read_bytes()
    # the flag of a member, in its own header and in the list at the end
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = data.index(mark) + place
        data = data[:start] + b"\x01" + data[start + 1 :]
    (folder / "in.zip").write_bytes(data)
    return folder / "in.zip"


def ratings_twice(folder: Path) -> Path:
    members = {"a/movies.dat": MOVIES_DAT, "a/ratings.dat": RATINGS_DAT, "b/ratings.dat": RATINGS_DAT}
    return zipped(folder / "in.zip", members)


def two_releases(folder: Path) -> Path:
    return zipped(folder / "in.zip", {"old/movies.dat": MOVIES_DAT, "new/ratings.dat": RATINGS_DAT})


def damaged_lzma(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "in.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("movies.dat", MOVIES_DAT)
        archive.writestr("ratings.dat", RATINGS_DAT * 1000)
    data = bytearray((folder / "in.zip").read_bytes())
    place = data.index(b"ratings.dat") + 40
    data[place : place + 60] = bytes(byte ^ 0x55 for byte in data[place : place + 60])
    (folder / "in.zip").write_bytes(data)
    return folder / "in.zip"


def name_that_is_no_utf_8(folder: Path) -> Path:
    data = zipped(
        folder / "in.zip", {"m/movies.dat": MOVIES_DAT, "m/ratings.dat": RATINGS_DAT, "m/é": b""}
    ).read_bytes()
    (folder / "in.zip").write_bytes(data.replace("é".encode(), b"\xff\xfe"))
    return folder / "in.zip"


def two_formats(folder: Path) -> Path:
    return zipped(folder / "in.zip", {"movies.dat": MOVIES_DAT, "ratings.dat": RATINGS_DAT, "ratings.csv": b"x"})


def half(folder: Path) -> Path:
    return zipped(folder / "in.zip", {"m/ratings.dat": RATINGS_DAT})


def something_else(folder: Path) -> Path:
    return zipped(
        folder / "in.zip", {"deep/down/ratings.dat": b"", **{f"photo-{number}.jpg": b"" for number in range(9)}}
    )


def without_header(folder: Path) -> Path:
    return zipped(folder / "in.zip", {"movies.csv": b"movieId,title,genres\n1,A,B\n", "ratings.csv": b"1,2,3.0,4\n"})


def saying(size: Callable[[int], int]) -> Callable[[Path], Path]:
    """An archive that says of its second member that it is of another size, with the checksum of so much of it."""

    def make(folder: Path) -> Path:
        data = bytearray(good(folder).read_bytes())
        said = size(len(RATINGS_DAT) * 1000)
        start = data.rindex(b"PK\x01\x02")
        struct.pack_into("<L", data, start + 24, said)
        struct.pack_into("<L", data, start + 16, zipfile.crc32((RATINGS_DAT * 1000)[:said]))
        (folder / "in.zip").write_bytes(data)
        return folder / "in.zip"

    return make


ARCHIVES = {
    "no_zip": no_zip, "cut_short": cut_short, "empty": empty, "damaged": damaged, "encrypted": encrypted,
    "ratings_twice": ratings_twice, "two_formats": two_formats, "half": half, "something_else": something_else,
    "two_releases": two_releases, "damaged_lzma": damaged_lzma, "name_that_is_no_utf_8": name_that_is_no_utf_8,
    "without_header": without_header, "more_than_it_says": saying(lambda size: size // 2),
    "less_than_it_says": saying(lambda size: size + 1), "more_than_the_disk_has": saying(lambda _: 2**32 - 1),
}  # fmt: skip


@pytest.mark.parametrize("kind", ARCHIVES)
def test_an_archive_that_is_not_what_it_should_be_is_refused_in_one_line(
    run_main: Main, tmp_path: Path, output_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: SimpleNamespace(free=4_000_000_000))
    archive = ARCHIVES[kind](tmp_path)
    status, said = run_main("sail", "--input_path", archive, "--output_path", output_path)
    assert_golden(f"archive_{kind}", said, archive=archive, temporary=temporary)
    assert status == 3
    assert not visible_names(output_path)
    assert not list(temporary.iterdir())


def test_a_disk_that_fails_while_the_archive_is_unpacked_is_no_fault_of_the_archive(
    tmp_path: Path, output_path: Path
) -> None:
    # given a temporary folder in which no file may be as long as the ratings are
    archive = zipped(tmp_path / "in.zip", {name: ROOT / "dataset" / name for name in ("movies.dat", "ratings.dat")})
    done = run_job("sail", "--input_path", archive, "--output_path", output_path, ulimit="-f 200")
    # then that is said, and a scheduler may try again
    assert done.returncode == 1
    *_, said = done.stderr.splitlines()
    assert said.startswith(f"movielens_pipeline: error: {archive} cannot be unpacked into {tempfile.gettempdir()}")
    assert said.endswith(": File too large")


def test_what_was_unpacked_goes_also_when_the_job_is_killed(tmp_path: Path, output_path: Path) -> None:
    # given a run that has unpacked its input
    archive = zipped(tmp_path / "in.zip", {name: ROOT / "dataset" / name for name in ("movies.dat", "ratings.dat")})
    (tmp_path / "temporary").mkdir()
    run = subprocess.Popen(
        job_command("sail", "--input_path", archive, "--output_path", output_path),
        env={**job_environment(), "TMPDIR": str(tmp_path / "temporary")}, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def temporary(pattern: str) -> list[Path]:
        return list((tmp_path / "temporary").rglob(pattern))

    def within_a_minute(condition: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + 60
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.005)
        return condition()

    assert within_a_minute(lambda: bool(temporary("movielens-*/*")) or run.poll() is not None)
    # when it is killed
    os.kill(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    # then its files go, and their folder
    assert within_a_minute(lambda: not temporary("movielens-*"))


def test_an_archive_that_changes_while_it_is_read_is_not_published(
    run_main: Main, tmp_path: Path, output_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, unpack = good(tmp_path), archives.unpack

    def unpack_and_disturb(*arguments: object) -> None:
        unpack(*arguments)  # type: ignore[arg-type]
        shutil.copy(half(tmp_path / "other"), archive)

    monkeypatch.setattr(archives, "unpack", unpack_and_disturb)
    status, said = run_main("sail", "--input_path", archive, "--output_path", output_path)
    assert_golden("input_changed", said.splitlines()[-1] + "\n", input=archive)
    assert status == 3


def test_a_folder_may_be_named_as_an_archive(publish: Publish, tmp_path: Path, output_path: Path) -> None:
    publish("sail", write_input(tmp_path / "release.zip"), output_path)
    assert rows_of(output_path, "ratings") == sorted(RATINGS)
