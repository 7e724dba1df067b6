"""What all formats have in common: what a format is, and how a line is judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from movielens.contract import FIELDS_MISSING, HEADER_NOT_EXPECTED, NUL_BYTE, RATING_FIELDS, TOO_MANY_FIELDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyspark.sql import Column, DataFrame

    from movielens.contract import Field


@dataclass(frozen=True)
class Format:
    """A form in which MovieLens is published: the names of its files, and how a line of each is cut and judged.

    In all of them a line of ratings is userId, movieId, rating, timestamp, with the same separator between each two.
    A header is the first line of each file, without its line end; it is empty where there is none. `judged_movies`
    cuts lines (file, line) of movies: file, line, movieId, title, genres as they stand there, all STRING, and the
    reason why the line is not valid, NULL for a valid one.
    """

    name: str
    ratings_file: str
    movies_file: str
    separator: str
    judged_movies: Callable[[DataFrame], DataFrame]
    ratings_header: str = ""
    movies_header: str = ""

    @property
    def files(self) -> dict[str, str]:
        """The name of the file of each text, `ratings` and `movies`."""
        return {"ratings": self.ratings_file, "movies": self.movies_file}

    @property
    def headers(self) -> dict[str, str]:
        """The header of each text, `ratings` and `movies`."""
        return {"ratings": self.ratings_header, "movies": self.movies_header}

    @property
    def valid_rating_line(self) -> str:
        """The regular expression of a valid line of ratings."""
        return rf"^{self.separator.join(field.valid for field in RATING_FIELDS)}\z"

    @property
    def column_separator(self) -> str:
        """The one character that separates typed columns."""
        return self.separator[0]

    @property
    def rating_columns(self) -> str:
        """The typed columns of ratings, as `column_separator` cuts them.

        Where a separator has two characters, there is an empty column between two of them.
        """
        columns: list[str] = []
        for field in RATING_FIELDS:
            columns += [f"before_{field.name} STRING"] * (len(self.separator) - 1 if columns else 0)
            columns.append(f"{field.name} {field.type}")
        return ", ".join(columns)

    def cut_ratings(self, lines: DataFrame) -> DataFrame:
        """Cuts those of lines (line STRING) that are valid into userId, movieId, rating, timestamp, typed."""
        # One regular expression says what is valid; checks of the pieces would be inlined into each use of them,
        # three times slower on spark.
        valid = lines.filter(F.col("line").rlike(self.valid_rating_line))
        return valid.select(
            *(text.cast(field.type).alias(field.name) for text, field in zip(self.fields(), RATING_FIELDS, strict=True))
        )

    def fields(self) -> tuple[Column, ...]:
        """The fields of a line of ratings with three separators, STRING; of any other line pieces of it."""
        # With three separators for sure, `substring_index` is right, and on spark takes half the time of `split_part`.
        sign = self.separator
        first_two, last_two = F.substring_index("line", sign, 2), F.substring_index("line", sign, -2)
        return (
            F.substring_index(first_two, sign, 1),
            F.substring_index(first_two, sign, -1),
            F.substring_index(last_two, sign, 1),
            F.substring_index(last_two, sign, -1),
        )

    def rejected_ratings(self, lines: DataFrame) -> DataFrame:
        """The lines (file, line) of ratings that are not valid, with the first thing wrong in each.

        Columns: file, line, reason, all STRING.
        """
        wrong_lines = field_counts(self.separator, len(RATING_FIELDS))
        if self.ratings_header:
            wrong_lines = ((F.col("line") == self.ratings_header, HEADER_NOT_EXPECTED), *wrong_lines)
        why = reason(wrong_lines, RATING_FIELDS, self.field_at)
        return lines.filter(~F.col("line").rlike(self.valid_rating_line)).select("file", "line", why.alias("reason"))

    def field_at(self, place: int) -> Column:
        """The field of a line of ratings at a place, counted from 0."""
        return F.split_part(F.col("line"), F.lit(self.separator), F.lit(place + 1))


def reason(wrong_lines: Sequence[tuple[Column, str]], fields: Sequence[Field], cut: Callable[[int], Column]) -> Column:
    """The first thing that is wrong in a line, STRING; NULL where nothing is.

    `wrong_lines` tells what is wrong with a `line` as a whole, and why; `cut` gives its fields, by their place.
    """
    chain = F.when(F.col("line").rlike(r"\x00"), NUL_BYTE)
    for wrong, why in wrong_lines:
        chain = chain.when(wrong, why)
    for place, field in enumerate(fields):
        for pattern, why in field.rules:
            # \z and not $, which in Java also matches before a line end
            chain = chain.when(~cut(place).rlike(rf"^{pattern}\z"), why)
    return chain


def field_counts(separator: str, count: int) -> tuple[tuple[Column, str], ...]:
    """What is wrong with a line that has fewer fields, or more, than so many."""
    # patterns and not split(), which takes all memory when a line of 50 MB is nothing but separators
    enough = "(?s)" + ".*".join([separator] * (count - 1))
    return (
        (~F.col("line").rlike(enough), FIELDS_MISSING),
        (F.col("line").rlike(f"{enough}.*{separator}"), TOO_MANY_FIELDS),
    )
