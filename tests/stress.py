#!/usr/bin/env python3
"""Kills, races and suspends runs of the job; checks each time that nobody saw a mixture and that the next run heals.

Runs alternate between two inputs. Half of the kills hit an ordinary run at a random moment; the others, and the
suspensions, hit one that publishes, with its storage operations slowed down. A suspended run goes on when its lease is
over and another has published. All the time a reader polls the output.
Exit status: 0 when every promise held; an AssertionError otherwise.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import io
import os
import random
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from movielens import contract
from tests.support import s3server
from tests.support.hdfs import Hdfs
from tests.support.inputs import rating_lines, write_input
from tests.support.jobs import job_command, job_environment
from tests.support.journals import is_publishing, journal_at, standing_at
from tests.support.places import Bucket, Disk, HdfsFolder, Place
from tests.support.project import ROOT
from tests.support.results import history_of, is_equal_by_check, manifest_of, numbers_of

# The job, with every storage operation slowed down, so that publishing takes about a second
SECONDS_OF_SLOW_PUBLISHING = 0.8
SHORT_PATIENCE = 2.0
SLOW_JOB = f"""
import sys, time
import movielens_pipeline as job
from movielens import run, terminal
from movielens.publishing import lease

lease.PATIENCE, lease.RENEWAL = {SHORT_PATIENCE}, {SHORT_PATIENCE / 5}

open_publication = run.Publication

class Slow:
    def __init__(self, storage):
        self.storage = storage
    def __getattr__(self, name):
        time.sleep(PAUSE)
        return getattr(self.storage, name)

run.Publication = lambda storage, output, run_id: open_publication(Slow(storage), output, run_id)
terminal.leave(job.main(sys.argv[1:]))
"""


def write_slow_job(folder: Path, pause: float = 0.04) -> Path:
    """Writes the script of a run with short patience, slowed down by a pause before each operation of its storage."""
    script = folder / f"slow_job_{pause}.py"
    script.write_text(SLOW_JOB.replace("PAUSE", str(pause)))
    return script


def command(engine: str, slow: Path | None, *arguments: object) -> list[str]:
    """The command of a run, ordinary or slowed down."""
    plain = job_command(engine, *arguments)
    return [str(slow) if slow and word.endswith("movielens_pipeline.py") else word for word in plain]


def start(engine: str, slow: Path | None, input_path: Path, place: Place) -> subprocess.Popen[bytes]:
    """Starts a run in a process group of its own; what it says is added to a file beside its input."""
    with said_beside(input_path).open("ab") as said:
        return subprocess.Popen(
            command(engine, slow, "--input_path", input_path, "--output_path", place.address),
            env={**job_environment(), "PYTHONPATH": str(ROOT)},
            start_new_session=True, stdout=said, stderr=said,
        )  # fmt: skip


def assert_ends_well(engine: str, slow: Path | None, input_path: Path, place: Place) -> None:
    """Has a run come to its end, and raises with what the runs said where its status is not 0."""
    status = start(engine, slow, input_path, place).wait(timeout=300)
    assert status == 0, f"a run ended with {status}; at last was said:\n{last_said(input_path)}"


def said_beside(input_path: Path) -> Path:
    """The file of what the runs said."""
    return input_path.parent / "runs.log"


def last_said(input_path: Path) -> str:
    """The end of what the runs said."""
    return said_beside(input_path).read_text(errors="replace")[-4000:]


def is_result_of(input_path: Path, output_path: Path) -> bool:
    """Whether the manifest's files are what DuckDB derives from the input."""
    with contextlib.redirect_stdout(io.StringIO()):
        return is_equal_by_check(input_path, output_path)


def assert_whole(inputs: list[Path], place: Place) -> str:
    """The result that stands is the whole one of one of the inputs; returns which."""
    return result_in(place.snapshot(), inputs)


def result_in(folder: Path, inputs: list[Path]) -> str:
    """The input whose whole result a folder has; raises if it is of none, or if anything else lies beside it."""
    if not numbers_of(folder) or not manifest_of(folder)["datasets"]:
        return "nothing"
    matching = [candidate.name for candidate in inputs if is_result_of(candidate, folder)]
    assert len(matching) == 1, f"the result is of {matching or 'none of the inputs'}"
    return matching[0]


def assert_tidy(place: Place) -> None:
    """Nothing lies beside the result, and the history ends with its run."""
    folder = place.snapshot()
    manifest = manifest_of(folder)
    listed = {folder / file for dataset in manifest["datasets"].values() for file in dataset["files"]}
    found = {path for name in contract.SCHEMAS for path in (folder / name).rglob("*") if path.is_file()}
    assert found == listed, f"beside the result: {found ^ listed}"
    runs = [run["run_id"] for run in history_of(folder)]
    assert runs[-1] == manifest["run_id"], "the history does not end with the run of the manifest"
    assert len(runs) == len(set(runs)), "a run is twice in the history"
    staged = [name for name in place.files() if name.startswith("_staging/")] + place.unfinished()
    assert not staged, f"something is left: {staged}"


