"""A run is suspended before any operation of its publishing, and others take over; it does no harm when it goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from movielens import publishing
from movielens.contract import PipelineError
from movielens.manifest import Manifest
from movielens.publishing import Lease, Publication
from movielens.storage import Storage
from movielens.storage.disk import DiskStorage
from movielens.storage.refusals import StorageError
from tests import stress
from tests.support.jobs import ELSEWHERE, Publish
from tests.support.journals import journal_at, parsed
from tests.support.places import Disk, Place, Storages
from tests.support.prepared import READING, Prepared, next_run
from tests.support.results import DATASETS, visible_names

SUSPENDED = 1000.0  # seconds, of a clock that the test puts forward


class SuspendingStorage:
    """A storage before whose n-th operation something happens; after it, each step that changes something is seen.

    Those that change nothing are counted on the disk alone: in a store it takes longer.
    """

    def __init__(self, storage: Storage, number: int, meanwhile: Callable[[], None], look: Callable[[], None]) -> None:
        self.storage, self.number, self.meanwhile, self.look = storage, number, meanwhile, look
        self.reading = isinstance(storage, DiskStorage)

    def __getattr__(self, name: str) -> Any:
        operation, changes = getattr(self.storage, name), name not in READING

        def run(*arguments: Any) -> Any:
            counted = self.reading or changes
            self.number -= counted
            if counted and self.number == -1:
                self.meanwhile()
            answer = operation(*arguments)
            if self.number < 0 and changes:
                self.look()
            return answer

        return run


@pytest.fixture(params=["disk", "hdfs", "s3", "s3a"])
def prepared(request: pytest.FixtureRequest, tmp_path: Path, publish: Publish, storages: Storages) -> Prepared:
    storage, place = storages(request.param, tmp_path)
    return Prepared(storage, place, tmp_path, publish)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock by which leases are fresh, to be put forward."""
    seconds = [0.0]
    monkeypatch.setattr(publishing, "elapsed", lambda: seconds[0])
    return seconds


