"""An exhaustive model of the publishing protocol: every order in which runs, readers and late requests can act.

The model is a graph. A state holds what lies in the store, and where each run and each reader stands. A step is one
access to the store. `explore` visits every state that steps can reach, and checks the invariants there. It leaves
nothing to chance.

- A killed run takes no further step, so the graph holds every kill.
- A suspended run takes its next step late, so the graph holds every suspension. Any run may take over at any time.
- A step can fail without an effect, or take effect and report a failure (a lost answer).
- A store can carry out a copy or a creation after the run that asked for it gave up.
- Any run of the past may delete or prune at any time, by any manifest that it can have read before it was suspended.

The model merges or omits what changes no verdict:

- A result is one file. The rules treat each file alone, so each file of a larger result behaves as this one does.
- A run reads the last generation and the highest number in one step. If another run creates a generation later, the
  run has to look again. Until then only the number of that generation can become settled.
- A run that fails before it moves its file in ends like a killed one.
- A run renews its lease with a generation of the same number, which only makes others look again.
- A reader begins again when its manifest is no longer the highest. Only the highest promises that its file is there.
- No rule reads `_manifest.json`, and the history changes no result.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

EARLIER, NOBODY = -1, -2  # in place of a run's index: who published the result that stands at the start; no run at all


class File(NamedTuple):
    """A file of a result. Its name holds the number and the run."""

    number: int
    run: int


NO_FILE = File(0, NOBODY)


class Manifest(NamedTuple):
    """`_manifests/<number>.json`, which publishes a file or restates the manifest before it."""

    number: int
    file: File


NO_MANIFEST = Manifest(0, NO_FILE)


class Lease(NamedTuple):
    """The last generation of `_journal/`. The number is 0 if the generation carries none."""

    holder: int
    number: int


class Run(NamedTuple):
    """Where a run stands."""

    step: str = "look"
    number: int = 0  # the number that it publishes or settles
    seen: Manifest = NO_MANIFEST  # the manifest that it read last
    settles: str = ""  # "other" after a takeover, "own" after a failure
    said: str = ""  # what it reported: "published", "nothing" (was published) or "superseded" (by others; no claim)


class Reader(NamedTuple):
    """Where a reader stands, and the manifest that it goes by."""

    step: str = "list"
    seen: Manifest = NO_MANIFEST


class State(NamedTuple):
    """The store, the requests that it has not carried out yet, the runs and the readers, and what stood until now."""

    manifests: tuple[Manifest, ...]
    files: tuple[File, ...]
    copies: tuple[File, ...]
    creations: tuple[Manifest, ...]
    lease: Lease
    runs: tuple[Run, ...]
    readers: tuple[Reader, ...]
    stood: tuple[Manifest, ...]  # all manifests that have been the highest, also those that were pruned


Steps = Iterator[tuple[str, State]]


@dataclass(frozen=True)
class Rules:
    """The rules of the protocol. A test breaks one at a time to show what it is for."""

    takeover_settles: str = "same number"  # or "next number", or "nothing"
    lease_carries_number: bool = True  # otherwise a run chooses its number after it created the generation
    exclusive_generations: bool = True
    exclusive_manifests: bool = True
    deletes: str = "unlisted up to the highest number"  # or "unlisted"
    names_carry_number: bool = True
    verifies: bool = True
    taken_means: str = "what the manifest says"  # or "success", or "failure"
    restates: str = "the highest"  # or "nothing"
    failed_run_settles: bool = True  # otherwise it removes its own file at once
    checks_lateness: bool = True  # after it created a manifest: pruning may have freed its number
    checks_lateness_after_failure: bool = True  # and after it found its number settled
    late_means: str = "superseded"  # or "nothing"
    late_run_reads_highest: bool = True  # a restatement may have kept its result
    lists_again: bool = True  # after it read a manifest: pruning may have freed the number before


@dataclass(frozen=True)
class Setup:
    """How many runs and readers act, and what can go wrong."""

    runs: int
    readers: int = 0
    earlier: bool = True  # a result stands at the start
    failures: bool = False  # steps fail, answers get lost
    late_requests: bool = False  # the store carries out copies and creations late
    kept: int = 0  # how many manifests pruning keeps; 0 turns pruning off
    split_reads: bool = False  # a reader lists the numbers in one step and reads the highest manifest in another


class Violation(Exception):  # noqa: N818  # a verdict on the protocol, not an error
    """An invariant does not hold."""


class Model:
    """The protocol as a graph. Each `run_*` method yields what the step of that name can do, success first."""

    def __init__(self, setup: Setup, rules: Rules) -> None:
        self.setup = setup
        self.rules = rules
        self.run_steps = {name.removeprefix("run_"): getattr(self, name) for name in dir(self) if name[:4] == "run_"}

    def start(self) -> State:
        file = File(1, EARLIER)
        manifests, files = ((Manifest(1, file),), (file,)) if self.setup.earlier else ((), ())
        runs, readers = (Run(),) * self.setup.runs, (Reader(),) * self.setup.readers
        return State(manifests, files, (), (), Lease(NOBODY, 0), runs, readers, manifests)

    def successors(self, state: State) -> Steps:
        for index, run in enumerate(state.runs):
            for label, after in self.run_steps[run.step](state, index, run):
                yield f"run {index} {label}", after
        for index, reader in enumerate(state.readers):
            for label, after in self.read(state, index, reader):
                yield f"reader {index} {label}", after
        for file in state.copies:
            yield f"the copy of run {file.run} lands", land_copy(state, file)
        for manifest in state.creations:
            yield f"the creation of {manifest.number} by run {manifest.file.run} lands", self.land(state, manifest)
        yield from self.delete(state)
        yield from self.prune(state)

    # A run takes the lease

    def run_look(self, state: State, index: int, _: Run) -> Steps:
        """Read the last generation and the highest number. Create the next generation, or prepare to take over."""
        lease, number = state.lease, highest(state).number
        if lease.number > number:
            yield f"finds {lease.number} unsettled", with_run(state, index, Run("take_over", lease.number))
        elif self.rules.lease_carries_number:
            yield f"takes the lease for {number + 1}", self.with_lease(state, index, Run("move", number + 1))
        elif lease.number or lease.holder == NOBODY:
            yield "takes the lease", self.with_lease(state, index, Run("count"))
        else:
            yield "finds a lease without number", with_run(state, index, Run("take_over"))

    def run_take_over(self, state: State, index: int, run: Run) -> Steps:
        """Create the next generation with the number of the last one."""
        if not run.number:
            after = Run("count")
        elif self.rules.takeover_settles == "same number":
            after = Run("settle", run.number, settles="other")
        elif self.rules.takeover_settles == "next number":
            after = Run("settle", run.number + 1, settles="other")
        else:
            after = Run("move", run.number + 1)
        yield f"takes over {after.number}", self.with_lease(state, index, after)

    def run_count(self, state: State, index: int, _: Run) -> Steps:
        """Choose the number after the generation was created, against the rule that the lease carries it."""
        number = highest(state).number + 1
        if state.lease.holder == index:
            state = state._replace(lease=Lease(index, number))
        yield f"chooses number {number}", with_run(state, index, Run("move", number))

    def with_lease(self, state: State, index: int, run: Run) -> State:
        """Create the next generation. Whoever wanted to create it has to look again."""
        runs = state.runs
        if self.rules.exclusive_generations:
            runs = tuple(Run() if other.step == "take_over" else other for other in runs)
        return with_run(state._replace(lease=Lease(index, run.number), runs=runs), index, run)

    # A run publishes

    def run_move(self, state: State, index: int, run: Run) -> Steps:
        """Move the file in. A store makes a copy, and the run may stop waiting for it."""
        file = self.file_of(index, run)
        after = run._replace(step="verify" if self.rules.verifies else "commit")
        if self.setup.late_requests:
            copies = tuple(sorted((*state.copies, file)))
            yield "asks for a copy", with_run(state._replace(copies=copies), index, after)
        else:
            yield "moves its file in", with_run(with_file(state, file), index, after)
        if self.setup.failures:
            yield "cannot move its file in", self.fail(state, index, run)

    def run_verify(self, state: State, index: int, run: Run) -> Steps:
        """Look for the file in its place."""
        if self.file_of(index, run) in state.files:
            yield "finds its file", with_run(state, index, run._replace(step="commit"))
            if self.setup.failures:
                yield "cannot read its file", self.fail(state, index, run)
        else:
            yield "does not find its file", self.fail(state, index, run)

    def run_commit(self, state: State, index: int, run: Run) -> Steps:
        """Create the manifest exclusively."""
        manifest = Manifest(run.number, self.file_of(index, run))
        standing = manifest_at(state, run.number)
        if standing and self.rules.exclusive_manifests:
            if standing.file.run != index and state.lease == Lease(index, run.number):
                raise Violation("the holder of the lease finds its number taken")
            yield f"finds {run.number} taken", self.judge_taken(state, index, run, standing)
            return
        after = self.commit(state, manifest)
        yield f"commits {run.number}", self.judge_created(after, index, run)
        if self.setup.failures:
            yield f"commits {run.number} and sees a failure", self.fail(after, index, run)
            yield f"commits {run.number} at the second try", self.judge_taken(after, index, run, manifest)
            yield f"cannot commit {run.number}", self.fail(state, index, run)
        if self.setup.late_requests:
            creations = tuple(sorted((*state.creations, manifest)))
            yield "stops waiting for its commit", self.fail(state._replace(creations=creations), index, run)

    def judge_taken(self, state: State, index: int, run: Run, standing: Manifest) -> State:
        """The number is taken: by the run itself if an answer got lost, or by another run that settled it."""
        if self.rules.taken_means == "what the manifest says":
            is_own = standing.file.run == index
        else:
            is_own = self.rules.taken_means == "success"
        return self.judge_created(state, index, run) if is_own else say(state, index, run, "nothing")

    def judge_created(self, state: State, index: int, run: Run) -> State:
        if self.setup.kept and self.rules.checks_lateness:
            return with_run(state, index, run._replace(step="check"))
        return say(state, index, run, "published")

    def run_check(self, state: State, index: int, run: Run) -> Steps:
        """List the numbers once more. If pruning can have removed the run's number before, it claims nothing."""
        if self.is_late(state, run) and not self.is_highest(state, index):
            yield "is late", say(state, index, run, self.rules.late_means)
        else:
            yield "is in time", say(state, index, run, "published")

    def is_late(self, state: State, of: Run | Manifest) -> bool:
        """Pruning can have removed the number before."""
        return 0 < self.setup.kept <= highest(state).number - of.number

    def is_highest(self, state: State, index: int) -> bool:
        return self.rules.late_run_reads_highest and highest(state).file.run == index

    # A run settles a number: another run's after a takeover, its own after a failure

    def fail(self, state: State, index: int, run: Run) -> State:
        if self.rules.failed_run_settles:
            return with_run(state, index, run._replace(step="settle", settles="own"))
        return say(state, index, run, "nothing", "remove")

    def run_settle(self, state: State, index: int, run: Run) -> Steps:
        """Read the highest manifest. Its number, and each below it, is settled."""
        standing = highest(state)
        if standing.number < run.number:
            yield f"reads {standing.number}", with_run(state, index, run._replace(step="restate", seen=standing))
        else:
            yield f"finds {run.number} settled", self.judge_settled(state, index, run)

    def run_restate(self, state: State, index: int, run: Run) -> Steps:
        """Create the number as a restatement of what stands, so that nobody else can commit it."""
        file = run.seen.file if self.rules.restates == "the highest" else NO_FILE
        run = run._replace(seen=NO_MANIFEST)
        if manifest_at(state, run.number):
            yield f"finds {run.number} taken", with_run(state, index, run._replace(step="settle"))
        else:
            after = self.restate(state, Manifest(run.number, file))
            yield f"restates as {run.number}", self.judge_settled(after, index, run)
            if self.setup.failures:
                label = f"restates as {run.number} and sees a failure"
                yield label, with_run(after, index, run._replace(step="settle"))

    def judge_settled(self, state: State, index: int, run: Run) -> State:
        """After a takeover go on. After a failure report how the number was settled."""
        if run.settles == "other":
            return with_run(state, index, Run("look" if self.rules.lease_carries_number else "count"))
        if self.is_highest(state, index):
            return say(state, index, run, "published")
        if self.is_late(state, run) and self.rules.checks_lateness_after_failure:
            return say(state, index, run, self.rules.late_means)
        standing = manifest_at(state, run.number)
        return say(state, index, run, "published" if standing and standing.file.run == index else "nothing")

    # Runs end, and delete what nobody reads any more

    def run_ended(self, *_: object) -> Steps:
        yield from ()

    def run_remove(self, state: State, index: int, run: Run) -> Steps:
        """Delete the run's own file, against the rule that it settles its number first."""
        yield (
            "removes its file",
            with_run(without_file(state, self.file_of(index, run)), index, Run("ended", said=run.said)),
        )

    def delete(self, state: State) -> Steps:
        """Delete a file up to the number of a manifest that does not list it. The manifest stood, now or long ago."""
        for file in state.files:
            for standing in state.stood:
                if file != standing.file and (self.rules.deletes == "unlisted" or file.number <= standing.number):
                    label = f"a run that read {standing.number} deletes the file of run {file.run}"
                    yield label, without_file(state, file)
                    break

    def prune(self, state: State) -> Steps:
        """Delete a manifest that is no longer kept."""
        for manifest in state.manifests:
            if self.is_late(state, manifest):
                manifests = tuple(other for other in state.manifests if other != manifest)
                yield f"a run prunes {manifest.number}", state._replace(manifests=manifests)

    # A reader reads

    def read(self, state: State, index: int, reader: Reader) -> Steps:
        """Read the highest manifest and its file. If one of them is gone, begin again."""
        standing = highest(state)
        if reader.step == "list" and standing.file == NO_FILE:
            return  # nothing is published yet
        if reader.step == "list" and self.setup.split_reads:
            after, label = Reader("fetch", Manifest(standing.number, NO_FILE)), f"lists {standing.number}"
        elif reader.step == "list":
            after, label = self.open(state, standing), f"reads {standing.number}"
        elif reader.step == "fetch":
            after, label = self.fetch(state, reader.seen.number), f"reads {reader.seen.number}"
        elif reader.step == "confirm":
            after = Reader() if self.is_late(state, reader.seen) else self.open(state, reader.seen)
            label = "lists again"
        else:
            if reader.seen.file not in state.files and standing.number == reader.seen.number:
                raise Violation("a reader finds a file gone, and no higher number")
            after, label = Reader(), "opens the file"
        yield label, with_reader(state, index, after)

    def fetch(self, state: State, number: int) -> Reader:
        manifest = manifest_at(state, number)
        if not manifest:
            return Reader()
        return Reader("confirm", manifest) if self.rules.lists_again else self.open(state, manifest)

    def open(self, state: State, manifest: Manifest) -> Reader:
        """Go by a manifest, which must be one that stood."""
        if manifest not in state.stood:
            raise Violation("a reader goes by a manifest that never stood")
        return Reader("open", manifest)

    # What several steps share

    def file_of(self, index: int, run: Run) -> File:
        return File(run.number if self.rules.names_carry_number else 0, index)

    def land(self, state: State, manifest: Manifest) -> State:
        """Carry out a creation that a run no longer waits for."""
        state = state._replace(creations=tuple(other for other in state.creations if other != manifest))
        return state if manifest_at(state, manifest.number) else self.commit(state, manifest)

    def commit(self, state: State, manifest: Manifest) -> State:
        """Create the manifest of a run, and check that the run has not denied it before."""
        after = self.with_manifest(state, manifest)
        if after.stood != state.stood and state.runs[manifest.file.run].said == "nothing":
            raise Violation("a run says that nothing was published, and its result stands later")
        return after

    def restate(self, state: State, manifest: Manifest) -> State:
        """Create a restatement, and check that it changes nothing for readers."""
        after = self.with_manifest(state, manifest)
        if after.stood != state.stood and manifest.file != highest(state).file:
            raise Violation("a restatement changes what readers read")
        return after

    def with_manifest(self, state: State, manifest: Manifest) -> State:
        """Create a manifest. Its number must be free, and the next one unless pruning freed it."""
        if manifest_at(state, manifest.number):
            raise Violation("two manifests are created under one number")
        after = state._replace(manifests=tuple(sorted((*state.manifests, manifest))))
        if manifest.number > highest(state).number:
            return after._replace(stood=(*state.stood, manifest))
        if not self.is_late(state, manifest):
            raise Violation("a manifest is created below the highest")
        return after


