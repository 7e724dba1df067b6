"""The names of what lies at an output path."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from movielens.contract import SCHEMAS, UsageError
from movielens.history import HISTORY

if TYPE_CHECKING:
    from movielens.storage import Entry, Storage

STAGING = "_staging"
JOURNAL = "_journal"
MANIFESTS = "_manifests"
COPY = "_manifest.json"

FOLDERS, FILES = (*SCHEMAS, MANIFESTS, JOURNAL, STAGING), (COPY, HISTORY)

NUMBERED = re.compile(r"([1-9][0-9]{0,17})\.json")
PUBLISHED = re.compile(r"\.?([1-9][0-9]{0,17})-[0-9a-f]{8}-.+")
# What a killed run leaves that was writing a file under a temporary name; `.clock-` is of version 0.6
TEMPORARY = re.compile(r"[._](?:[0-9]+\.json|_manifest\.json|_history\.jsonl)-[0-9a-f]{8}|[._]clock-.*")


def numbered(storage: Storage, folder: str) -> dict[int, Entry]:
    """The files `<number>.json` of a folder by their numbers. Raises UsageError if one of them is a folder."""
    found = {}
    for entry in storage.entries(folder):
        name = NUMBERED.fullmatch(entry.name)
        if name and entry.is_folder:
            raise not_ours(entry.path)
        if name:
            found[int(name[1])] = entry
    return found


def published_prefix(number: int, run_id: str) -> str:
    """What the names of the files begin with that a run publishes under a number; no other run ever uses it."""
    return f"{number}-{run_id[-8:]}-"


def number_of(file: str) -> int | None:
    """The number under which a file was published, by its name; None if version 0.6 or somebody else named it."""
    found = PUBLISHED.fullmatch(file.rpartition("/")[2])
    return int(found[1]) if found else None


def is_visible(name: str) -> bool:
    """Whether Spark, Hive and the like see a file of this name."""
    return not name.startswith(("_", "."))


def not_ours(path: str) -> UsageError:
    """The error for what somebody else put in the place of something of the job's."""
    return UsageError(f"{path} is not of this job: move it away, or choose another --output_path")
