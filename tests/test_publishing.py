"""Publishing: a reader sees the earlier result or the new one, and each run heals what another left behind."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from check_local_results import main as check_main
from movielens import contract, publishing, runs, tables
from movielens.contract import BusyError
from movielens.engines.sail import Sail
from movielens.history import HISTORY
from movielens.manifest import Journal, Manifest
from movielens.runs import utc
from movielens.storage.disk import DiskStorage
from movielens.storage.refusals import StorageError
from tests import stress
from tests.support.golden import assert_golden
from tests.support.inputs import RATINGS, rating_lines, write_input
from tests.support.jobs import ELSEWHERE, GONE, Main, Publish, job_command, job_environment, run_job
from tests.support.journals import generations, is_publishing, parsed, write_journal
from tests.support.places import Disk, Place, Storages
from tests.support.project import ROOT
from tests.support.results import DATASETS, assert_equal_by_check, manifest_of, rows_of, visible_names


@pytest.fixture
def two_inputs(tmp_path: Path) -> tuple[Path, Path]:
    return write_input(tmp_path / "old"), write_input(tmp_path / "new", rating_lines(RATINGS[:4]))


def leave_unpublished(output_path: Path, run_id: str, seconds_ago: float = 0.0) -> None:
    """Turns a published result into one that the run `run_id` had staged and was about to publish."""
    manifest = {**manifest_of(output_path), "run_id": run_id}
    for dataset in manifest["datasets"]:
        target = output_path / "_staging" / run_id / dataset
        target.parent.mkdir(parents=True, exist_ok=True)
        (output_path / dataset).rename(target)
    (output_path / "_manifest.json").unlink()
    journal = output_path / write_journal(Disk(output_path), manifest)
    os.utime(journal, (time.time() - seconds_ago,) * 2)


def assert_nothing_beside(output_path: Path) -> None:
    """In the folders of the datasets are the files that the manifest lists, and no others."""
    found = {name for name in Disk(output_path).files() if not name.startswith("_")}
    assert found == parsed(manifest_of(output_path)).files


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
            path for path in output_path.rglob("*") if path.is_file() and path.name not in ("_manifest.json", HISTORY)
        }
        assert found - {output_path / name for name in generations(Disk(output_path))} == listed


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


@pytest.mark.parametrize("run_id", [GONE, ELSEWHERE])
def test_what_a_dead_run_was_about_to_publish_is_published_by_the_next(
    engine: str, publish: Publish, run_main: Main, two_inputs: tuple[Path, Path], output_path: Path, run_id: str
) -> None:
    # given a run that died when its journal was written; elsewhere, where one cannot look, more than five minutes ago
    old, new = two_inputs
    publish("sail", old, output_path)
    leave_unpublished(output_path, run_id, seconds_ago=6 * 60)
    # when the next run fails on its own account
    (new / "ratings.dat").unlink()
    status, said = run_main(engine, "--input_path", new, "--output_path", output_path)
    assert status == 3
    # then nothing was healed before its input was found; and the run after that heals
    new_ratings = rating_lines(RATINGS[:4]) + b"bad\n"
    (new / "ratings.dat").write_bytes(new_ratings)
    status, said = run_main(engine, "--input_path", new, "--output_path", output_path)
    assert status == 3
    assert f"finished the publishing that run {run_id} left behind\n" in said
    assert_equal_by_check(old, output_path)
    assert visible_names(output_path) == DATASETS | {"_manifest.json"}


def test_a_run_that_is_publishing_elsewhere_is_waited_for_and_then_left_alone(
    engine: str, publish: Publish, run_main: Main, two_inputs: tuple[Path, Path], output_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(publishing, "LONGEST_WAIT", 0.5)
    old, new = two_inputs
    publish("sail", old, output_path)
    leave_unpublished(output_path, ELSEWHERE, seconds_ago=4 * 60)
    before = sorted(path for path in output_path.rglob("*") if path.is_file())
    status, said = run_main(engine, "--input_path", new, "--output_path", output_path)
    assert_golden("busy", said.splitlines()[-1] + "\n", output=output_path)
    assert status == 4
    assert sorted(path for path in output_path.rglob("*") if path.is_file()) == before


def test_a_run_that_is_publishing_elsewhere_is_waited_for_an_hour(
    publish: Publish, input_path: Path, output_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a clock on which each look at the other takes ten minutes
    clock = [1000.0]

    def sleep(_: float) -> None:
        clock[0] += 600

    times = SimpleNamespace(monotonic=lambda: clock[0], sleep=sleep)
    publish("sail", input_path, output_path)
    leave_unpublished(output_path, ELSEWHERE)
    monkeypatch.setattr(publishing, "time", times)
    monkeypatch.setattr(publishing, "elapsed", lambda: 0.0)
    with pytest.raises(BusyError):
        publishing.Publication(DiskStorage(), str(output_path), runs.new_run_id()).wait_for_others()
    assert clock[0] == 1000 + 7 * 600


def test_a_run_that_waited_publishes_when_the_other_has_finished(
    publish: Publish, two_inputs: tuple[Path, Path], output_path: Path
) -> None:
    old, new = two_inputs
    publish("sail", old, output_path)
    leave_unpublished(output_path, ELSEWHERE, seconds_ago=4 * 60)

    def finish_elsewhere() -> None:
        time.sleep(2.5)
        storage = DiskStorage()
        publication = publishing.Publication(storage, str(output_path), ELSEWHERE)
        assert publication.recover() is None

    other = threading.Thread(target=finish_elsewhere)
    other.start()
    publish("sail", new, output_path)
    other.join()
    assert_equal_by_check(new, output_path)


@pytest.mark.parametrize("content", [b"", b'{"schema_version": 1, "run_', b"\x00" * 50])
def test_a_journal_cut_off_by_a_kill_is_done_away_with(
    engine: str, publish: Publish, two_inputs: tuple[Path, Path], output_path: Path, monkeypatch: pytest.MonkeyPatch,
    content: bytes,
) -> None:  # fmt: skip
    monkeypatch.setattr(publishing, "UNREADABLE_JOURNAL_SECONDS", 0.5)
    old, new = two_inputs
    publish("sail", old, output_path)
    [journal] = generations(Disk(output_path))
    (output_path / "_journal" / "2.json").write_bytes(content)
    publish(engine, new, output_path)
    assert_equal_by_check(new, output_path)
    assert generations(Disk(output_path)) == ["_journal/3.json"] != [journal]


def test_a_journal_that_is_half_written_is_given_time_before_it_is_done_away_with(
    output_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(publishing, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    # given a journal that somebody may still be writing
    journal = output_path / "_journal" / "1.json"
    journal.parent.mkdir(parents=True)
    journal.write_bytes(b"{")
    run = publishing.Publication(DiskStorage(), str(output_path), ELSEWHERE)
    assert run.recover() == str(journal)
    # then it is nobody's when it is as it was for long enough
    clock[0] += publishing.UNREADABLE_JOURNAL_SECONDS
    assert run.recover() is None


def planted(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda journal: {**journal, **changes}


def planted_manifest(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda journal: {**journal, "manifest": {**journal["manifest"], **changes}}


def files_elsewhere(journal: dict[str, Any]) -> object:
    journal["manifest"]["datasets"]["ratings"]["files"] = ["ratings/../../victim/precious"]
    return journal


def another_dataset(journal: dict[str, Any]) -> object:
    datasets = journal["manifest"]["datasets"]
    datasets["reports"] = datasets.pop("ratings")
    return journal


PLANTED = {
    "null": lambda _: None,
    "a_list": lambda _: [1],
    "another_s": lambda _: {"run_id": "nightly"},
    "run_id_leads_out": planted_manifest(run_id="../../../victim"),
    "run_id_is_none": planted_manifest(run_id="20200101T000000Z-../../victim-1-0000"),
    "no_time": planted_manifest(finished="yesterday"),
    "files_lead_out": files_elsewhere,
    "removable_leads_out": planted(removable=["ratings/../../victim/precious"]),
    "holder_is_nobody": planted(holder="nightly"),
    "another_generation": planted(generation=7),
    "earlier_is_another_s": planted(earlier={"run_id": "nightly"}),
    "another_dataset": another_dataset,
}


def test_a_journal_with_a_number_of_many_digits_keeps_no_run_waiting(
    engine: str, publish: Publish, two_inputs: tuple[Path, Path], output_path: Path
) -> None:
    # given a generation that nobody gets to
    publish("sail", two_inputs[0], output_path)
    (last,) = generations(Disk(output_path))
    many = 10**18 - 1
    content = json.loads((output_path / last).read_text())
    (output_path / last).with_name(f"{many}.json").write_text(json.dumps({**content, "generation": many}))
    # then the next run takes the one after
    publish(engine, two_inputs[1], output_path)
    assert_equal_by_check(two_inputs[1], output_path)
    assert [Path(name).name for name in generations(Disk(output_path))] == [f"{many + 1}.json"]


@pytest.mark.parametrize("case", PLANTED)
def test_a_journal_that_is_not_of_this_job_is_said_and_nothing_is_touched(
    engine: str, publish: Publish, run_main: Main, two_inputs: tuple[Path, Path], output_path: Path, case: str
) -> None:
    # given a journal that names what is somebody else's
    old, new = two_inputs
    publish("sail", old, output_path)
    (output_path.parent / "victim").mkdir()
    (output_path.parent / "victim" / "precious").write_bytes(b"precious")
    journal = json.loads((output_path / "_journal" / "1.json").read_bytes())
    manifest = {**manifest_of(output_path), "run_id": ELSEWHERE}
    (output_path / "_journal" / "2.json").write_text(
        json.dumps(PLANTED[case]({**journal, "generation": 2, "holder": ELSEWHERE, "manifest": manifest}))
    )
    before = {path: path.read_bytes() for path in output_path.parent.rglob("*") if path.is_file()}
    status, said = run_main(engine, "--input_path", new, "--output_path", output_path)
    assert_golden("planted", said.splitlines()[-1] + "\n", output=output_path)
    assert status == 2
    assert {path: path.read_bytes() for path in output_path.parent.rglob("*") if path.is_file()} == before


def test_a_journal_is_as_old_as_its_file(output_path: Path) -> None:
    # given a run that computed its result long before it can publish
    storage = DiskStorage()
    written: list[bytes] = []
    create = storage.create
    storage.create = lambda path, content: written.append(content) or create(path, content)  # type: ignore[method-assign,func-returns-value]
    computed = Manifest(ELSEWHERE, "v", {}, "x", "2020-01-01T00:00:00Z", [], 0, {})
    publishing.Publication(storage, str(output_path), computed.run_id).publish(computed)
    # then others see by its journal that it has just begun to
    assert now() - utc(json.loads(written[0])["manifest"]["finished"]) < timedelta(minutes=1)


def test_a_journal_whose_staged_files_are_gone_is_given_up(
    engine: str, publish: Publish, two_inputs: tuple[Path, Path], output_path: Path
) -> None:
    # given a dead run's journal, a dataset that it had put in place, and somebody who emptied the staging folder
    old, new = two_inputs
    publish("sail", old, output_path)
    leave_unpublished(output_path, GONE)
    (output_path / "_staging" / GONE / "ratings").rename(output_path / "ratings")
    staged, *_ = sorted((output_path / "_staging" / GONE / "movies").glob("*.parquet"))
    staged.unlink()
    said = publish(engine, new, output_path)
    assert f"{staged} is gone; run {GONE} was not published\n" in said
    assert_equal_by_check(new, output_path)
    # then nothing of it is left
    assert_nothing_beside(output_path)


def test_a_run_that_gives_up_what_another_left_behind_and_fails_leaves_the_result_before_both(
    engine: str, publish: Publish, run_main: Main, two_inputs: tuple[Path, Path], tmp_path: Path, output_path: Path
) -> None:
    # given a run that died when it had removed the manifest, and somebody who deleted what it had staged
    old, new = two_inputs
    publish("sail", old, output_path)
    publish("sail", new, tmp_path / "other")
    write_journal(Disk(output_path), {**manifest_of(tmp_path / "other"), "run_id": GONE}, manifest_of(output_path))
    (output_path / "_manifest.json").unlink()
    (new / "ratings.dat").write_bytes(b"no rating\n")
    status, said = run_main(engine, "--input_path", new, "--output_path", output_path)
    assert f"run {GONE} was not published\n" in said
    assert status == 3
    assert_equal_by_check(old, output_path)
    assert_nothing_beside(output_path)


def test_a_run_that_fails_while_a_later_one_publishes_deletes_what_it_staged(
    publish: Publish, input_path: Path, output_path: Path
) -> None:
    # given a run on another machine, which began later and is publishing
    later = ELSEWHERE.replace("2020", "2021")
    publish("sail", input_path, output_path)
    leave_unpublished(output_path, later)
    publication = publishing.Publication(DiskStorage(), str(output_path), GONE)
    staged = Path(publication.staging) / "ratings" / "part-0.parquet"
    staged.parent.mkdir(parents=True)
    staged.touch()
    publication.discard()
    assert [entry.name for entry in (output_path / "_staging").iterdir()] == [later]


def test_a_run_says_whose_publishing_it_finished_also_where_that_one_began_later(
    publish: Publish, two_inputs: tuple[Path, Path], output_path: Path
) -> None:
    # given a run elsewhere, by a clock that is ahead, whose publishing did not go on for an hour
    old, new = two_inputs
    later = ELSEWHERE.replace("2020", "2999")
    publish("sail", old, output_path)
    leave_unpublished(output_path, later, seconds_ago=3600)
    assert f"finished the publishing that run {later} left behind\n" in publish("sail", new, output_path)
    assert_equal_by_check(new, output_path)


def test_staging_of_dead_runs_is_removed_and_that_of_others_kept(
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


def test_a_dead_process_that_nobody_waited_for_is_a_dead_run(
    publish: Publish, input_path: Path, output_path: Path
) -> None:
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


@pytest.mark.parametrize("kind", ["disk", "s3", "s3a", "hdfs"])
def test_of_many_that_create_the_journal_at_once_one_succeeds(kind: str, storages: Storages, tmp_path: Path) -> None:
    storage, place = storages(kind, tmp_path)
    for attempt in range(20):
        won: dict[int, bool] = {}
        barrier = threading.Barrier(4)

        def race(number: int, journal: str, won: dict[int, bool] = won, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            won[number] = storage.create(journal, b"%d" % number)

        journal = f"{place.address}/{attempt}.json"
        racers = [threading.Thread(target=race, args=(number, journal)) for number in range(4)]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
        assert len(won) == len(racers)  # and all others were told so
        assert [b"%d" % number for number in won if won[number]] == [storage.read(journal)]


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


@pytest.mark.thorough
def test_a_kill_in_the_middle_of_publishing_is_healed_by_the_next_run(
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
    # then what is there is whole, or without a manifest, and the next run, though it fails, heals it
    assert is_publishing(place)
    stress.assert_old_or_new([old, new], place)
    (old / "ratings.dat").write_bytes(b"bad\n")
    assert run_main(engine, "--input_path", old, "--output_path", place.address)[0] == 3
    assert_equal_by_check(new, place.snapshot())
    assert visible_names(place.snapshot()) == DATASETS | {"_manifest.json"}


def test_a_run_elsewhere_on_a_machine_of_the_same_name_is_not_taken_for_dead(
    run_main: Main, publish: Publish, two_inputs: tuple[Path, Path], output_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a journal of another machine that is called as this one, by a process that is not to be found here
    monkeypatch.setattr(publishing, "LONGEST_WAIT", 0.5)
    old, new = two_inputs
    publish("sail", old, output_path)
    other = f"20200101T000000Z-{runs.new_run_id().split('-')[1]}-0123456789ab-999999999.1-0000"
    leave_unpublished(output_path, other, seconds_ago=1)
    status, said = run_main("sail", "--input_path", new, "--output_path", output_path)
    assert (status, other in said) == (4, True)


def test_who_publishes_renews_after_a_minute_and_is_taken_over_after_five(
    output_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a run elsewhere that is publishing
    clock = [0.0]
    monkeypatch.setattr(publishing, "elapsed", lambda: clock[0])
    theirs, own = (publishing.Publication(DiskStorage(), str(output_path), run) for run in (ELSEWHERE, GONE))
    manifest = Manifest(ELSEWHERE, "v", {}, "x", "2020-01-01T00:00:00Z", [], 0, {})
    lease = publishing.Lease(theirs, Journal(1, ELSEWHERE, manifest, None, []))
    for seconds, generation in ((59.5, 1), (60.5, 2)):
        clock[0] = seconds
        lease.check()
        assert max(theirs.generations()) == generation
    # then others give it five minutes more from when they see it
    for seconds, may in ((0.0, False), (299.5, False), (300.5, True)):
        clock[0] = 60.5 + seconds
        state = own.state()
        assert state.journal
        assert own.may_take_over(state, state.journal) == may


def test_a_process_id_that_is_used_again_does_not_keep_a_dead_run_alive(
    publish: Publish, two_inputs: tuple[Path, Path], output_path: Path
) -> None:
    # given a journal of a process whose number another one has now, which started at another time
    old, new = two_inputs
    publish("sail", old, output_path)
    dead = f"20200101T000000Z-here-{runs.boot()}-{os.getppid()}.1-0000"
    leave_unpublished(output_path, dead)
    assert f"finished the publishing that run {dead} left behind\n" in publish("sail", new, output_path)


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
        f"movielens_pipeline: error: {place.address}/movies/year=2020/theirs.parquet is not of this job: "
        "move it away, or choose another --output_path"
    )
    assert place.files() == theirs


def test_a_manifest_that_somebody_deleted_is_put_back_by_the_next_run(
    engine: str, run_main: Main, publish: Publish, two_inputs: tuple[Path, Path], place: Place
) -> None:
    old, new = two_inputs
    publish(engine, old, place.address)
    place.delete("_manifest.json")
    (new / "ratings.dat").write_bytes(b"bad\n")
    assert run_main(engine, "--input_path", new, "--output_path", place.address)[0] == 3
    assert_equal_by_check(old, place.snapshot())


class DroppingStorage(DiskStorage):
    """A disk from which somebody deletes a staged file while it is moved."""

    def move(self, source: str, target: str) -> None:
        if "/ratings/" in source:
            self.delete(source)
        super().move(source, target)


def test_a_staged_file_lost_while_publishing_leaves_the_earlier_result(
    run_main: Main, publish: Publish, two_inputs: tuple[Path, Path], output_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = two_inputs
    publish("sail", old, output_path)
    monkeypatch.setattr(Sail, "storage", lambda *_: DroppingStorage())
    status, said = run_main("sail", "--input_path", new, "--output_path", output_path)
    assert status == 1
    assert re.search(r"error: \S+/ratings/\S+ is gone; nothing was published$", said)
    assert_equal_by_check(old, output_path)
    assert_nothing_beside(output_path)


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


def test_the_journal_is_never_seen_half_written(tmp_path: Path) -> None:
    # given a journal that takes long to write, and a reader that never stops looking
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
    assert os.listdir(tmp_path / "folder") == ["1.json"]  # noqa: PTH208  # names are what matters


def test_a_disk_without_links_excludes_a_second_creator_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    storage, path = DiskStorage(), str(tmp_path / "1.json")
    assert [storage.create(path, content) for content in (b"first", b"second")] == [True, False]
    assert storage.read(path) == b"first"


def test_files_are_forced_to_the_disk_before_the_journal_and_before_the_manifest(
    publish: Publish, input_path: Path, output_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a disk that tells what is done to it
    done: list[tuple[str, str]] = []
    fsync, link, move = os.fsync, os.link, shutil.move

    def forced(descriptor: int) -> None:
        done.append(("forced", str(Path(f"/proc/self/fd/{descriptor}").readlink())))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", forced)
    monkeypatch.setattr(os, "link", lambda source, target: [done.append(("linked", str(target))), link(source, target)])
    monkeypatch.setattr(shutil, "move", lambda source, target: [done.append(("moved", target)), move(source, target)])
    publish("sail", input_path, output_path)
    before_journal = {Path(path) for what, path in done[: done.index(("linked", f"{output_path}/_journal/1.json"))]}
    before_manifest = {Path(path) for what, path in done[: done.index(("moved", f"{output_path}/_manifest.json"))]}
    for dataset in manifest_of(output_path)["datasets"].values():
        for file in dataset["files"]:
            assert [path for path in before_journal if path.match(f"_staging/*/{file}")]
            assert {output_path / file, (output_path / file).parent} <= before_manifest


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
                publishing.Publication(DiskStorage(), str(output_path), ELSEWHERE).require_own_folders()
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


@pytest.mark.parametrize("name", ["_staging", "_journal", "_manifest.json", "_history.jsonl", "ratings"])
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


@pytest.mark.parametrize("name", ["_manifest.json", "_history.jsonl", "_journal/1.json"])
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


@pytest.mark.parametrize(
    ("operation", "place", "outcome"),
    [
        ("create", "/_journal/", "nothing was published"),
        ("delete", "/_manifest.json", "publishing was begun, and the next run finishes it"),
        (
            "move", "/movies/",
            "publishing was begun, and the next run finishes it; readers find no manifest until then",
        ),
        ("delete_folder", "/_staging/", "all was published"),
    ],
)  # fmt: skip
def test_a_run_that_fails_says_what_became_of_the_result(
    run_main: Main, publish: Publish, two_inputs: tuple[Path, Path], output_path: Path,
    monkeypatch: pytest.MonkeyPatch, operation: str, place: str, outcome: str,
) -> None:  # fmt: skip
    old, new = two_inputs
    publish("sail", old, output_path)
    earlier, done = manifest_of(output_path)["run_id"], getattr(DiskStorage, operation)

    def fail(storage: DiskStorage, *arguments: Any) -> Any:
        if place in str(arguments[-1 if operation == "move" else 0]):
            raise StorageError("the disk fails")
        return done(storage, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(DiskStorage, operation, fail)
        status, said = run_main("sail", "--input_path", new, "--output_path", output_path)
    assert (status, said.splitlines()[-1]) == (1, f"movielens_pipeline: error: the disk fails; {outcome}")
    # then readers find what was said, and the next run, whatever it is, comes to its end
    stands = (output_path / "_manifest.json").exists() and manifest_of(output_path)["run_id"]
    assert bool(stands) == ("no manifest" not in outcome)
    assert (stands in (earlier, False)) == (outcome != "all was published")
    publish("sail", old, output_path)
    assert_equal_by_check(old, output_path)


def test_that_readers_find_no_manifest_is_said_where_the_earlier_result_cannot_be_put_back(
    run_main: Main, publish: Publish, two_inputs: tuple[Path, Path], output_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a disk that loses files of both results while one takes the place of the other
    old, new = two_inputs
    publish("sail", old, output_path)
    delete = DiskStorage.delete

    def delete_and_lose(storage: DiskStorage, *files: str) -> None:
        delete(storage, *files)
        if files[0].endswith("_manifest.json"):
            for lost in output_path.rglob("*.parquet"):
                lost.unlink()

    monkeypatch.setattr(DiskStorage, "delete", delete_and_lose)
    status, said = run_main("sail", "--input_path", new, "--output_path", output_path)
    assert status == 1
    assert said.splitlines()[-1].endswith(" is gone; nothing was published; readers find no manifest")


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