def check(state: State) -> None:
    """Check what must hold in every state."""
    standing = highest(state)
    if standing.file != NO_FILE and standing.file not in state.files:
        raise Violation("a file of the highest manifest is gone")


def say(state: State, index: int, run: Run, said: str, step: str = "ended") -> State:
    """Let a run report how it ended, check that this is true, and go on with `step`."""
    has_stood = any(manifest.file.run == index for manifest in state.stood)
    if said == "published" and not has_stood:
        raise Violation("a run says that it published, and its result never stood")
    if said == "nothing" and has_stood:
        raise Violation("a run says that nothing was published, and its result stood")
    if said == "superseded" and highest(state).file.run == index:
        raise Violation("a run says that others replaced its result, and it stands")
    return with_run(state, index, Run(step, run.number, said=said) if step != "ended" else Run("ended", said=said))


def highest(state: State) -> Manifest:
    return state.manifests[-1] if state.manifests else NO_MANIFEST


def manifest_at(state: State, number: int) -> Manifest | None:
    return next((manifest for manifest in state.manifests if manifest.number == number), None)


def with_run(state: State, index: int, run: Run) -> State:
    return state._replace(runs=(*state.runs[:index], run, *state.runs[index + 1 :]))


def with_reader(state: State, index: int, reader: Reader) -> State:
    return state._replace(readers=(*state.readers[:index], reader, *state.readers[index + 1 :]))


