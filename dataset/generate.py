#!/usr/bin/env python3
"""Makes a release in the shape of MovieLens, of any size and in each format, the same for the same seed.

Everything is invented: users, titles and ratings. The shape is that of the real releases: a few very
active users and very popular movies, ties at the third place of nearly every user, unrated movies,
ids with gaps, titles with `::`, `:`, commas, quotes, accents and spaces at their ends, movies without
genres. All formats of a seed hold the same ratings and movies.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

DEFAULT_RATINGS = 100_000
LEAST_RATINGS_PER_USER = 20  # GroupLens leaves out users with fewer
RATED_SHARE_OF_MOVIES = 0.95
# movieIds beyond the number of movies, as in the releases since 10M
ID_GAP_SHARE = 0.3
MOST_PER_USER_SHARE = 0.6  # of the rated movies, so that nobody has seen everything
ARCHIVE = "movielens.zip"
RATINGS_PER_CHUNK = 5_000_000  # bounds memory to some 1 GB
EPOCH_START, EPOCH_END = 789_652_009, 1_700_000_000  # January 1995 to November 2023
MOVIES_PER_ROUND_OF_DIFFICULTIES = 60
# places in a round, after those of the titles that are decorated
SPACE_AT_THE_END, WITHOUT_GENRES, OF_UNKNOWN_GENRE = 8, 9, 10
WHOLE_STAR_SHARE = 0.5
STARS = ["0.5", "1", "1.5", "2", "2.5", "3", "3.5", "4", "4.5", "5"]  # as written in MovieLens 10M
STARS_WITH_DECIMAL = ["0.5", "1.0", "1.5", "2.0", "2.5", "3.0", "3.5", "4.0", "4.5", "5.0"]  # as since 20M

BATCH_SCHEMA = pa.schema([(name, pa.int64()) for name in ("userId", "movieId", "stars", "timestamp")])

GENRES = [
    "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
]  # fmt: skip
UNKNOWN = "unknown"  # as a genre, in MovieLens 100K
NO_GENRES = "(no genres listed)"  # as since 10M
ADJECTIVES = [
    "Amber", "Borrowed", "Broken", "Burning", "Café", "Crooked", "Distant", "Déjà-vu", "Electric", "Empty",
    "Forgotten", "Frozen", "Gentle", "Hidden", "Hollow", "Impossible", "Last", "Midnight", "Naïve", "Paper",
    "Quiet", "Restless", "Scarlet", "Secret", "Silver", "Stolen", "Tangled", "Unwritten", "Velvet", "Wandering",
]  # fmt: skip
NOUNS = [
    "Almanac", "Année", "Atlas", "Balcony", "Beekeeper", "Carousel", "Clockmaker", "Compass", "Doña", "Echo",
    "Ferry", "Garden", "Glacier", "Harbour", "Island", "Jukebox", "Kitchen", "Lantern", "Lighthouse", "Mañana",
    "Meridian", "Northbound", "Orchard", "Parade", "Quarry", "Règle", "Sailor", "Staircase", "Tür", "Violin",
]  # fmt: skip


def movie_count(ratings: int) -> int:
    """The number of movies that goes with so many ratings; near the real 100K, 1M, 10M and 25M."""
    return max(20, int(1700 * (ratings / 100_000) ** 0.65))


def user_count(ratings: int) -> int:
    """The number of users that goes with so many ratings: some 160 each, as in the real releases."""
    return max(1, round(ratings / 160))


def title(index: int, rng: np.random.RandomState) -> str:
    """A title with its year; some have a difficulty that real titles have."""
    name = f"{ADJECTIVES[rng.randint(len(ADJECTIVES))]} {NOUNS[rng.randint(len(NOUNS))]}"
    other = NOUNS[rng.randint(len(NOUNS))]
    decorated = [
        f"{name}:: The {other}",
        f'"{name}" {other}',
        f"{name}: {other}",
        f"{name}, The",
        f"{name} ({other})",
        f"{name} \\ {other}",
        f" {name}",
        f'{other}\'s 11"09, "{name}"',
    ]
    difficulty = index % MOVIES_PER_ROUND_OF_DIFFICULTIES
    if difficulty < len(decorated):
        name = decorated[difficulty]
    end = " " if difficulty == SPACE_AT_THE_END else ""
    return f"{name} ({1920 + rng.randint(104)}){end}"


def genres_of(index: int, rng: np.random.RandomState) -> list[str]:
    """One to three genres; none, or `unknown`, for a few."""
    genres = sorted({GENRES[rng.randint(len(GENRES))] for _ in range(1 + rng.randint(3))})
    rare: dict[int, list[str]] = {WITHOUT_GENRES: [], OF_UNKNOWN_GENRE: [UNKNOWN]}
    return rare.get(index % MOVIES_PER_ROUND_OF_DIFFICULTIES, genres)


Movie = tuple[int, str, list[str]]


def made_movies(movie_ids: Ints, rng: np.random.RandomState) -> Iterator[Movie]:
    """Yields movieId, title, genres."""
    for index, movie_id in enumerate(movie_ids.tolist()):
        genres = genres_of(index, rng)
        yield movie_id, title(index, rng), genres


def ratings_per_user(ratings: int, users: int, most: int, rng: np.random.RandomState) -> Ints:
    """How many ratings each user gives: long-tailed, between the least and `most`, `ratings` in all."""
    if not users * min(LEAST_RATINGS_PER_USER, most) <= ratings <= users * most:
        raise SystemExit(f"generate.py: {users} users cannot give {ratings} ratings of {most} movies at most each")
    least = min(LEAST_RATINGS_PER_USER, ratings // users, most)
    weights = np.exp(1.3 * rng.standard_normal(users))
    counts = np.full(users, least, dtype=np.int64)
    while (missing := ratings - int(counts.sum())) > 0:
        open_users = counts < most
        share = np.where(open_users, weights, 0.0)
        extra = np.floor(share / share.sum() * missing).astype(np.int64)
        if not extra.any():
            extra[np.flatnonzero(open_users)[:missing]] = 1
        counts = np.minimum(counts + extra, most)
    return counts


def distinct_movies(counts: Ints, rated: int, rng: np.random.RandomState) -> Ints:
    """For each user in turn so many different popularity ranks, low ones more often than high ones."""
    first = np.repeat(np.cumsum(counts) - counts, counts)
    place = np.arange(counts.sum(), dtype=np.int64) - first
    size = np.repeat(counts, counts)
    position = (place + rng.random_sample(len(place))) / size
    ranks = np.floor(rated * position**2.5).astype(np.int64)
    # strictly rising within a user, hence distinct: push up what repeats, then back down below the end
    user_offset = np.repeat(np.arange(len(counts), dtype=np.int64) * (4 * rated), counts)
    ranks = np.maximum.accumulate(ranks - place + user_offset) - user_offset + place
    return np.asarray(np.minimum(ranks, rated - size + place), dtype=np.int64)


def stars_given(movies: Ints, counts: Ints, quality: Floats, rng: np.random.RandomState) -> Ints:
    """Indices into STARS: the movie's quality, the user's mood and noise; whole stars twice as often."""
    mood = np.repeat(0.4 * rng.standard_normal(len(counts)), counts)
    score = quality[movies] + mood + 0.9 * rng.standard_normal(len(movies))
    halves = np.round(2 * score)
    wholes = 2 * np.round(score)
    return (
        np.clip(np.where(rng.random_sample(len(score)) < WHOLE_STAR_SHARE, wholes, halves), 1, 10).astype(np.int64) - 1
    )


def timestamps(counts: Ints, rng: np.random.RandomState) -> Ints:
    """Epoch seconds: each user rates in one sitting, several movies in the same second."""
    start = np.repeat(rng.randint(EPOCH_START, EPOCH_END, len(counts)), counts).astype(np.int64)
    return start + np.floor(np.repeat(counts, counts) * 8 * rng.random_sample(len(start))).astype(np.int64)


def rating_batches(counts: Ints, movie_ids: Ints, rated: int, rng: np.random.RandomState) -> Iterator[pa.RecordBatch]:
    """Yields the ratings, users in rising order: userId, movieId, stars (an index into STARS), timestamp."""
    by_popularity = rng.permutation(movie_ids)[:rated]
    quality = 3.5 + 0.6 * rng.standard_normal(rated)
    chunks = max(1, int(counts.sum()) // RATINGS_PER_CHUNK)
    users = np.arange(1, len(counts) + 1)
    for chunk, user_ids in zip(np.array_split(counts, chunks), np.array_split(users, chunks), strict=True):
        ranks = distinct_movies(chunk, rated, rng)
        columns = [
            np.repeat(user_ids, chunk),
            by_popularity[ranks],
            stars_given(ranks, chunk, quality, rng),
            timestamps(chunk, rng),
        ]
        yield pa.RecordBatch.from_arrays([pa.array(column) for column in columns], schema=BATCH_SCHEMA)


# --------------------------------------------------------------------------------------------------------------------
# Formats


def write_dat_movies(file: TextIO, movies: Iterator[Movie]) -> None:
    """Writes lines `movieId::title::genres`."""
    file.writelines(f"{movie_id}::{name}::{'|'.join(genres) or NO_GENRES}\n" for movie_id, name, genres in movies)


def write_csv_movies(file: TextIO, movies: Iterator[Movie]) -> None:
    """Writes CSV with a header, quoted where it must be."""
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerow(["movieId", "title", "genres"])
    writer.writerows((movie_id, name, "|".join(genres) or NO_GENRES) for movie_id, name, genres in movies)


def write_items(file: TextIO, movies: Iterator[Movie]) -> None:
    """Writes lines of 24 fields: id, title, date, an empty field, an address, and a flag for each genre."""
    for movie_id, name, genres in movies:
        flags = [str(int(genre in genres)) for genre in (UNKNOWN, *GENRES)]
        known = UNKNOWN not in genres
        date, address = ("01-Jan-1995", f"http://us.imdb.com/M/title-exact?{movie_id}") if known else ("", "")
        file.write("|".join([str(movie_id), name, date, "", address, *flags]) + "\n")


@dataclass(frozen=True)
class Format:
    """How a release is written: the names of its files, and what their lines look like."""

    movies_file: str
    ratings_file: str
    encoding: str
    write_movies: Callable[[TextIO, Iterator[Movie]], None]
    separator: str
    stars: list[str]
    header: bool = False
    carriage_return: bool = False


FORMATS = {
    "dat": Format("movies.dat", "ratings.dat", "iso-8859-1", write_dat_movies, "::", STARS),
    "csv": Format(
        "movies.csv", "ratings.csv", "utf-8", write_csv_movies, ",", STARS_WITH_DECIMAL,
        header=True, carriage_return=True,
    ),
    "100k": Format("u.item", "u.data", "iso-8859-1", write_items, "\t", STARS),
}  # fmt: skip


def write_ratings(path: Path, batches: Iterator[pa.RecordBatch], form: Format) -> None:
    """Writes one line of userId, movieId, rating, timestamp per rating, in the order given."""
    stars = ", ".join(f"'{star}'" for star in form.stars)
    # DuckDB ends lines with LF; what stands before it is part of the last column, and of its name
    end, name = ('"timestamp" || chr(13)', "timestamp\r") if form.carriage_return else ('"timestamp"', "timestamp")
    connection = duckdb.connect()
    connection.register("batches", pa.RecordBatchReader.from_batches(BATCH_SCHEMA, batches))
    connection.execute(
        f"""COPY (SELECT userId, movieId, [{stars}][stars + 1] AS rating, {end} AS "{name}" FROM batches)
            TO '{str(path).replace("'", "''")}'
            (FORMAT csv, DELIMITER '{form.separator}', HEADER {form.header}, QUOTE '')"""
    )


def generate(folder: Path, ratings: int, seed: int, form: Format) -> list[Path]:
    """Writes the files of a release into the folder, which is made when it is missing; returns their paths."""
    rng = np.random.RandomState(seed)  # its stream never changes, unlike that of np.random.default_rng
    movies = movie_count(ratings)
    rated = round(RATED_SHARE_OF_MOVIES * movies)
    counts = ratings_per_user(ratings, user_count(ratings), int(MOST_PER_USER_SHARE * rated), rng)
    ids = np.sort(rng.permutation(np.arange(1, round((1 + ID_GAP_SHARE) * movies) + 1))[:movies])
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / form.movies_file, folder / form.ratings_file]
    with files[0].open("w", encoding=form.encoding, newline="") as file:
        form.write_movies(file, made_movies(ids, rng))
    write_ratings(files[1], rating_batches(counts, ids, rated, rng), form)
    if form.write_movies is write_items:
        files.append(folder / "u.genre")
        files[-1].write_text("".join(f"{genre}|{place}\n" for place, genre in enumerate((UNKNOWN, *GENRES))))
    return files


def generate_zip(archive: Path, ratings: int, seed: int, form: Format) -> None:
    """Writes the files of a release into an archive, in a folder of its name, as GroupLens does."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=archive.parent) as scratch:
        files = generate(Path(scratch), ratings, seed, form)
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr(f"{archive.stem}/README.txt", "Everything in here is invented.\n")
            for file in files:
                packed.write(file, f"{archive.stem}/{file.name}")


