"""What goes wrong is one line that says what, where and what to do, with the documented exit status."""

from __future__ import annotations

import bz2
import errno
import gzip
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import movielens_pipeline as job
from movielens import tables
from movielens.failures import explained
from movielens.storage import disk
from movielens.storage.refusals import StorageError
from tests.support.golden import assert_golden
from tests.support.inputs import write_input
from tests.support.jobs import Main, disturb_when_all_is_written, job_environment, run_job
from tests.support.project import ROOT
from tests.support.results import rows_of, visible_names


def missing(folder: Path) -> Path:
    return folder / "nowhere"


def a_file(folder: Path) -> Path:
    return write_input(folder / "in") / "movies.dat"


def empty_folder(folder: Path) -> Path:
    (folder / "in").mkdir()
    return folder / "in"


def other_files(folder: Path) -> Path:
    for name in ("genome-scores.csv", "genome-tags.csv", "links.csv", "tags.csv", "README.txt", "users.csv"):
        (empty_folder(folder) if not (folder / "in").exists() else folder / "in").joinpath(name).touch()
    return folder / "in"


def no_ratings(folder: Path) -> Path:
    (write_input(folder / "in") / "ratings.dat").unlink()
    return folder / "in"


def two_formats(folder: Path) -> Path:
    (write_input(folder / "in") / "movies.csv").touch()
    (folder / "in" / "ratings.csv.gz").touch()
    return folder / "in"


def half_of_each_of_two(folder: Path) -> Path:
    (no_ratings(folder) / "ratings.csv").touch()
    return folder / "in"


def empty_file(folder: Path) -> Path:
    return write_input(folder / "in", b"")


def only_blank_lines(folder: Path) -> Path:
    return write_input(folder / "in", b"\n\n  \n\r\n")


def only_line_ends(folder: Path) -> Path:
    return write_input(folder / "in", b"\n\n")


def only_a_header(folder: Path) -> Path:
    (folder / "in").mkdir()
    (folder / "in" / "movies.csv").write_bytes(b"movieId,title,genres\n10,Ten (1990),Drama\n")
    (folder / "in" / "ratings.csv").write_bytes(b"userId,movieId,rating,timestamp\n")
    return folder / "in"


def twice(folder: Path) -> Path:
    (write_input(folder / "in") / "ratings.dat.bz2").touch()
    return folder / "in"


def nested_parts(folder: Path) -> Path:
    (no_ratings(folder) / "ratings.dat" / "year=2000").mkdir(parents=True)
    return folder / "in"


def empty_parts(folder: Path) -> Path:
    (no_ratings(folder) / "ratings.dat").mkdir(parents=True)
    return folder / "in"


def parts(folder: Path) -> Path:
    """A folder of one part."""
    (no_ratings(folder) / "ratings.dat").mkdir()
    (folder / "in" / "ratings.dat" / "part-0").write_bytes(b"1::10::5::100\n")
    return folder / "in" / "ratings.dat"


def unfinished_part(folder: Path) -> Path:
    (parts(folder) / "part-1._COPYING_").write_bytes(b"1::11::5::1")
    return folder / "in"


def part_of_another_compression(folder: Path) -> Path:
    (no_ratings(folder) / "ratings.dat").mkdir()
    (folder / "in" / "ratings.dat" / "part-0.ZST").write_bytes(b"1::10::5::100\n")
    return folder / "in"


def part_in_capitals(folder: Path) -> Path:
    (no_ratings(folder) / "ratings.dat").mkdir()
    (folder / "in" / "ratings.dat" / "part-0.GZ").write_bytes(gzip.compress(b"1::10::5::100\n"))
    return folder / "in"


def broken_link_among_parts(folder: Path) -> Path:
    (parts(folder) / "part-1").symlink_to("/nonexistent/part-1")
    return folder / "in"


def link_through_a_file_among_parts(folder: Path) -> Path:
    (parts(folder) / "a").symlink_to("/etc/passwd/a")
    return folder / "in"


def link_to_itself_among_parts(folder: Path) -> Path:
    (parts(folder) / "a").symlink_to("a")
    return folder / "in"