def with_file(state: State, file: File) -> State:
    return state if file in state.files else state._replace(files=tuple(sorted((*state.files, file))))


def without_file(state: State, file: File) -> State:
    return state._replace(files=tuple(other for other in state.files if other != file))


def land_copy(state: State, file: File) -> State:
    return with_file(state, file)._replace(copies=tuple(other for other in state.copies if other != file))


# Runs differ only in their names, and so do readers: states that differ only in names count as one


def canonical(state: State) -> State:
    """Name the runs and the readers in a fixed order, and let a reader of a lower manifest begin again."""
    keys = [key_of(state, index, run) for index, run in enumerate(state.runs)]
    if any(first > second for first, second in pairwise(keys)):
        state = renamed(state, sorted(range(len(keys)), key=keys.__getitem__))
    if state.readers:
        number = highest(state).number
        is_over = (reader.step == "open" and reader.seen.number < number for reader in state.readers)
        readers = (Reader() if over else reader for over, reader in zip(is_over, state.readers, strict=True))
        state = state._replace(readers=tuple(sorted(readers)))
    return state


def key_of(state: State, index: int, run: Run) -> tuple[object, ...]:
    """All that a state says of a run, without the names of others."""
    return (
        run.step,
        run.number,
        run.settles,
        run.said,
        run.seen.number,
        state.lease.holder == index,
        [file.number for file in state.files if file.run == index],
        [file.number for file in state.copies if file.run == index],
        [manifest.number for manifest in state.stood if manifest.file.run == index],
        [manifest.number for manifest in state.creations if manifest.file.run == index],
    )


