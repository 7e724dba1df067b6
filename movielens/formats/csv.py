"""MovieLens 20M, 25M, 32M, latest and latest-small: ratings.csv and movies.csv, with a header in each file.

https://files.grouplens.org/datasets/movielens/ml-32m-README.html

Title and genres may be quoted, as RFC 4180 has it, with quotes doubled inside. A record is one line: a title does not
go over a line end, so that one line that is wrong spoils no other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from movielens.contract import (
    FIELDS_MISSING,
    HEADER_NOT_EXPECTED,
    MOVIE_FIELDS,
    QUOTES_NOT_BALANCED,
    TOO_MANY_FIELDS,
)
from movielens.formats.base import Format, reason

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

MOVIES_HEADER = "movieId,title,genres"
RATINGS_HEADER = "userId,movieId,rating,timestamp"

QUOTED = r'(?s)^"(.*)"\z'


def judged_movies(lines: DataFrame) -> DataFrame:
    """Cuts and judges lines of movies. An id is not quoted, and genres hold no comma."""
    line, movie_id, title, genres = map(F.col, ("line", "movieId", "title", "genres"))
    # patterns without alternatives that repeat, for which Java takes as much of its stack as a line is long
    cut = lines.select(
        "file",
        "line",
        F.split_part(line, F.lit(","), F.lit(1)).alias("movieId"),
        F.regexp_extract(line, r"(?s)^[^,]*,(.*),[^,]*\z", 1).alias("title"),
        F.regexp_extract(line, r"(?s),([^,]*)\z", 1).alias("genres"),
    )
    too_few, too_many = ~line.rlike("(?s),.*,"), holds_separator(title)
    misquoted = wrongly_quoted(title) | wrongly_quoted(genres)
    odd_number_of_quotes = F.length(line) % 2 != F.length(F.translate(line, '"', "")) % 2
    # a title that is not quoted may hold one: `5" disk`
    torn = odd_number_of_quotes & (too_few | too_many | misquoted | ~movie_id.rlike("^[0-9]+$"))
    wrong_lines = (
        (line == MOVIES_HEADER, HEADER_NOT_EXPECTED),
        (torn, QUOTES_NOT_BALANCED),
        (too_few, FIELDS_MISSING),
        (too_many, TOO_MANY_FIELDS),
        (misquoted, QUOTES_NOT_BALANCED),
    )
    fields = (movie_id, unquoted(title), unquoted(genres))
    why = reason(wrong_lines, MOVIE_FIELDS, lambda place: fields[place])
    named = (text.alias(field.name) for text, field in zip(fields, MOVIE_FIELDS, strict=True))
    return cut.select("file", "line", *named, why.alias("reason"))


def inside(field: Column) -> Column:
    """What is between the quotes of a field; empty where it is not quoted."""
    return F.regexp_extract(field, QUOTED, 1)


def wrongly_quoted(field: Column) -> Column:
    """Whether a field begins with a quote, and does not end with one, or has single ones between."""
    single = F.replace(inside(field), F.lit('""'), F.lit("")).contains('"')
    return field.startswith('"') & (~field.rlike(QUOTED) | single)


def holds_separator(field: Column) -> Column:
    """Whether a field is more than one: it is not quoted, or not to its end, and holds a comma."""
    return F.when(field.startswith('"'), wrongly_quoted(field) & field.contains('",')).otherwise(field.contains(","))


def unquoted(field: Column) -> Column:
    """The text of a field that may be quoted."""
    return F.when(field.startswith('"'), F.replace(inside(field), F.lit('""'), F.lit('"'))).otherwise(field)


CSV = Format(
    "csv",
    "ratings.csv",
    "movies.csv",
    ",",
    judged_movies,
    ratings_header=RATINGS_HEADER,
    movies_header=MOVIES_HEADER,
)
