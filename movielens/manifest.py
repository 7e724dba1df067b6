"""The manifest, which says what is published.

One that the job finds may be of version 0.6, cut off, or somebody else's. The job deletes what a manifest names, so it
looks at every field before it acts on it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

from movielens.contract import SCHEMAS, VERSION, UsageError
from movielens.runs import RUN_ID, utc, utc_now

if TYPE_CHECKING:
    from collections.abc import Callable

    from movielens.storage import Storage

SCHEMA_VERSION = 1
DEPTH = 20


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

    `number` is the one under which it is committed; 0 for a result of version 0.6. `restates` is the number of an
    earlier commit whose result this one repeats, or None. No datasets means that nothing was published yet.
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
    number: int = 0
    restates: int | None = None
    schema_version: int = SCHEMA_VERSION

    @classmethod
    def nothing(cls, run_id: str) -> Manifest:
        """The manifest of a place where nothing was published yet."""
        return cls(run_id, VERSION, {}, utc_now(), utc_now(), [], 0, {})

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
        require(type(manifest.number) is int and manifest.number >= 0)
        require(manifest.restates is None or type(manifest.restates) is int)
        manifest.to_json()  # raises UnicodeEncodeError, a ValueError, for half a character
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


class NotOursError(Exception):
    """Another program wrote what is in the place of a manifest or a journal."""


Kind = TypeVar("Kind")


def checked(from_dict: Callable[[Any], Kind], found: Any) -> Kind:
    """What was made of the fields that were found. Raises NotOursError where they are not what they should be."""
    try:
        return from_dict(found)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise NotOursError from error


def parsed(content: bytes) -> Any:
    """The JSON that was written. Raises ValueError if it is cut off or no JSON, and NotOursError if it is too deep."""
    try:
        found = json.loads(content)
    except RecursionError as error:  # a text of brackets alone
        raise ValueError from error
    require_depth(found, DEPTH)
    return found


def require_depth(value: Any, levels: int) -> None:
    """Raises NotOursError if a value is nested more deeply, for then Python could not write it again."""
    if isinstance(value, dict | list):
        if levels == 0:
            raise NotOursError
        for one in value.values() if isinstance(value, dict) else value:
            require_depth(one, levels - 1)


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


def columns_of(name: str) -> list[dict[str, str]]:
    """The names and types of the columns of a dataset, as a manifest has them."""
    columns = (column.split() for column in SCHEMAS[name].split(", "))
    return [{"name": column, "type": kind.lower()} for column, kind in columns]


def as_json(content: dict[str, Any]) -> bytes:
    """What is written for a person and for programs."""
    return json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n"


def read_manifest(storage: Storage, path: str) -> Manifest | None:
    """The manifest at a path; None if there is none. Raises as `parse_manifest`."""
    content = storage.read(path)
    return None if content is None else parse_manifest(path, content)


def parse_manifest(path: str, content: bytes) -> Manifest:
    """The manifest with this content. Raises ValueError if it is cut off, and UsageError if it is not of this job."""
    try:
        return Manifest.from_json(content)
    except NotOursError as error:
        raise foreign(path) from error


def foreign(path: str) -> UsageError:
    """The error for a manifest or a journal that another program wrote."""
    return UsageError(f"{path} is not of this job, and is left alone: remove it, or choose another --output_path")
