"""Inputs for the job: a few ratings and movies, what writes them, and the real releases."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.project import ROOT

REAL_DATA = Path(os.environ.get("MOVIELENS_DATA", ROOT.parent / "shared" / "data"))

# A few ratings with ties, an unrated movie and a rating of an unknown movie
RATINGS = [
    (1, 10, 5.0, 100),
    (1, 11, 5.0, 100),
    (1, 12, 5.0, 101),
    (1, 13, 4.5, 999),
    (2, 10, 0.5, 50),
    (2, 99, 3.0, 51),
]
MOVIES = [
    (10, "First (2001)", "Drama"),
    (11, "Second:: Two (2002)", "Comedy|Drama"),
    (12, '"Third" (2003)', "War"),
    (13, "Café: Noir (1954)", "Film-Noir"),
    (14, "Unrated (2010)", "Western"),
]


def rating_lines(rows: list[tuple[int, int, float, int]]) -> bytes:
    return b"".join(f"{user}::{movie}::{rating:g}::{time}\n".encode() for user, movie, rating, time in rows)


def movie_lines(rows: list[tuple[int, str, str]], encoding: str = "utf-8") -> bytes:
    return b"".join(f"{movie}::{title}::{genres}\n".encode(encoding) for movie, title, genres in rows)


def write_input(folder: Path, ratings: bytes = rating_lines(RATINGS), movies: bytes = movie_lines(MOVIES)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ratings.dat").write_bytes(ratings)
    (folder / "movies.dat").write_bytes(movies)
    return folder


def generate(folder: Path, *arguments: object) -> Path:
    """A release that dataset/generate.py makes; without other arguments than its format that of dataset/."""
    command = [sys.executable, ROOT / "dataset" / "generate.py", "--output_path", folder, *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def real_data(name: str) -> Path:
    """A real MovieLens release; skips the test where it is not at hand, for it may not be redistributed."""
    folder = REAL_DATA / name
    if not folder.is_dir():
        pytest.skip(f"the real MovieLens release {name} is not at hand; set MOVIELENS_DATA to the folder that holds it")
    return folder
