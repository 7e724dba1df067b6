"""A run is suspended before any operation of its publishing, and others take over; it does no harm when it goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from movielens.contract import PipelineError
from movielens.publishing import commits, lease, publication
from movielens.storage import Storage
from movielens.storage.disk import DiskStorage
from tests import stress
from tests.support.jobs import Publish
from tests.support.journals import numbers, standing_at
from tests.support.places import Disk, Place, Storages
from tests.support.prepared import READING, Prepared, next_run, publish_staged
from tests.support.results import DATASETS, assert_equal_by_check, history_of, visible_names

SUSPENDED = 1000.0  # seconds, of a clock that the test puts forward
TAKEN_OVER = "another run took over, because this one was suspended for too long"


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
    monkeypatch.setattr(lease, "elapsed", lambda: seconds[0])
    return seconds


@pytest.fixture
def on_disk(publish: Publish, tmp_path: Path) -> Prepared:
    """An earlier result on disk, and a new one that is staged."""
    prepared = Prepared(DiskStorage(), Disk(tmp_path / "output"), tmp_path, publish)
    prepared.place.copy_of(prepared.template)
    return prepared


def recover_by_another(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run takes over what it finds, because its run gave no sign of life for too long."""
    with monkeypatch.context() as patch:
        patch.setattr(lease, "PATIENCE", -1.0)
        next_run(prepared.storage, prepared.place).output.recover()