def broken_link(folder: Path) -> Path:
    (no_ratings(folder) / "ratings.dat").symlink_to("/nonexistent/ratings.dat")
    return folder / "in"


def pipe_among_parts(folder: Path) -> Path:
    os.mkfifo(parts(folder) / "part-1")
    return folder / "in"


def pipe_in_place_of_an_archive(folder: Path) -> Path:
    os.mkfifo(folder / "in.zip")
    return folder / "in.zip"


def parts_that_spark_still_writes(folder: Path) -> Path:
    (parts(folder) / "_temporary").mkdir()
    return folder / "in"


def part_that_rsync_still_writes(folder: Path) -> Path:
    (parts(folder) / ".part-1.csv.Ab3dEf").write_bytes(b"1::11::5::1")
    return folder / "in"


INPUTS = [
    broken_link_among_parts, link_through_a_file_among_parts, link_to_itself_among_parts, broken_link,
    pipe_among_parts, pipe_in_place_of_an_archive, parts_that_spark_still_writes, part_that_rsync_still_writes,
    missing, a_file, empty_folder, other_files, no_ratings, two_formats,
    half_of_each_of_two, empty_file, only_blank_lines, only_line_ends, only_a_header, twice, nested_parts,
    empty_parts, unfinished_part, part_of_another_compression, part_in_capitals,
]  # fmt: skip


@pytest.mark.parametrize("make_input", INPUTS, ids=lambda make: make.__name__)
def test_an_input_that_is_not_there_is_named_with_what_was_found(
    engine: str, run_main: Main, tmp_path: Path, output_path: Path, make_input: Callable[[Path], Path]
) -> None:
    status, said = run_main(engine, "--input_path", make_input(tmp_path), "--output_path", output_path)
    assert_golden(f"input_{make_input.__name__}", said, output=output_path, folder=tmp_path)
    assert status == 3
    assert not visible_names(output_path)


