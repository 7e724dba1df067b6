"""Publishing: how a result takes the place of the earlier one, so that nobody sees a mixture.

A run writes below `<output>/_staging/<run_id>`. When all of it is there, `<output>/_publishing.json`, created
exclusively, becomes journal and lock: whoever holds it, or finds it left behind, moves the files into place with
`finish`, which can be repeated from any point. The last step renames it to `<output>/_manifest.json`. A reader who
goes by the manifest therefore sees all of one result or waits.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from movielens.contract import SCHEMAS, BusyError, PipelineError, UsageError
from movielens.storage import files_below, in_parallel
from movielens.storage.paths import join
from movielens.terminal import log

if TYPE_CHECKING:
    from movielens.storage import Storage

STAGING = "_staging"
JOURNAL = "_publishing.json"
MANIFEST = "_manifest.json"
MANIFEST_SCHEMA_VERSION = 1

RUN_ID = re.compile(r"\d{8}T\d{6}Z-[A-Za-z0-9._]+-\d+-[0-9a-f]+")

STALE_JOURNAL = timedelta(minutes=5)
STALE_STAGING = timedelta(days=1)
WAIT_FOR_OTHER_SECONDS = 60.0
UNREADABLE_JOURNAL_SECONDS = 5.0


# --------------------------------------------------------------------------------------------------------------------
# The manifest


@dataclass(frozen=True)
class Dataset:
    """What the manifest says of a dataset: its columns by name and type, and its files as paths below the output."""

    rows: int
    bytes: int
    columns: list[dict[str, str]]
    files: list[str]


@dataclass(frozen=True)
class Manifest:
    """What is published: by which run, from what. Until all files are in place it is the journal."""

    run_id: str
    job_version: str
    engine: dict[str, str]
    started: str
    finished: str
    input_files: list[dict[str, Any]]
    rejects: int
    datasets: dict[str, Dataset]

    def to_json(self) -> bytes:
        """The manifest as it is written."""
        content = {"schema_version": MANIFEST_SCHEMA_VERSION, **asdict(self)}
        return json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n"

    @classmethod
    def from_json(cls, content: bytes) -> Manifest:
        """The manifest that was written.

        Raises ValueError where it is half written, and NotOursError where it is whole and none of this job's: what it
        names would be moved and deleted.
        """
        found = json.loads(content)
        try:
            datasets = {name: Dataset(**known(Dataset, dataset)) for name, dataset in found["datasets"].items()}
            manifest = cls(**{**known(cls, found), "datasets": datasets})
            utc(manifest.finished)
            ours = RUN_ID.fullmatch(manifest.run_id) and all(is_file_of(name, file) for name, file in manifest.named())
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise NotOursError from error
        if not ours:
            raise NotOursError
        return manifest

    def named(self) -> list[tuple[str, str]]:
        """Each file with the name of its dataset."""
        return [(name, file) for name, dataset in self.datasets.items() for file in dataset.files]

    @property
    def files(self) -> list[str]:
        """The files of all datasets, as paths below the output."""
        return [file for _, file in self.named()]


class NotOursError(Exception):
    """Something whole that is in the place of a manifest, and is none of this job's."""


def is_file_of(name: str, file: str) -> bool:
    """Whether a file may be one of a dataset: directly in its folder, and nowhere else."""
    folder, _, base = file.partition("/")
    return name in SCHEMAS and folder == name and base not in ("", ".", "..") and "/" not in base


def known(kind: type[Dataset | Manifest], content: dict[str, Any]) -> dict[str, Any]:
    """What a kind has fields for; a later version may have written more."""
    return {field.name: content[field.name] for field in fields(kind)}


def read_manifest(storage: Storage, path: str) -> Manifest | None:
    """A manifest or journal; None when there is none.

    Raises ValueError where it is half written, and UsageError where it is not of this job.
    """
    content = storage.read(path)
    try:
        return None if content is None else Manifest.from_json(content)
    except NotOursError as error:
        raise UsageError(
            f"{path} is not of this job, and is left alone: remove it, or choose another --output_path"
        ) from error


# --------------------------------------------------------------------------------------------------------------------
# The protocol


class LostStagingError(PipelineError):
    """Files that a journal lists are nowhere to be found."""


