"""An output path as one run finds it: what stands there, who publishes, and what dead runs left.

Recovery never finishes what a dead run began: it settles the number of that run, and the result before it stands.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from movielens.contract import BusyError, UsageError
from movielens.history import HISTORY, read_history
from movielens.manifest import Manifest
from movielens.publishing.commits import CommitLog, Standing
from movielens.publishing.files import PublishedFiles
from movielens.publishing.layout import COPY, FILES, FOLDERS, not_ours
from movielens.publishing.lease import LOOKS, Generation, Journal, LostLeaseError
from movielens.publishing.staging import Staging, reported
from movielens.storage.paths import join
from movielens.terminal import log

if TYPE_CHECKING:
    from collections.abc import Mapping

    from movielens.storage import Storage

LONGEST_WAIT = 3600.0
PAUSE = 0.2


@dataclass(frozen=True)
class State:
    """What one look finds at an output path: the newest generation of the journal, then what stands."""

    newest: Generation | None
    standing: Standing

    @property
    def is_held(self) -> bool:
        """Whether a run holds the lease: its number is not taken yet."""
        if self.newest is None:
            return False
        return self.newest.number is None or self.newest.number > self.standing.highest

    @property
    def numbers_used(self) -> int:
        """The highest number that files in the folders of the datasets can have."""
        return max(self.standing.highest, (self.newest.number if self.newest else 0) or 0)


class Output:
    """An output path as one run finds it."""

    def __init__(self, storage: Storage, path: str, run_id: str) -> None:
        self.storage, self.path, self.run_id = storage, path, run_id
        self.journal, self.commits = Journal(storage, path, run_id), CommitLog(storage, path)
        self.staging, self.files = Staging(storage, path, run_id), PublishedFiles(storage, path)

    def look(self) -> State:
        """What is there now: the journal first, and then what stands, which is never older.

        Raises UsageError if it is not of this job, or if a run of version 0.6 is publishing.
        """
        newest = self.journal.newest()
        standing = self.commits.standing()
        if newest and newest.published_by_0_6:
            self.require_over(newest, standing)
        return State(newest, standing)

    def require_over(self, newest: Generation, standing: Standing) -> None:
        """Raises UsageError unless the run of version 0.6 that wrote the journal has published."""
        path = self.journal.path_of(newest.generation)
        if standing.is_numbered and standing.highest:
            raise UsageError(
                f"{path} is of a run of version 0.6, which does not know the newer result there: "
                "choose another --output_path"
            )
        if standing.manifest is None or standing.manifest.run_id != newest.published_by_0_6:
            raise UsageError(
                f"{path} is of a run of version 0.6 that is publishing, or was killed then: "
                "wait for it, or run that version once more"
            )

    def require_own_folders(self) -> None:
        """Raises UsageError if something there is not of this job, and StorageError if a folder cannot be written."""
        self.storage.require_writable(self.path, *FOLDERS)
        for entry in self.storage.entries(self.path):
            if entry.name in FOLDERS + FILES and entry.is_folder != (entry.name in FOLDERS):
                raise not_ours(entry.path)
            if entry.name == HISTORY:
                self.storage.read(entry.path)  # raises if it cannot be read
        for _ in range(LOOKS):
            state = self.look()
            manifest = state.standing.manifest
            strangers = self.files.strangers(manifest.files if manifest else set(), state.numbers_used)
            if strangers:
                strangers -= self.commits.files_of_earlier()
            if not strangers:
                return
            if self.look() == state:  # otherwise they may be of a result that was published meanwhile
                break
        raise not_ours(join(self.path, min(strangers)))

    def recover(self) -> None:
        """Settles the number of a dead run, adopts a result of version 0.6, and does what a killed run left undone."""
        state = self.look()
        if state.newest and state.is_held:
            if self.journal.is_abandoned(state.newest):
                self.take_over(state.newest, state.standing)
        elif not state.standing.is_numbered:
            self.adopt(state)
        elif state.newest and not (self.commits.has_copy(state.standing) and not self.superseded(state.standing)):
            self.tidy(state.newest.generation)

    def rows_before(self, standing: Standing) -> Mapping[str, int] | None:
        """The rows of each dataset of the result that stands, or of the last one in the history; None without both."""
        if standing.manifest:
            return {name: dataset.rows for name, dataset in standing.manifest.datasets.items()}
        for run in reversed(read_history(self.storage.read(join(self.path, HISTORY)) or b"")):
            return {name: dataset["rows"] for name, dataset in run["datasets"].items()}
        return None

    def wait_until_free(self) -> State:
        """Waits until nobody holds the lease, and returns what stands. Raises BusyError after an hour."""
        started = time.monotonic()
        while True:
            state = self.look()
            holder = state.newest if state.is_held else None
            if holder is None and state.standing.is_numbered:
                return state
            if time.monotonic() - started > LONGEST_WAIT:
                name = holder.holder if holder and holder.holder else self.journal.folder
                raise BusyError(f"{self.path} is being published by another run ({name}); try again later")
            if holder is None:
                self.adopt(state)
            elif self.journal.is_abandoned(holder):
                self.take_over(holder, state.standing)
            else:
                time.sleep(PAUSE)

    def take_over(self, abandoned: Generation, standing: Standing) -> None:
        """Takes the lease from a run that is dead or asleep, with its number, and settles that number.

        Otherwise that run could commit, when it wakes up, files that others have deleted.
        """
        number = abandoned.number or standing.highest + 1
        with suppress(LostLeaseError):
            self.journal.acquire(abandoned, number)
            if self.settle(number):
                log.info("run %s ended while it was publishing; the result before it stands", abandoned.holder or "?")
            self.tidy(abandoned.generation + 1)

    def adopt(self, state: State) -> None:
        """Gives the next number to a result that has none."""
        number = state.standing.highest + 1
        with suppress(LostLeaseError):
            self.journal.acquire(state.newest, number)
            self.settle(number)

    def settle(self, number: int) -> bool:
        """Commits the result that stands once more, under another number, unless that is taken.

        Returns whether it did.
        """
        standing = self.commits.standing()
        manifest = standing.manifest
        if manifest is None or (standing.is_cut_off and self.files.lost(manifest)):
            manifest = Manifest.nothing(self.run_id)
        restates = manifest.restates or manifest.number or None
        return self.commits.create(replace(manifest, number=number, restates=restates))

    def tidy(self, generation: int) -> None:
        """Does what follows from a commit. The next run does what the store refuses."""
        with reported(f"{COPY} was not refreshed"):
            self.commits.refresh_copy()
        with reported(f"{HISTORY} was not refreshed"):
            self.commits.refresh_history()
        with reported("files of earlier results were not deleted"):
            self.delete_superseded()
        with reported("the journal was not tidied up"):
            self.journal.delete_before(generation)

    def superseded(self, standing: Standing) -> set[str]:
        """The files of earlier results and of runs that failed."""
        if standing.is_cut_off:  # nobody knows what it lists
            return set()
        listed = standing.manifest.files if standing.manifest else set()
        superseded, unnumbered = self.files.superseded(listed, standing.highest)
        return superseded | (unnumbered & self.commits.files_of_earlier() if unnumbered else set())

    def delete_superseded(self) -> None:
        """Deletes the files and manifests of earlier results and of runs that failed."""
        standing = self.commits.standing()
        left = self.files.delete(self.superseded(standing))
        self.files.delete_empty_folders(standing.manifest.datasets if standing.manifest else {})
        self.commits.prune(left)
