"""Journals, as a run that was publishing leaves them."""

from __future__ import annotations

import json
import re
from typing import Any

from movielens.manifest import Journal, Manifest
from tests.support.places import Place

FOLDER = "_journal"


def generations(place: Place) -> list[str]:
    """The files of the journal at a place, the newest first."""
    found = (name for name in place.files() if re.fullmatch(rf"{FOLDER}/\d+\.json", name))
    return sorted(found, key=lambda name: int(name[len(FOLDER) + 1 : -5]), reverse=True)


def journal_at(place: Place) -> dict[str, Any] | None:
    """What the newest generation says; None when there is none, or when it goes or is written just now."""
    for name in generations(place)[:1]:
        try:
            found: dict[str, Any] = json.loads(place.read(name) or b"null")
        except ValueError:
            return None
        return found
    return None


def is_publishing(place: Place) -> bool:
    """Whether what the journal says is not yet what stands there."""
    journal, manifest = journal_at(place), place.read("_manifest.json")
    return journal is not None and (not manifest or json.loads(manifest)["run_id"] != journal["manifest"]["run_id"])


def write_journal(place: Place, manifest: dict[str, Any], earlier: dict[str, Any] | None = None) -> str:
    """Writes the next generation, of the run that made the manifest; returns its name."""
    number = int(generations(place)[0][len(FOLDER) + 1 : -5]) + 1 if generations(place) else 1
    published, before = parsed(manifest), parsed(earlier) if earlier else None
    removable = sorted(before.files - published.files) if before else []
    name = f"{FOLDER}/{number}.json"
    place.write(name, Journal(number, published.run_id, published, before, removable).to_json())
    return name


def parsed(manifest: dict[str, Any]) -> Manifest:
    """A manifest as the job has it."""
    return Manifest.from_json(json.dumps(manifest).encode())