def cut(archive: bytes) -> bytes:
    return archive[: -len(archive) // 3]


def cut_by_a_byte(archive: bytes) -> bytes:
    return archive[:-1]


def cut_in_a_header(archive: bytes) -> bytes:
    return archive + archive[:4]


def with_garbage_behind(archive: bytes) -> bytes:
    return archive + b"1::10::5::100\n"


def with_a_wrong_checksum(archive: bytes) -> bytes:
    return archive[:-8] + bytes([archive[-8] ^ 1]) + archive[-7:]


def no_archive(_archive: bytes) -> bytes:
    return b"1::10::5::100\n" * 100


DAMAGES = [cut, cut_by_a_byte, cut_in_a_header, with_garbage_behind, with_a_wrong_checksum, no_archive]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
@pytest.mark.parametrize("name", ["ratings.dat", "movies.dat"])
def test_a_damaged_archive_is_bad_input(
    engine: str, run_main: Main, input_path: Path, output_path: Path, name: str, suffix: str,
    compress: Callable[[bytes], bytes], damage: Callable[[bytes], bytes],
) -> None:  # fmt: skip
    # given an archive of several blocks, one of whose ends is damaged
    shutil.copytree(ROOT / "dataset", input_path, dirs_exist_ok=True)
    archive = compress((input_path / name).read_bytes())
    (input_path / name).unlink()
    (input_path / f"{name}{suffix}").write_bytes(damage(archive))
    # then both engines say the same
    status, said = run_main(engine, "--input_path", input_path, "--output_path", output_path)
    *_, last = said.splitlines()
    assert last.startswith(f"movielens_pipeline: error: {input_path}/{name}{suffix} is damaged: ")
    assert last.endswith("; nothing was published")
    assert "Traceback" not in said
    assert status == 3
    assert not visible_names(output_path)


USAGE = {
    "no_arguments": [],
    "no_output": ["--input_path", "in"],
    "unknown_option": ["--input_path", "in", "--output_path", "out", "--fast"],
    "abbreviated_option": ["--input", "in", "--output_path", "out"],
    "unknown_engine": ["--input_path", "in", "--output_path", "out", "--engine", "flink"],
    "max_rejects_negative": ["--input_path", "in", "--output_path", "out", "--max_rejects", "-1"],
    "max_rejects_no_number": ["--input_path", "in", "--output_path", "out", "--max_rejects", "few"],
    "unknown_scheme": ["--input_path", "ftp://in", "--output_path", "out"],
    "hdfs_on_sail": ["--input_path", "in", "--output_path", "hdfs://name/out"],
    "empty_path": ["--input_path", "", "--output_path", "out"],
    "output_is_the_root": ["--input_path", "in", "--output_path", "/"],
    "output_is_home": ["--input_path", "in", "--output_path", "~"],
    "another_host": ["--input_path", "file://host/in", "--output_path", "out"],
    "no_home": ["--input_path", "in", "--output_path", "~nosuchuser/out"],
    "home_of_nobody": ["--input_path", "~nobody/in", "--output_path", "out"],
    "two_slashes": ["--input_path", "//", "--output_path", "out"],
    "no_bucket": ["--input_path", "s3://", "--output_path", "out"],
    "output_is_the_input_in_a_bucket": ["--input_path", "s3a://in/a", "--output_path", "s3://in/a/"],
    "output_is_the_input": ["--input_path", "in/../in", "--output_path", "in/"],
}


@pytest.mark.parametrize("case", USAGE)
def test_a_wrong_command_line_is_status_2(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as left:
        job.main(USAGE[case])
    assert left.value.code == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert_golden(f"usage_{case}", last.replace("'", "") + "\n", home=tmp_path / "home", folder=tmp_path)


def test_a_dataset_folder_with_foreign_files_is_refused(
    engine: str, run_main: Main, input_path: Path, output_path: Path
) -> None:
    # given somebody's own folder named as one of the datasets
    (output_path / "movies" / "2024").mkdir(parents=True)
    (output_path / "movies" / "2024" / "holiday.mp4").write_bytes(b"precious")
    status, said = run_main(engine, "--input_path", input_path, "--output_path", output_path)
    assert_golden("foreign_file", said, output=output_path)
    assert status == 2
    assert (output_path / "movies" / "2024" / "holiday.mp4").read_bytes() == b"precious"


def test_a_file_in_the_place_of_a_dataset_is_refused(
    engine: str, run_main: Main, input_path: Path, output_path: Path
) -> None:
    output_path.mkdir()
    (output_path / "ratings").write_bytes(b"precious")
    status, _ = run_main(engine, "--input_path", input_path, "--output_path", output_path)
    assert status == 2
    assert (output_path / "ratings").read_bytes() == b"precious"


def test_what_else_is_in_the_output_folder_is_left_alone(
    engine: str, run_main: Main, input_path: Path, output_path: Path
) -> None:
    (output_path / "reports").mkdir(parents=True)
    (output_path / "reports" / "q1.pdf").touch()
    (output_path / "notes.txt").touch()
    status, _ = run_main(engine, "--input_path", input_path, "--output_path", output_path)
    assert status == 0
    assert {"reports", "notes.txt", "ratings"} <= visible_names(output_path)
    assert (output_path / "reports" / "q1.pdf").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a file system of its own, which takes root."""
    mounted = []

    def mount(options: str) -> Path:
        folder = tmp_path / "disk"
        folder.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
        done = subprocess.run(command, check=False, capture_output=True)
        if done.returncode:
            pytest.skip("mounting a small disk takes root")
        if folder not in mounted:
            mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", folder], check=True)  # the JVM may keep a file open


def test_a_full_disk_is_said_and_leaves_the_earlier_result(
    engine: str, run_main: Main, tmp_path: Path, small_disk: Callable[[str], Path]
) -> None:
    # given a result on a disk that has no room for the next
    output = small_disk("size=1m") / "output"
    first = write_input(tmp_path / "first")
    assert run_main(engine, "--input_path", first, "--output_path", output)[0] == 0
    earlier = rows_of(output, "ratings")
    (output.parent / "ballast").write_bytes(bytes(800_000))
    # when the next is larger than the room
    status, said = run_main(engine, "--input_path", ROOT / "dataset", "--output_path", output)
    # then
    *_, last = said.splitlines()
    assert_golden("disk_full", last + "\n", output=output)
    assert status == 1
    assert rows_of(output, "ratings") == earlier


def test_a_read_only_output_is_said(
    engine: str, run_main: Main, input_path: Path, small_disk: Callable[[str], Path]
) -> None:
    # given a disk that was mounted again, to be read only, when the folder was there
    (small_disk("rw") / "output").mkdir()
    disk_to_read = small_disk("remount,ro")
    for output in (disk_to_read / "output", disk_to_read / "new" / "output"):
        status, said = run_main(engine, "--input_path", input_path, "--output_path", output)
        assert said.splitlines()[-1] == f"movielens_pipeline: error: {output} cannot be written: read-only file system"
        assert status == 1


def test_an_input_that_changes_while_it_is_read_is_not_published(
    engine: str, run_main: Main, input_path: Path, output_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given somebody who overwrites the input when half of the work is done
    ratings = input_path / "ratings.dat"
    disturb_when_all_is_written(monkeypatch, lambda: ratings.write_bytes(b"1::10::5::100\n" * 6))
    status, said = run_main(engine, "--input_path", input_path, "--output_path", output_path)
    assert_golden("input_changed", said.splitlines()[-1] + "\n", input=input_path)
    assert status == 3
    assert not visible_names(output_path)


def test_an_input_that_cannot_be_reached_any_more_is_bad_input(
    engine: str, run_main: Main, input_path: Path, output_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given somebody who puts a link that leads nowhere else than to itself in the place of the input
    def replace_by_link() -> None:
        input_path.rename(input_path.with_suffix(".away"))
        input_path.symlink_to(input_path.name)

    disturb_when_all_is_written(monkeypatch, replace_by_link)
    status, said = run_main(engine, "--input_path", input_path, "--output_path", output_path)
    assert said.splitlines()[-1] == (
        f"movielens_pipeline: error: {input_path} cannot be read: too many levels of symbolic links; "
        "nothing was published"
    )
    assert status == 3
    assert not visible_names(output_path)


class DamagedDisk(disk.ReadFile):
    """A file at whose beginning the disk is damaged."""

    def readinto(self, buffer: Any) -> int | None:
        with disk.refusals_of(str(self.name), "read"):
            if self.tell() == 0:
                raise OSError(errno.EIO, "as the kernel has it")
        return super().readinto(buffer)


@pytest.mark.parametrize("form", ["plain", "gz", "bz2", "zip"])
def test_an_input_that_the_disk_cannot_read_is_bad_input(
    engine: str, run_main: Main, tmp_path: Path, output_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    given = unread = write_input(tmp_path / "in")
    ratings = given / "ratings.dat"
    if form == "zip":
        given = unread = Path(shutil.make_archive(str(given), form, given))
    elif form == "plain":
        unread = ratings
    else:
        unread = ratings.with_suffix(f".dat.{form}")
        unread.write_bytes({"gz": gzip, "bz2": bz2}[form].compress(ratings.read_bytes()))
        ratings.unlink()
    monkeypatch.setattr(disk, "ReadFile", DamagedDisk)
    status, said = run_main(engine, "--input_path", given, "--output_path", output_path)
    assert said.splitlines()[-1].startswith(f"movielens_pipeline: error: {unread} cannot be read: input/output error")
    assert "Traceback" not in said
    assert status == 3
    assert not visible_names(output_path)


def test_what_the_disk_refuses_while_a_file_is_read_is_said_of_that_file() -> None:
    # given a file that can be opened, and of which nothing can be read
    with disk.DiskStorage().open("/proc/self/mem") as file:
        for read in (lambda: file.read(1), file.read):
            with pytest.raises(StorageError, match=r"/proc/self/mem cannot be read: input/output error"):
                read()


def test_where_no_temporary_file_can_be_made_a_line_says_so(input_path: Path, output_path: Path) -> None:
    done = run_job("sail", "--input_path", input_path, "--output_path", output_path, ulimit="-f 0")
    assert done.returncode == 1
    [said] = done.stderr.splitlines()
    assert said.startswith("movielens_pipeline: error: no folder for temporary files can be made (")
    assert said.endswith("): let TMPDIR name one with room that can be written")


def test_an_input_that_changes_to_one_of_the_same_size_and_time_is_not_published(
    engine: str, run_main: Main, input_path: Path, output_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given somebody who writes other bytes, as many, and sets the time back
    ratings = input_path / "ratings.dat"

    def reverse() -> None:
        before = ratings.stat()
        ratings.write_bytes(ratings.read_bytes()[::-1])
        os.utime(ratings, ns=(before.st_atime_ns, before.st_mtime_ns))

    disturb_when_all_is_written(monkeypatch, reverse)
    status, said = run_main(engine, "--input_path", input_path, "--output_path", output_path)
    assert_golden("input_changed", said.splitlines()[-1] + "\n", input=input_path)
    assert status == 3
    assert not visible_names(output_path)


def test_an_input_that_vanishes_while_it_is_read_is_not_published(
    engine: str, run_main: Main, input_path: Path, output_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = tables.write_dataset

    def vanish_and_write(frame: object, folder: str, name: str, *check: object) -> int:
        (input_path / "ratings.dat").unlink(missing_ok=True)
        rows: int = write(frame, folder, name, *check)
        return rows

    monkeypatch.setattr(tables, "write_dataset", vanish_and_write)
    status, said = run_main(engine, "--input_path", input_path, "--output_path", output_path)
    assert str(input_path) in said.splitlines()[-1]
    assert "Traceback" not in said
    assert status == 3
    assert not visible_names(output_path)


def test_too_little_memory_is_said(output_path: Path) -> None:
    # given a pool of a tenth of a megabyte, for sail; spark takes its memory from the launcher
    environment = {**job_environment(), "SAIL_RUNTIME__MEMORY_POOL__FAIR__MAX_SIZE": "100000"}
    done = run_job("sail", "--input_path", ROOT / "dataset", "--output_path", output_path, env=environment)
    assert_golden("out_of_memory", done.stderr.splitlines()[-1] + "\n", output=output_path)
    assert done.returncode == 1
    assert not visible_names(output_path)


def test_a_fault_of_the_job_s_own_keeps_its_traceback(tmp_path: Path, input_path: Path) -> None:
    # given a job with a fault in it
    broken = shutil.copy(ROOT / "movielens_pipeline.py", tmp_path)
    shutil.copytree(ROOT / "movielens", tmp_path / "movielens")
    source = (ROOT / "movielens" / "contract.py").read_text()
    (tmp_path / "movielens" / "contract.py").write_text(source.replace("TOP_RANKS = 3", "TOP_RANKS = object()"))
    done = subprocess.run(
        [sys.executable, broken, "--input_path", input_path, "--output_path", tmp_path / "out"],
        capture_output=True, text=True, env=job_environment(), check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert not visible_names(tmp_path / "out")


AS_NOBODY = """
import os, sys
import movielens_pipeline as job
from movielens import ending, run  # that user may not read Python's own modules
from movielens.terminal import leave
session = job.get_spark_session("sail")
job.get_spark_session = lambda engine: session
if os.geteuid() == 0:  # whom no permission stops
    os.setuid(65534)
leave(job.main(sys.argv[1:]))
"""


def test_an_unreadable_file_is_said() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        Path(folder).chmod(0o755)
        input_path = write_input(Path(folder) / "in")
        (input_path / "ratings.dat").chmod(0)
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, "--input_path", input_path, "--output_path", f"{folder}/out"],
            capture_output=True, text=True, env={**job_environment(), "PYTHONPATH": str(ROOT)}, check=False, timeout=60,
        )  # fmt: skip
    assert_golden("unreadable", done.stderr.splitlines()[-1] + "\n", input=input_path)
    assert done.returncode == 3


WHOSE_ENGINE_DIES = """
import sys
import movielens_pipeline as job
from movielens import tables
from movielens.terminal import leave
session = job.get_spark_session("sail")
job.get_spark_session = lambda engine: session
write = tables.write_files

def die_and_write(frame, path):
    session._sail_server.stop()
    write(frame, path)

tables.write_files = die_and_write
leave(job.main(sys.argv[1:]))
"""


def test_an_engine_that_dies_is_said_soon(input_path: Path, output_path: Path) -> None:
    # given a server of Sail that ends when the first dataset is to be written
    done = subprocess.run(
        [sys.executable, "-c", WHOSE_ENGINE_DIES, "--input_path", input_path, "--output_path", output_path],
        capture_output=True, text=True, env={**job_environment(), "PYTHONPATH": str(ROOT)}, check=False, timeout=60,
    )  # fmt: skip
    # then the job does not try for ten minutes to reach it
    *_, last = done.stderr.splitlines()
    assert_golden("engine_dies", last + "\n")
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    assert done.returncode == 1
    assert not visible_names(output_path)


@pytest.mark.parametrize(
    ("said", "input_path"),
    [
        ("Job aborted: something unheard of in /data/gzip/in", "/data/gzip/in"),
        (
            "Job aborted: something unheard of in file:/data/No%20such%20file%20or%20directory",
            "/data/No such file or directory",
        ),
        ("Job aborted: something unheard of in deflate/in/ratings.dat", "s3://bucket/deflate/in"),
        ("Job aborted: something unheard of in /data/in/ratings.dat", "/data/in"),
    ],
)
def test_a_message_that_merely_holds_a_path_is_not_about_the_input(said: str, input_path: str) -> None:
    assert explained(said, input_path, "/data/Permission denied/out") is None


NAMENODE_SUSPENDED = (
    "java.net.SocketTimeoutException: Call From here/127.0.0.1 to namenode:8020 failed on socket timeout "
    "exception: java.net.SocketTimeoutException: 60000 millis timeout while waiting for channel to be ready for "
    "read. ch : java.nio.channels.SocketChannel[connected local=/127.0.0.1:34970 remote=namenode/127.0.0.1:8020]; "
    "For more details see:  http://wiki.apache.org/hadoop/SocketTimeout\n\tat org.apache.hadoop.ipc.Client.call(Client)"
)
NAMENODE_KILLED = (
    'java.io.EOFException: End of File Exception between local host is: "here/127.0.0.1"; destination host is: '
    '"namenode":8020; : java.io.EOFException; For more details see:  http://wiki.apache.org/hadoop/EOFException'
    "\n\tat org.apache.hadoop.ipc.Client.call(Client.java:1529)"
)
BUCKET_SLOW = (
    "org.apache.hadoop.fs.s3a.AWSServiceThrottledException: PUT 0-byte object: "
    "software.amazon.awssdk.services.s3.model.S3Exception: Please reduce your request rate. (Service: S3, "
    "Status Code: 503, Request ID: 1):SlowDown\n\tat org.apache.hadoop.fs.s3a.S3AUtils.translateException(S3AUtils)"
)
NO_ANSWER = "the store cannot be reached; check the network, and that a namenode runs at that address"
OVERLOADED = "the store is overloaded or out of order; try again later"
ON_HDFS, IN_A_BUCKET = "hdfs://namenode:8020/data", "s3://bucket/data"
INPUT_UNREACHABLE = (
    "org.apache.spark.SparkException: [FAILED_READ_FILE.NO_HINT] Encountered error while reading file"
    " hdfs://namenode:8020/data/in/ratings.dat. SQLSTATE: KD001\nCaused by: java.net.ConnectException: Call From"
    " here/127.0.0.1 to namenode:8020 failed on connection exception: java.net.ConnectException: Connection refused"
)


@pytest.mark.parametrize(
    ("said", "input_path", "output", "status", "expected"),
    [
        (NAMENODE_SUSPENDED, "/data/in", f"{ON_HDFS}/out", 1, f"{ON_HDFS}/out: {NO_ANSWER}"),
        (NAMENODE_KILLED, "/data/in", f"{ON_HDFS}/out", 1, f"{ON_HDFS}/out: {NO_ANSWER}"),
        (NAMENODE_KILLED, f"{IN_A_BUCKET}/in", f"{ON_HDFS}/out", 1, f"{ON_HDFS}/out: {NO_ANSWER}"),
        (NAMENODE_KILLED, f"{ON_HDFS}/in", f"{IN_A_BUCKET}/out", 3, f"{ON_HDFS}/in: {NO_ANSWER}"),
        (NAMENODE_KILLED, f"{ON_HDFS}/in", f"{ON_HDFS}/out", 1, f"{ON_HDFS}/out: {NO_ANSWER}"),
        (INPUT_UNREACHABLE, f"{ON_HDFS}/in", f"{ON_HDFS}/out", 3, f"{ON_HDFS}/in: {NO_ANSWER}"),
        (BUCKET_SLOW, f"{ON_HDFS}/in", f"{IN_A_BUCKET}/out", 1, f"{IN_A_BUCKET}/out: {OVERLOADED}"),
        (BUCKET_SLOW, f"{IN_A_BUCKET}/in", f"{ON_HDFS}/out", 3, f"{IN_A_BUCKET}/in: {OVERLOADED}"),
    ],
)
def test_a_store_that_fails_in_the_middle_is_named_and_no_other(
    said: str, input_path: str, output: str, status: int, expected: str
) -> None:
    # given what Spark hands on
    found = explained(f"An error occurred while calling o121.parquet.\n: {said}", input_path, output)
    assert found is not None
    assert (found.status, str(found)) == (status, expected)


@pytest.mark.parametrize(
    ("said", "status", "expected"),
    [
        (
            "org.apache.spark.SparkException: [TASK_WRITE_FAILED] Task failed while writing rows to "
            "file:/data/out/_staging/1/ratings. SQLSTATE: 58030\nCaused by: java.io.FileNotFoundException: "
            "/data/in/ratings.dat (Input/output error)",
            3,
            "/data/in cannot be read: /data/in/ratings.dat (Input/output error)",
        ),
        (
            "java.io.FileNotFoundException: /tmp/blockmgr-ef4be58c-627d-4328-b5eb-449ac6dfd582/27/temp_shuffle_9c41 "
            "(Too many open files)",
            1,
            "too many open files: allow this process more of them (ulimit -n)",
        ),
        (
            "Generic LocalFileSystem error: Unable to copy data to file: File too large (os error 27)",
            1,
            "a file would be larger than this process, or the disk, allows (ulimit -f)",
        ),
        (
            "org.apache.spark.SparkException: Task failed\nCaused by: java.nio.file.NoSuchFileException: "
            "/mnt/yarn/blockmgr-ef4be58c-627d-4328-b5eb-449ac6dfd582/1f",
            1,
            "temporary files went away while they were needed: "
            "/mnt/yarn/blockmgr-ef4be58c-627d-4328-b5eb-449ac6dfd582/1f",
        ),
    ],
)
def test_a_file_that_fails_is_blamed_on_the_place_that_it_is_in(said: str, status: int, expected: str) -> None:
    # given what engines hand on, the cause last
    found = explained(f"An error occurred while calling o121.parquet.\n: {said}", "/data/in", "/data/out")
    assert found is not None
    assert (found.status, str(found)) == (status, expected)


def test_temporary_files_that_go_away_are_not_blamed_on_the_input(
    use_engine: Callable[[str], Any], run_main: Main, input_path: Path, output_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    # given somebody who cleans up the temporary files of Spark when half of the work is done
    environment = use_engine("spark")._jvm.org.apache.spark.SparkEnv.get()
    [folder] = map(Path, environment.blockManager().diskBlockManager().localDirsString())
    write = tables.write_files

    def clean_up_and_write(frame: object, path: str) -> None:
        if path.endswith("/top_movies_per_user"):
            folder.rename(f"{folder}-away")
        write(frame, path)

    monkeypatch.setattr(tables, "write_files", clean_up_and_write)
    try:
        status, said = run_main("spark", "--input_path", input_path, "--output_path", output_path)
    finally:
        Path(f"{folder}-away").rename(folder)
    *_, last = said.splitlines()
    assert last.startswith(f"movielens_pipeline: error: temporary files went away while they were needed: {folder}/")
    assert last.endswith("; nothing was published")
    assert status == 1
    assert not visible_names(output_path)
