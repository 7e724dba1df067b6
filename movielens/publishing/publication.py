"""How one run publishes: it takes the lease, moves its files in, reads them back, commits, and deletes the rest.

docs/guarantees.md says for each step what holds if it fails, is the last one of its run, or comes late.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from movielens.contract import PipelineError
from movielens.publishing.commits import KEPT
from movielens.publishing.layout import published_prefix
from movielens.publishing.lease import LostLeaseError
from movielens.publishing.output import Output
from movielens.runs import utc_now
from movielens.terminal import log

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from movielens.manifest import Dataset, Manifest
    from movielens.publishing.lease import Lease
    from movielens.publishing.output import State
    from movielens.storage import Storage

    Accept = Callable[[Mapping[str, int] | None], None]


class Publication:
    """What one run does at an output path to make its result the one that stands there."""

    def __init__(self, storage: Storage, path: str, run_id: str) -> None:
        self.output = Output(storage, path, run_id)
        self.staging, self.run_id = self.output.staging, run_id
        self.number = 0  # that the lease is for
        self.tried = False  # to commit it

    def publish(
        self,
        draft: Manifest,
        rows: Mapping[str, int],
        accept: Accept = lambda _: None,
    ) -> Manifest:
        """Publishes what the run staged, and returns its manifest: the draft with number, datasets and previous result.

        `rows` are those that the run counted in each dataset. `accept` gets the rows of the result before, and raises
        what stands against the new one. Raises BusyError if others publish for an hour, and PipelineError if files are
        gone, or if another run took over; the result before stands then.
        """
        output = self.output
        self.staging.flush(rows)
        state, lease = self.take_lease(accept)
        self.number = lease.number
        try:
            output.files.move_in(self.staging, lease, rows, self.prefix)
            manifest = replace(
                draft,
                number=lease.number,
                finished=utc_now(),
                datasets=self.read_back(lease, rows),
                previous=state.standing.manifest.in_short if state.standing.manifest else None,
            )
            self.commit(manifest)
        except LostLeaseError as error:
            self.give_up(lease)
            raise PipelineError("another run took over, because this one was suspended for too long") from error
        except BaseException:
            self.give_up(lease)
            raise
        output.tidy(lease.held.generation)
        self.staging.delete()
        return manifest

    @property
    def prefix(self) -> str:
        """What the names of the published files begin with."""
        return published_prefix(self.number, self.run_id)

    def take_lease(self, accept: Accept) -> tuple[State, Lease]:
        """Waits until the lease is free, and takes it for the next number; with what stood there just before."""
        while True:
            state = self.output.wait_until_free()
            accept(self.output.rows_before(state.standing))
            with suppress(LostLeaseError):
                lease = self.output.journal.acquire(state.newest, state.standing.highest + 1)
                break
        if self.output.journal.ignores_conditions(lease):
            log.warning(
                "the store of %s ignores If-None-Match: see to it that no other run publishes there now",
                self.output.path,
            )
        return state, lease

    def read_back(self, lease: Lease, rows: Mapping[str, int]) -> dict[str, Dataset]:
        """The datasets as they lie in their folders now. Raises PipelineError if they are not what the run wrote."""
        try:
            return self.output.files.read_back(self.prefix, rows)
        except PipelineError:
            lease.renew()  # or another run took over, and deleted them
            raise

    def commit(self, manifest: Manifest) -> None:
        """Creates the manifest under its number: the one step that changes what readers see.

        Raises LostLeaseError if another run has settled the number, and PipelineError if so many runs have published
        since that nobody can tell.
        """
        self.tried = True
        created = self.output.commits.create(manifest)
        if created and self.output.commits.highest() == self.number:
            return
        published = self.is_published()
        if published is None:
            raise PipelineError(f"{KEPT} other runs published while this one was suspended")
        if not published:
            raise LostLeaseError

    def is_published(self) -> bool | None:
        """Whether the result of this run stood; None if the manifest that would tell is pruned."""
        if not self.tried:
            return False
        standing = self.output.commits.standing()
        if standing.manifest and standing.manifest.run_id == self.run_id:
            return True
        if standing.highest - self.number >= KEPT:
            return None
        found = self.output.commits.read(self.number)
        return found is not None and found.run_id == self.run_id and found.restates is None

    def give_up(self, lease: Lease) -> None:
        """Deletes what a run that failed moved in, and settles its number. The next run does what this cannot."""
        try:
            if not self.tried:  # nobody will ever list these files
                self.output.files.delete(self.output.files.with_prefix(self.prefix))
            self.output.settle(lease.number)
            self.output.delete_superseded()
        except Exception as error:  # noqa: BLE001  # the failure that led here is the one to report
            log.debug("could not settle number %d: %s", lease.number, error)

    def outcome(self) -> str:
        """What became of the result, for the person who reads why the run failed."""
        try:
            published = self.is_published()
        except Exception as error:  # noqa: BLE001  # the failure that led here is the one to report
            log.debug("could not look at the manifest: %s", error)
            published = None
        if published is None:
            path = self.output.commits.path_of(self.number)
            return f"all was published if {path} names run {self.run_id}"
        return "all was published" if published else "nothing was published"
