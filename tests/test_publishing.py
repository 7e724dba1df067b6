"""Publishing: a reader sees the earlier result or the new one, and each run heals what another left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from check_local_results import main as check_main
from movielens import contract, publishing, runs, tables
from movielens.manifest import Manifest
from movielens.runs import utc
from movielens.storage.disk import DiskStorage
from tests import stress
from tests.support.golden import assert_golden
from tests.support.inputs import RATINGS, rating_lines, write_input
from tests.support.jobs import ELSEWHERE, GONE, Main, Publish, job_command, job_environment, run_job
from tests.support.journals import generations, is_publishing, write_journal
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
        found = {path for path in output_path.rglob("*") if path.is_file() and path.name != "_manifest.json"}
        assert found - {output_path / name for name in generations(Disk(output_path))} == listed


def test_the_manifest_tells_what_was_done(engine: str, publish: Publish, input_path: Path, output_path: Path) -> None:
    before = now().replace(microsecond=0)
    publish(engine, input_path, output_path)
    manifest = manifest_of(output_path)
    assert manifest["schema_version"] == 1
    assert manifest["job_version"] == contract.VERSION
    assert manifest["engine"]["name"] == engine
    assert before <= utc(manifest["started"]) <= utc(manifest["finished"]) <= now()
    assert manifest["input_files"] == [
        {"path": str(input_path / name), "bytes": (input_path / name).stat().st_size}
        for name in ("movies.dat", "ratings.dat")
    ]
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
    publish(engine, old, output_path)
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

    def write_less(frame: Any, folder: str, name: str) -> int:
        return write(frame.limit(frame.count() - 1) if name == lost_in else frame, folder, name)

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
    publish(engine, old, output_path)
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
    publish(engine, old, output_path)
    leave_unpublished(output_path, ELSEWHERE, seconds_ago=4 * 60)
    before = sorted(path for path in output_path.rglob("*") if path.is_file())
    status, said = run_main(engine, "--input_path", new, "--output_path", output_path)
    assert_golden("busy", said.splitlines()[-1] + "\n", output=output_path)
    assert status == 4
    assert sorted(path for path in output_path.rglob("*") if path.is_file()) == before


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
    publish(engine, old, output_path)
    [journal] = generations(Disk(output_path))
    (output_path / "_journal" / "2.json").write_bytes(content)
    publish(engine, new, output_path)
    assert_equal_by_check(new, output_path)
    assert generations(Disk(output_path)) == ["_journal/3.json"] != [journal]


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


@pytest.mark.parametrize("case", PLANTED)
def test_a_journal_that_is_not_of_this_job_is_said_and_nothing_is_touched(
    engine: str, publish: Publish, run_main: Main, two_inputs: tuple[Path, Path], output_path: Path, case: str
) -> None:
    # given a journal that names what is somebody else's
    old, new = two_inputs
    publish(engine, old, output_path)
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
    # given a dead run's journal, and somebody who emptied the staging folder
    old, new = two_inputs
    publish(engine, old, output_path)
    leave_unpublished(output_path, GONE)
    staged, *_ = sorted((output_path / "_staging" / GONE / "movies").glob("*.parquet"))
    staged.unlink()
    said = publish(engine, new, output_path)
    assert f"{staged} is gone; run {GONE} was not published\n" in said
    assert_equal_by_check(new, output_path)


def test_staging_of_dead_runs_is_removed_and_that_of_others_kept(
    engine: str, publish: Publish, input_path: Path, output_path: Path
) -> None:
    # elsewhere what counts is when something was written last; here, whether its process lives
    recent, alive = f"{ELSEWHERE}1", f"20200101T000000Z-here-{runs.identity(os.getppid())}-0000"
    for name, hours in ((GONE, 0), (ELSEWHERE, 25), (recent, 23), (alive, 99), ("somebody-else-s", 99)):
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


@pytest.fixture(params=["disk", "bucket"])
def place(request: pytest.FixtureRequest, output_path: Path) -> Place:
    """Where to publish to."""
    if request.param == "disk":
        return Disk(output_path)
    found: Place = request.getfixturevalue("bucket_path")
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
    arguments = [["--input_path", str(folder), "--output_path", place.address] for folder in two_inputs]
    assert sorted(check_main(argument) for argument in arguments) == [0, 1]
    assert visible_names(place.snapshot()) == DATASETS | {"_manifest.json"}


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
@pytest.mark.parametrize(("where", "kills", "races"), [([], 12, 4), (["--s3"], 6, 2)], ids=["disk", "bucket"])
def test_stress_a_few_kills_races_and_a_reader_that_never_sees_a_mixture(
    tmp_path: Path, where: list[str], kills: int, races: int
) -> None:
    # the same script does hundreds: python -m tests.stress --kills 100 --races 100
    options = [*where, "--kills", str(kills), "--races", str(races), "--seed", "1", "--folder", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.stress", *options],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=600, env=job_environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{kills} kills, {races} races" in done.stdout


@pytest.mark.thorough
def test_a_kill_in_the_middle_of_publishing_is_healed_by_the_next_run(
    engine: str, publish: Publish, two_inputs: tuple[Path, Path], tmp_path: Path, place: Place
) -> None:
    # given an earlier result, and a run with slow storage that is killed as soon as it publishes
    old, new = two_inputs
    publish(engine, old, place.address)
    process = stress.start(engine, stress.write_slow_job(tmp_path), new, place)
    while not is_publishing(place):
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # then what is there is whole, or without a manifest, and the next run, though it fails, heals it
    assert is_publishing(place)
    stress.assert_old_or_new([old, new], place)
    (old / "ratings.dat").write_bytes(b"bad\n")
    done = run_job(engine, "--input_path", old, "--output_path", place.address)
    assert done.returncode == 3
    assert_equal_by_check(new, place.address)
    assert visible_names(place.snapshot()) == DATASETS | {"_manifest.json"}
