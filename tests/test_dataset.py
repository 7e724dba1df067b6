"""The bundled dataset: synthetic, reproducible, in MovieLens' shape and with its difficulties."""

from __future__ import annotations

import csv
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from tests.support.inputs import generate
from tests.support.project import ROOT

NAMES = ("movies.dat", "ratings.dat")


@pytest.fixture(scope="module")
def ratings() -> list[list[str]]:
    return [line.split("::") for line in (ROOT / "dataset" / "ratings.dat").read_text().splitlines()]


def test_the_bundled_files_are_what_the_generator_makes(tmp_path: Path) -> None:
    generate(tmp_path)
    for name in NAMES:
        assert (tmp_path / name).read_bytes() == (ROOT / "dataset" / name).read_bytes()


def test_another_seed_makes_other_data_of_the_size_asked_for(tmp_path: Path) -> None:
    for seed in (1, 2):
        generate(tmp_path / str(seed), "--ratings", 12_345, "--seed", seed)
    first, second = ((tmp_path / seed / "ratings.dat").read_bytes() for seed in "12")
    assert first.count(b"\n") == second.count(b"\n") == 12_345
    assert first != second


def test_it_has_movielens_shape(ratings: list[list[str]]) -> None:
    assert len(ratings) == 100_000
    per_user = Counter(user for user, *_ in ratings)
    assert len(per_user) == 625
    assert min(per_user.values()) >= 20
    assert max(per_user.values()) > 5 * len(ratings) / len(per_user)
    assert len({(user, movie) for user, movie, *_ in ratings}) == len(ratings)
    assert {rating for _, _, rating, _ in ratings} == {"0.5", "1", "1.5", "2", "2.5", "3", "3.5", "4", "4.5", "5"}


def test_it_has_movielens_difficulties(ratings: list[list[str]]) -> None:
    raw = (ROOT / "dataset" / "movies.dat").read_bytes()
    with pytest.raises(UnicodeDecodeError):
        raw.decode("utf-8")
    titles = [line.partition("::")[2].rpartition("::")[0] for line in raw.decode("iso-8859-1").splitlines()]
    assert len(titles) == 1700
    for difficulty in ("::", '"', ": ", ", The", "\\", "é", "ñ", "ü"):
        assert any(difficulty in title for title in titles), difficulty
    assert any(title.startswith(" ") for title in titles)
    assert any(title.endswith(" ") for title in titles)
    genres = {line.rpartition("::")[2] for line in raw.decode("iso-8859-1").splitlines()}
    assert {"(no genres listed)", "unknown"} <= genres
    # some movies are not rated, and nearly every user has a tie at the third place
    assert 0 < len(titles) - len({movie for _, movie, *_ in ratings}) < 200
    stars: dict[str, list[float]] = {}
    for user, _, rating, _ in ratings:
        stars.setdefault(user, []).append(float(rating))
    tied = sum(sorted(given)[-3] == sorted(given)[-4] for given in stars.values())
    assert tied > 0.9 * len(stars)


def cells(file: Path, separator: str, encoding: str = "ascii") -> list[list[str]]:
    return [line.split(separator) for line in file.read_bytes().decode(encoding).split("\n")[:-1]]


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("releases")
    return {form: generate(folder / form, "--ratings", 9_000, "--format", form) for form in ("dat", "csv", "100k")}


def test_a_csv_release_has_the_same_rows_in_the_manner_of_the_releases_since_20m(releases: dict[str, Path]) -> None:
    header, *ratings = cells(releases["csv"] / "ratings.csv", ",")
    assert header == ["userId", "movieId", "rating", "timestamp\r"]
    assert {rating for _, _, rating, _ in ratings} == {f"{half / 2:.1f}" for half in range(1, 11)}
    assert [[user, movie, f"{float(rating):g}", time.removesuffix("\r")] for user, movie, rating, time in ratings] == (
        cells(releases["dat"] / "ratings.dat", "::")
    )
    raw = (releases["csv"] / "movies.csv").read_bytes()
    assert raw.count(b"\r\n") == raw.count(b"\n")
    # quotes, doubled quotes and commas
    assert b',"""' in raw
    assert b'11""09, ' in raw
    with (releases["csv"] / "movies.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, strict=True))
    assert rows[0] == ["movieId", "title", "genres"]
    lines = (releases["dat"] / "movies.dat").read_bytes().decode("iso-8859-1").splitlines()
    assert ["::".join(row) for row in rows[1:]] == lines


def test_a_release_in_the_manner_of_100k_has_the_same_rows(releases: dict[str, Path]) -> None:
    assert cells(releases["100k"] / "u.data", "\t") == cells(releases["dat"] / "ratings.dat", "::")
    genres = [line.split("|")[0] for line in (releases["100k"] / "u.genre").read_text().splitlines()]
    assert len(genres) == 19
    items = cells(releases["100k"] / "u.item", "|", "iso-8859-1")
    assert {len(item) for item in items} == {24}
    flagged = ["|".join(genre for genre, flag in zip(genres, item[5:], strict=True) if flag == "1") for item in items]
    lines = (releases["dat"] / "movies.dat").read_bytes().decode("iso-8859-1").splitlines()
    assert [
        f"{item[0]}::{item[1]}::{named or '(no genres listed)'}" for item, named in zip(items, flagged, strict=True)
    ] == lines
    assert "" in flagged


def test_an_archive_holds_the_same_files_in_one_folder(releases: dict[str, Path], tmp_path: Path) -> None:
    generate(tmp_path, "--ratings", 9_000, "--format", "csv", "--zip")
    assert [entry.name for entry in tmp_path.iterdir()] == ["movielens.zip"]
    with zipfile.ZipFile(tmp_path / "movielens.zip") as archive:
        assert {name.partition("/")[0] for name in archive.namelist()} == {"movielens"}
        for name in ("movies.csv", "ratings.csv"):
            assert archive.read(f"movielens/{name}") == (releases["csv"] / name).read_bytes()


def test_too_many_ratings_for_the_users_are_refused() -> None:
    command = [sys.executable, ROOT / "dataset" / "generate.py", "--ratings", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--ratings must be at least 1" in done.stderr