def recover_by_another(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run finishes what it finds, for who was publishing gave no sign of life for too long."""
    with monkeypatch.context() as patch:
        patch.setattr(publishing, "PATIENCE", -1.0)
        assert next_run(prepared.storage, prepared.place).recover() is None


def take_over(other: Publication) -> Lease:
    """Another run takes over, and does nothing more."""
    journal = other.state().journal
    assert journal
    return Lease(other, replace(journal, generation=journal.generation + 1, holder=other.run_id))


def assert_whole(place: Place) -> None:
    """While a manifest stands, every file that it lists is there, before and after the look."""
    before = place.read("_manifest.json")
    if before:
        assert not place.missing(set(Manifest.from_json(before).files))


@pytest.mark.parametrize("others", ["take_over", "take_over_and_publish"])
def test_a_run_suspended_before_any_step_does_no_harm_when_it_goes_on(
    prepared: Prepared, publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: str,
    capfd: pytest.CaptureFixture[str], clock: list[float],
) -> None:  # fmt: skip
    # given a third result, that another run has staged
    publish("sail", prepared.old, tmp_path / "third", "--max_rejects", 1)
    third = prepared.stage(tmp_path / "third")
    place, own = prepared.place, prepared.manifest["run_id"]

    def meanwhile() -> None:
        # no sign of life for so long that another run takes over what it finds
        monkeypatch.setattr(publishing, "PATIENCE", -1.0)
        assert next_run(prepared.storage, place).recover() is None
        if others == "take_over_and_publish":
            Publication(prepared.storage, place.address, third["run_id"]).publish(parsed(third))
        monkeypatch.setattr(publishing, "PATIENCE", patience)
        clock[0] += SUSPENDED

    patience = publishing.PATIENCE
    outcomes = []
    for number in range(1000):
        place.copy_of(prepared.template)
        suspended: Any = SuspendingStorage(prepared.storage, number, meanwhile, lambda: assert_whole(place))
        run = Publication(suspended, place.address, own)
        # when the run goes on
        said = None
        try:
            run.publish(parsed(prepared.manifest))
        except PipelineError as error:
            said = str(error)
        if suspended.number >= 0:
            break
        # then one whole result stands, with nothing beside it, and success is said of it or of the one before it alone
        found = json.loads(place.read("_manifest.json") or b"")
        is_own = own in (found["run_id"], (found["previous"] or {}).get("run_id"))
        assert said == (None if is_own else "another run took over, and another result stands there")
        folder = place.snapshot()
        result = stress.result_in(folder, prepared.inputs)
        assert result == ("new" if found["run_id"] == own else "old")
        assert visible_names(folder) - {"_staging"} - {"rejects"} == DATASETS | {"_manifest.json"}
        outcomes.append(found["run_id"] == own)
    with capfd.disabled():
        print(f" [{len(outcomes)} operations]", end="")
    assert len(outcomes) > (30 if suspended.reading else 15)
    assert (False in outcomes) == (others == "take_over_and_publish")


class StaleStorage(DiskStorage):
    """A disk on which others publish just when this run writes below its staging folder."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        self.meanwhile = meanwhile

    def create(self, path: str, content: bytes) -> bool:
        if "/_staging/" in path:
            self.meanwhile()
            raise StorageError(f"{path} cannot be written: no such file or directory")
        return super().create(path, content)


def test_a_folder_that_another_run_deleted_because_it_published_is_no_failure(
    publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    prepared = Prepared(DiskStorage(), Disk(tmp_path / "output"), tmp_path, publish)
    prepared.place.copy_of(prepared.template)

    def meanwhile() -> None:
        recover_by_another(prepared, monkeypatch)
        clock[0] += SUSPENDED

    run = Publication(StaleStorage(meanwhile), prepared.place.address, prepared.manifest["run_id"])
    run.publish(parsed(prepared.manifest))
    assert stress.assert_old_or_new(prepared.inputs, prepared.place) == "new"


class MeanwhileDisk(DiskStorage):
    """A disk on which something happens once, before an operation on what a path ends with."""

    def __init__(self, operation: str, ending: str, meanwhile: Callable[[], object]) -> None:
        happened = []

        def run(path: str) -> Any:
            if path.endswith(ending) and not happened:
                happened.append(path)
                meanwhile()
            return getattr(DiskStorage, operation)(self, path)

        setattr(self, operation, run)


def with_the_highest_id(prepared: Prepared) -> Manifest:
    """The manifest of what is staged, as of a run whose id is above all others."""
    staged = prepared.manifest["run_id"]
    manifest = replace(parsed(prepared.manifest), run_id=f"2999{staged[4:]}")
    (prepared.template / "_staging" / staged).rename(prepared.template / "_staging" / manifest.run_id)
    return manifest


@pytest.mark.parametrize("has_highest_id", [False, True])
def test_a_run_after_which_two_others_published_does_not_say_that_it_published(
    publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: list[float], *, has_highest_id: bool
) -> None:
    # given two more results, that other runs have staged
    prepared = Prepared(DiskStorage(), Disk(tmp_path / "output"), tmp_path, publish)
    own = with_the_highest_id(prepared) if has_highest_id else parsed(prepared.manifest)
    later = []
    for name in ("third", "fourth"):
        publish("sail", prepared.old, tmp_path / name, "--max_rejects", 1)
        later.append(parsed(prepared.stage(tmp_path / name)))
    prepared.place.copy_of(prepared.template)
    address = prepared.place.address

    def meanwhile() -> None:
        recover_by_another(prepared, monkeypatch)
        for manifest in later:
            Publication(prepared.storage, address, manifest.run_id).publish(manifest)
        clock[0] += SUSPENDED

    run = Publication(MeanwhileDisk("read", "_history.jsonl", meanwhile), address, own.run_id)
    with pytest.raises(PipelineError, match=r"^another run took over, and another result stands there$"):
        run.publish(own)
    assert json.loads(prepared.place.read("_manifest.json") or b"")["run_id"] == later[-1].run_id


def test_a_run_waits_for_who_took_over_while_the_earlier_result_still_stands(
    publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    # given a run with the highest id, and another that took over, and has done nothing more
    prepared = Prepared(DiskStorage(), Disk(tmp_path / "output"), tmp_path, publish)
    manifest = with_the_highest_id(prepared)
    prepared.place.copy_of(prepared.template)
    earlier = prepared.place.read("_manifest.json")
    other = Publication(prepared.storage, prepared.place.address, ELSEWHERE)
    leases = []

    def meanwhile() -> None:
        leases.append(take_over(other))
        clock[0] += SUSPENDED

    def pause(_seconds: float) -> None:
        assert prepared.place.read("_manifest.json") == earlier
        other.finish(leases.pop())

    monkeypatch.setattr(publishing.time, "sleep", pause)
    run = Publication(MeanwhileDisk("read", "_history.jsonl", meanwhile), prepared.place.address, manifest.run_id)
    # then it is the other who publishes, and success is said of it
    run.publish(manifest)
    assert not leases
    assert stress.assert_old_or_new(prepared.inputs, prepared.place) == "new"


def test_who_took_over_at_the_very_end_keeps_its_journal(publish: Publish, tmp_path: Path) -> None:
    prepared = Prepared(DiskStorage(), Disk(tmp_path / "output"), tmp_path, publish)
    prepared.place.copy_of(prepared.template)
    own = prepared.manifest["run_id"]
    other = Publication(prepared.storage, prepared.place.address, ELSEWHERE)
    disk = MeanwhileDisk("delete_folder", own, lambda: take_over(other))
    Publication(disk, prepared.place.address, own).publish(parsed(prepared.manifest))
    found = journal_at(prepared.place)
    assert found
    assert found["holder"] == ELSEWHERE
