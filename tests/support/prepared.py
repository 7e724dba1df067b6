"""An earlier result and a new one that is staged, ready to be published, on any storage."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from movielens.contract import SCHEMAS
from movielens.manifest import Manifest
from movielens.publishing.publication import Publication
from movielens.storage import Storage
from tests.support.inputs import RATINGS, rating_lines, write_input
from tests.support.jobs import GONE, Publish
from tests.support.journals import parsed, standing_at
from tests.support.places import Place
from tests.support.results import assert_equal_by_check, manifest_of

# The operations of a storage that change nothing
READING = {"entries", "uploads", "read", "part", "open"}


def next_run(storage: Any, place: Place) -> Publication:
    """The run after the one that a fault hit; to others it has ended by now."""
    return Publication(storage, place.address, GONE)


def rows_of_manifest(manifest: Manifest) -> dict[str, int]:
    """The rows of each dataset."""
    return {name: dataset.rows for name, dataset in manifest.datasets.items()}


def publish_staged(storage: Any, place: Place, manifest: dict[str, Any]) -> Manifest:
    """Publishes what the run of a manifest staged."""
    draft = parsed(manifest)
    return Publication(storage, place.address, draft.run_id).publish(draft, rows_of_manifest(draft))


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

    @property
    def run_id(self) -> str:
        """The run that staged the new result."""
        return str(self.manifest["run_id"])

    def stage(self, published: Path) -> dict[str, Any]:
        """Has a published result be one that is staged; returns its manifest."""
        manifest = manifest_of(published)
        staging = self.template / "_staging" / manifest["run_id"]
        for dataset in manifest["datasets"]:
            (staging / dataset).mkdir(parents=True)
            for file in (published / dataset).iterdir():
                file.rename(staging / dataset / re.sub(r"^\d+-[0-9a-f]{8}-", "", file.name))
        return manifest

    def publish(self, storage: Any = None) -> Manifest:
        """Publishes the new result."""
        return publish_staged(storage or self.storage, self.place, self.manifest)

    def stands(self) -> str | None:
        """The run whose result stands."""
        standing = standing_at(self.place)
        return standing["run_id"] if standing else None

    def assert_nothing_beside(self) -> None:
        """In the folders of the datasets are the files of the result that stands, and no others."""
        standing = standing_at(self.place)
        assert standing
        listed = {file for dataset in standing["datasets"].values() for file in dataset["files"]}
        assert {name for name in self.place.files() if name.partition("/")[0] in SCHEMAS} == listed

    def assert_healed(self, *, published: bool) -> None:
        """The next run settles what it finds; then the whole result stands, with nothing beside it."""
        next_run(self.storage, self.place).output.recover()
        found = self.place.snapshot()
        assert_equal_by_check(self.new if published else self.old, found)
        self.assert_nothing_beside()
