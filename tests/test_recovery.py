"""What a run finds of others, dead or of version 0.6: it settles, adopts, tidies up or reports it, and goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from movielens import runs
from movielens.publishing.output import Output
from movielens.storage.disk import DiskStorage
from movielens.storage.refusals import StorageError
from tests import stress
from tests.support import s3server
from tests.support.inputs import RATINGS, rating_lines, write_input
from tests.support.jobs import ELSEWHERE, GONE, Main, Publish
from tests.support.journals import is_publishing, numbers, write_lease
from tests.support.places import Bucket, Disk, Place
from tests.support.results import (
    DATASETS,
    assert_equal_by_check,
    history_of,
    manifest_of,
    numbers_of,
    visible_names,
)  # fmt: skip

DAY = 24 * 3600.0


@pytest.fixture(params=["disk", "bucket", "hdfs"])
def place(request: pytest.FixtureRequest, output_path: Path) -> Place:
    """Where to publish to."""
    if request.param == "disk":
        return Disk(output_path)
    found: Place = request.getfixturevalue({"bucket": "bucket_path", "hdfs": "hdfs_path"}[request.param])
    return found


def fail_by_bad_input(run_main: Main, engine: str, input_path: Path, output: object) -> str:
    """A run that fails on its own account, after it recovered what it found; returns what it said."""
    (input_path / "ratings.dat").write_bytes(b"bad\n")
    status, said = run_main(engine, "--input_path", input_path, "--output_path", output)
    assert status == 3
    return said


@pytest.mark.thorough
def test_kill_while_publishing_leaves_the_earlier_result(
    engine: str, publish: Publish, run_main: Main, two_inputs: tuple[Path, Path], tmp_path: Path, place: Place
) -> None:
    # given an earlier result, and a run with slow storage that is killed as soon as it publishes
    old, new = two_inputs
    publish(engine, old, place.address)
    process = stress.start(engine, stress.write_slow_job(tmp_path), new, place)
    while not is_publishing(place):
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # then a reader finds the earlier result, and the next run, though it fails, tidies up
    assert is_publishing(place)
    assert stress.assert_whole([old, new], place) == "old"
    fail_by_bad_input(run_main, engine, new, place.address)
    assert_equal_by_check(old, place.snapshot())
    stress.assert_tidy(place)


def test_lost_copy_is_written_again(
    engine: str, run_main: Main, publish: Publish, two_inputs: tuple[Path, Path], place: Place
) -> None:
    old, new = two_inputs
    publish(engine, old, place.address)
    place.delete("_manifest.json")
    fail_by_bad_input(run_main, engine, new, place.address)
    assert place.read("_manifest.json") == place.read("_manifests/1.json")


def test_lost_manifests_are_written_again(
    engine: str, publish: Publish, two_inputs: tuple[Path, Path], output_path: Path
) -> None:
    # given a result whose numbered manifests somebody deleted
    old, new = two_inputs
    for folder in (old, old, old):
        publish("sail", folder, output_path)
    shutil.rmtree(output_path / "_manifests")
    publish(engine, new, output_path)
    assert_equal_by_check(new, output_path)
    stress.assert_tidy(Disk(output_path))
    assert numbers_of(output_path) == [4, 5]


# ----------------------------------------------------------------------------------------------------------------
# Version 0.6


def as_version_0_6(output_path: Path, run_id: str | None = None) -> dict[str, Any]:
    """Turns a result into one that version 0.6 published, or of which its run was publishing another; the manifest."""
    manifest = manifest_of(output_path)
    shutil.rmtree(output_path / "_manifests")
    shutil.rmtree(output_path / "_journal")
    for name, dataset in manifest["datasets"].items():
        files = []
        for file in dataset["files"]:
            renamed = f"{name}/{file.partition('-')[2].partition('-')[2]}"
            (output_path / file).rename(output_path / renamed)
            files.append(renamed)
        dataset["files"] = files
    del manifest["number"], manifest["restates"]
    (output_path / "_manifest.json").write_text(json.dumps(manifest))
    other = {**manifest, "run_id": run_id or manifest["run_id"]}
    journal = {"schema_version": 1, "generation": 3, "holder": other["run_id"], "manifest": other, "earlier": None}
    (output_path / "_journal").mkdir()
    (output_path / "_journal" / "3.json").write_text(json.dumps({**journal, "removable": []}))
    return manifest


def test_result_of_0_6_is_adopted_and_replaced(
    engine: str, publish: Publish, run_main: Main, two_inputs: tuple[Path, Path], output_path: Path
) -> None:
    old, new = two_inputs
    publish("sail", old, output_path)
    theirs = as_version_0_6(output_path)
    # when a run of this version fails, then the result has a number
    good = (new / "ratings.dat").read_bytes()
    fail_by_bad_input(run_main, engine, new, output_path)
    assert manifest_of(output_path) == {**theirs, "number": 1, "restates": None}
    assert_equal_by_check(old, output_path)
    # and the next one replaces it
    (new / "ratings.dat").write_bytes(good)
    publish(engine, new, output_path)
    assert_equal_by_check(new, output_path)
    stress.assert_tidy(Disk(output_path))
    assert manifest_of(output_path)["previous"]["run_id"] == theirs["run_id"]
    assert [run["run_id"] for run in history_of(output_path)] == [theirs["run_id"], manifest_of(output_path)["run_id"]]


@pytest.mark.parametrize("manifest", ["another", "none", "cut off"])
def test_unfinished_publishing_of_0_6_is_refused(
    engine: str, publish: Publish, run_main: Main, two_inputs: tuple[Path, Path], output_path: Path, manifest: str
) -> None:
    old, new = two_inputs
    publish("sail", old, output_path)
    as_version_0_6(output_path, GONE)
    if manifest == "none":
        (output_path / "_manifest.json").unlink()
    if manifest == "cut off":
        (output_path / "_manifest.json").write_bytes(b"{")
    before = {path: path.read_bytes() for path in output_path.rglob("*") if path.is_file()}
    status, said = run_main(engine, "--input_path", new, "--output_path", output_path)
    assert status == 2
    assert said.splitlines()[-1] == (
        f"movielens_pipeline: error: {output_path}/_journal/3.json is of a run of version 0.6 that is publishing, or "
        "was killed then: wait for it, or run that version once more"
    )
    assert {path: path.read_bytes() for path in output_path.rglob("*") if path.is_file()} == before


def test_version_0_6_beside_this_one_is_refused(
    publish: Publish, run_main: Main, two_inputs: tuple[Path, Path], output_path: Path
) -> None:
    # given a result of this version, and a journal that version 0.6 wrote later
    old, new = two_inputs
    publish("sail", old, output_path)
    manifests = {path.name: path.read_bytes() for path in output_path.glob("_manifests/*")}
    as_version_0_6(output_path)
    (output_path / "_manifests").mkdir()
    for name, content in manifests.items():
        (output_path / "_manifests" / name).write_bytes(content)
    status, said = run_main("sail", "--input_path", new, "--output_path", output_path)
    assert (status, "version 0.6, which does not know the newer result there" in said) == (2, True)


# ----------------------------------------------------------------------------------------------------------------
# Damage


MANIFEST_DAMAGE: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "null": lambda _: b"null",
    "another_s": lambda _: b'{"run_id": "nightly"}',
    "lone_surrogate": lambda found: json.dumps({**found, "input_path": "\ud800"}).encode(),
    "nested_deeply": lambda found: json.dumps({**found, "seconds": {"a": deep(900)}}).encode(),
    "another_number": lambda found: json.dumps({**found, "number": 7}).encode(),
    "files_lead_out": lambda found: json.dumps(found).replace("ratings/", "ratings/../../").encode(),
}


def deep(levels: int) -> Any:
    """A list in a list, so many levels deep."""
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("case", MANIFEST_DAMAGE)
def test_foreign_manifest_is_reported_and_left_alone(
    engine: str, publish: Publish, run_main: Main, two_inputs: tuple[Path, Path], output_path: Path, case: str
) -> None:
    old, new = two_inputs
    publish("sail", old, output_path)
    damaged = MANIFEST_DAMAGE[case](manifest_of(output_path))
    (output_path / "_manifests" / "1.json").write_bytes(damaged)
    before = {path: path.read_bytes() for path in output_path.rglob("*") if path.is_file()}
    status, said = run_main(engine, "--input_path", new, "--output_path", output_path)
    assert (status, said.count("_manifests/1.json is not of this job, and is left alone")) == (2, 1)
    assert "Traceback" not in said
    assert {path: path.read_bytes() for path in output_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("content", [b"", b'{"schema_version": 1, "run_', b"\x00" * 50, b"\xff\xfe", b"[" * 200_000])
def test_manifest_that_is_cut_off_does_not_count(
    engine: str, publish: Publish, two_inputs: tuple[Path, Path], output_path: Path, content: bytes
) -> None:
    old, new = two_inputs
    publish("sail", old, output_path)
    (output_path / "_manifests" / "2.json").write_bytes(content)
    said = publish(engine, new, output_path)
    assert "_manifests/2.json is cut off: the manifest before it counts" in said
    assert_equal_by_check(new, output_path)
    assert manifest_of(output_path)["number"] == 3
    stress.assert_tidy(Disk(output_path))


def test_nothing_is_deleted_while_the_manifest_is_cut_off(
    publish: Publish, run_main: Main, two_inputs: tuple[Path, Path], output_path: Path
) -> None:
    # given two results, and the manifest of the second damaged
    old, new = two_inputs
    publish("sail", old, output_path)
    publish("sail", new, output_path)
    files = Disk(output_path).files()
    (output_path / "_manifests" / "2.json").write_bytes(b"{")
    fail_by_bad_input(run_main, "sail", old, output_path)
    assert {name for name in files if name.endswith(".parquet")} <= Disk(output_path).files()


@pytest.mark.parametrize("folder", ["_journal", "_manifests"])
def test_link_that_leads_nowhere_ends_in_one_line(
    engine: str, publish: Publish, run_main: Main, input_path: Path, output_path: Path, folder: str
) -> None:
    publish("sail", input_path, output_path)
    link = output_path / folder / "7.json"
    link.symlink_to("/nonexistent/file")
    status, said = run_main(engine, "--input_path", input_path, "--output_path", output_path)
    assert (status, said.count(f"{link} is listed but cannot be read: remove it")) == (1, 1)
    link.unlink()
    publish(engine, input_path, output_path)


@pytest.mark.parametrize("folder", ["_journal", "_manifests"])
def test_folder_in_the_place_of_a_number_ends_in_one_line(
    engine: str, publish: Publish, run_main: Main, input_path: Path, place: Place, folder: str
) -> None:
    publish(engine, input_path, place.address)
    place.write(f"{folder}/5.json/below", b"theirs")
    status, said = run_main(engine, "--input_path", input_path, "--output_path", place.address)
    assert (status, said.count(f"{folder}/5.json is not of this job: move it away")) == (2, 1)


@pytest.mark.parametrize("target", ["/usr", ".."])
def test_link_in_a_dataset_folder_is_not_followed(
    engine: str, publish: Publish, run_main: Main, input_path: Path, output_path: Path, target: str
) -> None:
    publish("sail", input_path, output_path)
    (output_path / "ratings" / "_x").symlink_to(target)
    started = time.monotonic()
    publish(engine, input_path, output_path)
    assert_equal_by_check(input_path, output_path)
    # and one that Spark would follow is not of this job
    (output_path / "ratings" / "x").symlink_to(target)
    status, said = run_main(engine, "--input_path", input_path, "--output_path", output_path)
    assert (status, said.count(f"{output_path}/ratings/x is not of this job: move it away")) == (2, 1)
    assert time.monotonic() - started < 60
    assert (output_path / "ratings" / "_x").is_symlink()


def test_two_names_of_one_file_do_not_stop_a_move(tmp_path: Path) -> None:
    # given what a loss of power leaves on ext4 without a journal: both names of a file that was being renamed
    source, target = tmp_path / "source", tmp_path / "folder" / "target"
    source.write_bytes(b"content")
    target.parent.mkdir()
    os.link(source, target)
    DiskStorage().move(str(source), str(target))
    assert not source.exists()
    assert target.read_bytes() == b"content"


# ----------------------------------------------------------------------------------------------------------------
# Leftovers


@pytest.fixture
def mount() -> Iterator[Callable[[Path], Path]]:
    """Mounts a file system of its own on a folder."""
    mounted: list[Path] = []

    def mount(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(["mount", "-t", "tmpfs", "none", str(folder)], capture_output=True, check=False)
        if done.returncode:
            pytest.skip("this user may not mount a file system")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("name", ["rejects", "_staging", "ratings"])
def test_folder_that_is_a_mount_keeps_nothing_from_publishing(
    engine: str, publish: Publish, two_inputs: tuple[Path, Path], output_path: Path, mount: Callable[[Path], Path],
    name: str,
) -> None:  # fmt: skip
    mount(output_path / name)
    for folder in two_inputs:
        publish(engine, folder, output_path)
        assert_equal_by_check(folder, output_path)
        stress.assert_tidy(Disk(output_path))


def test_file_that_cannot_be_deleted_is_reported_each_night(
    engine: str, publish: Publish, two_inputs: tuple[Path, Path], output_path: Path
) -> None:
    old, new = two_inputs
    publish("sail", old, output_path)
    [immutable, *_] = sorted((output_path / "ratings").iterdir())
    if subprocess.run(["chattr", "+i", str(immutable)], capture_output=True, check=False).returncode:
        pytest.skip("this file system has no immutable files")
    try:
        for folder in (new, old):
            said = publish(engine, folder, output_path)
            assert f"{immutable} cannot be deleted: operation not permitted: until a run can" in said
            assert_equal_by_check(folder, output_path)
    finally:
        subprocess.run(["chattr", "-i", str(immutable)], check=True)
    # then the first run that can deletes it
    publish(engine, new, output_path)
    stress.assert_tidy(Disk(output_path))


def test_undeletable_file_of_0_6_is_still_known_after_many_nights(
    publish: Publish, input_path: Path, output_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("movielens.publishing.commits.KEPT", 2)
    publish("sail", input_path, output_path)
    manifest = as_version_0_6(output_path)
    [file, *_] = manifest["datasets"]["ratings"]["files"]
    delete = DiskStorage.delete

    def refuse(storage: DiskStorage, *files: str) -> None:
        if str(output_path / file) in files:
            raise StorageError(f"{output_path / file} cannot be deleted")
        delete(storage, *files)

    with monkeypatch.context() as patch:
        patch.setattr(DiskStorage, "delete", refuse)
        for _ in range(4):
            publish("sail", input_path, output_path)
    assert numbers_of(output_path) == [1, 4, 5]
    publish("sail", input_path, output_path)
    stress.assert_tidy(Disk(output_path))
    assert numbers_of(output_path) == [5, 6]


def test_staging_that_cannot_be_deleted_stops_no_run(
    engine: str, publish: Publish, input_path: Path, output_path: Path
) -> None:
    # given what a killed run staged, which this user may not delete
    left = output_path / "_staging" / GONE / "ratings"
    left.mkdir(parents=True)
    (left / "part-0.parquet").touch()
    if subprocess.run(["chattr", "+i", str(left)], capture_output=True, check=False).returncode:
        pytest.skip("this file system has no immutable files")
    try:
        said = publish(engine, input_path, output_path)
    finally:
        subprocess.run(["chattr", "-i", str(left)], check=True)
    assert "a killed run left a file that does no harm" in said
    assert_equal_by_check(input_path, output_path)


def test_staging_of_a_dead_run_that_is_a_link_is_removed(
    engine: str, publish: Publish, input_path: Path, output_path: Path, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "precious").touch()
    (output_path / "_staging").mkdir(parents=True)
    (output_path / "_staging" / GONE).symlink_to(theirs)
    publish(engine, input_path, output_path)
    assert not (output_path / "_staging" / GONE).is_symlink()
    assert (theirs / "precious").exists()


def test_temporary_files_of_killed_runs_go_after_a_day(publish: Publish, input_path: Path, output_path: Path) -> None:
    publish("sail", input_path, output_path)
    names = [".clock-abcd1234", "_journal/.7.json-0123abcd", "_manifests/.7.json-0123abcd", ".gitkeep"]
    names += [".clock-new", "_journal/.8.json-0123abcd", "_journal/.mine"]
    for name in names:
        (output_path / name).write_bytes(b"x")
    for name in names[:4]:
        os.utime(output_path / name, (time.time() - DAY - 60,) * 2)
    publish("sail", input_path, output_path)
    assert {name for name in names if (output_path / name).exists()} == {*names[3:]}


def test_staging_of_dead_runs_is_removed_and_of_others_kept(
    engine: str, publish: Publish, input_path: Path, output_path: Path
) -> None:
    # elsewhere what counts is when something was written last; here, whether its process lives
    recent, alive = f"{ELSEWHERE}1", f"20200101T000000Z-here-{runs.identity(os.getppid())}-0000"
    for name, hours in ((GONE, 0), (ELSEWHERE, 24.5), (recent, 23.5), (alive, 99), ("somebody-else-s", 99)):
        part = output_path / "_staging" / name / "ratings" / "part-0.parquet"
        part.parent.mkdir(parents=True)
        part.touch()
        for path in (part, part.parent, part.parent.parent):
            os.utime(path, (time.time() - hours * 3600,) * 2)
    publish(engine, input_path, output_path)
    assert {entry.name for entry in (output_path / "_staging").iterdir()} == {recent, alive, "somebody-else-s"}


def test_zombie_process_is_a_dead_run(publish: Publish, input_path: Path, output_path: Path) -> None:
    # given what a run left that is still in the table of processes, as in a container whose first process never waits
    process = subprocess.Popen(["sleep", "0.2"])
    start = runs.start_of(process.pid)
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    left = output_path / "_staging" / f"20200101T000000Z-here-{runs.boot()}-{process.pid}.{start}-0000"
    left.mkdir(parents=True)
    publish("sail", input_path, output_path)
    assert not left.exists()
    process.wait()


@pytest.mark.parametrize("lost", ["manifests", "history, too"])
def test_min_ratio_without_a_manifest_goes_by_the_history(
    engine: str, publish: Publish, run_main: Main, tmp_path: Path, output_path: Path, lost: str
) -> None:
    # given a result whose manifests are lost
    publish("sail", write_input(tmp_path / "first", rating_lines(RATINGS)), output_path)
    for name in ("_manifests", "_journal", *DATASETS):
        shutil.rmtree(output_path / name)
    (output_path / "_manifest.json").unlink()
    if lost != "manifests":
        (output_path / "_history.jsonl").unlink()
    second = write_input(tmp_path / "second", rating_lines(RATINGS[:2]))
    status, said = run_main(engine, "--input_path", second, "--output_path", output_path, "--min_ratio", 0.9)
    if lost == "manifests":
        assert (status, "2 rows, fewer than 0.9 times the 6 of the result before" in said) == (3, True)
    else:
        assert (status, "--min_ratio: there is no earlier result to compare with" in said) == (0, True)


def test_first_run_that_dies_leaves_nothing_and_the_next_publishes(
    publish: Publish, input_path: Path, output_path: Path
) -> None:
    # given a first run that died when it had moved a file in
    write_lease(Disk(output_path), GONE)
    (output_path / "ratings").mkdir()
    (output_path / "ratings" / "1-0badcafe-part-0.parquet").touch()
    publish("sail", input_path, output_path)
    assert_equal_by_check(input_path, output_path)
    assert numbers(Disk(output_path), "_manifests") == [1, 2]
    assert json.loads((output_path / "_manifests" / "1.json").read_bytes())["datasets"] == {}


def test_reader_of_nothing_yet_finds_no_result(output_path: Path) -> None:
    write_lease(Disk(output_path), GONE)
    run = Output(DiskStorage(), str(output_path), ELSEWHERE)
    run.recover()
    assert run.look().standing.manifest is None
    assert visible_names(output_path) == {"_manifest.json"}


def test_stray_upload_of_a_dead_run_is_aborted(publish: Publish, input_path: Path, bucket_path: Bucket) -> None:
    # given a copy into a dataset's folder that a dead run began under a lower number
    publish("sail", input_path, bucket_path.address)
    server = bucket_path.server
    for name in ("1-0badcafe-part-0.parquet", "9-0badcafe-part-0.parquet"):
        server.client.create_multipart_upload(Bucket=s3server.BUCKET, Key=f"{bucket_path.prefix}/ratings/{name}")
    publish("sail", input_path, bucket_path.address)
    assert bucket_path.unfinished() == [f"{bucket_path.prefix}/ratings/9-0badcafe-part-0.parquet"]
