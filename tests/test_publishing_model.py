"""The publishing protocol keeps its promises in every order of steps, and needs each of its rules."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from tests.support.project import ROOT
from tests.support.publishing_model import Rules, Setup, explore

THREE_RUNS = Setup(runs=3, readers=1)
ALL_FAULTS = Setup(runs=2, readers=2, failures=True, late_requests=True)
PRUNING = Setup(runs=2, readers=1, failures=True, late_requests=True, kept=1, split_reads=True)

# What the runs do, and how many states the model visits
QUICK = {
    "three runs, every fault": (replace(ALL_FAULTS, runs=3, readers=1), 52_914),
    "three runs, every fault, no earlier result": (replace(ALL_FAULTS, runs=3, readers=1, earlier=False), 26_457),
    "two readers, every fault": (ALL_FAULTS, 2_721),
    "three runs that prune": (replace(THREE_RUNS, kept=1), 35_732),
    "three runs that prune, no earlier result": (replace(THREE_RUNS, kept=1, earlier=False), 8_950),
    "pruning, every fault": (PRUNING, 31_572),
    "pruning, every fault, two manifests kept": (replace(PRUNING, kept=2), 11_308),
}
THOROUGH = {
    "three runs that prune, every fault": (replace(ALL_FAULTS, runs=3, readers=0, kept=1), 376_051),
    "three runs that prune, readers in two steps": (replace(THREE_RUNS, kept=1, split_reads=True), 173_176),
}

BELOW = "a manifest is created below the highest"
TAKEN = "the holder of the lease finds its number taken"
TWICE = "two manifests are created under one number"
GONE = "a file of the highest manifest is gone"
CHANGED = "a restatement changes what readers read"
NEVER_STOOD = "a run says that it published, and its result never stood"
STOOD = "a run says that nothing was published, and its result stood"
STANDS = "a run says that others replaced its result, and it stands"
STRAY = "a reader goes by a manifest that never stood"

BROKEN = [
    (ALL_FAULTS, Rules(takeover_settles="next number"), BELOW),
    (ALL_FAULTS, Rules(takeover_settles="nothing"), BELOW),
    (ALL_FAULTS, Rules(lease_carries_number=False), TAKEN),
    (THREE_RUNS, Rules(exclusive_generations=False), TAKEN),
    (ALL_FAULTS, Rules(exclusive_manifests=False), TWICE),
    (ALL_FAULTS, Rules(deletes="unlisted"), GONE),
    (ALL_FAULTS, Rules(names_carry_number=False), GONE),
    (ALL_FAULTS, Rules(verifies=False), GONE),
    (ALL_FAULTS, Rules(taken_means="success"), NEVER_STOOD),
    (ALL_FAULTS, Rules(taken_means="failure"), STOOD),
    (ALL_FAULTS, Rules(restates="nothing"), CHANGED),
    (ALL_FAULTS, Rules(failed_run_settles=False), STOOD),
    (PRUNING, Rules(checks_lateness=False), NEVER_STOOD),
    (PRUNING, Rules(checks_lateness_after_failure=False), STOOD),
    (PRUNING, Rules(late_means="nothing"), STOOD),
    (PRUNING, Rules(late_run_reads_highest=False), STANDS),
    (PRUNING, Rules(lists_again=False), STRAY),
]


def broken_rule(rules: Rules) -> str:
    """The name of the one rule that differs, and its value."""
    [name] = (field.name for field in fields(Rules) if getattr(rules, field.name) != field.default)
    return f"{name}={getattr(rules, name)}"


def explored(setup: Setup) -> int:
    """Explore a setup in which every promise holds, and return the number of states."""
    exploration = explore(setup)
    assert not exploration.violation, "\n".join(exploration.trace)
    assert exploration.gaps == 0
    return exploration.states


@pytest.mark.parametrize(("setup", "states"), QUICK.values(), ids=QUICK)
def test_every_order_of_steps_keeps_the_promises(setup: Setup, states: int) -> None:
    assert explored(setup) == states


@pytest.mark.thorough
@pytest.mark.parametrize(("setup", "states"), THOROUGH.values(), ids=THOROUGH)
def test_more_orders_of_steps_keep_the_promises(setup: Setup, states: int) -> None:
    assert explored(setup) == states


def test_guarantees_give_the_number_of_states() -> None:
    states = sum(states for _, states in (*QUICK.values(), *THOROUGH.values()))
    assert f"{states:,} states" in (ROOT / "docs" / "guarantees.md").read_text()


@pytest.mark.parametrize(("setup", "rules", "violation"), BROKEN, ids=[broken_rule(rules) for _, rules, _ in BROKEN])
def test_broken_rule_violates_a_promise(setup: Setup, rules: Rules, violation: str) -> None:
    assert explore(setup, rules).violation == violation


def test_each_rule_is_broken_once() -> None:
    assert {broken_rule(rules).split("=")[0] for _, rules, _ in BROKEN} == {field.name for field in fields(Rules)}
