"""The staging directory of a run, `_staging/<run_id>`, and what other runs left beside it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from movielens.contract import PipelineError
from movielens.publishing.layout import JOURNAL, MANIFESTS, STAGING, TEMPORARY, is_visible
from movielens.runs import RUN_ID, is_over
from movielens.storage.paths import join
from movielens.terminal import log

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from movielens.storage import Entry, Storage

PATIENCE = 24 * 3600.0  # seconds after its last write for which what another machine staged is kept


class Staging:
    """Where one run writes its datasets before it publishes them."""

    def __init__(self, storage: Storage, output: str, run_id: str) -> None:
        self.storage, self.output, self.run_id = storage, output, run_id
        self.folder = join(output, STAGING, run_id)

    def files(self, dataset: str) -> list[Entry]:
        """The files of a staged dataset."""
        return [entry for entry in self.storage.entries(join(self.folder, dataset)) if is_visible(entry.name)]

    def flush(self, datasets: Iterable[str]) -> None:
        """Has the staged files outlive a loss of power."""
        self.storage.flush([entry.path for name in datasets for entry in self.files(name)])

    def delete(self) -> None:
        """Deletes what the run staged."""
        with reported("staged files were not deleted"):
            self.storage.delete_folder(self.folder)

    def sweep(self) -> None:
        """Deletes what dead runs left in staging, and temporary files; reports what it cannot delete, and goes on."""
        with reported("what killed runs left was not deleted"):
            now = self.storage.now(self.folder)
            for entry in [*self.left_behind(now), *self.temporary_files(now)]:
                with reported("a killed run left a file that does no harm"):
                    if entry.is_folder:
                        self.storage.delete_folder(entry.path)
                    else:
                        self.storage.delete(entry.path)

    def left_behind(self, now: float) -> list[Entry]:
        """The staging directories of runs that are over."""
        staging = join(self.output, STAGING)
        begun = {entry.name: entry for entry in self.storage.uploads(staging)}
        found = {entry.name: entry for entry in self.storage.entries(staging)}
        return [
            entry
            for name, entry in {**begun, **found}.items()
            if RUN_ID.fullmatch(name) and self.is_left_behind(entry, begun.get(name), now)
        ]

    def temporary_files(self, now: float) -> list[Entry]:
        """The temporary files that killed runs left beside journal and manifests, a day old or more."""
        folders = (self.output, join(self.output, JOURNAL), join(self.output, MANIFESTS))
        return [
            entry
            for folder in folders
            for entry in self.storage.entries(folder)
            if TEMPORARY.fullmatch(entry.name) and not entry.is_folder and now - entry.modified > PATIENCE
        ]

    def is_left_behind(self, staged: Entry, begun: Entry | None, now: float) -> bool:
        """Whether the run that staged something is over, or, elsewhere, did not write for a day."""
        over = is_over(staged.name, self.run_id)
        if over is not None:
            return over
        changes = [staged.modified, *([begun.modified] if begun else [])]
        for entry in self.storage.entries(staged.path):
            changes += [entry.modified, *(file.modified for file in self.storage.entries(entry.path))]
        return now - max(changes) > PATIENCE


@contextmanager
def reported(what: str) -> Iterator[None]:
    """Reports what the store refuses, and goes on."""
    try:
        yield
    except PipelineError as error:
        log.warning("%s (%s); the next run tries again", what, error)
