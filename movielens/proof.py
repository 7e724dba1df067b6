"""The proof that all of the input is in what was written: every byte of ratings, every line of movies.

Ratings are read at once, as if all lines were plain (`formats.plain`). Of the rows that were written, the lengths of
their plain lines are added up. The input was found to hold so many bytes in lines (`contents`), which is not asked of
the engine. If both are the same, then every line was plain, and every byte is in a row:

- What a reader takes for a number, and is no plain one (`+5`, `05`, ` 5`), is longer than the plain one of its value.
  The readers of both engines take nothing shorter (`1e3`) for a whole number. The rating, of which there are shorter
  forms (`.5`), is compared as text. So a row has at most the length of what it came of, and less if that was not plain;
  a line that gave no row has the length 0. As nothing exceeds its share, no two faults cancel each other.
- A row that lacks something is none of a plain line, whatever the sum says: an empty field, which has no bytes either
  way, or another rating, or on Spark a line with more or fewer separators.
- That would be different if a line counted twice, whose surplus could hide another that is lost. So not only bytes are
  compared, but lines, and the sum of the last two digits of all timestamps. A reader that splits a file where a line
  begins, and loses one part and reads another twice, has the same bytes one time in thirty.
- Two lines that are read as one, as with an empty field before the line end, have the bytes of a plain line less the
  line end. They are one row and two lines.

Of plain files in a store only the ends are looked at where many machines read them, for they may be too large for one.
Line ends are then taken to be one byte, the least that they can be, so that what was said of bytes holds for them as
well; lines and digits are not compared.

Where anything differs, each line is judged, and each must be a row or a reject; the valid lines are read once more, for
a sum over all of them that the rows must have.

Of the datasets that are derived, what can be known from the ratings is compared: how many rows and which ranks the top
three have, which movies have statistics.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from movielens.contents import are_near, beginning_of, contents_of, count_lines
from movielens.contract import SCHEMAS, TOP_RANKS, BadInputError, PipelineError
from movielens.engines import engine_of
from movielens.formats.plain import Plain
from movielens.inputs import input_read
from movielens.storage.paths import join
from movielens.tables import read_dataset
from movielens.terminal import count_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pyspark.sql import Column, DataFrame, SparkSession

    from movielens.contents import Contents
    from movielens.inputs import Release

    Judge = Callable[[Sequence[str]], dict[str, int]]


class NotPlainError(Exception):
    """The bytes do not add up: not all lines are plain, or not all are there."""


class Proof:
    """What is known of the input of a run, and of what was written of it so far.

    Files are read in threads of its own while the engine works; `check` holds a dataset against them. `judge` judges
    each line of texts and returns how many rejects each has.
    """

    def __init__(self, spark: SparkSession, release: Release, input_path: str, staging: str, judge: Judge) -> None:
        self.spark, self.release, self.input_path, self.staging, self.judge = spark, release, input_path, staging, judge
        self.storage = engine_of(spark).storage(release.files[0].path)
        self.rejects: dict[str, int] = {}  # of each text whose lines were judged
        self.movies: tuple[int, int] | None = None  # how many movies has, and the sum of their ids
        self.threads = ThreadPoolExecutor(max_workers=2)
        header = release.format.ratings_header.encode()
        self.near = not engine_of(spark).distributed or are_near(release.ratings)
        self.contents = self.threads.submit(contents_of, self.storage, release.ratings, header, near=self.near)
        self.movie_lines = self.threads.submit(count_lines, self.storage, release.movies)

    def plain_release(self) -> Release:
        """The release with how its ratings are written, as the first of them are."""
        first = next(file for file in self.release.ratings if file.size)
        beginning = input_read(lambda: beginning_of(self.storage, first.path))
        return replace(self.release, plain=Plain.of(self.release.format, beginning))

    def require_whole_files(self) -> None:
        """Waits until all is read that is read apart from the engine; raises BadInputError for a damaged file."""
        input_read(self.contents.result)
        input_read(self.movie_lines.result)

    def check(self, release: Release, name: str, written: DataFrame) -> tuple[int, str]:
        """Holds a dataset that was written against what it was made from.

        Returns its rows, and what there is to say of them. Raises NotPlainError where the plain reading of the release
        was not right, and PipelineError where rows are lost.
        """
        if name == "ratings":
            return self.check_plain(release.plain, written) if release.plain else self.check_judged(written)
        checks = {
            "movies": self.check_movies,
            "movies_with_stats": self.check_statistics,
            "top_movies_per_user": self.check_top,
        }
        return checks[name](written)

    # ----------------------------------------------------------------------------------------------------------------
    # What is read

    def check_plain(self, plain: Plain, written: DataFrame) -> tuple[int, str]:
        """Ratings, by their bytes."""
        [(rows, length, digits)] = written.agg(F.count("*"), plain.length(), plain.last_digits()).collect()
        contents = input_read(self.contents.result)
        if not agree(contents, rows, length, digits or 0):
            raise NotPlainError
        self.require_row("ratings", rows)
        return rows, f", all of {contents.size:,} bytes accounted for"

    def check_judged(self, written: DataFrame) -> tuple[int, str]:
        """Ratings whose lines were judged, by their number, and by a sum over those that are valid, read once more."""
        [(rows, found)] = written.agg(F.count("*"), sum_of_rows(written)).collect()
        said, form = self.check_lines("ratings", rows), self.release.format
        valid = form.cut_ratings(engine_of(self.spark).lines(self.release.ratings))
        [(expected,)] = valid.agg(sum_of_rows(valid)).collect()
        if found != expected:
            raise PipelineError(f"ratings has as many rows as {form.ratings_file} has valid lines, but others")
        return rows, said

    def check_movies(self, written: DataFrame) -> tuple[int, str]:
        """Movies, each of which is there once."""
        rows, self.movies = movies_in(written)
        movies, _ = self.movies
        if movies != rows:
            raise PipelineError(f"movies has {rows:,} rows, but of {movies:,} movies")
        if self.lines_of("movies") != rows and "movies" not in self.rejects:
            self.rejects |= self.judge(["movies"])
        return rows, self.check_lines("movies", rows)

    def check_lines(self, name: str, rows: int) -> str:
        """A text whose lines were judged: each is a row or a reject."""
        file, lines, rejects = self.release.format.files[name], self.lines_of(name), self.rejects.get(name, 0)
        if lines != rows + rejects:
            raise PipelineError(f"{file} has {lines:,} lines, but {rows:,} rows and {rejects:,} rejects came of them")
        self.require_row(name, rows)
        return f"{' and ' + count_of(rejects, 'reject') if rejects else ''}, all of {lines:,} lines accounted for"

    def require_row(self, name: str, rows: int) -> None:
        """Raises BadInputError for a text of which all lines are accounted for, and none is valid."""
        if not rows:
            raise BadInputError(f"{join(self.input_path, self.release.format.files[name])} has no valid line")

    def lines_of(self, name: str) -> int:
        """The lines of a text that are neither blank nor a header, counted apart from the engine where that can be."""
        if name == "movies":
            lines = input_read(self.movie_lines.result)
        elif self.near:
            lines = input_read(lambda: count_lines(self.storage, self.release.ratings))
        else:
            lines = engine_of(self.spark).lines(self.release.ratings).count()
        return lines - len(self.release.headed(name))

    # ----------------------------------------------------------------------------------------------------------------
    # What is derived

    def check_statistics(self, written: DataFrame) -> tuple[int, str]:
        """Movies with their statistics, which are those that movies has."""
        assert self.movies is not None
        rows, found = movies_in(written)
        if rows != self.movies[0]:
            raise PipelineError(f"movies_with_stats has {rows:,} rows, but movies {self.movies[0]:,}")
        if found != self.movies:
            raise PipelineError("movies_with_stats does not have the movies that movies has")
        return rows, ""

    def check_top(self, written: DataFrame) -> tuple[int, str]:
        """The top three, of which each user has three, or as many as there are ratings."""
        ratings = read_dataset(self.spark, join(self.staging, "ratings"), SCHEMAS["ratings"])
        best = F.least(F.count("*"), F.lit(TOP_RANKS))
        users = ratings.groupBy("userId").agg(best.alias("best"))
        due, user = F.col("best"), F.col("userId")
        [expected] = users.agg(F.sum(due), F.sum(due * (due + 1)), F.sum(due * user)).collect()
        [found] = written.agg(F.count("*"), F.sum(F.col("rank") * 2), F.sum("userId")).collect()
        rows: int = found[0]
        if tuple(found) != tuple(expected):
            raise PipelineError(
                f"top_movies_per_user has {rows:,} rows that are not the best {TOP_RANKS} of each user, who have "
                f"{expected[0]:,}"
            )
        return rows, ""


@contextmanager
def proving(spark: SparkSession, release: Release, input_path: str, staging: str, judge: Judge) -> Iterator[Proof]:
    """A proof whose threads are not waited for where the run fails."""
    proof = Proof(spark, release, input_path, staging, judge)
    try:
        yield proof
    finally:
        proof.threads.shutdown(wait=False, cancel_futures=True)


def agree(contents: Contents, rows: int, length: int | None, last_digits: int) -> bool:
    """Whether rows with plain lines of so many bytes, line ends aside, are all that a text holds.

    The length is None where rows lack something.
    """
    if length is None:
        return False
    if contents.lines is None:
        return length + rows == contents.in_lines
    same_digits = contents.last_digits in (None, last_digits)
    return (length, rows) == (contents.in_lines, contents.lines) and same_digits


def movies_in(frame: DataFrame) -> tuple[int, tuple[int, int]]:
    """The rows of a frame with movieId, and of what movies they are: how many, and the sum of their ids."""
    [(rows, movies, total)] = frame.agg(F.count("*"), F.countDistinct("movieId"), F.sum("movieId")).collect()
    return rows, (movies, total)


def sum_of_rows(frame: DataFrame) -> Column:
    """What tells rows from others, in whatever order: BIGINT, an aggregate over all rows."""
    return F.sum(F.pmod(F.xxhash64(*frame.columns), F.lit(2**31)))