def parse_args(argv: list[str]) -> argparse.Namespace:
    """The command line: where to, how many ratings, the seed, and the format."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None, allow_abbrev=False)
    parser.add_argument("--output_path", type=Path, default=Path(__file__).parent, help="folder to write into")
    parser.add_argument("--ratings", type=int, default=DEFAULT_RATINGS, help="how many ratings (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="another seed, other data (%(default)s)")
    parser.add_argument("--format", choices=FORMATS, default="dat", help="as 1M, 20M or 100K have it (%(default)s)")
    parser.add_argument("--zip", action="store_true", help=f"write an archive, {ARCHIVE}, in place of its files")
    arguments = parser.parse_args(argv)
    if arguments.ratings < 1:
        parser.error("--ratings must be at least 1")
    return arguments


def main(argv: list[str]) -> int:
    """Generates as the command line says and tells what was written."""
    arguments = parse_args(argv)
    started = time.monotonic()
    where, form = arguments.output_path, FORMATS[arguments.format]
    if arguments.zip:
        where /= ARCHIVE
        generate_zip(where, arguments.ratings, arguments.seed, form)
    else:
        generate(where, arguments.ratings, arguments.seed, form)
    seconds = time.monotonic() - started
    print(f"{arguments.ratings:,} ratings in {where} after {seconds:.1f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
