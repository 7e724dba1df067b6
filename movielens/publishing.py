"""Publishing: how a result takes the place of the earlier one, so that nobody sees a mixture.

A run writes below `<output>/_staging/<run_id>`. When all of it is there it creates the next generation of the
journal, `<output>/_journal/<n>.json`, exclusively: that says what is to be published and by whom, and the highest
generation holds. Then `_manifest.json` goes, the new files are moved in and looked at, those of the earlier result are
deleted, the history gets its line, and the new `_manifest.json` is put in place. A reader who goes by the manifest
therefore sees all of one result or waits. Each step can be repeated: whoever finds a publishing that was abandoned
takes it over by creating the next generation, and finishes it in the same way.

A run that was suspended cannot be kept from doing, late, the one step that it was about to do. So each step is one that
does no harm then:

- What it moves or deletes are files whose names are unique to a run; a late one finds nothing to move, or leaves a file
  that no manifest lists, which it deletes itself when it sees that it is late, and which otherwise the next run does.
- Manifest and history are not written but moved into place from files of their own for each generation, which whoever
  takes over deletes first: a late move finds nothing to move.
- A manifest that is deleted late is missing beside a journal that is kept: whoever sees that publishes what the journal
  says anew, which is but to put the manifest back.
"""

from __future__ import annotations

import re
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from movielens.contract import SCHEMAS, BusyError, PipelineError, UsageError
from movielens.history import HISTORY, with_run
from movielens.manifest import Journal, Manifest, read_journal, read_manifest
from movielens.runs import RUN_ID, is_over, utc_now
from movielens.storage import files_below, in_parallel
from movielens.storage.paths import join
from movielens.storage.refusals import StorageError
from movielens.summary import summary_of
from movielens.terminal import log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from movielens.storage import Entry, Storage

STAGING = "_staging"
JOURNAL = "_journal"
MANIFEST = "_manifest.json"
JOURNAL_OF_EARLIER_VERSIONS = "_publishing.json"

FOLDERS, FILES = (*SCHEMAS, JOURNAL, STAGING), (MANIFEST, HISTORY)

PATIENCE = 300.0  # seconds after which a publishing that was not renewed may be taken over
RENEWAL = 60.0  # seconds after which who publishes renews before the next step
PATIENCE_WITH_STAGING = 24 * 3600.0
LONGEST_WAIT = 3600.0
UNREADABLE_JOURNAL_SECONDS = 5.0


class LostStagingError(PipelineError):
    """Files that are to be published are nowhere to be found."""


class LostLeaseError(Exception):
    """Another run took over what this one was publishing."""


@dataclass(frozen=True)
class State:
    """What stands at an output path: the manifest, and the highest generation of the journal that can be read.

    `newest` is the number of the highest generation, 0 if there is none; it is another than that of `journal` where
    it is half written. `changed` is when the journal was written, by the clock of the store.
    """

    present: Manifest | None
    journal: Journal | None
    newest: int
    changed: float

    @property
    def is_settled(self) -> bool:
        """Whether what the journal says was published is what stands there."""
        return self.journal is None or (
            self.present is not None and self.present.run_id == self.journal.manifest.run_id
        )

    @property
    def is_half_written(self) -> bool:
        """Whether the highest generation of the journal cannot be read."""
        return self.newest != (self.journal.generation if self.journal else 0)

    @property
    def known(self) -> set[str]:
        """The files that may be in the folders of the datasets because this job put them there."""
        return (self.present.files if self.present else set()) | (self.journal.known if self.journal else set())


