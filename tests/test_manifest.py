"""The manifest and the journal: what is believed of them, whoever wrote them."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from movielens.manifest import Dataset, Manifest, NotOursError
from movielens.publishing.lease import Generation

RUN = "20260101T000000Z-here-0123456789abcdef-77.1-0000"
OTHER = "20260102T000000Z-here-0123456789abcdef-78.1-0001"
RATINGS = Dataset(3, 30, [{"name": "userId", "type": "int"}], ["ratings/a.parquet", "ratings/b.parquet"], [10, 20])
MOVIES = Dataset(0, 0, [], ["movies/c.parquet"], [0])
MANIFEST = Manifest(
    run_id=RUN, job_version="1.2.3", engine={"name": "sail"}, started="2026-01-01T00:00:00Z",
    finished="2026-01-01T00:00:01Z", input_files=[{"path": "in/ratings.dat", "bytes": 70}], rejects=0,
    datasets={"ratings": RATINGS, "movies": MOVIES}, previous={"run_id": OTHER, "rows": {"ratings": 2}},
)  # fmt: skip
GENERATION = Generation(4, RUN, 12)


def changed(path: str, value: object) -> bytes:
    """The manifest with another value at a path of names and numbers."""
    content: Any = json.loads(MANIFEST.to_json())
    *way, last = (int(step) if step.isdigit() else step for step in path.split("/"))
    place = content
    for step in way:
        place = place[step]
    place[last] = value
    return json.dumps(content).encode()


def without(*names: str) -> bytes:
    """The manifest without fields, of itself and of its datasets."""
    content = json.loads(MANIFEST.to_json())
    for place in (content, *content["datasets"].values()):
        for name in names:
            place.pop(name, None)
    return json.dumps(content).encode()


def test_what_was_written_is_read_again() -> None:
    assert Manifest.from_json(MANIFEST.to_json()) == MANIFEST
    first = Manifest.from_json(changed("previous", None))
    assert first.previous is None
    assert Generation.from_json(4, GENERATION.to_json()) == GENERATION


def test_what_is_written_can_be_read_by_a_person() -> None:
    written = Manifest.from_json(changed("input_path", "/données")).to_json()
    assert written.startswith(b'{\n "schema_version": 1,\n "run_id": "')
    assert written.endswith(b"}\n")
    assert "/données" in written.decode()


def test_a_manifest_that_an_earlier_version_wrote_lacks_what_that_did_not_know() -> None:
    later = ("previous", "input_format", "input_path", "input_texts", "max_rejects", "rejects_by_reason", "seconds")
    found = Manifest.from_json(without(*later, "schema_version", "file_bytes"))
    assert (found.previous, found.input_format, found.input_path, found.max_rejects) == (None, "", None, None)
    assert (found.input_texts, found.rejects_by_reason, found.seconds) == ({}, [], {})
    # and the sizes of its files are not known
    assert found.sizes == dict.fromkeys(MANIFEST.files)
    assert MANIFEST.sizes == {"ratings/a.parquet": 10, "ratings/b.parquet": 20, "movies/c.parquet": 0}


def test_of_a_manifest_that_a_later_version_wrote_what_is_known_is_taken() -> None:
    content = {**json.loads(MANIFEST.to_json()), "colour": "blue"}
    content["datasets"]["ratings"]["colour"] = "red"
    assert Manifest.from_json(json.dumps(content).encode()) == MANIFEST


@pytest.mark.parametrize(
    "field", ["run_id", "job_version", "engine", "started", "finished", "input_files", "rejects", "datasets"]
)
def test_a_manifest_that_lacks_what_every_version_wrote_is_not_of_this_job(field: str) -> None:
    with pytest.raises(NotOursError):
        Manifest.from_json(without(field))


@pytest.mark.parametrize("field", ["rows", "bytes", "columns", "files"])
def test_a_dataset_that_lacks_what_every_version_wrote_is_not_of_this_job(field: str) -> None:
    with pytest.raises(NotOursError):
        Manifest.from_json(without(field))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("run_id", f"{RUN}/.."),
        ("run_id", 7),
        ("finished", "yesterday"),
        ("finished", None),
        ("previous", "nightly"),
        ("previous", {"run_id": "../.."}),
        ("datasets", []),
        ("datasets/ratings", None),
        ("datasets/reports", asdict(RATINGS)),
        ("datasets/ratings/files/1", "ratings/../movies/c.parquet"),
        ("datasets/ratings/files/1", "movies/c.parquet"),
        ("datasets/ratings/files/1", "ratings/"),
        ("datasets/ratings/files/1", "ratings/."),
        ("datasets/ratings/files/1", "ratings/.."),
        ("datasets/ratings/files/1", "ratings"),
        ("datasets/ratings/files/1", "/ratings/b.parquet"),
        ("datasets/ratings/files/1", 5),
        ("datasets/ratings/file_bytes", [30]),
        ("datasets/ratings/file_bytes/1", -1),
        ("datasets/ratings/file_bytes/1", "20"),
        ("datasets/ratings/file_bytes/1", 20.0),
        ("datasets/ratings/rows", -1),
        ("datasets/ratings/rows", "3"),
        ("datasets/ratings/bytes", None),
        ("input_files", 5),
        ("input_files", [5]),
        ("input_files", [{"path": "in/ratings.dat"}]),
        ("previous/rows", 2),
        ("engine", "sail"),
        ("seconds", 1),
        ("input_texts", []),
        ("number", -1),
        ("number", "1"),
        ("restates", "1"),
        ("input_path", "\ud800"),
    ],
)
def test_a_manifest_with_a_field_that_no_version_wrote_is_not_of_this_job(path: str, value: object) -> None:
    with pytest.raises(NotOursError):
        Manifest.from_json(changed(path, value))


@pytest.mark.parametrize(
    "changes",
    [
        {"generation": 3},
        {"generation": 5},
        {"holder": "nightly"},
        {"holder": None},
        {"number": None},
        {"number": "12"},
        {"number": 0},
        {"number": True},
        {"schema_version": 1},
    ],
)
def test_a_journal_with_a_field_that_no_version_wrote_is_not_of_this_job(changes: dict[str, object]) -> None:
    content = {**json.loads(GENERATION.to_json()), **changes}
    with pytest.raises(NotOursError):
        Generation.from_json(4, json.dumps(content).encode())


@pytest.mark.parametrize("content", [b"null", b"[1]", b"7", b'"words"', b"{}"])
def test_json_that_is_something_else_is_not_of_this_job(content: bytes) -> None:
    with pytest.raises(NotOursError):
        Manifest.from_json(content)
    with pytest.raises(NotOursError):
        Generation.from_json(4, content)


@pytest.mark.parametrize("content", [b"", b"{", MANIFEST.to_json()[:-3], b"\xff\xfe", b"[" * 100_000])
def test_what_is_half_written_or_no_json_is_no_manifest(content: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        Manifest.from_json(content)