def publish_by_another(prepared: Prepared, manifest: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run takes over what it finds, and publishes what the run of a manifest staged."""
    with monkeypatch.context() as patch:
        patch.setattr(lease, "PATIENCE", -1.0)
        publish_staged(prepared.storage, prepared.place, manifest)


def assert_highest_is_whole(place: Place) -> None:
    """Every file that the highest manifest lists is there."""
    standing = standing_at(place)
    assert standing
    assert not place.missing({file for dataset in standing["datasets"].values() for file in dataset["files"]})


@pytest.mark.parametrize("others", ["take_over", "take_over_and_publish"])
def test_run_suspended_before_any_step_does_no_harm(
    prepared: Prepared, publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: str,
    capfd: pytest.CaptureFixture[str], clock: list[float],
) -> None:  # fmt: skip
    # given a third result, that another run has staged
    publish("sail", prepared.old, tmp_path / "third", "--max_rejects", 1)
    third = prepared.stage(tmp_path / "third")
    place, own = prepared.place, prepared.run_id

    def meanwhile() -> None:
        # no sign of life for so long that another run takes over what it finds
        recover_by_another(prepared, monkeypatch)
        if others == "take_over_and_publish":
            publish_by_another(prepared, third, monkeypatch)
        clock[0] += SUSPENDED

    outcomes = []
    for number in range(1000):
        place.copy_of(prepared.template)
        suspended: Any = SuspendingStorage(prepared.storage, number, meanwhile, lambda: assert_highest_is_whole(place))
        # when the run goes on
        said = None
        try:
            prepared.publish(suspended)
        except PipelineError as error:
            said = str(error)
        if suspended.number >= 0:
            break
        # then it says that it published if its result stood, and one whole result stands, with nothing beside it
        folder = place.snapshot()
        published = own in {run["run_id"] for run in history_of(folder)}
        assert said == (None if published else TAKEN_OVER)
        result = stress.result_in(folder, prepared.inputs)
        assert result == ("new" if prepared.stands() == own else "old")
        assert visible_names(folder) - {"_staging", "rejects"} == DATASETS | {"_manifest.json"}
        prepared.assert_nothing_beside()
        outcomes.append(prepared.stands() == own)
    with capfd.disabled():
        print(f" [{len(outcomes)} operations]", end="")
    assert len(outcomes) > (30 if suspended.reading else 15)
    assert {True, False} == {*outcomes}


class MeanwhileDisk(DiskStorage):
    """A disk on which something happens once, before an operation on a path in which a part occurs."""

    def __init__(self, operation: str, part: str, meanwhile: Callable[..., object]) -> None:
        happened = []

        def run(*arguments: Any) -> Any:
            if any(part in str(argument) for argument in arguments) and not happened:
                happened.append(part)
                meanwhile(*arguments)
            return getattr(DiskStorage, operation)(self, *arguments)

        setattr(self, operation, run)


def staged_by_others(prepared: Prepared, publish: Publish, tmp_path: Path, count: int) -> list[dict[str, Any]]:
    """The manifests of results that other runs staged."""
    staged = []
    for number in range(count):
        publish("sail", prepared.old, tmp_path / f"other-{number}", "--max_rejects", 1)
        staged.append(prepared.stage(tmp_path / f"other-{number}"))
    prepared.place.copy_of(prepared.template)
    return staged


def test_late_deletion_of_the_earlier_result_spares_the_next(
    on_disk: Prepared, publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    # given a run that is suspended just before it deletes the files of the earlier result, and one that publishes then
    [other] = staged_by_others(on_disk, publish, tmp_path, 1)

    def meanwhile(*_: object) -> None:
        clock[0] += SUSPENDED
        publish_by_another(on_disk, other, monkeypatch)

    on_disk.publish(MeanwhileDisk("delete", "/ratings/", meanwhile))
    # then the run published, and what it deletes late is not of the result that stands
    assert on_disk.stands() == other["run_id"]
    assert_equal_by_check(on_disk.old, on_disk.place.snapshot())
    on_disk.assert_nothing_beside()


def test_commit_that_lands_after_a_takeover_is_refused(
    on_disk: Prepared, publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a run that is suspended just before it commits; a second takes over, and a third publishes
    [other] = staged_by_others(on_disk, publish, tmp_path, 1)

    def meanwhile(*_: object) -> None:
        recover_by_another(on_disk, monkeypatch)
        publish_by_another(on_disk, other, monkeypatch)

    # although its own clock stood still, as that of a virtual machine that was paused
    with pytest.raises(PipelineError, match=TAKEN_OVER):
        on_disk.publish(MeanwhileDisk("create", "/_manifests/", meanwhile))
    assert on_disk.stands() == other["run_id"]
    on_disk.assert_nothing_beside()
    # then the history has the night of the third, and none of the first
    runs = {run["run_id"] for run in history_of(on_disk.place.snapshot())}
    assert other["run_id"] in runs
    assert on_disk.run_id not in runs


def test_commit_before_a_takeover_settles_counts(on_disk: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    # given a run that is suspended just before it commits, and one that takes over and is suspended before it settles
    def take_over(path: str, content: bytes) -> None:
        # when the first goes on and commits after all
        settling = MeanwhileDisk("create", "/_manifests/", lambda *_: DiskStorage().create(path, content))
        with monkeypatch.context() as patch:
            patch.setattr(lease, "PATIENCE", -1.0)
            next_run(settling, on_disk.place).output.recover()

    on_disk.publish(MeanwhileDisk("create", "/_manifests/", take_over))
    assert on_disk.stands() == on_disk.run_id
    on_disk.assert_nothing_beside()


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("kept", [1, 2])
def test_run_that_slept_until_its_number_was_pruned_claims_nothing(
    on_disk: Prepared, publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: list[float], kept: int,
    moment: str,
) -> None:  # fmt: skip
    # given a run that is suspended just before or after it commits, until as many others published as are kept
    others = staged_by_others(on_disk, publish, tmp_path, kept + 1)
    monkeypatch.setattr(commits, "KEPT", kept)
    monkeypatch.setattr(publication, "KEPT", kept)

    def meanwhile(path: str, content: bytes) -> None:
        clock[0] += SUSPENDED
        if moment == "after":
            DiskStorage().create(path, content)
        for other in others:
            publish_by_another(on_disk, other, monkeypatch)

    with pytest.raises(PipelineError, match=f"^{kept} other runs published while this one was suspended$"):
        on_disk.publish(MeanwhileDisk("create", "/_manifests/", meanwhile))
    # then it deletes nothing of theirs, and the next run prunes what it created late
    assert on_disk.stands() == others[-1]["run_id"]
    on_disk.assert_nothing_beside()
    next_run(on_disk.storage, on_disk.place).output.tidy(1)
    highest = max(numbers(on_disk.place, "_manifests"))
    assert numbers(on_disk.place, "_manifests") == list(range(highest - kept + 1, highest + 1))
    runs = [run["run_id"] for run in history_of(on_disk.place.snapshot())]
    assert (on_disk.run_id in runs) == (moment == "after")


def test_late_write_of_the_history_keeps_the_line_of_the_next(
    on_disk: Prepared, publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    # given a run that is suspended just before it writes the history, until another has published
    [other] = staged_by_others(on_disk, publish, tmp_path, 1)

    def meanwhile(*_: object) -> None:
        clock[0] += SUSPENDED
        publish_by_another(on_disk, other, monkeypatch)

    on_disk.publish(MeanwhileDisk("replace", "/_history.jsonl", meanwhile))
    runs = [run["run_id"] for run in history_of(on_disk.place.snapshot())]
    assert runs[-2:] == [on_disk.run_id, other["run_id"]]


def test_lease_taken_over_at_the_very_end_is_kept(on_disk: Prepared) -> None:
    # given a run that took the lease after this one committed, and before this one tidied the journal up
    leases = []

    def take(*_: object) -> None:
        output = next_run(on_disk.storage, on_disk.place).output
        state = output.look()
        leases.append(output.journal.acquire(state.newest, state.standing.highest + 1))

    on_disk.publish(MeanwhileDisk("replace", "_history.jsonl", take))
    assert f"_journal/{leases[0].held.generation}.json" in on_disk.place.files()