class Reader(threading.Thread):
    """Polls the output: all files of the highest manifest are there, or a higher manifest is."""

    def __init__(self, place: Place) -> None:
        super().__init__(daemon=True)
        self.place = place
        self.looks = 0
        self.missing: list[str] = []
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.is_set():
            if standing := standing_at(self.place):
                listed = {file for entry in standing["datasets"].values() for file in entry["files"]}
                gone = self.place.missing(listed)
                after = standing_at(self.place)
                if gone and after and after["number"] == standing["number"]:
                    self.missing += gone
                self.looks += 1
            time.sleep(0.02)


def kill_once(engine: str, inputs: list[Path], place: Place, slow: Path | None, moment: float) -> str:
    """Kills a run, checks what is left, and has the next run heal; returns what was found.

    The moment is in seconds from the start of an ordinary run, and from the journal of one that is slowed down.
    """
    process = start(engine, slow, inputs[0], place)
    while slow and process.poll() is None and not is_publishing(place):
        time.sleep(0.02)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=moment)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    found = assert_whole(inputs, place)
    in_publishing = is_publishing(place)
    assert_ends_well(engine, None, inputs[1], place)
    assert assert_whole(inputs, place) == inputs[1].name
    assert_tidy(place)
    return "in publishing" if in_publishing else found


def suspend_once(engine: str, inputs: list[Path], place: Place, folder: Path, moment: float) -> str:
    """Suspends a run that publishes until another has taken over and published; returns what became of it.

    The moment is in seconds from its journal.
    """
    process = start(engine, write_slow_job(folder), inputs[0], place)
    while process.poll() is None and not is_publishing(place):
        time.sleep(0.02)
    time.sleep(moment)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGSTOP)
    own = (journal_at(place) or {})["holder"]
    time.sleep(SHORT_PATIENCE)
    assert_ends_well(engine, write_slow_job(folder, 0.0), inputs[1], place)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGCONT)
    status = process.wait(timeout=300)
    assert_whole(inputs, place)
    published = own in {run["run_id"] for run in history_of(place.snapshot())}
    assert status == (0 if published else contract.EXIT_FAILURE), f"status {status}, and it was published: {published}"
    return "published before" if published else "not published"


def race_once(engine: str, inputs: list[Path], place: Place) -> None:
    """Two runs at once: each publishes or finds the output busy, and one whole result stands."""
    running = [start(engine, None, folder, place) for folder in inputs]
    statuses = [process.wait(timeout=300) for process in running]
    assert set(statuses) <= {0, contract.EXIT_BUSY}, f"statuses {statuses}; at last was said:\n{last_said(inputs[0])}"
    assert assert_whole(inputs, place) in {folder.name for folder in inputs}
    assert_tidy(place)


def main() -> None:
    """Does as many kills and races as the command line says and prints what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--engine", choices=contract.ENGINES, default="sail")
    parser.add_argument("--s3", action="store_true", help="publish to an S3 server, started for the purpose")
    parser.add_argument("--hdfs", action="store_true", help="publish to an HDFS, started for the purpose; with spark")
    parser.add_argument("--in_publishing", action="store_true", help="aim all kills, not half, at publishing")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--races", type=int, default=100)
    parser.add_argument("--suspensions", type=int, default=0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--folder", type=Path, default=None)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    folder = arguments.folder or Path(tempfile.mkdtemp())
    inputs = [
        write_input(folder / name, rating_lines([(user, 10 + user % 4, stars, user) for user in range(1, 5000)]))
        for name, stars in (("first", 4.0), ("second", 2.5))
    ]
    place: Place = Disk(folder / "output")
    if arguments.s3:
        (folder / "server").mkdir(parents=True)
        server = s3server.S3Server(folder / "server")
        atexit.register(server.stop)
        os.environ.update(server.environment())
        place = Bucket(server, "output", folder)
    if arguments.hdfs:
        (folder / "hdfs").mkdir(parents=True)
        hdfs = Hdfs(folder / "hdfs")
        atexit.register(hdfs.stop)
        place = HdfsFolder(hdfs, "output", folder)
    slow = write_slow_job(folder)

    started = time.monotonic()
    assert_ends_well(arguments.engine, None, inputs[1], place)
    duration = time.monotonic() - started
    reader = Reader(place)
    reader.start()
    found: dict[str, int] = {}
    for number in range(arguments.kills):
        variant = slow if number % 2 or arguments.in_publishing else None
        moment = chance.uniform(0.0, SECONDS_OF_SLOW_PUBLISHING if variant else duration)
        what = kill_once(arguments.engine, inputs, place, variant, moment)
        found[what] = found.get(what, 0) + 1
        inputs.reverse()
    for _ in range(arguments.races):
        race_once(arguments.engine, inputs, place)
    for _ in range(arguments.suspensions):
        what = suspend_once(arguments.engine, inputs, place, folder, chance.uniform(0.0, SECONDS_OF_SLOW_PUBLISHING))
        found[what] = found.get(what, 0) + 1
        inputs.reverse()
    assert reader.is_alive(), "the reader failed"
    reader.ended.set()
    reader.join()
    assert not reader.missing, f"the highest manifest listed files that were not there: {reader.missing[:5]}"
    did = f"{arguments.kills} kills, {arguments.races} races, {arguments.suspensions} suspensions"
    print(f"{did}, seed {arguments.seed}: every promise held")
    print(f"what was found: {found}; the reader looked {reader.looks:,} times")


if __name__ == "__main__":
    main()
