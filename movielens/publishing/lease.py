"""The lease: the right of one run to publish. It is the newest generation of the journal, `_journal/<n>.json`.

Only one run can create a generation. Each generation carries, from its creation, the number that its run will commit.
The lease is free when that number is taken.
"""

from __future__ import annotations

import threading
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from movielens.contract import PipelineError
from movielens.manifest import NotOursError, as_json, checked, foreign, parsed, require
from movielens.publishing.layout import JOURNAL, numbered
from movielens.runs import RUN_ID, is_over
from movielens.storage.paths import join

if TYPE_CHECKING:
    from movielens.storage import Entry, Storage

SCHEMA_VERSION = 2
VERSION_OF_0_6 = 1

RENEWAL = 60.0  # seconds after which the holder renews the lease before its next step
PATIENCE = 300.0  # seconds for which others see a generation unchanged before they take over
UNREADABLE_SECONDS = 5.0  # the same for a generation that is cut off
LOOKS = 10  # at something that is listed, and gone when it is read


class LostLeaseError(Exception):
    """Another run holds the lease."""


@dataclass(frozen=True)
class Generation:
    """A generation of the journal: the run that holds the lease, and the number that it will commit.

    `holder` and `number` are None if it is cut off. `published_by_0_6` is the run whose result version 0.6 published.
    """

    generation: int
    holder: str | None
    number: int | None
    published_by_0_6: str | None = None

    def to_json(self) -> bytes:
        """The generation as the job writes it."""
        content = asdict(self)
        del content["published_by_0_6"]
        return as_json({"schema_version": SCHEMA_VERSION, **content})

    @classmethod
    def from_json(cls, generation: int, content: bytes) -> Generation:
        """The generation that was written. Raises NotOursError if another program wrote it."""
        try:
            found = parsed(content)
        except ValueError:
            return cls(generation, None, None)

        def from_dict(found: Any) -> Generation:
            require(found["generation"] == generation and RUN_ID.fullmatch(found["holder"]))
            if found["schema_version"] == VERSION_OF_0_6:
                require(RUN_ID.fullmatch(found["manifest"]["run_id"]))
                return cls(generation, found["holder"], 0, found["manifest"]["run_id"])
            require(type(found["number"]) is int and found["number"] > 0)
            return cls(generation, found["holder"], found["number"])

        return checked(from_dict, found)


class Journal:
    """The generations at an output path, as one run observes them."""

    def __init__(self, storage: Storage, output: str, run_id: str) -> None:
        self.storage, self.folder, self.run_id = storage, join(output, JOURNAL), run_id
        self.first_seen: dict[int, float] = {}  # on this process's clock

    def entries(self) -> dict[int, Entry]:
        """The files of the generations by their numbers."""
        return numbered(self.storage, self.folder)

    def path_of(self, generation: int) -> str:
        """The file of a generation."""
        return join(self.folder, f"{generation}.json")

    def newest(self) -> Generation | None:
        """The newest generation; None if there is none.

        Raises UsageError if it is not of this job, and PipelineError if it is listed and cannot be read.
        """
        path = self.folder
        for _ in range(LOOKS):
            entries = self.entries()
            if not entries:
                return None
            newest = max(entries)
            path = self.path_of(newest)
            content = self.storage.read(path)
            if content is None:  # a newer one came meanwhile
                continue
            try:
                return Generation.from_json(newest, content)
            except NotOursError as error:
                raise foreign(path) from error
        raise PipelineError(f"{path} is listed but cannot be read: remove it")

    def is_abandoned(self, found: Generation) -> bool:
        """Whether another run may take over: the holder is dead, or did not renew for as long as this run looked.

        A run compares what it sees over its own clock, because the clocks of two machines may differ.
        """
        if found.holder is not None and (found.holder == self.run_id or is_over(found.holder, self.run_id)):
            return True
        patience = UNREADABLE_SECONDS if found.holder is None else PATIENCE
        return elapsed() - self.first_seen.setdefault(found.generation, elapsed()) > patience

    def acquire(self, after: Generation | None, number: int) -> Lease:
        """Takes the lease for a number, with the generation after another. Raises LostLeaseError."""
        return Lease(self, Generation((after.generation if after else 0) + 1, self.run_id, number))

    def ignores_conditions(self, lease: Lease) -> bool:
        """Whether the store creates a file that is there already, so that it cannot keep two runs apart."""
        held = lease.held
        return self.storage.create(self.path_of(held.generation), held.to_json())

    def delete_before(self, generation: int) -> None:
        """Deletes the generations before one."""
        self.storage.delete(*(entry.path for number, entry in self.entries().items() if number < generation))


class Lease:
    """The lease as its holder has it. Each method raises LostLeaseError if another run took over."""

    def __init__(self, journal: Journal, held: Generation) -> None:
        self.journal = journal
        self.lock = threading.Lock()
        self.create(held)

    @property
    def number(self) -> int:
        """The number that the lease is for."""
        assert self.held.number is not None
        return self.held.number

    def create(self, held: Generation) -> None:
        """Creates a generation."""
        renewed, journal = elapsed(), self.journal
        path, content = journal.path_of(held.generation), held.to_json()
        # if it is there all the same, this run may have created it, and the answer was lost
        if not journal.storage.create(path, content) and journal.storage.read(path) != content:
            raise LostLeaseError
        # the holder of a newer generation may have deleted one with this number
        if max(journal.entries(), default=0) != held.generation:
            raise LostLeaseError
        self.held, self.renewed = held, renewed

    def check(self) -> None:
        """Renews the lease if it is a minute old. The holder calls this before each step."""
        with self.lock:
            if elapsed() - self.renewed > RENEWAL:
                self.renew()

    def renew(self) -> None:
        """Creates the next generation."""
        self.create(replace(self.held, generation=self.held.generation + 1))


def elapsed() -> float:
    """Seconds on a clock of this machine that goes on while it sleeps, if it has one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
