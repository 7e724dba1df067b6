"""The commit log: manifests with numbers, `_manifests/<n>.json`. The one with the highest number is the result.

A manifest is created exclusively and whole, and never changes. `_manifest.json` is a copy that may lag.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from movielens.contract import PipelineError
from movielens.history import HISTORY, read_history, with_runs
from movielens.manifest import Manifest, foreign, read_manifest
from movielens.publishing.layout import COPY, MANIFESTS, numbered
from movielens.publishing.lease import LOOKS
from movielens.storage import in_parallel
from movielens.storage.paths import join
from movielens.summary import summary_of
from movielens.terminal import log

if TYPE_CHECKING:
    from collections.abc import Set

    from movielens.storage import Entry, Storage

KEPT = 100  # manifests; a run that sleeps while so many others publish cannot tell whether its result ever stood


@dataclass(frozen=True)
class Standing:
    """What stands at an output path: the highest number that is taken, and the result.

    `manifest` is None if nothing was published. `is_numbered` is False for the result of a run of version 0.6, and for
    one whose numbered manifests somebody deleted: only `_manifest.json` tells of it. `is_cut_off` is True if the
    manifest with the highest number is: what stands is the one before it.
    """

    highest: int
    manifest: Manifest | None
    is_numbered: bool = True
    is_cut_off: bool = False


class CommitLog:
    """The manifests at an output path."""

    def __init__(self, storage: Storage, output: str) -> None:
        self.storage, self.output, self.folder = storage, output, join(output, MANIFESTS)

    def entries(self) -> dict[int, Entry]:
        """The files of the manifests by their numbers."""
        return numbered(self.storage, self.folder)

    def path_of(self, number: int) -> str:
        """The file of a manifest."""
        return join(self.folder, f"{number}.json")

    def highest(self) -> int:
        """The highest number that is taken; 0 if there is none."""
        return max(self.entries(), default=0)

    def read(self, number: int) -> Manifest | None:
        """The manifest with a number; None if there is none.

        Raises ValueError if it is cut off, and UsageError if it is not of this job.
        """
        path = self.path_of(number)
        manifest = read_manifest(self.storage, path)
        if manifest and manifest.number != number:
            raise foreign(path)
        return manifest

    def standing(self) -> Standing:
        """What stands now; a manifest that is cut off does not count.

        Raises UsageError if the manifest is not of this job, and PipelineError if it is listed and cannot be read.
        """
        path = self.folder
        for _ in range(LOOKS):
            numbers = sorted(self.entries(), reverse=True)
            if not numbers:
                return self.standing_copy()
            for number in numbers:
                path = self.path_of(number)
                try:
                    manifest = self.read(number)
                except ValueError:
                    log.warning("%s is cut off: the manifest before it counts", path)
                    continue
                if manifest is None:  # gone meanwhile
                    break
                return Standing(numbers[0], manifest if manifest.datasets else None, is_cut_off=number != numbers[0])
            else:
                return Standing(numbers[0], None, is_cut_off=True)
        raise PipelineError(f"{path} is listed but cannot be read: remove it")

    def standing_copy(self) -> Standing:
        """What `_manifest.json` says, which is all there is if no manifest has a number."""
        with suppress(ValueError):
            copy = read_manifest(self.storage, join(self.output, COPY))
            if copy:
                return Standing(copy.number, copy if copy.datasets else None, is_numbered=False)
        return Standing(0, None)

    def create(self, manifest: Manifest) -> bool:
        """Creates a manifest under its number, if that is free; tells whether it did."""
        return self.storage.create(self.path_of(manifest.number), manifest.to_json())

    def files_of_earlier(self) -> set[str]:
        """The files that the kept manifests list, as paths below the output."""
        found = in_parallel(self.read_whole, self.entries())
        return {file for manifest in found if manifest for file in manifest.files}

    def read_whole(self, number: int) -> Manifest | None:
        """The manifest with a number; None if there is none, or if it is cut off."""
        with suppress(ValueError):
            return self.read(number)
        return None

    # ----------------------------------------------------------------------------------------------------------------
    # What follows from the manifests, and can be written again

    def has_copy(self, standing: Standing) -> bool:
        """Whether `_manifest.json` tells of the result that stands."""
        with suppress(ValueError):
            copy = read_manifest(self.storage, join(self.output, COPY))
            return copy is not None and copy.number == standing.highest
        return False

    def refresh_copy(self) -> None:
        """Copies the highest manifest to `_manifest.json`."""
        for _ in range(LOOKS):
            number = self.highest()
            content = self.storage.read(self.path_of(number))
            if content:
                self.storage.replace(join(self.output, COPY), content)
            if self.highest() == number:
                break

    def refresh_history(self) -> None:
        """Adds a line to the history for each result that it lacks, as far as manifests are kept."""
        path = join(self.output, HISTORY)
        for _ in range(LOOKS):
            content = self.storage.read(path) or b""
            entries = self.entries()
            highest = max(entries, default=0)
            # a lower number may be that of a run which slept until it was pruned
            last = max((run.get("number") or 0 for run in read_history(content)), default=highest - KEPT)
            found = (self.read_whole(number) for number in sorted(entries) if number > last)
            told = [manifest for manifest in found if manifest and manifest.datasets and manifest.restates is None]
            if told:
                self.storage.replace(path, with_runs(content, [summary_of(one, self.output) for one in told]))
            if not told or self.highest() == highest:  # otherwise this may have undone what a later run wrote
                break

    def prune(self, left: Set[str]) -> None:
        """Deletes the oldest manifests, but for those that list one of the files that could not be deleted."""
        entries = self.entries()
        for number in sorted(entries):
            if number > max(entries) - KEPT:
                break
            manifest = self.read_whole(number) if left else None
            if not (manifest and manifest.files & left):
                self.storage.delete(entries[number].path)
