"""Lines of ratings that are written plainly: which they are, how they are read at once, how long they were.

A plain line has ids without sign, zeros or spaces before them, a timestamp of two to ten digits, and a rating in whole
or half stars, whose whole ones are all written `5` or all `5.0`. So are those of all releases; what a row was read from
can then be told from its values, and its length above all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from movielens.contract import RATING_FIELDS

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from movielens.formats.base import Format

WHOLES = ("1", "2", "3", "4", "5")
HALVES = ("0.5", "1.5", "2.5", "3.5", "4.5")
DIGITS_OF_ID = 10
DIGITS_OF_TIME = 10
LAST_DIGITS = 2  # of a timestamp, which all have


@dataclass(frozen=True)
class Plain:
    """How plain lines of a format are written: with `decimals`, nothing or `.0`, behind whole ratings."""

    format: Format
    decimals: str

    @property
    def ratings(self) -> tuple[str, ...]:
        """All ratings, as they are written."""
        return (*(f"{whole}{self.decimals}" for whole in WHOLES), *HALVES)

    @property
    def columns(self) -> str:
        """The columns of a line as a reader of typed columns takes them, the rating as it is written."""
        return self.format.rating_columns.replace("rating FLOAT", "rating STRING")

    def cut(self, columns: DataFrame) -> DataFrame:
        """Of typed columns userId, movieId, rating, timestamp; the rating is NULL where it is not written plainly.

        The rest need not be looked at: whatever else is not plain makes a line longer than `length` says of its row.
        """
        text = F.col("rating")
        rating = F.when(text.isin(*self.ratings), text.cast("float")).alias("rating")
        return columns.select(*(rating if field.name == "rating" else field.name for field in RATING_FIELDS))

    def cut_lines(self, lines: DataFrame) -> DataFrame:
        """Of lines (line STRING), in a third less time than by the regular expression of a valid one; as `cut`.

        The rating is NULL, too, where there are not three separators: then the fields have other bytes than the line.
        """
        fields = self.format.fields()
        separators = (len(RATING_FIELDS) - 1) * len(self.format.separator)
        is_whole = reduce(add, map(F.octet_length, fields)) + separators == F.octet_length("line")
        columns = {
            field.name: F.when(is_whole & text.isin(*self.ratings), text).try_cast(field.type)
            if field.name == "rating"
            else text.try_cast(field.type)
            for text, field in zip(fields, RATING_FIELDS, strict=True)
        }
        header = self.format.ratings_header
        rows = lines.filter(F.col("line") != header) if header else lines
        return rows.select(*(column.alias(name) for name, column in columns.items()))

    def length(self) -> Column:
        """The bytes of the plain lines that rows came of, without line ends: BIGINT, an aggregate over all rows.

        NULL where a row lacks something: a reader takes an empty field, which has no bytes, for NULL.
        """
        rows = F.count("*")
        are_whole = F.least(*(F.count(field.name) for field in RATING_FIELDS)) == rows
        halves = F.count_if(F.col("rating").isin(*map(float, HALVES)))
        wholes = rows - halves
        length = (
            digits("userId", DIGITS_OF_ID)
            + digits("movieId", DIGITS_OF_ID)
            + digits("timestamp", DIGITS_OF_TIME)
            + wholes * (1 + len(self.decimals))
            + halves * 3
            + rows * ((len(RATING_FIELDS) - 1) * len(self.format.separator))
        )
        return F.when(are_whole, length)

    @staticmethod
    def last_digits() -> Column:
        """The sum of what the last digits of the timestamps say: BIGINT, an aggregate over all rows."""
        return F.sum(F.col("timestamp") % 10**LAST_DIGITS)

    @classmethod
    def of(cls, form: Format, beginning: bytes) -> Plain:
        """As the beginning of a text writes its first whole rating."""
        sign = re.escape(form.separator.encode())
        whole = re.search(rb"[0-9]%b[0-9]+%b[1-5](\.0)?%b" % (sign, sign, sign), beginning)
        return cls(form, (whole[1] or b"").decode() if whole else "")


def digits(name: str, most: int) -> Column:
    """How many digits the positive numbers in a column have, all together: BIGINT, an aggregate over all rows.

    Numbers that are not positive have none, and of those with more digits not all are counted. Comparisons take a
    quarter of the time of texts.
    """
    return reduce(add, (F.count_if(F.col(name) >= 10**power) for power in range(most)))
