"""An earlier result and a new one that is staged, ready to be published, on any storage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from movielens.publishing import Publication
from movielens.storage import Storage
from tests.support.inputs import RATINGS, rating_lines, write_input
from tests.support.jobs import GONE, Publish
from tests.support.places import Place
from tests.support.results import DATASETS, assert_equal_by_check, manifest_of, visible_names

# The operations of a storage that change nothing
READING = {"entries", "uploads", "read", "part", "open"}


def next_run(storage: Any, place: Place) -> Publication:
    """The run after the one that a fault hit; to others it has ended by now."""
    return Publication(storage, place.address, GONE)


class Prepared:
    """An earlier result and a new one that is staged, ready to be published, on an implementation of Storage."""

    def __init__(self, storage: Storage, place: Place, folder: Path, publish: Publish) -> None:
        self.storage, self.place = storage, place
        self.old = write_input(folder / "old", rating_lines(RATINGS) + b"bad\n")
        self.new = write_input(folder / "new", rating_lines(RATINGS[:4]))
        self.inputs = [self.old, self.new]
        self.template = folder / "template"
        # the earlier result has rejects and the new one has none, so that a folder goes, too
        publish("sail", self.old, self.template, "--max_rejects", 1)
        publish("sail", self.new, folder / "staged")
        self.manifest = self.stage(folder / "staged")

    def stage(self, published: Path) -> dict[str, Any]:
        """Has a published result be one that is staged; returns its manifest."""
        manifest = manifest_of(published)
        staging = self.template / "_staging" / manifest["run_id"]
        staging.mkdir(parents=True)
        for dataset in manifest["datasets"]:
            (published / dataset).rename(staging / dataset)
        return manifest

    def assert_healed(self, *, published: bool) -> None:
        """What the next run does first: finish what it finds; then the state is whole."""
        next_run(self.storage, self.place).recover()
        found = self.place.snapshot()
        assert_equal_by_check(self.new if published else self.old, found)
        assert visible_names(found) - {"_staging"} == DATASETS | {"_manifest.json"} | (
            set() if published else {"rejects"}
        )
