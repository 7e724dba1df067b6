"""Results with numbered manifests: making them of a result that has none, and committing a further one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.support.places import Place


def numbers(place: Place) -> list[int]:
    """The numbers of the manifests, the highest last."""
    found = (re.fullmatch(r"_manifests/([1-9][0-9]*)\.json", name) for name in place.files())
    return sorted(int(one[1]) for one in found if one)


def newest(place: Place) -> str:
    """The name of the manifest with the highest number, else of the one that version 0.6.6 writes."""
    return f"_manifests/{numbers(place)[-1]}.json" if numbers(place) else "_manifest.json"


def manifest_at(place: Place) -> dict[str, Any]:
    """The manifest of the result that stands."""
    manifest: dict[str, Any] = json.loads(place.read(newest(place)) or b"")
    return manifest


def write_manifest(place: Place, number: int, manifest: dict[str, Any]) -> str:
    """Writes a manifest under a number and returns its name."""
    name = f"_manifests/{number}.json"
    place.write(name, json.dumps({**manifest, "number": number, "restates": None}).encode())
    return name


def number_result(place: Place) -> None:
    """Gives a result that version 0.6.6 published the manifest that the next version writes."""
    if not numbers(place):
        write_manifest(place, 1, manifest_at(place))


def unnumber_result(place: Place) -> None:
    """Makes a result what version 0.6.6 publishes."""
    content = place.read(newest(place)) or b""
    for number in numbers(place):
        place.delete(f"_manifests/{number}.json")
    place.write("_manifest.json", content)


def commit(place: Place, result: Path) -> None:
    """Commits a copy of the result in a folder as the next one, and deletes the files of the one before."""
    before, number = manifest_at(place), numbers(place)[-1] + 1
    manifest = json.loads((result / "_manifest.json").read_bytes())
    for dataset in manifest["datasets"].values():
        contents = [(result / file).read_bytes() for file in dataset["files"]]
        dataset["files"] = [file.replace("/", f"/{number}-") for file in dataset["files"]]
        for file, content in zip(dataset["files"], contents, strict=True):
            place.write(file, content)
    write_manifest(place, number, manifest)
    for dataset in before["datasets"].values():
        for file in dataset["files"]:
            place.delete(file)
    place.delete(f"_manifests/{number - 1}.json")
