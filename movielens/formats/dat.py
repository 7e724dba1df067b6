"""MovieLens 1M and 10M: ratings.dat and movies.dat, with `::` between fields, without quotes or header.

https://files.grouplens.org/datasets/movielens/ml-1m-README.txt
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from movielens.contract import FIELDS_MISSING, MOVIE_FIELDS
from movielens.formats.base import Format, reason

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def judged_movies(lines: DataFrame) -> DataFrame:
    """Cuts and judges lines of movies. The title is all between the first `::` and the last."""
    cut = lines.select(
        "file",
        "line",
        F.split_part(F.col("line"), F.lit("::"), F.lit(1)).alias("movieId"),
        F.regexp_extract("line", r"(?s)^.*?::(.*)::.*\z", 1).alias("title"),
        F.regexp_extract("line", r"(?s)^.*::(.*)\z", 1).alias("genres"),
    )
    wrong_lines = ((~F.col("line").rlike("(?s)::.*::"), FIELDS_MISSING),)
    return cut.withColumn("reason", reason(wrong_lines, MOVIE_FIELDS, lambda place: F.col(MOVIE_FIELDS[place].name)))


DAT = Format("dat", "ratings.dat", "movies.dat", "::", judged_movies)
