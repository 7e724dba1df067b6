"""The lease: one run publishes at a time, others wait, and take over from a run that is dead or asleep."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from movielens import runs
from movielens.contract import BusyError
from movielens.publishing import lease, output
from movielens.publishing.output import Output
from movielens.publishing.publication import Publication
from movielens.storage.disk import DiskStorage
from tests.support.golden import assert_golden
from tests.support.jobs import ELSEWHERE, GONE, Main, Publish
from tests.support.journals import generations, numbers, write_lease
from tests.support.places import Disk
from tests.support.results import assert_equal_by_check, manifest_of

SETTLED = "run {} ended while it was publishing; the result before it stands\n"


def output_of(path: Path, run_id: str) -> Output:
    """An output path as a run finds it."""
    return Output(DiskStorage(), str(path), run_id)


@pytest.mark.parametrize("seconds", [0.0, 1e9], ids=["now", "years ago"])
def test_run_publishing_elsewhere_is_waited_for(
    engine: str, publish: Publish, run_main: Main, two_inputs: tuple[Path, Path], output_path: Path,
    monkeypatch: pytest.MonkeyPatch, seconds: float,
) -> None:  # fmt: skip
    # given the lease of a run on another machine, whose clock may be wrong
    monkeypatch.setattr(output, "LONGEST_WAIT", 0.5)
    old, new = two_inputs
    publish("sail", old, output_path)
    journal = output_path / write_lease(Disk(output_path), ELSEWHERE)
    set_time(journal, seconds)
    before = sorted(path for path in output_path.rglob("*") if path.is_file())
    status, said = run_main(engine, "--input_path", new, "--output_path", output_path)
    assert_golden("busy", said.splitlines()[-1] + "\n", output=output_path)
    assert status == 4
    assert sorted(path for path in output_path.rglob("*") if path.is_file()) == before


def set_time(path: Path, seconds_ago: float) -> None:
    """Sets when a file was changed; a negative number is in the future."""
    os.utime(path, (time.time() - seconds_ago,) * 2)


def test_run_publishing_elsewhere_is_waited_for_an_hour(
    publish: Publish, input_path: Path, output_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a clock on which each look at the other takes ten minutes
    clock = [1000.0]

    def sleep(_: float) -> None:
        clock[0] += 600

    publish("sail", input_path, output_path)
    write_lease(Disk(output_path), ELSEWHERE)
    monkeypatch.setattr(output, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=sleep))
    monkeypatch.setattr(lease, "elapsed", lambda: 0.0)
    with pytest.raises(BusyError):
        output_of(output_path, runs.new_run_id()).wait_until_free()
    assert clock[0] == 1000 + 7 * 600


def test_run_that_waited_publishes_when_the_lease_is_free(
    publish: Publish, two_inputs: tuple[Path, Path], output_path: Path
) -> None:
    old, new = two_inputs
    publish("sail", old, output_path)
    write_lease(Disk(output_path), ELSEWHERE)

    def settle_elsewhere() -> None:
        time.sleep(2.5)
        output_of(output_path, ELSEWHERE).recover()

    other = threading.Thread(target=settle_elsewhere)
    other.start()
    publish("sail", new, output_path)
    other.join()
    assert_equal_by_check(new, output_path)


@pytest.mark.parametrize("days", [-1, 0, 1])
def test_silent_lease_is_taken_over_whatever_its_date(
    publish: Publish, two_inputs: tuple[Path, Path], output_path: Path, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    # given the lease of a run elsewhere that does not renew it, written by a clock that may be a day ahead or behind
    monkeypatch.setattr(lease, "PATIENCE", 1.0)
    old, new = two_inputs
    publish("sail", old, output_path)
    set_time(output_path / write_lease(Disk(output_path), ELSEWHERE), days * 86400)
    said = publish("sail", new, output_path)
    assert SETTLED.format(ELSEWHERE) in said
    assert_equal_by_check(new, output_path)


def test_holder_renews_after_a_minute_and_others_wait_five(output_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(lease, "elapsed", lambda: clock[0])
    theirs, own = output_of(output_path, ELSEWHERE), output_of(output_path, GONE)
    held = theirs.journal.acquire(None, 1)
    for seconds, generation in ((59.5, 1), (60.5, 2)):
        clock[0] = seconds
        held.check()
        assert max(theirs.journal.entries()) == generation
    # then others give it five minutes from when they see it
    for seconds, may in ((0.0, False), (299.5, False), (300.5, True)):
        clock[0] = 60.5 + seconds
        newest = own.look().newest
        assert newest
        assert newest.number == 1
        assert own.journal.is_abandoned(newest) == may


@pytest.mark.parametrize("content", [b"", b'{"schema_version": 2, "generation', b"\x00" * 50])
def test_generation_cut_off_by_a_kill_is_superseded(
    engine: str, publish: Publish, two_inputs: tuple[Path, Path], output_path: Path, monkeypatch: pytest.MonkeyPatch,
    content: bytes,
) -> None:  # fmt: skip
    monkeypatch.setattr(lease, "UNREADABLE_SECONDS", 0.5)
    old, new = two_inputs
    publish("sail", old, output_path)
    (output_path / "_journal" / "2.json").write_bytes(content)
    publish(engine, new, output_path)
    assert_equal_by_check(new, output_path)
    assert generations(Disk(output_path)) == ["_journal/4.json"]


def test_generation_that_is_cut_off_is_given_five_seconds(output_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(lease, "elapsed", lambda: clock[0])
    (output_path / "_journal").mkdir(parents=True)
    (output_path / "_journal" / "1.json").write_bytes(b"{")
    run = output_of(output_path, ELSEWHERE)
    for seconds, settled in ((0.0, False), (4.9, False), (5.1, True)):
        clock[0] = 1000.0 + seconds
        run.recover()
        assert bool(numbers(Disk(output_path), "_manifests")) == settled


def test_generation_with_many_digits_keeps_no_run_waiting(
    engine: str, publish: Publish, two_inputs: tuple[Path, Path], output_path: Path
) -> None:
    # given a generation that nobody gets to
    publish("sail", two_inputs[0], output_path)
    many = 10**17
    (last,) = generations(Disk(output_path))
    content = json.loads((output_path / last).read_text())
    (output_path / last).with_name(f"{many}.json").write_text(json.dumps({**content, "generation": many}))
    # then the next run takes the one after
    publish(engine, two_inputs[1], output_path)
    assert_equal_by_check(two_inputs[1], output_path)
    assert generations(Disk(output_path)) == [f"_journal/{many + 1}.json"]


def changed(**changes: Any) -> Any:
    return lambda found: {**found, **changes}


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


FOREIGN = {
    "null": lambda _: None,
    "a_list": lambda _: [1],
    "another_s": lambda _: {"run_id": "nightly"},
    "holder_is_nobody": changed(holder="nightly"),
    "another_generation": changed(generation=7),
    "number_is_text": changed(number="2"),
    "number_is_zero": changed(number=0),
    "no_number": lambda found: {name: value for name, value in found.items() if name != "number"},
    "nested_deeply": changed(holder=nested(900)),
    "lone_surrogate": changed(holder="\ud800"),
    "a_later_schema": changed(schema_version="3", number=None),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_foreign_journal_is_reported_and_left_alone(
    engine: str, publish: Publish, run_main: Main, two_inputs: tuple[Path, Path], output_path: Path, case: str
) -> None:
    old, new = two_inputs
    publish("sail", old, output_path)
    journal = json.loads((output_path / "_journal" / "1.json").read_bytes())
    (output_path / "_journal" / "2.json").write_text(
        json.dumps(FOREIGN[case]({**journal, "generation": 2, "holder": ELSEWHERE, "number": 2}))
    )
    before = {path: path.read_bytes() for path in output_path.rglob("*") if path.is_file()}
    status, said = run_main(engine, "--input_path", new, "--output_path", output_path)
    assert_golden("planted", said.splitlines()[-1] + "\n", output=output_path)
    assert status == 2
    assert {path: path.read_bytes() for path in output_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("run_id", [GONE, f"20200101T000000Z-here-{runs.boot()}-1.1-0000"], ids=["gone", "reused id"])
def test_lease_of_a_dead_process_here_is_taken_over_at_once(
    publish: Publish, two_inputs: tuple[Path, Path], output_path: Path, run_id: str
) -> None:
    # given a process that has ended, or whose number another process has now, which started at another time
    old, new = two_inputs
    publish("sail", old, output_path)
    write_lease(Disk(output_path), run_id)
    assert SETTLED.format(run_id) in publish("sail", new, output_path)
    assert manifest_of(output_path)["number"] == 3


def test_machine_of_the_same_name_is_not_this_one(
    run_main: Main, publish: Publish, two_inputs: tuple[Path, Path], output_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a lease of another machine that is called as this one, by a process that is not to be found here
    monkeypatch.setattr(output, "LONGEST_WAIT", 0.5)
    old, new = two_inputs
    publish("sail", old, output_path)
    other = f"20200101T000000Z-{runs.new_run_id().split('-')[1]}-0123456789ab-999999999.1-0000"
    write_lease(Disk(output_path), other)
    status, said = run_main("sail", "--input_path", new, "--output_path", output_path)
    assert (status, other in said) == (4, True)


def test_store_that_ignores_conditions_is_reported(
    run_main: Main, two_inputs: tuple[Path, Path], output_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = DiskStorage.create

    def create_always(storage: DiskStorage, path: str, content: bytes) -> bool:
        if "/_journal/" not in path:
            return create(storage, path, content)
        storage.replace(path, content) if Path(path).parent.exists() else create(storage, path, content)
        return True

    monkeypatch.setattr(DiskStorage, "create", create_always)
    said = run_main("sail", "--input_path", two_inputs[0], "--output_path", output_path)[1]
    assert said.count("ignores If-None-Match: see to it that no other run publishes there now") == 1
    assert Publication(DiskStorage(), str(output_path), GONE).output.look().is_held is False
