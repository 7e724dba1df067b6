"""Journals and manifests, as runs leave them at a place."""

from __future__ import annotations

import json
import re
from typing import Any

from movielens.manifest import Manifest
from movielens.publishing.lease import Generation
from tests.support.places import Place

JOURNAL, MANIFESTS = "_journal", "_manifests"


def numbers(place: Place, folder: str) -> list[int]:
    """The numbers of the files `<number>.json` in a folder, the lowest first."""
    found = (re.fullmatch(rf"{folder}/(\d+)\.json", name) for name in place.files())
    return sorted(int(name[1]) for name in found if name)


def generations(place: Place) -> list[str]:
    """The files of the journal, the newest first."""
    return [f"{JOURNAL}/{number}.json" for number in reversed(numbers(place, JOURNAL))]


def parsed_at(place: Place, folder: str) -> dict[str, Any] | None:
    """The file with the highest number in a folder; None if there is none, or if it goes just now."""
    for number in reversed(numbers(place, folder)):
        try:
            found: dict[str, Any] = json.loads(place.read(f"{folder}/{number}.json") or b"")
        except ValueError:
            continue
        return found
    return None


def journal_at(place: Place) -> dict[str, Any] | None:
    """The newest generation of the journal."""
    return parsed_at(place, JOURNAL)


def standing_at(place: Place) -> dict[str, Any] | None:
    """The manifest with the highest number."""
    return parsed_at(place, MANIFESTS)


def is_publishing(place: Place) -> bool:
    """Whether a run holds the lease."""
    journal = journal_at(place)
    return journal is not None and journal["number"] > max(numbers(place, MANIFESTS), default=0)


def write_lease(place: Place, run_id: str) -> str:
    """Writes the generation of a run that takes the lease and does nothing more; returns its name."""
    generation = max(numbers(place, JOURNAL), default=0) + 1
    name = f"{JOURNAL}/{generation}.json"
    number = max(numbers(place, MANIFESTS), default=0) + 1
    place.write(name, Generation(generation, run_id, number).to_json())
    return name


def parsed(manifest: dict[str, Any]) -> Manifest:
    """A manifest as the job has it."""
    return Manifest.from_json(json.dumps(manifest).encode())
