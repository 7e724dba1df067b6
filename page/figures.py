"""The numbers of the page, computed with DuckDB from the Parquet files of a result."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import duckdb

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

MEMORY = "500MB"  # beyond it DuckDB spills to the scratch folder
MOST_THREADS = 8  # each needs memory of its own
EARLIEST = 788_918_400  # 1995-01-01, the year of the first rating in MovieLens
HOURS_OF_A_WEEK = 7 * 24
THURSDAY = 3 * 24  # the day of 1970-01-01, in hours from Monday
LEAST_OF_A_TOP = 3
MOVIES_SHOWN = 10
USERS_SHOWN = 5
GENRES_SHOWN = 20
EXAMPLES_SHOWN = 3
REASONS_SHOWN = 12
CHARACTERS_READ = 200  # of a title or a line, which may be as long as a file
SEARCHED_BELOW = 100_000
ENOUGH_RATINGS = 50

SCHEMAS = {
    "ratings": 'userId INTEGER, movieId INTEGER, rating FLOAT, "timestamp" BIGINT',
    "movies": "movieId INTEGER, title VARCHAR, genres VARCHAR",
    "movies_with_stats": (
        "movieId INTEGER, title VARCHAR, genres VARCHAR, max_rating FLOAT, min_rating FLOAT, avg_rating DOUBLE"
    ),
    "top_movies_per_user": 'userId INTEGER, movieId INTEGER, rating FLOAT, "timestamp" BIGINT, "rank" INTEGER',
    "rejects": "dataset VARCHAR, reason VARCHAR, line VARCHAR",
}

# Each of the first three goes once over the ratings; all else is derived from these small tables
TABLES = f"""
    CREATE TEMP TABLE hours AS
    SELECT "timestamp" // 3600 AS hour, count(*) AS ratings, sum(rating::DOUBLE) AS stars FROM ratings GROUP BY hour;

    CREATE TEMP TABLE users AS SELECT userId, count(*) AS ratings FROM ratings GROUP BY userId;

    CREATE TEMP TABLE rated AS
    SELECT movieId, count(*) AS ratings, avg(rating::DOUBLE) AS mean, stddev_pop(rating::DOUBLE) AS spread
    FROM ratings GROUP BY movieId;

    CREATE TEMP TABLE tops AS
    SELECT movieId, count(DISTINCT userId) AS users FROM top_movies_per_user GROUP BY movieId;

    CREATE TEMP TABLE titles AS
    SELECT movieId, genres, coalesce(ratings, 0) AS ratings, mean, spread, coalesce(users, 0) AS users,
        coalesce(left(title, {CHARACTERS_READ}), 'movie ' || movieId || ', not in movies') AS title
    FROM movies FULL JOIN rated USING (movieId) LEFT JOIN tops USING (movieId);

    CREATE TEMP TABLE genre_of AS
    SELECT ratings, mean, left(unnest(list_distinct(string_split(genres, '|'))), {CHARACTERS_READ}) AS genre
    FROM titles WHERE genres IS NOT NULL;
