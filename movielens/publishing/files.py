"""The published files: what lies in the folders of the datasets, who put it there, and what may be deleted."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from movielens.contract import SCHEMAS, PipelineError
from movielens.manifest import Dataset, columns_of
from movielens.publishing.footer import STORED_AS, Footer, read_footer
from movielens.publishing.layout import is_visible, number_of
from movielens.storage import in_parallel
from movielens.storage.paths import join
from movielens.storage.refusals import StorageError
from movielens.terminal import log

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Set

    from movielens.manifest import Manifest
    from movielens.publishing.lease import Lease
    from movielens.publishing.staging import Staging
    from movielens.storage import Entry, Storage


class PublishedFiles:
    """The files in the folders of the datasets at an output path. A file is known by its path below the output."""

    def __init__(self, storage: Storage, output: str) -> None:
        self.storage, self.output = storage, output

    def entries(self) -> dict[str, Entry]:
        """What lies directly in the folders of the datasets, by its path below the output."""
        found = in_parallel(self.storage.entries, [join(self.output, name) for name in SCHEMAS])
        return {self.below(entry.path): entry for entries in found for entry in entries}

    def below(self, path: str) -> str:
        """A path relative to the output."""
        return path.removeprefix(join(self.output, ""))

    def visible_sizes(self) -> dict[str, int]:
        """The sizes of the files that Spark sees."""
        return {file: entry.size for file, entry in self.entries().items() if is_visible(entry.name)}

    def lost(self, manifest: Manifest) -> set[str]:
        """The files of a manifest that are not there, or have another size."""
        there = self.visible_sizes()
        return {file for file, size in manifest.sizes.items() if file not in there or size not in (None, there[file])}

    def strangers(self, listed: Set[str], numbers_used: int) -> set[str]:
        """What Spark sees there, no manifest lists, and no run can have published under a number that was used."""
        return {
            file
            for file, entry in self.entries().items()
            if is_visible(entry.name) and (entry.is_folder or not 0 < (number_of(file) or 0) <= numbers_used)
        } - listed

    # ----------------------------------------------------------------------------------------------------------------
    # What a run puts there

    def move_in(self, staging: Staging, lease: Lease, datasets: Iterable[str], prefix: str) -> None:
        """Moves what a run staged into the folders of the datasets, under names that begin with its prefix."""
        for begun in self.storage.uploads(self.output):
            if begun.name in SCHEMAS:
                self.abort_uploads_before(lease.number, begun.path)
        moves = {
            entry.path: join(self.output, name, f"{prefix}{entry.name}")
            for name in datasets
            for entry in staging.files(name)
        }

        def move(source: str) -> None:
            lease.check()
            self.storage.move(source, moves[source])

        in_parallel(move, moves)
        self.storage.flush(join(self.output, name) for name in datasets)  # their contents are on the disk already

    def abort_uploads_before(self, number: int, folder: str) -> None:
        """Aborts what runs with lower numbers began to copy into the folder of a dataset, and cannot use any more."""
        for upload in self.storage.uploads(folder):
            if (number_of(upload.name) or 0) < number:
                self.storage.abort_uploads(upload.path)

    def read_back(self, prefix: str, rows: Mapping[str, int]) -> dict[str, Dataset]:
        """The datasets whose files have a prefix, as they lie in their folders now.

        `rows` are those that the run wrote of each dataset. Raises PipelineError if the files hold anything else.
        """
        found = in_parallel(lambda name: self.read_dataset_back(name, prefix, rows[name]), rows)
        return dict(zip(rows, found, strict=True))

    def read_dataset_back(self, name: str, prefix: str, rows: int) -> Dataset:
        """One dataset, by the sizes and footers of its files."""
        entries = self.storage.entries(join(self.output, name))
        sizes = {entry.path: entry.size for entry in entries if entry.name.startswith(prefix)}
        sizes = dict(sorted(sizes.items()))

        def footer_of(path: str) -> Footer:
            try:
                return read_footer(self.storage, path, sizes[path])
            except ValueError as error:
                raise PipelineError(f"{path} is not the file that the run wrote: run again") from error

        footers = dict(zip(sizes, in_parallel(footer_of, sizes), strict=True))
        columns = columns_of(name)
        stored = [(column["name"], STORED_AS[column["type"]]) for column in columns]
        for path, footer in footers.items():
            if footer.columns != stored:
                raise PipelineError(f"{path} has other columns than the run wrote: run again")
        there = sum(footer.rows for footer in footers.values())
        if there != rows or not footers:
            raise PipelineError(
                f"{join(self.output, name)} has {there:,} rows in {len(footers):,} files, but the run wrote {rows:,}: "
                "look who deletes or changes files there, and run again"
            )
        return Dataset(
            rows=rows,
            bytes=sum(sizes.values()),
            columns=columns,
            files=[self.below(path) for path in sizes],
            file_bytes=list(sizes.values()),
        )

    # ----------------------------------------------------------------------------------------------------------------
    # What goes

    def with_prefix(self, prefix: str) -> set[str]:
        """The files whose names begin with a prefix."""
        return {file for file, entry in self.entries().items() if entry.name.startswith(prefix)}

    def superseded(self, listed: Set[str], highest: int) -> tuple[set[str], set[str]]:
        """The files whose number is at most the highest one, and which the result that stands does not list.

        That never becomes untrue of a file, so that a late deletion does no harm. Also the other unlisted files that
        Spark sees: version 0.6 or somebody else gave them their names.
        """
        unlisted = {file: entry for file, entry in self.entries().items() if file not in listed}
        superseded = {
            file for file, entry in unlisted.items() if not entry.is_folder and 0 < (number_of(file) or 0) <= highest
        }
        unnumbered = {file for file, entry in unlisted.items() if is_visible(entry.name) and number_of(file) is None}
        return superseded, unnumbered

    def delete(self, files: Set[str]) -> set[str]:
        """Deletes files, and returns those that the store refuses to delete; reports the first of them."""
        with suppress(StorageError):
            self.storage.delete(*(join(self.output, file) for file in sorted(files)))
            return set()
        refused = {file: reason for file in sorted(files) if (reason := self.refusal(file))}
        for reason in list(refused.values())[:1]:
            log.warning(
                "%s%s: until a run can, who reads the plain folder sees rows of an earlier result, too",
                reason, f", and {len(refused) - 1:,} more" if len(refused) > 1 else "",
            )  # fmt: skip
        return set(refused)

    def refusal(self, file: str) -> str | None:
        """Deletes a file; why the store refuses to, or None."""
        try:
            self.storage.delete(join(self.output, file))
        except StorageError as error:
            return str(error)
        return None

    def delete_empty_folders(self, datasets: Collection[str]) -> None:
        """Deletes the folders of the datasets that the result does not have, as far as the store lets it."""
        for name in SCHEMAS.keys() - {*datasets}:
            with suppress(StorageError):
                self.storage.delete_empty_folder(join(self.output, name))