class Publication:
    """What a run does at an output path to make its result the one that stands there."""

    def __init__(self, storage: Storage, output: str, run_id: str) -> None:
        self.storage, self.output, self.run_id = storage, output, run_id
        self.journal, self.manifest = join(output, JOURNAL), join(output, MANIFEST)
        self.staging = join(output, STAGING, run_id)
        self.begun = False

    def require_own_folders(self) -> None:
        """Raises UsageError when a folder that publishing would clear holds anything but Parquet datasets."""
        for entry in self.storage.entries(self.output):
            if entry.name not in SCHEMAS:
                continue
            for file in files_below(self.storage, entry.path) if entry.is_folder else [entry]:
                if not file.name.endswith(".parquet") and not file.name.startswith(("_", ".")):
                    raise UsageError(
                        f"{file.path} is not of this job, and publishing would delete it: choose another --output_path"
                    )

    def publish(self, manifest: Manifest) -> None:
        """Makes what was staged the result at the output path.

        Raises BusyError when another run is publishing there for longer than a minute.
        """
        self.begun = True
        self.claim(manifest)
        self.finish(manifest)

    def claim(self, manifest: Manifest) -> None:
        """Creates the journal; first finishes an abandoned publishing, or waits for one that goes on."""
        started = time.monotonic()
        unreadable_since: float | None = None
        # its time is when it is created, for by that others tell whether its run still lives
        while not self.storage.create(self.journal, replace(manifest, finished=utc_now()).to_json()):
            if self.is_of(self.journal, self.run_id):  # created all the same, and the answer was lost
                return
            other = self.recover()
            if other is None:
                continue
            now = time.monotonic()
            unreadable_since = None if other else unreadable_since or now
            if unreadable_since and now - unreadable_since > UNREADABLE_JOURNAL_SECONDS:
                # Killed while it wrote the journal, so before it changed anything.
                self.storage.delete(self.journal)
            elif now - started > WAIT_FOR_OTHER_SECONDS:
                raise BusyError(f"{self.output} is being published by another run ({other}); try again later")
            time.sleep(0.2)

    def recover(self) -> str | None:
        """Finishes a publishing that was abandoned.

        Returns the id of the run whose publishing goes on, empty while its journal is half written; None when there
        is none.
        """
        try:
            journal = read_manifest(self.storage, self.journal)
        except ValueError:
            return ""
        if journal is None:
            return None
        if not is_abandoned(journal.run_id, self.run_id, utc(journal.finished), STALE_JOURNAL):
            return journal.run_id
        try:
            self.finish(journal)
        except LostStagingError as error:
            log.warning("%s; run %s was not published", error, journal.run_id)
        else:
            log.info("finished the publishing that run %s left behind", journal.run_id)
        return None

    def finish(self, manifest: Manifest) -> None:
        """Moves the files that the manifest lists into place, and away with all others; can be repeated at any point.

        Raises LostStagingError, with the earlier result as it was, when listed files are gone.
        """
        storage, output = self.storage, self.output
        staging = join(output, STAGING, manifest.run_id)
        listed = manifest.files
        in_place = {entry.path for name in SCHEMAS for entry in files_below(storage, join(output, name))}
        staged = {entry.path for name in manifest.datasets for entry in files_below(storage, join(staging, name))}
        # Asked again after the listing: while the journal stands no other run publishes, so it has no file of another.
        if not self.is_of(self.journal, manifest.run_id):
            return
        lost = [file for file in listed if join(staging, file) not in staged and join(output, file) not in in_place]
        if lost:
            storage.delete(self.journal)
            raise LostStagingError(f"{join(staging, lost[0])} is gone")
        storage.delete(self.manifest)
        storage.delete(*(in_place - {join(output, file) for file in listed}))
        for name in SCHEMAS.keys() - manifest.datasets.keys():
            storage.delete_folder(join(output, name))
        in_parallel(lambda file: storage.move(join(staging, file), join(output, file)), listed)
        if self.is_of(self.journal, manifest.run_id):
            storage.move(self.journal, self.manifest)
        storage.delete_folder(staging)

    def sweep(self) -> None:
        """Deletes what runs that are over left below the staging folder; not while one of them is publishing."""
        staging = join(self.output, STAGING)
        for name in {*(entry.name for entry in self.storage.entries(staging)), *self.storage.uploads(staging)}:
            try:
                started = datetime.strptime(name[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
            except ValueError:  # not a run of ours
                continue
            if is_abandoned(name, self.run_id, started, STALE_STAGING):
                self.storage.delete_folder(join(staging, name))

    def discard(self) -> None:
        """Deletes what the run staged, unless it is being published. The next run deletes what this cannot."""
        try:
            journal = read_manifest(self.storage, self.journal)
            if journal is None or journal.run_id != self.run_id:
                self.storage.delete_folder(self.staging)
        except Exception as error:  # noqa: BLE001  # the failure that led here is the one to report
            log.debug("could not delete what was staged: %s", error)

    def outcome(self) -> str:
        """What became of the result, for the person who reads why the run failed."""
        if not self.begun:
            return "nothing was published"
        try:
            if self.is_of(self.journal, self.run_id):
                return "publishing was begun, and the next run finishes it"
            return "all was published" if self.is_of(self.manifest, self.run_id) else "nothing was published"
        except Exception as error:  # noqa: BLE001  # as in `discard`
            log.debug("could not look at the journal: %s", error)
            return "publishing may have begun; then the next run finishes it"

    def is_of(self, manifest: str, run_id: str) -> bool:
        """Whether a manifest or journal is that of the run."""
        with suppress(ValueError):
            found = read_manifest(self.storage, manifest)
            return found is not None and found.run_id == run_id
        return False


# --------------------------------------------------------------------------------------------------------------------
# Runs


def new_run_id() -> str:
    """`<start, UTC>-<host>-<process>-<token>`: unique, sorts by time, and tells who runs."""
    return f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{host_name()}-{os.getpid()}-{secrets.token_hex(4)}"


def host_name() -> str:
    """Where process ids mean the same: the host, and the container on it."""
    try:
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        namespace = 0
    return f"{re.sub(r'[^A-Za-z0-9.]', '_', socket.gethostname())}.{namespace}"


def is_abandoned(run_id: str, own_run_id: str, since: datetime, patience: timedelta) -> bool:
    """Whether a run is over: its process is gone from this host, or, elsewhere, nothing was heard for too long."""
    try:
        _, rest = run_id.split("-", 1)
        host, process, _ = rest.rsplit("-", 2)
        pid = int(process)
    except ValueError:  # not an id of ours
        return False
    if host == host_name():
        return run_id != own_run_id and (pid == os.getpid() or not process_exists(pid))
    return datetime.now(timezone.utc) - since > patience


def process_exists(pid: int) -> bool:
    """Whether a process of this host is alive."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:  # one that is dead and that nobody has waited for, as in a container whose first process does not, is gone
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True


def utc(text: str) -> datetime:
    """A time as the manifest has it."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)


def utc_now() -> str:
    """The time as the manifest has it."""
    return f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}"
