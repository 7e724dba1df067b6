"""What the job promises: its datasets, what a valid field is, its exit statuses and the errors that carry them."""

from __future__ import annotations

import os
from dataclasses import dataclass

VERSION = "0.6.7"

# --------------------------------------------------------------------------------------------------------------------
# How a run ends

EXIT_DONE = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_BAD_INPUT = 3
EXIT_BUSY = 4


class PipelineError(Exception):
    """An expected failure: one line for the person who reads it, and the exit status."""

    status = EXIT_FAILURE


class UsageError(PipelineError):
    """The command line asks for what cannot be."""

    status = EXIT_USAGE


class BadInputError(PipelineError):
    """The input is missing, empty, unreadable or not valid."""

    status = EXIT_BAD_INPUT


class SchemaError(PipelineError, ValueError):
    """A frame lacks a column, or has it in a type that the function does not take."""


class BusyError(PipelineError):
    """Another run is publishing to the same place."""

    status = EXIT_BUSY


# --------------------------------------------------------------------------------------------------------------------
# Engines: their names, and the kinds of address that each reads and writes

SCHEMES = {"sail": ("file", "s3", "s3a"), "spark": ("file", "s3", "s3a", "hdfs")}
ENGINES = tuple(SCHEMES)


def default_engine() -> str:
    """Spark under spark-submit, which sets PYSPARK_GATEWAY_PORT for the script; sail otherwise."""
    return "spark" if "PYSPARK_GATEWAY_PORT" in os.environ else "sail"


# --------------------------------------------------------------------------------------------------------------------
# What a valid field is. The same text is a valid regular expression of Java (spark) and of Rust (sail).


@dataclass(frozen=True)
class Field:
    """A field of a line: its column, and its rules, each a regular expression with the reason where it does not hold.

    A field is valid that matches the last rule, which no text matches that does not match those before it, too.
    """

    name: str
    type: str
    rules: tuple[tuple[str, str], ...]

    @property
    def valid(self) -> str:
        """The regular expression of what is valid."""
        return self.rules[-1][0]


def positive_integer_up_to(limit: int) -> str:
    """A regular expression for 1..limit in plain digits: no sign, no leading zero, no space.

    Being exact, it spares a second check: what matches can be cast.
    """
    digits = str(limit)
    alternatives = [f"[1-9][0-9]{{0,{len(digits) - 2}}}"]
    for place, digit in enumerate(digits):
        lowest = 1 if place == 0 else 0
        if int(digit) > lowest:
            rest = len(digits) - place - 1
            alternatives.append(f"{digits[:place]}[{lowest}-{int(digit) - 1}][0-9]{{{rest}}}")
    return f"(?:{'|'.join([*alternatives, digits])})"


POSITIVE_INTEGER = "[1-9][0-9]*"
INTEGER = "(?:0|-?[1-9][0-9]*)"
DECIMAL = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?"
POSITIVE_INT = positive_integer_up_to(2**31 - 1)
BIGINT = f"(?:0|-?{positive_integer_up_to(2**63 - 1)}|-{2**63})"
STARS = r"(?:0\.[5-9][0-9]*|[1-4](?:\.[0-9]+)?|5(?:\.0+)?)"
SOMETHING = "(?s:.+)"


def id_field(name: str) -> Field:
    """A positive integer that fits into INT."""
    return Field(
        name, "INT", ((POSITIVE_INTEGER, f"{name} not a positive integer"), (POSITIVE_INT, f"{name} beyond INT"))
    )


RATING_FIELDS = (
    id_field("userId"),
    id_field("movieId"),
    Field("rating", "FLOAT", ((DECIMAL, "rating not a number"), (STARS, "rating not in 0.5..5"))),
    Field("timestamp", "BIGINT", ((INTEGER, "timestamp not an integer"), (BIGINT, "timestamp beyond BIGINT"))),
)
MOVIE_FIELDS = (
    id_field("movieId"),
    Field("title", "STRING", ((SOMETHING, "title missing"),)),
    Field("genres", "STRING", ((SOMETHING, "genres missing"),)),
)

# Why a line is rejected as a whole
NUL_BYTE = "NUL byte"
FIELDS_MISSING = "fields missing"
TOO_MANY_FIELDS = "too many fields"
HEADER_NOT_EXPECTED = "header not as expected"
QUOTES_NOT_BALANCED = "quotes not balanced"
FLAG_NOT_0_OR_1 = "genre flag not 0 or 1"
DUPLICATE_MOVIE = "duplicate movieId"

# --------------------------------------------------------------------------------------------------------------------
# What is published

RATING_COLUMNS = ", ".join(f"{field.name} {field.type}" for field in RATING_FIELDS)
MOVIE_COLUMNS = ", ".join(f"{field.name} {field.type}" for field in MOVIE_FIELDS)

# The columns of each dataset in their order, as pyspark names their types
SCHEMAS = {
    "ratings": RATING_COLUMNS,
    "movies": MOVIE_COLUMNS,
    "movies_with_stats": f"{MOVIE_COLUMNS}, max_rating FLOAT, min_rating FLOAT, avg_rating DOUBLE",
    "top_movies_per_user": f"{RATING_COLUMNS}, rank INT",
    "rejects": "dataset STRING, reason STRING, line STRING",
}
TOP_RANKS = 3
