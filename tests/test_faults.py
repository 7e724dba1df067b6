"""Each storage operation of a publish and of a recovery fails once, in two ways; the result is the old or the new one.

A fault keeps the operation from happening, or lets it happen and loses the answer. After each, the next run heals.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from movielens.engines.sail import Sail
from movielens.storage import Storage
from movielens.storage.disk import DiskStorage
from tests import stress
from tests.support.inputs import RATINGS, rating_lines, write_input
from tests.support.jobs import Main, Publish
from tests.support.journals import write_lease
from tests.support.places import Disk, Storages
from tests.support.prepared import READING, Prepared, next_run
from tests.support.results import DATASETS, assert_equal_by_check, manifest_of, visible_names


class InjectedError(OSError):
    """The fault that a test injects."""


class FaultyStorage:
    """A storage of which the n-th operation fails; n is counted over all that share the countdown.

    Those that change nothing are counted where they fail, on the disk alone. Of them it is the same whether they fail
    or their answer is lost; and they leave a store as the next that changes something leaves it when it fails.
    """

    def __init__(self, storage: Storage, countdown: Iterator[int], *, happens: bool) -> None:
        self.storage, self.countdown, self.happens = storage, countdown, happens
        self.reading = not happens and isinstance(storage, DiskStorage)

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self.storage, name)

        def run(*arguments: Any) -> Any:
            faulty = (self.reading or name not in READING) and next(self.countdown) == 0
            if faulty and not self.happens:
                raise InjectedError(name)
            answer = operation(*arguments)
            if faulty:
                raise InjectedError(f"{name}, whose answer was lost")
            return answer

        return run


@pytest.fixture(params=["disk", "hdfs", "s3", "s3a"])
def prepared(request: pytest.FixtureRequest, tmp_path: Path, publish: Publish, storages: Storages) -> Prepared:
    storage, place = storages(request.param, tmp_path)
    return Prepared(storage, place, tmp_path, publish)


@pytest.mark.parametrize("happens", [False, True], ids=["fails", "answer_lost"])
def test_publish_hit_by_a_fault_leaves_old_or_new(
    prepared: Prepared, happens: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    place, run_id = prepared.place, prepared.run_id
    earlier = manifest_of(prepared.template)["run_id"]
    for number in range(1000):
        place.copy_of(prepared.template)
        try:
            prepared.publish(FaultyStorage(prepared.storage, itertools.count(number, -1), happens=happens))
        except InjectedError:
            # a reader finds a whole result at every moment, and what it finds stays
            found = prepared.stands()
            assert found in (earlier, run_id)
            stress.assert_whole(prepared.inputs, place)
            prepared.assert_healed(published=found == run_id)
        else:
            break
    with capfd.disabled():
        print(f" [{number} operations of a publish]", end="")
    assert number > 15
    assert_equal_by_check(prepared.new, place.snapshot())


@pytest.mark.parametrize("happens", [False, True], ids=["fails", "answer_lost"])
def test_recovery_hit_by_a_fault_leaves_the_earlier_result(
    prepared: Prepared, happens: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    place, staging = prepared.place, f"_staging/{prepared.run_id}"
    for number in range(1000):
        # given a run that was killed when two of its files were moved
        place.copy_of(prepared.template)
        write_lease(place, prepared.run_id)
        for staged in sorted((prepared.template / staging / "ratings").iterdir())[:2]:
            place.write(f"ratings/2-{prepared.run_id[-8:]}-{staged.name}", staged.read_bytes())
            place.delete(f"{staging}/ratings/{staged.name}")
        # when a fault hits the next run
        try:
            faulty = FaultyStorage(prepared.storage, itertools.count(number, -1), happens=happens)
            next_run(faulty, place).output.recover()
        except InjectedError:
            stress.assert_whole(prepared.inputs, place)
            # then the one after it heals
            prepared.assert_healed(published=False)
        else:
            break
    with capfd.disabled():
        print(f" [{number} operations of a recovery]", end="")
    assert number > 3
    assert_equal_by_check(prepared.old, place.snapshot())


@pytest.mark.thorough
@pytest.mark.parametrize("happens", [False, True], ids=["fails", "answer_lost"])
def test_run_hit_by_a_fault_leaves_old_or_new(
    publish: Publish, run_main: Main, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, happens: bool, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    old, new = write_input(tmp_path / "old"), write_input(tmp_path / "new", rating_lines(RATINGS[:4]))
    template, output = tmp_path / "template", tmp_path / "output"
    publish("sail", old, template)
    open_storage = Sail.storage
    for number in range(1000):
        Disk(output).copy_of(template)
        countdown = itertools.count(number, -1)

        def faulty_storage(engine: Sail, path: str, countdown: Iterator[int] = countdown) -> Any:
            return FaultyStorage(open_storage(engine, path), countdown, happens=happens)

        with monkeypatch.context() as patch:
            patch.setattr(Sail, "storage", faulty_storage)
            try:
                status, _ = run_main("sail", "--input_path", new, "--output_path", output)
            except InjectedError:
                stress.assert_whole([old, new], Disk(output))
                patch.undo()
                publish("sail", new, output)
                assert visible_names(output) == DATASETS | {"_manifest.json"}
            else:
                assert status == 0
                if next(countdown) > 0:  # not all were needed for that: the run is over
                    break
        assert_equal_by_check(new, output)
    with capfd.disabled():
        print(f" [{number} operations of a run]", end="")
    assert number > 15
