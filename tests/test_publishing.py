"""Publishing: a reader finds a whole result at every moment, and a manifest lists only what is there."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from check_local_results import main as check_main
from movielens import contract, runs, tables
from movielens.contract import PipelineError
from movielens.engines.sail import Sail
from movielens.publishing.output import Output
from movielens.runs import utc
from movielens.storage import disk
from movielens.storage.disk import DiskStorage
from movielens.storage.refusals import StorageError
from tests import stress
from tests.support.golden import assert_golden
from tests.support.jobs import (
    ELSEWHERE,
    Main,
    Publish,
    disturb_when_all_is_written,
    job_command,
    job_environment,
    run_job,
)  # fmt: skip
from tests.support.places import Disk, Place, Storages
from tests.support.prepared import Prepared
from tests.support.project import ROOT
from tests.support.results import DATASETS, assert_equal_by_check, manifest_of, rows_of, visible_names


def now() -> datetime:
    return datetime.now(timezone.utc)


def test_a_published_folder_holds_the_manifest_and_just_the_files_that_it_lists(
    engine: str, publish: Publish, input_path: Path, output_path: Path
) -> None:
    for _ in range(2):
        publish(engine, input_path, output_path)
        assert visible_names(output_path) == DATASETS | {"_manifest.json"}
        listed = {
            output_path / file for entry in manifest_of(output_path)["datasets"].values() for file in entry["files"]
        }
        found = {
            path
            for path in output_path.rglob("*")
            if path.is_file() and not path.relative_to(output_path).parts[0].startswith("_")
        }
        assert found == listed


def test_what_hadoop_leaves_in_a_dataset_folder_does_not_stop_a_run(
    engine: str, publish: Publish, input_path: Path, output_path: Path
) -> None:
    # given a result that some tool of Hadoop copied, with its marks and checksum files
    publish("sail", input_path, output_path)
    for dataset in DATASETS:
        (output_path / dataset / "_SUCCESS").touch()
        for file in list((output_path / dataset).glob("*.parquet")):
            (output_path / dataset / f".{file.name}.crc").write_bytes(b"crc")
    publish(engine, input_path, output_path)
    assert_equal_by_check(input_path, output_path)


def test_the_manifest_tells_what_was_done(engine: str, publish: Publish, input_path: Path, output_path: Path) -> None:
    before = now().replace(microsecond=0)
    publish(engine, input_path, output_path)
    manifest = manifest_of(output_path)
    assert manifest["schema_version"] == 1
    assert manifest["job_version"] == contract.VERSION
    assert manifest["engine"]["name"] == engine
    assert before <= utc(manifest["started"]) <= utc(manifest["finished"]) <= now()
    assert manifest["input_format"] == "dat"
    assert manifest["input_files"] == [
        {
            "path": str(file), "bytes": file.stat().st_size, "modified": file.stat().st_mtime,
            "version": str(file.stat().st_ctime_ns), "accounted": True,
        }
        for file in (input_path / "movies.dat", input_path / "ratings.dat")
    ]  # fmt: skip
    assert (manifest["input_path"], manifest["max_rejects"]) == (str(input_path), 0)
    for entry in manifest["datasets"].values():
        assert entry["bytes"] == sum((output_path / file).stat().st_size for file in entry["files"])
    assert {name: entry["rows"] for name, entry in manifest["datasets"].items()} == {
        name: len(rows_of(output_path, name)) for name in DATASETS
    }


def test_a_new_result_replaces_the_earlier_one_across_engines(
    publish: Publish, two_inputs: tuple[Path, Path], output_path: Path
) -> None:
    old, new = two_inputs
    for engine, folder in (("sail", old), ("spark", new), ("sail", old)):
        publish(engine, folder, output_path)
        assert_equal_by_check(folder, output_path)


def test_a_run_that_fails_leaves_the_earlier_result_and_nothing_else(
    engine: str, publish: Publish, run_main: Main, two_inputs: tuple[Path, Path], output_path: Path
) -> None:
    old, new = two_inputs
    publish("sail", old, output_path)
    earlier = {path: path.read_bytes() for path in output_path.rglob("*") if path.is_file()}
    (new / "ratings.dat").write_bytes(b"no rating\n")
    assert run_main(engine, "--input_path", new, "--output_path", output_path)[0] == 3
    assert {path: path.read_bytes() for path in output_path.rglob("*") if path.is_file()} == earlier


@pytest.mark.parametrize("lost_in", ["ratings", "movies", "movies_with_stats"])
def test_rows_that_get_lost_are_noticed_and_not_published(
    engine: str, run_main: Main, input_path: Path, output_path: Path, monkeypatch: pytest.MonkeyPatch, lost_in: str
) -> None:
    # given a fault in the job that loses a row on the way
    write = tables.write_dataset

    def write_less(frame: Any, folder: str, name: str, *check: object) -> int:
        return write(frame.limit(frame.count() - 1) if name == lost_in else frame, folder, name, *check)

    monkeypatch.setattr(tables, "write_dataset", write_less)
    status, said = run_main(engine, "--input_path", input_path, "--output_path", output_path)
    assert_golden(f"lost_{lost_in}", said.splitlines()[-1] + "\n", input=input_path)
    assert status == 1
    assert not visible_names(output_path)


@pytest.fixture(params=["disk", "bucket", "hdfs"])
def place(request: pytest.FixtureRequest, output_path: Path) -> Place:
    """Where to publish to."""
    if request.param == "disk":
        return Disk(output_path)
    found: Place = request.getfixturevalue({"bucket": "bucket_path", "hdfs": "hdfs_path"}[request.param])
    return found


@pytest.mark.thorough
def test_two_runs_at_once_end_with_one_whole_result(engine: str, two_inputs: tuple[Path, Path], place: Place) -> None:
    running = [
        subprocess.Popen(
            job_command(engine, "--input_path", folder, "--output_path", place.address),
            env=job_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for folder in two_inputs
    ]  # fmt: skip
    said = [process.communicate(timeout=300)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], "\n".join(said)
    found = str(place.snapshot())
    arguments = [["--input_path", str(folder), "--output_path", found] for folder in two_inputs]
    assert sorted(check_main(argument) for argument in arguments) == [0, 1]
    assert visible_names(Path(found)) == DATASETS | {"_manifest.json"}


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("where", "kills", "races", "suspensions"), [([], 12, 4, 2), (["--s3"], 6, 2, 1)], ids=["disk", "bucket"]
)
def test_stress_a_few_kills_races_and_a_reader_that_never_sees_a_mixture(
    tmp_path: Path, where: list[str], kills: int, races: int, suspensions: int
) -> None:
    # the same script does hundreds: python -m tests.stress --kills 100 --races 100
    numbers = {"--kills": kills, "--races": races, "--suspensions": suspensions, "--seed": 1}
    options = [*where, *(word for name, number in numbers.items() for word in (name, str(number)))]
    options += ["--folder", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.stress", *options],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=600, env=job_environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{kills} kills, {races} races, {suspensions} suspensions" in done.stdout


def test_a_process_is_told_by_its_start_however_it_grows() -> None:
    before = runs.start_of(os.getpid())
    grown = bytearray(50_000_000)
    assert runs.start_of(os.getpid()) == before
    with subprocess.Popen(["sleep", "60"]) as other:
        assert runs.start_of(other.pid) != before
        other.kill()
    del grown


def test_where_there_is_no_proc_a_dead_process_is_known_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    # given a machine such as a Mac, a process that lives, and one that has ended
    monkeypatch.setattr(runs, "Path", lambda path: Path(str(path).replace("/proc", "/no-proc")))
    runs.boot.cache_clear()
    try:
        process = subprocess.Popen(["sleep", "60"])
        run_id = f"20200101T000000Z-here-{runs.identity(process.pid)}-0000"
        assert runs.is_over(run_id, ELSEWHERE) is False
        process.kill()
        process.wait()
        assert runs.is_over(run_id, ELSEWHERE) is True
    finally:
        runs.boot.cache_clear()


def test_a_first_run_leaves_alone_what_somebody_keeps_in_the_folder_of_a_dataset(
    engine: str, run_main: Main, input_path: Path, place: Place
) -> None:
    # given Parquet of somebody else below the names of datasets
    theirs = {"movies/year=2020/theirs.parquet", "ratings/theirs.parquet"}
    for name in theirs:
        place.write(name, b"theirs")
    status, said = run_main(engine, "--input_path", input_path, "--output_path", place.address)
    assert status == 2
    assert said.splitlines()[-1] == (
        f"movielens_pipeline: error: {place.address}/movies/year=2020 is not of this job: "
        "move it away, or choose another --output_path"
    )
    assert place.files() == theirs


class PrivateHistory(DiskStorage):
    """A disk on which the history may not be read."""

    def read(self, path: str) -> bytes | None:
        if path.endswith("/_history.jsonl"):
            raise StorageError(f"{path} cannot be read: permission denied")
        return super().read(path)


def test_a_history_that_cannot_be_read_is_said_before_the_work_begins(
    run_main: Main, publish: Publish, two_inputs: tuple[Path, Path], output_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = two_inputs
    publish("sail", old, output_path)
    before = {path: path.read_bytes() for path in output_path.rglob("*") if path.is_file()}
    monkeypatch.setattr(Sail, "storage", lambda *_: PrivateHistory())
    status, said = run_main("sail", "--input_path", new, "--output_path", output_path)
    assert status == 1
    assert said.endswith(f"error: {output_path}/_history.jsonl cannot be read: permission denied\n")
    assert {path: path.read_bytes() for path in output_path.rglob("*") if path.is_file()} == before


def test_a_folder_that_cannot_be_written_is_said_before_the_work_begins(publish: Publish, input_path: Path) -> None:
    # given a result of one user, where others may look, and a run by another
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        output_path = Path(folder) / "output"
        publish("sail", input_path, output_path)
        (output_path / "movies").chmod(0o555)
        if user == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(StorageError) as refused:
                Output(DiskStorage(), str(output_path), ELSEWHERE).require_own_folders()
        finally:
            os.seteuid(user)
            (output_path / "movies").chmod(0o755)
        first = output_path if user == 0 else output_path / "movies"
        assert str(refused.value) == f"{first} cannot be written: permission denied"


@pytest.mark.parametrize("below", ["", "/below", "/below/that"])
@pytest.mark.parametrize("kind", ["file", "link that leads nowhere"])
def test_an_output_path_that_is_no_folder_or_below_what_is_none_is_wrong_usage(
    engine: str, run_main: Main, input_path: Path, output_path: Path, kind: str, below: str
) -> None:
    if kind == "file":
        output_path.write_text("theirs")
    else:
        output_path.symlink_to("/nonexistent/theirs")
    status, said = run_main(engine, "--input_path", input_path, "--output_path", f"{output_path}{below}")
    assert status == 2
    assert said.splitlines()[-1] == (
        f"movielens_pipeline: error: {output_path} is a {kind}: choose another --output_path"
    )
    if kind == "file":
        assert output_path.read_text() == "theirs"
    else:
        assert output_path.readlink() == Path("/nonexistent/theirs")


@pytest.mark.parametrize("name", ["_staging", "_journal", "_manifests", "_manifest.json", "_history.jsonl", "ratings"])
def test_a_file_in_the_place_of_a_folder_or_the_other_way_round_is_noticed_before_the_work_begins(
    run_main: Main, publish: Publish, input_path: Path, output_path: Path, name: str
) -> None:
    # given a result, in which it stands in the place of what the job had put there
    publish("sail", input_path, output_path)
    theirs = output_path / name
    if theirs.suffix:
        theirs.unlink()
        theirs.mkdir()
    else:
        shutil.rmtree(theirs, ignore_errors=True)
        theirs.write_text("theirs")
    before = {path: path.is_file() and path.read_bytes() for path in output_path.rglob("*")}
    status, said = run_main("sail", "--input_path", input_path, "--output_path", output_path)
    assert (status, said.count(f"{theirs} is not of this job: move it away")) == (2, 1)
    assert {path: path.is_file() and path.read_bytes() for path in output_path.rglob("*")} == before


@pytest.mark.parametrize("name", ["_manifests/1.json", "_history.jsonl", "_journal/1.json"])
def test_a_pipe_in_the_place_of_a_file_keeps_no_run_waiting(
    run_main: Main, input_path: Path, output_path: Path, name: str
) -> None:
    pipe = output_path / name
    pipe.parent.mkdir(parents=True)
    os.mkfifo(pipe)
    status, said = run_main("sail", "--input_path", input_path, "--output_path", output_path)
    assert (status, said.count(f"{pipe} cannot be read: it is a pipe")) == (1, 1)


def test_a_folder_of_a_dataset_that_is_a_link_is_refused(
    engine: str, run_main: Main, input_path: Path, output_path: Path
) -> None:
    (output_path.parent / "elsewhere").mkdir()
    output_path.mkdir()
    (output_path / "ratings").symlink_to(output_path.parent / "elsewhere")
    status, said = run_main(engine, "--input_path", input_path, "--output_path", output_path)
    assert status == 2
    assert said.splitlines()[-1] == (
        f"movielens_pipeline: error: {output_path}/ratings is a link: "
        "let it be a folder, or choose another --output_path"
    )


def test_an_output_path_may_be_a_link(engine: str, publish: Publish, input_path: Path, output_path: Path) -> None:
    (output_path.parent / "elsewhere").mkdir()
    output_path.symlink_to(output_path.parent / "elsewhere")
    for _ in range(2):
        publish(engine, input_path, output_path)
    assert_equal_by_check(input_path, output_path.parent / "elsewhere")
    assert output_path.is_symlink()


@pytest.mark.parametrize("leads_to", ["/nonexistent/file", "/etc/passwd/file"])
def test_a_broken_link_among_published_files_is_noticed_before_the_work_begins(
    run_main: Main, publish: Publish, input_path: Path, output_path: Path, leads_to: str
) -> None:
    publish("sail", input_path, output_path)
    earlier = manifest_of(output_path)
    (output_path / "ratings" / "broken").symlink_to(leads_to)
    status, said = run_main("sail", "--input_path", input_path, "--output_path", output_path)
    assert (status, said.count(f"{output_path}/ratings/broken is not of this job: move it away")) == (2, 1)
    assert manifest_of(output_path) == earlier


@pytest.mark.parametrize("what", ["file", "broken link"])
def test_what_somebody_put_in_the_place_of_the_folder_of_temporary_files_stops_no_run(
    input_path: Path, output_path: Path, tmp_path: Path, what: str
) -> None:
    shared = tmp_path / f"movielens_pipeline-{os.getuid()}"
    if what == "file":
        shared.write_text("theirs")
    else:
        shared.symlink_to("/nonexistent/folder")
    environment = {**job_environment(), "TMPDIR": str(tmp_path)}
    done = run_job("sail", "--input_path", input_path, "--output_path", output_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert {entry.name for entry in tmp_path.iterdir()} == {input_path.name, output_path.name, shared.name}


def test_a_machine_without_a_name_has_runs_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "")
    assert runs.RUN_ID.fullmatch(runs.new_run_id())


def test_temporary_files_of_a_run_that_was_killed_are_removed_by_the_next(
    input_path: Path, output_path: Path, tmp_path: Path
) -> None:
    # given what two processes left, one of which lives
    environment = {**job_environment(), "TMPDIR": str(tmp_path)}
    shared = tmp_path / f"movielens_pipeline-{os.getuid()}"
    dead, alive = f"{runs.boot()}-999999999.1", runs.identity(os.getpid())
    for name in (dead, alive):
        (shared / name).mkdir(parents=True)
        (shared / name / "spilled").write_bytes(b"x")
    done = run_job("sail", "--input_path", input_path, "--output_path", output_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert [entry.name for entry in shared.iterdir()] == [alive]


# ----------------------------------------------------------------------------------------------------------------
# A manifest lists only what was read back from where it is published


def lose_dataset(staging: Path) -> None:
    shutil.rmtree(staging / "movies_with_stats")


def lose_file(staging: Path) -> None:
    sorted((staging / "ratings").glob("*.parquet"))[0].unlink()


def truncate_file(staging: Path) -> None:
    [file, *_] = sorted((staging / "ratings").glob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-9])


def empty_file(staging: Path) -> None:
    sorted((staging / "top_movies_per_user").glob("*.parquet"))[0].write_bytes(b"")


def swap_datasets(staging: Path) -> None:
    (staging / "movies").rename(staging / "other")
    (staging / "top_movies_per_user").rename(staging / "movies")
    (staging / "other").rename(staging / "top_movies_per_user")


def double_file(staging: Path) -> None:
    [file, *_] = sorted((staging / "ratings").glob("*.parquet"))
    shutil.copy(file, file.with_name(f"again-{file.name}"))


def lose_staging(staging: Path) -> None:
    shutil.rmtree(staging.parent)


@pytest.mark.parametrize(
    "disturb", [lose_dataset, lose_file, truncate_file, empty_file, swap_datasets, double_file, lose_staging]
)
def test_staged_files_that_changed_are_not_published(
    engine: str, run_main: Main, publish: Publish, two_inputs: tuple[Path, Path], output_path: Path,
    monkeypatch: pytest.MonkeyPatch, disturb: Callable[[Path], None],
) -> None:  # fmt: skip
    # given an earlier result, and somebody who changes what a run staged before it publishes
    old, new = two_inputs
    publish("sail", old, output_path)
    earlier = {name: (output_path / name).read_bytes() for name in Disk(output_path).files() if name[0] != "_"}

    def disturb_staging() -> None:
        [staging] = (output_path / "_staging").iterdir()
        disturb(staging)

    with monkeypatch.context() as patch:
        disturb_when_all_is_written(patch, disturb_staging)
        status, said = run_main(engine, "--input_path", new, "--output_path", output_path)
    # then it fails, the earlier result stands, and the run removes what it moved in
    assert status == 1, said
    assert said.splitlines()[-1].endswith("; nothing was published")
    assert "Traceback" not in said
    found = {name: (output_path / name).read_bytes() for name in Disk(output_path).files() if name[0] != "_"}
    assert found == earlier
    assert_equal_by_check(old, output_path)
    # and so it was not taken for a result of this input
    assert "unchanged" not in publish(engine, new, output_path, "--if_changed")
    assert_equal_by_check(new, output_path)


@pytest.mark.parametrize("kind", ["disk", "s3", "s3a", "hdfs"])
def test_files_lost_after_the_move_are_not_published(
    kind: str, storages: Storages, tmp_path: Path, publish: Publish
) -> None:
    # given a store from which somebody deletes a file that a run has just moved in
    storage, place = storages(kind, tmp_path)
    prepared = Prepared(storage, place, tmp_path, publish)
    place.copy_of(prepared.template)

    class Losing:
        def __getattr__(self, name: str) -> Any:
            return getattr(storage, name)

        def move(self, source: str, target: str) -> None:
            storage.move(source, target)
            if "/movies/" in target:
                storage.delete(target)

    with pytest.raises(PipelineError, match=r"movies has \d+ rows in \d+ files, but the run wrote 5: "):
        prepared.publish(Losing())
    assert_equal_by_check(prepared.old, place.snapshot())
    prepared.assert_nothing_beside()


@pytest.mark.parametrize(
    ("operation", "place", "status", "outcome"),
    [
        ("create", "/_journal/", 1, "the disk fails; nothing was published"),
        ("move", "/movies/", 1, "the disk fails; nothing was published"),
        ("create", "/_manifests/2", 1, "the disk fails; nothing was published"),
        ("replace", "/_manifest.json", 0, "_manifest.json was not refreshed (the disk fails)"),
        ("replace", "/_history.jsonl", 0, "_history.jsonl was not refreshed (the disk fails)"),
        ("delete", "/ratings/", 0, "the disk fails: until a run can, who reads the plain folder sees"),
        ("delete_folder", "/_staging/", 0, "staged files were not deleted (the disk fails); the next run tries again"),
    ],
)  # fmt: skip
def test_disk_that_fails_is_reported_with_the_outcome(
    run_main: Main, publish: Publish, two_inputs: tuple[Path, Path], output_path: Path,
    monkeypatch: pytest.MonkeyPatch, operation: str, place: str, status: int, outcome: str,
) -> None:  # fmt: skip
    old, new = two_inputs
    publish("sail", old, output_path)
    done = getattr(DiskStorage, operation)

    def fail(storage: DiskStorage, *arguments: Any) -> Any:
        paths = arguments[-1:] if operation == "move" else arguments
        if any(isinstance(path, str) and place in path for path in paths):
            raise StorageError("the disk fails")
        return done(storage, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(DiskStorage, operation, fail)
        ended, said = run_main("sail", "--input_path", new, "--output_path", output_path)
    assert (ended, said.count(outcome)) == (status, 1), said
    # then a reader finds what was said, and the next run tidies up
    assert_equal_by_check(old if status else new, output_path)
    publish("sail", old, output_path)
    assert_equal_by_check(old, output_path)
    stress.assert_tidy(Disk(output_path))


def test_files_are_on_the_disk_before_the_lease_and_before_the_commit(
    publish: Publish, input_path: Path, output_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a disk that tells what is done to it
    done: list[tuple[str, str]] = []
    fsync, link = os.fsync, os.link

    def forced(descriptor: int) -> None:
        done.append(("forced", str(Path(f"/proc/self/fd/{descriptor}").readlink())))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", forced)
    monkeypatch.setattr(os, "link", lambda source, target: [done.append(("linked", str(target))), link(source, target)])
    publish("sail", input_path, output_path)
    before_lease = {Path(path) for _, path in done[: done.index(("linked", f"{output_path}/_journal/1.json"))]}
    before_commit = {Path(path) for _, path in done[: done.index(("linked", f"{output_path}/_manifests/1.json"))]}
    for dataset in manifest_of(output_path)["datasets"].values():
        for file in dataset["files"]:
            name, _, base = file.partition("/")
            staged = base.partition("-")[2].partition("-")[2]
            assert [path for path in before_lease if path.match(f"_staging/*/{name}/{staged}")]
            assert {(output_path / file).parent, output_path} <= before_commit
    assert ("forced", f"{output_path}/_manifests") in done


@pytest.mark.parametrize("kind", ["disk", "s3", "s3a", "hdfs"])
def test_one_of_many_that_create_a_file_at_once_succeeds(kind: str, storages: Storages, tmp_path: Path) -> None:
    storage, place = storages(kind, tmp_path)
    for attempt in range(20):
        won: dict[int, bool] = {}
        barrier = threading.Barrier(4)

        def race(number: int, path: str, won: dict[int, bool] = won, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            won[number] = storage.create(path, b"%d" % number)

        path = f"{place.address}/{attempt}.json"
        racers = [threading.Thread(target=race, args=(number, path)) for number in range(4)]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
        assert len(won) == len(racers)  # and all others were told so
        assert [b"%d" % number for number in won if won[number]] == [storage.read(path)]


@pytest.mark.parametrize("kind", ["disk", "s3", "s3a", "hdfs"])
def test_replaced_file_is_never_missing_nor_cut_off(kind: str, storages: Storages, tmp_path: Path) -> None:
    storage, place = storages(kind, tmp_path)
    path, contents = f"{place.address}/copy.json", [b"a" * 2**20, b"b" * 2**21]
    storage.replace(path, contents[0])
    seen: set[bytes | None] = set()

    def write() -> None:
        for number in range(10):
            storage.replace(path, contents[number % 2])

    writing = threading.Thread(target=write)
    writing.start()
    while writing.is_alive():
        seen.add(storage.read(path))
    writing.join()
    assert seen <= {*contents}
    assert {name for name in place.files() if "copy" in name} == {"copy.json"}


@pytest.mark.parametrize("links", [True, False], ids=["with links", "without"])
def test_created_file_is_never_seen_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, links: bool) -> None:
    # given a file that takes long to write, and a reader that never stops looking
    if not links:
        monkeypatch.setattr(os, "link", refuse_link)
    content, path = b"x" * 2**24, str(tmp_path / "folder" / "1.json")
    seen: set[int | None] = set()
    writing = threading.Thread(target=DiskStorage().create, args=(path, content))
    writing.start()
    while writing.is_alive():
        found = DiskStorage().read(path)
        seen.add(None if found is None else len(found))
    writing.join()
    assert seen <= {None, len(content)}
    assert DiskStorage().read(path) == content
    assert DiskStorage().create(path, b"another") is False
    assert [entry.name for entry in (tmp_path / "folder").iterdir()] == ["1.json"]


def refuse_link(*_: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def test_disk_without_links_or_exclusive_rename_excludes_a_second_creator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", refuse_link)
    monkeypatch.setattr(disk, "rename_without_replacing", lambda *_: False)
    storage, path = DiskStorage(), str(tmp_path / "1.json")
    assert [storage.create(path, content) for content in (b"first", b"second")] == [True, False]
    assert storage.read(path) == b"first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["1.json"]
