"""MovieLens 1M and 10M: ratings.dat and movies.dat, with `::` between fields, without quotes or header.

https://files.grouplens.org/datasets/movielens/ml-1m-README.txt
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from movielens.contract import FIELDS_MISSING, MOVIE_FIELDS, RATING_FIELDS, TOO_MANY_FIELDS
from movielens.formats import reason

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

RATINGS_FILE = "ratings.dat"
MOVIES_FILE = "movies.dat"

VALID_RATING_LINE = rf"^{'::'.join(field.valid for field in RATING_FIELDS)}\z"

# One character separates typed columns, so between two of them there is an empty one.
COLUMN_SEPARATOR = ":"
RATING_COLUMNS = ", ".join(
    f"{field.name} {field.type}" + (f", after_{field.name} STRING" if field is not RATING_FIELDS[-1] else "")
    for field in RATING_FIELDS
)


def cut_ratings(lines: DataFrame) -> DataFrame:
    """Cuts the valid ones of lines (line STRING) into userId, movieId, rating, timestamp, typed."""
    # One regular expression says what is valid; checks of the pieces would be inlined into each use of them,
    # three times slower on spark.
    valid = lines.filter(F.col("line").rlike(VALID_RATING_LINE))
    # With three separators for sure, `substring_index` is right, and on spark takes half the time of `split_part`.
    first_two, last_two = F.substring_index("line", "::", 2), F.substring_index("line", "::", -2)
    cut = (
        F.substring_index(first_two, "::", 1),
        F.substring_index(first_two, "::", -1),
        F.substring_index(last_two, "::", 1),
        F.substring_index(last_two, "::", -1),
    )
    return valid.select(
        *(text.cast(field.type).alias(field.name) for text, field in zip(cut, RATING_FIELDS, strict=True))
    )


def rejected_ratings(lines: DataFrame) -> DataFrame:
    """The lines (file, line) of ratings that are not valid, with the first thing wrong in each: file, line, reason."""
    # patterns and not split(), which takes all memory when a line of 50 MB is nothing but separators
    wrong_lines = (
        (~F.col("line").rlike("(?s)::.*::.*::"), FIELDS_MISSING),
        (F.col("line").rlike("(?s)::.*::.*::.*::"), TOO_MANY_FIELDS),
    )
    why = reason(wrong_lines, RATING_FIELDS, lambda place: field_at(place + 1))
    return lines.filter(~F.col("line").rlike(VALID_RATING_LINE)).select("file", "line", why.alias("reason"))


def cut_movies(lines: DataFrame) -> DataFrame:
    """Cuts lines (file, line) of movies: file, line, and movieId, title, genres as they stand there, all STRING.

    The title is all between the first `::` and the last.
    """
    return lines.select(
        "file",
        "line",
        field_at(1).alias("movieId"),
        F.regexp_extract("line", r"(?s)^.*?::(.*)::.*\z", 1).alias("title"),
        F.regexp_extract("line", r"(?s)^.*::(.*)\z", 1).alias("genres"),
    )


def judged_movies(cut: DataFrame) -> DataFrame:
    """Adds to lines that were cut the reason why one is not valid: STRING, NULL for a valid one."""
    wrong_lines = ((~F.col("line").rlike("(?s)::.*::"), FIELDS_MISSING),)
    return cut.withColumn("reason", reason(wrong_lines, MOVIE_FIELDS, lambda place: F.col(MOVIE_FIELDS[place].name)))


def field_at(number: int) -> Column:
    """The number-th of the fields that `::` separates, counted from 1."""
    return F.split_part(F.col("line"), F.lit("::"), F.lit(number))
