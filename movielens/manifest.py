"""The manifest, which says what is published, and the journal, which says what is being published.

Both may have been written by an earlier version, be half written, or be somebody else's. What they name is moved and
deleted, so every field is looked at before it is acted on.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

from movielens.contract import SCHEMAS, UsageError
from movielens.runs import RUN_ID, utc

if TYPE_CHECKING:
    from collections.abc import Callable

    from movielens.storage import Storage

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Dataset:
    """What the manifest says of a dataset: its columns by name and type, and its files as paths below the output.

    `file_bytes` are the sizes of the files, in their order; earlier versions did not write them.
    """

    rows: int
    bytes: int
    columns: list[dict[str, str]]
    files: list[str]
    file_bytes: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Manifest:
    """What is published: by which run, from what, and in place of which result.

    `previous` has the run id of the result before and the rows of its datasets; None for a first one. `input_texts` has
    the files, bytes and lines of ratings and movies, `rejects_by_reason` a dataset, a reason and the lines of each, and
    `seconds` those of each phase before publishing, and all. Earlier versions did not write what has a default here.
    """

    run_id: str
    job_version: str
    engine: dict[str, str | None]
    started: str
    finished: str
    input_files: list[dict[str, Any]]
    rejects: int
    datasets: dict[str, Dataset]
    previous: dict[str, Any] | None = None
    input_format: str = ""
    input_path: str | None = None
    input_texts: dict[str, dict[str, int]] = field(default_factory=dict)
    max_rejects: int | None = None
    rejects_by_reason: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> bytes:
        """The manifest as it is written."""
        return as_json({"schema_version": self.schema_version, **asdict(self)})

    @classmethod
    def from_json(cls, content: bytes) -> Manifest:
        """The manifest that was written.

        Raises ValueError where it is half written, and NotOursError where it is whole and none of this job's.
        """
        return checked(cls.from_dict, parsed(content))

    @classmethod
    def from_dict(cls, found: Any) -> Manifest:
        """The manifest with these fields; what else a later version wrote is ignored."""
        datasets = {name: Dataset(**known(Dataset, dataset)) for name, dataset in found["datasets"].items()}
        manifest = cls(**{**known(cls, found), "datasets": datasets})
        utc(manifest.finished)
        require(RUN_ID.fullmatch(manifest.run_id))
        for name, dataset in datasets.items():
            require(all(is_file_of(name, file) for file in dataset.files))
            require(len(dataset.file_bytes) in (0, len(dataset.files)))
            require(all(isinstance(size, int) and size >= 0 for size in (dataset.rows, *dataset.file_bytes)))
            require(isinstance(dataset.bytes, int))
        require(manifest.previous is None or RUN_ID.fullmatch(manifest.previous["run_id"]))
        require(manifest.previous is None or isinstance(manifest.previous["rows"], dict))
        require(all(isinstance(file["bytes"], int) for file in manifest.input_files))
        require(all(isinstance(told, dict) for told in (manifest.engine, manifest.input_texts, manifest.seconds)))
        return manifest

    @property
    def in_short(self) -> dict[str, Any]:
        """What the manifest of the next result says of this one."""
        return {"run_id": self.run_id, "rows": {name: dataset.rows for name, dataset in self.datasets.items()}}

    @property
    def sizes(self) -> dict[str, int | None]:
        """The size of each file of all datasets, by its path below the output; None where it was not written down."""
        found: dict[str, int | None] = {}
        for dataset in self.datasets.values():
            found |= dict.fromkeys(dataset.files)
            found |= dict(zip(dataset.files, dataset.file_bytes, strict=False))
        return found

    @property
    def files(self) -> set[str]:
        """The files of all datasets, as paths below the output."""
        return set(self.sizes)


@dataclass(frozen=True)
class Journal:
    """A generation of the journal: what is being published, and by whom. The highest one holds.

    `earlier` is the result that stood there before. `removable` are files of earlier results and attempts that may be
    in the folders of the datasets and are not of the new result.
    """

    generation: int
    holder: str
    manifest: Manifest
    earlier: Manifest | None
    removable: list[str]

    def to_json(self) -> bytes:
        """The journal as it is written."""
        return as_json({"schema_version": SCHEMA_VERSION, **asdict(self)})

    @classmethod
    def from_json(cls, generation: int, content: bytes) -> Journal:
        """The generation that was written. Raises as `Manifest.from_json`."""

        def from_dict(found: Any) -> Journal:
            require(found["generation"] == generation and RUN_ID.fullmatch(found["holder"]))
            require(all(is_file_of(file.partition("/")[0], file) for file in found["removable"]))
            earlier = None if found["earlier"] is None else Manifest.from_dict(found["earlier"])
            return cls(generation, found["holder"], Manifest.from_dict(found["manifest"]), earlier, found["removable"])

        return checked(from_dict, parsed(content))

    @property
    def known(self) -> set[str]:
        """All files that it names: whatever of them is in the folders of the datasets is of this job."""
        earlier = self.earlier.files if self.earlier else set()
        return self.manifest.files | earlier | set(self.removable)


class NotOursError(Exception):
    """Something whole that is in the place of a manifest or a journal, and is none of this job's."""


Kind = TypeVar("Kind", Manifest, Journal)


def checked(from_dict: Callable[[Any], Kind], found: Any) -> Kind:
    """What was made of the fields that were found. Raises NotOursError where they are not what they should be."""
    try:
        return from_dict(found)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise NotOursError from error


def parsed(content: bytes) -> Any:
    """The JSON that was written. Raises ValueError where it is half written, or none."""
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError from error


def require(holds: object) -> None:
    """Raises ValueError unless it holds."""
    if not holds:
        raise ValueError


def is_file_of(name: str, file: str) -> bool:
    """Whether a file may be one of a dataset: directly in its folder, and nowhere else."""
    folder, _, base = file.partition("/")
    return name in SCHEMAS and folder == name and base not in ("", ".", "..") and "/" not in base


def known(kind: type[Dataset | Manifest], content: dict[str, Any]) -> dict[str, Any]:
    """What a kind has fields for."""
    return {one.name: content[one.name] for one in fields(kind) if one.name in content}


def as_json(content: dict[str, Any]) -> bytes:
    """What is written for a person and for programs."""
    return json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n"


def read_manifest(storage: Storage, path: str) -> Manifest | None:
    """The manifest at a path; None when there is none.

    Raises ValueError where it is half written, and UsageError where it is not of this job.
    """
    content = storage.read(path)
    return None if content is None else ours(path, lambda: Manifest.from_json(content))


def read_journal(storage: Storage, path: str, generation: int) -> Journal | None:
    """The generation of the journal at a path; as `read_manifest`."""
    content = storage.read(path)
    return None if content is None else ours(path, lambda: Journal.from_json(generation, content))


def ours(path: str, parse: Callable[[], Kind]) -> Kind:
    """What is made of the content at a path. Raises UsageError where it is not of this job."""
    try:
        return parse()
    except NotOursError as error:
        raise UsageError(
            f"{path} is not of this job, and is left alone: remove it, or choose another --output_path"
        ) from error
