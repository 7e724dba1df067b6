"""The bundled dataset: synthetic, reproducible, in MovieLens' shape and with its difficulties."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.support.project import ROOT

NAMES = ("movies.dat", "ratings.dat")


def generate(folder: Path, *arguments: object) -> Path:
    command = [sys.executable, ROOT / "dataset" / "generate.py", "--output_path", folder, *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


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
    # some movies are not rated, and nearly every user has a tie at the third place
    assert 0 < len(titles) - len({movie for _, movie, *_ in ratings}) < 200
    stars: dict[str, list[float]] = {}
    for user, _, rating, _ in ratings:
        stars.setdefault(user, []).append(float(rating))
    tied = sum(sorted(given)[-3] == sorted(given)[-4] for given in stars.values())
    assert tied > 0.9 * len(stars)


def test_too_many_ratings_for_the_users_are_refused() -> None:
    command = [sys.executable, ROOT / "dataset" / "generate.py", "--ratings", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--ratings must be at least 1" in done.stderr