class Publication:
    """What a run does at an output path to make its result the one that stands there."""

    def __init__(self, storage: Storage, output: str, run_id: str) -> None:
        self.storage, self.output, self.run_id = storage, output, run_id
        self.manifest, self.staging = join(output, MANIFEST), join(output, STAGING, run_id)
        self.begun = False
        self.given_up: set[str] = set()
        # by this process's clock, for each generation of others that was seen
        self.first_seen: dict[int, float] = {}
        self.expires: dict[int, float] = {}

    # ----------------------------------------------------------------------------------------------------------------
    # What stands there

    def state(self) -> State:
        """What stands there now. Raises UsageError where it is not of this job."""
        while True:
            entries = self.generations()
            for generation in sorted(entries, reverse=True):
                entry = entries[generation]
                try:
                    journal = read_journal(self.storage, entry.path, generation)
                except ValueError:  # half written: the one before holds
                    continue
                if journal is None:  # a higher one came meanwhile
                    break
                return State(self.present(), journal, max(entries), entry.modified)
            else:
                return State(self.present(), None, max(entries, default=0), 0.0)

    def generations(self) -> dict[int, Entry]:
        """The files of the journal by their numbers."""
        found = self.storage.entries(join(self.output, JOURNAL))
        return {int(entry.name[:-5]): entry for entry in found if re.fullmatch(r"[1-9]\d*\.json", entry.name)}

    def present(self) -> Manifest | None:
        """The manifest that stands there; None where there is none, or half of one."""
        with suppress(ValueError):
            return read_manifest(self.storage, self.manifest)
        return None

    def sizes(self, folder: str, datasets: Iterable[str]) -> dict[str, int]:
        """The sizes of the files in the folders of datasets, by their paths below the folder that holds these."""
        found = in_parallel(lambda name: files_below(self.storage, join(folder, name)), datasets)
        return {file.path[len(folder) + 1 :]: file.size for files in found for file in files}

    def require_own_folders(self) -> None:
        """Raises UsageError where what stands there is not of this job, or is a file.

        Raises StorageError where a folder cannot be written, or the history not be read.
        """
        self.storage.require_writable(self.output, *FOLDERS)
        for entry in self.storage.entries(self.output):
            if entry.name in FOLDERS + FILES and entry.is_folder != (entry.name in FOLDERS):
                raise UsageError(f"{entry.path} is not of this job: move it away, or choose another --output_path")
            if entry.name == HISTORY:
                self.storage.read(entry.path)
        while True:
            state = self.state()
            strangers = sorted(
                file
                for file in self.sizes(self.output, SCHEMAS).keys() - state.known
                if not file.rpartition("/")[2].startswith(("_", "."))
            )
            if not strangers:
                break
            if self.state() == state:  # otherwise it may be of a result that was published meanwhile
                first = join(self.output, strangers[0])
                raise UsageError(f"{first} is not of this job: move it away, or choose another --output_path")
        earlier = join(self.output, JOURNAL_OF_EARLIER_VERSIONS)
        if self.storage.read(earlier) is not None:
            raise UsageError(f"{earlier} was left by a run of a version before 0.5: run that version once more")

    # ----------------------------------------------------------------------------------------------------------------
    # Publishing

    def publish(self, manifest: Manifest, accept: Callable[[Manifest | None], None] = lambda _: None) -> Manifest:
        """Makes what was staged the result at the output path, or sees another run do so; its manifest as it is there.

        `accept` looks at the result whose place it would take, and raises what stands against that. Raises BusyError
        when others publish there for an hour, LostStagingError, with the earlier result as it was, when files that were
        staged are gone, and PipelineError when another result stands there in the end.
        """
        self.storage.flush(join(self.staging, file) for file in manifest.files)
        try:
            lease = self.claim(manifest, accept)
            manifest = lease.journal.manifest
            try:
                self.finish(lease)
            except LostStagingError:
                self.given_up.add(self.run_id)
                self.roll_back(lease)
                raise
            except StorageError:
                # a folder may be gone because another run took over, and published all of it
                with suppress(StorageError):
                    lease.renew()
                raise
        except LostLeaseError:
            log.warning("another run took over what this one was publishing, for it was stopped for too long")
        self.require_published(manifest)
        return manifest

    def claim(self, manifest: Manifest, accept: Callable[[Manifest | None], None]) -> Lease:
        """Creates the next generation of the journal, when no publishing is under way.

        Raises LostLeaseError when another run took over at once.
        """
        lease = None
        while lease is None:
            state = self.wait_for_others()
            accept(state.present)
            self.begun = True
            try:
                lease = Lease(self, self.next_journal(state, manifest))
            except LostLeaseError:
                if lost_files(manifest, self.sizes(self.staging, manifest.datasets)):
                    raise
        journal = lease.journal
        if self.storage.create(self.path_of(journal.generation), journal.to_json()):
            log.warning(
                "the store of %s ignores If-None-Match: see to it that no other run publishes there now", self.output
            )
        return lease

    def next_journal(self, state: State, manifest: Manifest) -> Journal:
        """What says that this run publishes, in place of what stands there."""
        present, last = state.present, state.journal
        removable = state.known if not state.is_settled else (present.files if present else set())
        if last and last.earlier:
            removable |= last.earlier.files  # in case some of it came late
        return Journal(
            generation=state.newest + 1,
            holder=self.run_id,
            # its time is when it is created
            manifest=replace(manifest, finished=utc_now(), previous=present.in_short if present else None),
            earlier=present,
            removable=sorted(removable - manifest.files),
        )

    def wait_for_others(self) -> State:
        """Waits until no publishing is under way, finishing what was abandoned; what stands there then.

        Raises BusyError when others go on for an hour.
        """
        started = time.monotonic()
        while True:
            state = self.state()
            other = self.recovered(state)
            if other is None and (state.is_settled or self.is_given_up(state)):
                return state
            if other and time.monotonic() - started > LONGEST_WAIT:
                raise BusyError(f"{self.output} is being published by another run ({other}); try again later")
            if other:
                time.sleep(0.2)

    def recover(self) -> str | None:
        """Finishes a publishing that was abandoned; the id of a run whose publishing goes on, None if there is none."""
        return self.recovered(self.state())

    def recovered(self, state: State) -> str | None:
        """The same, for what was seen to stand there."""
        journal = state.journal
        if journal is None or state.is_settled or self.is_given_up(state):
            return self.unreadable(state)
        if not self.may_take_over(state, journal):
            return journal.holder
        lease = None
        try:
            lease = Lease(self, replace(journal, generation=state.newest + 1, holder=self.run_id))
            self.disarm(journal.manifest)
            self.finish(lease)
        except LostLeaseError:
            return journal.holder
        except LostStagingError as error:
            log.warning("%s; run %s was not published", error, journal.manifest.run_id)
            self.given_up.add(journal.manifest.run_id)
            if lease:
                self.roll_back(lease)
            return None
        if journal.manifest.run_id != self.run_id:
            log.info("finished the publishing that run %s left behind", journal.manifest.run_id)
        return None

    def is_given_up(self, state: State) -> bool:
        """Whether what the journal says cannot be published, as this run found."""
        return state.journal is not None and state.journal.manifest.run_id in self.given_up

    def unreadable(self, state: State) -> str | None:
        """The newest generation where it is half written, and may still be under way."""
        if not state.is_half_written:
            return None
        first_seen = self.first_seen.setdefault(state.newest, time.monotonic())
        return self.path_of(state.newest) if time.monotonic() - first_seen < UNREADABLE_JOURNAL_SECONDS else None

    def may_take_over(self, state: State, journal: Journal) -> bool:
        """Whether a publishing was abandoned: its run is over, or did not renew it for too long."""
        if journal.holder == self.run_id or is_over(journal.holder, self.run_id):
            return True
        if journal.generation not in self.expires:
            age = self.storage.now(self.output) - state.changed
            self.expires[journal.generation] = elapsed() + PATIENCE - age
        return elapsed() > self.expires[journal.generation]

    def finish(self, lease: Lease) -> None:
        """Makes what the journal says the result; can be repeated at any point.

        Raises LostLeaseError when another run took over, and LostStagingError when files are gone that are to be
        published; nothing of the earlier result but its manifest is gone then.
        """
        storage, output, manifest = self.storage, self.output, lease.journal.manifest
        staging = join(output, STAGING, manifest.run_id)
        self.require_whole(lease, self.sizes(staging, manifest.datasets), self.sizes(output, manifest.datasets))
        told = storage.read(join(output, HISTORY)) or b""  # while the earlier result stands, if it cannot be read
        for begun in storage.uploads(output):
            if begun.name in SCHEMAS:
                lease.check()
                storage.abort_uploads(begun.path)
        lease.check()
        storage.delete(self.manifest)

        def move(file: str) -> None:
            lease.check()
            storage.move(join(staging, file), join(output, file))

        in_parallel(move, manifest.sizes)
        in_place = self.sizes(output, SCHEMAS)
        self.require_whole(lease, in_place)
        lease.check()
        storage.delete(*(join(output, file) for file in lease.journal.removable if file in in_place))
        for name in SCHEMAS.keys() - manifest.datasets.keys():
            storage.delete_empty_folder(join(output, name))
        storage.flush([*(join(output, file) for file in manifest.sizes), self.manifest])
        for name, content in (
            (HISTORY, with_run(told, summary_of(manifest, output))),
            (MANIFEST, manifest.to_json()),
        ):
            armed = join(staging, f"{name}.{lease.journal.generation}")
            storage.create(armed, content)
            lease.check()
            storage.move(armed, join(output, name))
        storage.flush([self.manifest])
        storage.delete_folder(staging)
        storage.delete(
            *(entry.path for number, entry in self.generations().items() if number < lease.journal.generation)
        )

    def disarm(self, manifest: Manifest) -> None:
        """Keeps who was publishing a result before from putting its manifest and its history in place later."""
        staging = join(self.output, STAGING, manifest.run_id)
        names = (f"{MANIFEST}.", f"{HISTORY}.")
        armed = (entry.path for entry in self.storage.entries(staging) if entry.name.startswith(names))
        self.storage.delete(*armed)

    def roll_back(self, lease: Lease) -> None:
        """Publishes the earlier result again, where all its files are there, in place of one that cannot be."""
        failed, earlier = lease.journal, lease.journal.earlier
        if earlier is None or lost_files(earlier, self.sizes(self.output, earlier.datasets)):
            return
        removable = sorted(failed.known - earlier.files)
        with suppress(LostLeaseError):
            lease.acquire(Journal(failed.generation + 1, self.run_id, earlier, None, removable))
            self.finish(lease)

    def require_whole(self, lease: Lease, *found: dict[str, int]) -> None:
        """Raises LostStagingError where a file of the manifest is nowhere, or of another size."""
        manifest = lease.journal.manifest
        for file in lost_files(manifest, *found):
            lease.renew()  # or another run published it, and then another result
            raise LostStagingError(f"{join(self.output, STAGING, manifest.run_id, file)} is gone")

    def require_published(self, manifest: Manifest) -> None:
        """Waits for whoever took over; raises PipelineError unless the result stands, or stood just before."""
        present = self.present()
        if present is None or present.run_id != self.run_id:
            state = self.wait_for_others()
            present = state.present
        if present is not None and present.run_id == self.run_id:
            return
        if present is not None:
            # what landed late, when another result stood there already
            late = self.sizes(self.output, manifest.datasets).keys() & (manifest.files - present.files)
            self.storage.delete(*(join(self.output, file) for file in late))
            if present.previous and present.previous["run_id"] == self.run_id:
                return
        raise PipelineError("another run took over, and another result stands there")

    # ----------------------------------------------------------------------------------------------------------------
    # What is left

    def sweep(self) -> None:
        """Deletes what runs that are over left below the staging folder."""
        staging = join(self.output, STAGING)
        begun = {entry.name: entry for entry in self.storage.uploads(staging)}
        for entry in (*self.storage.entries(staging), *begun.values()):
            if RUN_ID.fullmatch(entry.name) and self.is_left_behind(entry, begun.get(entry.name)):
                self.storage.delete_folder(entry.path)

    def is_left_behind(self, staged: Entry, begun: Entry | None) -> bool:
        """Whether the run that staged something is over, or, elsewhere, did not write for a day."""
        over = is_over(staged.name, self.run_id)
        if over is not None:
            return over
        changes = [staged.modified, *(file.modified for file in files_below(self.storage, staged.path))]
        latest = max([*changes, begun.modified] if begun else changes)
        return self.storage.now(self.output) - latest > PATIENCE_WITH_STAGING

    def discard(self) -> None:
        """Deletes what the run staged, unless it is being published. The next run deletes what this cannot."""
        try:
            if not self.is_under_way(self.state()):
                self.storage.delete_folder(self.staging)
        except Exception as error:  # noqa: BLE001  # the failure that led here is the one to report
            log.debug("could not delete what was staged: %s", error)

    def is_under_way(self, state: State) -> bool:
        """Whether what this run staged is what is being published."""
        journal = state.journal
        is_own = journal is not None and journal.manifest.run_id == self.run_id
        return is_own and not state.is_settled and not self.is_given_up(state)

    def outcome(self) -> str:
        """What became of the result, for the person who reads why the run failed."""
        if not self.begun:
            return "nothing was published"
        try:
            state = self.state()
        except Exception as error:  # noqa: BLE001  # as in `discard`
            log.debug("could not look at the journal: %s", error)
            return "publishing may have begun; then the next run finishes it"
        if state.present and state.present.run_id == self.run_id:
            return "all was published"
        if not self.is_under_way(state):
            is_gone = state.present is None and state.journal is not None and state.journal.earlier is not None
            return "nothing was published" + ("; readers find no manifest" if is_gone else "")
        waiting = "" if state.present else "; readers find no manifest until then"
        return f"publishing was begun, and the next run finishes it{waiting}"

    def path_of(self, generation: int) -> str:
        """The file of a generation of the journal."""
        return join(self.output, JOURNAL, f"{generation}.json")