"""


MEAN_OF_ALL = "(SELECT sum(stars) / sum(ratings) FROM hours)"


@dataclass(frozen=True)
class Movie:
    """A movie with its ratings: how many, their mean, and a further number that a list is ordered by."""

    title: str
    ratings: int
    mean: float
    value: float


@dataclass(frozen=True)
class Genre:
    """A genre: movies, ratings of them, and the mean of these; None where there are none."""

    name: str
    movies: int
    ratings: int
    mean: float | None


@dataclass(frozen=True)
class Pick:
    """A row of the top three of a user, with the title of the movie; `time` in epoch seconds."""

    user: int
    ratings_of_user: int
    rank: int
    title: str
    rating: float
    time: int


@dataclass(frozen=True)
class Spread:
    """How many ratings each of many has: how many have 1, 2-3, 4-7, ...; the median; the share of the top hundredth."""

    doublings: list[int]
    median: float
    top: int
    share_of_top: float


@dataclass(frozen=True)
class Reason:
    """Why lines were rejected: how many of which file, and some of them."""

    dataset: str
    reason: str
    lines: int
    examples: list[str]


@dataclass(frozen=True)
class Figures:
    """All numbers of the page. Months are counted from year 0, hours of the week from Monday, 00:00 UTC."""

    rows: dict[str, int]
    users: int
    unrated: int
    of_unknown_movies: int
    repeated: int
    users_below_top: int
    out_of_time: int
    top_rows_expected: int
    mean: float | None
    stars: dict[float, int]
    months: list[tuple[int, int, float]]
    week: list[int]
    per_user: Spread
    per_movie: Spread
    genres: list[Genre]
    genre_count: int
    enough: int
    most_rated: list[Movie]
    best: list[Movie]
    disputed: list[Movie]
    picks: list[Pick]
    movies_in_tops: int
    often_in_tops: list[Movie]
    reasons: list[Reason]
    search: dict[str, list[Any]] | None


def measure(files: dict[str, list[str]], now: datetime, scratch: Path) -> Figures:
    """The figures of the files of each dataset; ratings later than `now` are none of a possible time.

    Raises duckdb.Error where a file is missing, damaged or of other columns.
    """
    options: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": MEMORY,
        "threads": min(MOST_THREADS, os.cpu_count() or 1),
        "temp_directory": str(scratch),
        "preserve_insertion_order": False,
        "autoinstall_known_extensions": False,  # what is not built in would come from the network
        "autoload_known_extensions": False,
    }
    with duckdb.connect(config=options) as connection:
        return Measuring(connection, int(now.timestamp())).figures(files)


class Measuring:
    """The questions that are asked of the datasets, each a method."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, now: int) -> None:
        self.connection = connection
        self.possible = f"BETWEEN {EARLIEST} AND {now}"

    def figures(self, files: dict[str, list[str]]) -> Figures:
        """All of them."""
        for name, schema in SCHEMAS.items():
            self.open(name, schema, files.get(name, []))
        self.connection.execute(TABLES)
        enough = self.enough()
        return Figures(
            rows={name: self.number(f"SELECT count(*) FROM {name}") for name in files},
            users=self.number("SELECT count(*) FROM users"),
            unrated=self.number("SELECT count(*) FROM titles WHERE ratings = 0"),
            of_unknown_movies=self.number("SELECT sum(ratings) FROM titles WHERE genres IS NULL"),
            repeated=self.number(
                "SELECT sum(times - 1) FROM (SELECT count(*) AS times FROM ratings GROUP BY userId, movieId)"
            ),
            users_below_top=self.number(f"SELECT count(*) FROM users WHERE ratings < {LEAST_OF_A_TOP}"),
            out_of_time=self.number(f'SELECT count(*) FROM ratings WHERE NOT "timestamp" {self.possible}'),
            top_rows_expected=self.number(f"SELECT sum(least(ratings, {LEAST_OF_A_TOP})) FROM users"),
            mean=self.rows(f"SELECT {MEAN_OF_ALL}")[0][0],
            stars=dict(self.rows("SELECT rating::DOUBLE, count(*) FROM ratings GROUP BY rating ORDER BY rating")),
            months=self.months(),
            week=self.week(),
            per_user=self.spread("users"),
            per_movie=self.spread("rated"),
            genres=self.genres(),
            genre_count=self.number("SELECT count(DISTINCT genre) FROM genre_of"),
            enough=enough,
            most_rated=self.movies("ratings"),
            # the mean of a movie, drawn to that of all by as many ratings of the latter as are enough
            best=self.movies(f"(ratings * mean + {enough} * {MEAN_OF_ALL}) / (ratings + {enough})"),
            disputed=self.movies("spread", f"ratings >= {enough} AND spread > 0"),
            picks=self.picks(),
            movies_in_tops=self.number("SELECT count(*) FROM tops"),
            often_in_tops=self.movies("users", "users > 0"),
            reasons=self.reasons(),
            search=self.search(),
        )

    def open(self, name: str, schema: str, files: list[str]) -> None:
        """Makes a dataset a view; one without files is an empty table."""
        if files:
            names = [re.sub(r"([*?\[])", r"[\1]", file) for file in files]  # wildcards in them are none
            self.connection.read_parquet(names).create_view(name)
        else:
            self.connection.execute(f"CREATE TABLE {name} ({schema})")

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What a query finds."""
        return self.connection.execute(query).fetchall()

    def number(self, query: str) -> int:
        """The one number that a query finds; 0 where it finds none."""
        return int(self.rows(query)[0][0] or 0)

    def enough(self) -> int:
        """How many ratings make the mean of a movie one to go by: 50, or what a quarter of the movies have."""
        return self.number(f"SELECT least({ENOUGH_RATINGS}, quantile_disc(ratings, 0.75)) FROM rated") or 1

    def months(self) -> list[tuple[int, int, float]]:
        """Of each month with ratings: its number from year 0 on, ratings, mean."""
        return self.rows(
            f"""SELECT year(day) * 12 + month(day) - 1 AS month, sum(ratings)::BIGINT, sum(stars) / sum(ratings)
                FROM (SELECT make_timestamp(hour * 3_600_000_000) AS day, ratings, stars FROM hours
                      WHERE hour * 3600::BIGINT {self.possible})
                GROUP BY month ORDER BY month"""
        )

    def week(self) -> list[int]:
        """The ratings of each hour of the week."""
        found = dict(
            self.rows(
                f"""SELECT (hour + {THURSDAY}) % {HOURS_OF_A_WEEK} AS of_week, sum(ratings)::BIGINT
                    FROM hours WHERE hour * 3600::BIGINT {self.possible} GROUP BY of_week"""
            )
        )
        return [found.get(hour, 0) for hour in range(HOURS_OF_A_WEEK)]

    def spread(self, table: str) -> Spread:
        """How the ratings are spread over the rows of a table that counts them."""
        doublings = dict(
            self.rows(f"SELECT floor(log2(ratings))::INTEGER AS doubling, count(*) FROM {table} GROUP BY 1")
        )
        [(median, size, share)] = self.rows(
            f"""WITH placed AS (SELECT ratings, row_number() OVER (ORDER BY ratings DESC) AS place FROM {table}),
                top AS (SELECT ceil(count(*) / 100)::BIGINT AS size FROM {table})
                SELECT median(ratings), any_value(size), sum(ratings) FILTER (place <= size) / sum(ratings)
                FROM placed CROSS JOIN top"""
        )
        sizes = [doublings.get(doubling, 0) for doubling in range(max(doublings, default=-1) + 1)]
        return Spread(sizes, median or 0.0, size or 0, share or 0.0)

    def genres(self) -> list[Genre]:
        """The genres with the most ratings, as the movies name them."""
        return [
            Genre(*row)
            for row in self.rows(
                f"""SELECT genre, count(*), sum(ratings)::BIGINT AS of_genre, sum(ratings * mean) / sum(ratings)
                    FROM genre_of GROUP BY genre ORDER BY of_genre DESC, genre LIMIT {GENRES_SHOWN}"""
            )
        ]

    def movies(self, value: str, condition: str = "true") -> list[Movie]:
        """The rated movies with the highest value; of equal ones those with more ratings."""
        return [
            Movie(*row)
            for row in self.rows(
                f"""SELECT title, ratings, mean, {value} AS of_movie FROM titles
                    WHERE ratings > 0 AND {condition}
                    ORDER BY of_movie DESC, ratings DESC, movieId LIMIT {MOVIES_SHOWN}"""
            )
        ]

    def picks(self) -> list[Pick]:
        """The top three of users from the busiest to the quietest."""
        return [
            Pick(*row)
            for row in self.rows(
                f"""WITH placed AS (
                        SELECT *, row_number() OVER (ORDER BY ratings DESC, userId) - 1 AS place FROM users
                    ),
                    example AS (
                        SELECT DISTINCT (number * ((SELECT count(*) FROM users) - 1)) // {USERS_SHOWN - 1} AS place
                        FROM range({USERS_SHOWN}) AS steps(number)
                    )
                    SELECT userId, u.ratings, t."rank" AS rank, m.title, t.rating, t."timestamp"
                    FROM example JOIN placed u USING (place) JOIN top_movies_per_user t USING (userId)
                    JOIN titles m USING (movieId) ORDER BY place, rank"""
            )
        ]

    def reasons(self) -> list[Reason]:
        """Why lines were rejected, the most frequent reason first."""
        return [
            Reason(*row)
            for row in self.rows(
                f"""SELECT dataset, reason, count(*) AS lines, min(left(line, {CHARACTERS_READ}), {EXAMPLES_SHOWN})
                    FROM rejects GROUP BY dataset, reason ORDER BY lines DESC, dataset, reason LIMIT {REASONS_SHOWN}"""
            )
        ]

    def search(self) -> dict[str, list[Any]] | None:
        """Titles in the order of the movieIds, steps between these, ratings, hundredths of the mean.

        None where there are none, or too many.
        """
        if not 0 < self.number("SELECT count(*) FROM movies") < SEARCHED_BELOW:
            return None
        rows = self.rows(
            """SELECT title, movieId - lag(movieId, 1, 0) OVER (ORDER BY movieId), ratings, round(100 * mean)::INTEGER
               FROM titles WHERE genres IS NOT NULL ORDER BY movieId"""
        )
        return dict(zip(("titles", "steps", "ratings", "means"), map(list, zip(*rows, strict=True)), strict=True))