def renamed(state: State, order: list[int]) -> State:
    """Put the runs into an order, and rename them wherever they are named."""
    names = {old: new for new, old in enumerate(order)} | {EARLIER: EARLIER, NOBODY: NOBODY}

    def rename(file: File) -> File:
        return File(file.number, names[file.run])

    def rename_in(manifest: Manifest) -> Manifest:
        return Manifest(manifest.number, rename(manifest.file))

    return State(
        tuple(map(rename_in, state.manifests)),
        tuple(sorted(map(rename, state.files))),
        tuple(sorted(map(rename, state.copies))),
        tuple(sorted(map(rename_in, state.creations))),
        Lease(names[state.lease.holder], state.lease.number),
        tuple(state.runs[old]._replace(seen=rename_in(state.runs[old].seen)) for old in order),
        tuple(Reader(reader.step, rename_in(reader.seen)) for reader in state.readers),
        tuple(map(rename_in, state.stood)),
    )


# The exploration


@dataclass(frozen=True)
class Exploration:
    """How much was visited, and the shortest way to a violation if there is one."""

    states: int
    steps: int
    gaps: int  # states in which a number was skipped
    violation: str = ""
    trace: tuple[str, ...] = ()


def explore(setup: Setup, rules: Rules | None = None) -> Exploration:
    """Visit every state that steps can reach, nearest first. Stop at the first violation."""
    model = Model(setup, rules or Rules())
    start = canonical(model.start())
    came_from: dict[State, State | None] = {start: None}
    waiting = deque([start])
    met: set[State] = set()  # before they were renamed, which takes longest
    progress: dict[State, bool] = {}
    steps = gaps = 0
    while waiting:
        state = waiting.popleft()
        gaps += highest(state).number != len(state.stood)
        try:
            check(state)
            check_progress(model, state, progress)
            for _, after in model.successors(state):
                steps += 1
                if after in met:
                    continue
                met.add(after)
                named = canonical(after)
                if named not in came_from:
                    came_from[named] = state
                    waiting.append(named)
        except Violation as violation:
            trace = (*trace_to(model, came_from, state), str(violation))
            return Exploration(len(came_from), steps, gaps, str(violation), trace)
    return Exploration(len(came_from), steps, gaps)