class Lease:
    """The right to publish, held by who created the highest generation of the journal, and renewed by the next one.

    Raises LostLeaseError where another run has it.
    """

    def __init__(self, publication: Publication, journal: Journal) -> None:
        self.publication = publication
        self.lock = threading.Lock()
        self.acquire(journal)

    def acquire(self, journal: Journal) -> None:
        """Creates a generation of the journal."""
        renewed, publication = elapsed(), self.publication
        path, content = publication.path_of(journal.generation), journal.to_json()
        # where it is there all the same, it may have been created, and the answer lost
        if not publication.storage.create(path, content) and publication.storage.read(path) != content:
            raise LostLeaseError
        # a number may have been given back by who went on to a higher one
        if max(publication.generations(), default=0) != journal.generation:
            raise LostLeaseError
        self.journal, self.renewed = journal, renewed

    def check(self) -> None:
        """To be called before each step: renews the lease where it is not fresh."""
        with self.lock:
            if elapsed() - self.renewed > RENEWAL:
                self.renew()

    def renew(self) -> None:
        """Creates the next generation."""
        self.acquire(replace(self.journal, generation=self.journal.generation + 1))


def lost_files(manifest: Manifest, *found: dict[str, int]) -> list[str]:
    """The files of a manifest that are in none of the places where files and their sizes were found."""
    return [
        file
        for file, size in manifest.sizes.items()
        if not any(file in place and size in (None, place[file]) for place in found)
    ]


def elapsed() -> float:
    """Seconds on a clock of this machine that also goes on while it sleeps, where there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
