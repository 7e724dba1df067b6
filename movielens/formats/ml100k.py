"""MovieLens 100K: u.data, with tabs between fields, and u.item, with `|` between its 24.

https://files.grouplens.org/datasets/movielens/ml-100k-README.txt

The README calls u.item tab separated, which it is not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from movielens.contract import FIELDS_MISSING, FLAG_NOT_0_OR_1, MOVIE_FIELDS, TOO_MANY_FIELDS
from movielens.formats.base import Format, reason

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

# What the flags at the end of a line stand for, as u.genre has it
GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
# What the releases since 10M say of a movie without genres
NO_GENRES = "(no genres listed)"

# movieId, title, release date, video release date, address, flags
BEFORE_FLAGS = r"^[^|]*\|([^|]*)\|[^|]*\|[^|]*\|[^|]*"
ANY_FLAG, FLAG = r"(?:\|[^|]*)", r"(?:\|[01])"


def judged_movies(lines: DataFrame) -> DataFrame:
    """Cuts and judges lines of u.item."""
    line, number = F.col("line"), len(GENRES)
    flags = F.regexp_extract(line, rf"{BEFORE_FLAGS}({FLAG}{{{number}}})\z", 2)
    flagged = [F.when(F.substring(flags, 2 * place + 2, 1) == "1", genre) for place, genre in enumerate(GENRES)]
    genres = F.concat_ws("|", *flagged)
    cut = lines.select(
        "file",
        "line",
        F.split_part(line, F.lit("|"), F.lit(1)).alias("movieId"),
        F.regexp_extract(line, BEFORE_FLAGS, 1).alias("title"),
        F.when(genres == "", NO_GENRES).otherwise(genres).alias("genres"),
    )
    wrong_lines = (
        (~line.rlike(rf"{BEFORE_FLAGS}{ANY_FLAG}{{{number}}}"), FIELDS_MISSING),
        (~line.rlike(rf"{BEFORE_FLAGS}{ANY_FLAG}{{{number}}}\z"), TOO_MANY_FIELDS),
        (~line.rlike(rf"{BEFORE_FLAGS}{FLAG}{{{number}}}\z"), FLAG_NOT_0_OR_1),
    )
    return cut.withColumn("reason", reason(wrong_lines, MOVIE_FIELDS, lambda place: F.col(MOVIE_FIELDS[place].name)))


ML100K = Format("100k", "u.data", "u.item", "\t", judged_movies)
