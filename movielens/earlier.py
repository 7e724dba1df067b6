"""The result before: whether it makes a run needless, and whether the new one is suspiciously smaller."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

from movielens.contract import SCHEMAS, VERSION, BadInputError
from movielens.manifest import SCHEMA_VERSION
from movielens.storage.paths import is_local
from movielens.terminal import count_of, log

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from movielens.manifest import Manifest
    from movielens.publishing.publication import Publication

DERIVED = tuple(name for name in SCHEMAS if name != "rejects")


def standing_result(
    publication: Publication, input_files: Sequence[Mapping[str, Any]], **made_of: object
) -> Manifest | None:
    """The manifest of the result that stands, whole, at an output path, if it was made of the same.

    `input_files` and `made_of` are the fields of the manifest that say of what. None at any doubt.
    """
    state = publication.output.look()
    manifest = state.standing.manifest
    if manifest is None or state.is_held or state.standing.is_cut_off or not state.standing.is_numbered:
        return None
    same = {"job_version": VERSION, "schema_version": SCHEMA_VERSION, **made_of}
    if any(getattr(manifest, name) != value for name, value in same.items()):
        return None
    if [*map(identity, manifest.input_files)] != [*map(identity, input_files)]:
        return None
    return manifest if publication.output.files.visible_sizes() == manifest.sizes else None


def identity(file: Mapping[str, Any]) -> dict[str, Any]:
    """What tells an input file from any other: in a bucket its ETag, whenever it was put there."""
    by_etag = file["version"] and not is_local(file["path"])
    return {name: value for name, value in file.items() if name != "modified" or not by_etag}


def require_ratio(least: float | None, rows: Mapping[str, int], before: Mapping[str, int] | None) -> None:
    """Raises BadInputError if a dataset has fewer than so many times the rows that the result before has of it."""
    if least is None:
        return
    if before is None:
        log.warning("--min_ratio: there is no earlier result to compare with")
        return
    exactly = Fraction(str(least))  # 0.55 * 100 is more than 55
    for name in DERIVED:
        rows_before = before.get(name, 0)
        if rows[name] < exactly * rows_before:
            raise BadInputError(
                f"{name} has {count_of(rows[name], 'row')}, fewer than {least} times the {rows_before:,} of the result "
                f"before: look whether the input is whole, or run without --min_ratio"
            )