def check_progress(model: Model, state: State, progress: dict[State, bool]) -> None:
    """Check that one more run publishes if everybody else stops here. Remember the answer for each store."""
    store = state._replace(runs=(), readers=(), copies=(), creations=())
    if store not in progress:
        progress[store] = publishes_alone(model, state)
    if not progress[store]:
        raise Violation("one more run, alone, does not publish")


def publishes_alone(model: Model, state: State) -> bool:
    """Let one more run take its steps alone, each with success."""
    index = len(state.runs)
    state = state._replace(runs=(*state.runs, Run()), copies=(), creations=())
    for _ in range(50):
        run = state.runs[index]
        if run.step == "ended":
            return run.said == "published"
        _, state = next(model.run_steps[run.step](state, index, run))
        for file in state.copies:
            state = land_copy(state, file)
    return False


def trace_to(model: Model, came_from: dict[State, State | None], state: State) -> list[str]:
    """Walk the shortest way to a state again, and say each step with the runs' names as at the start."""
    way = [state]
    while before := came_from[way[-1]]:
        way.append(before)
    labels, state = [], model.start()
    for target in reversed(way[:-1]):
        label, state = next(step for step in safe_successors(model, state) if canonical(step[1]) == target)
        labels.append(label)
    return labels


def safe_successors(model: Model, state: State) -> Steps:
    """The steps from a state, up to the one that violates an invariant."""
    try:
        yield from model.successors(state)
    except Violation:
        return
