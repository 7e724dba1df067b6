"""The statistics and the top three again, in plain Python: no Spark, no SQL."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from fractions import Fraction
from typing import Any

from hypothesis import strategies as st

Rating = tuple[int, int, float, int]
Movie = tuple[int, str, str]

STARS = [half / 2 for half in range(1, 11)]


def statistics(ratings: list[Rating], movies: list[Movie]) -> list[tuple[object, ...]]:
    """movieId, title, genres, max_rating, min_rating, avg_rating; the mean is computed without any rounding first."""
    given = defaultdict(list)
    for _, movie, rating, _ in ratings:
        given[movie].append(rating)
    return sorted(
        (
            *movie,
            max(given[movie[0]], default=None),
            min(given[movie[0]], default=None),
            float(sum(map(Fraction, given[movie[0]])) / len(given[movie[0]])) if given[movie[0]] else None,
        )
        for movie in movies
    )


def top(ratings: list[Rating], ranks: int = 3) -> list[tuple[int, int, float, int, int]]:
    """userId, movieId, rating, timestamp, rank."""
    given = defaultdict(list)
    for rating in ratings:
        given[rating[0]].append(rating)
    return sorted(
        (*rating, rank)
        for of_user in given.values()
        for rank, rating in enumerate(sorted(of_user, key=lambda row: (-row[2], -row[3], row[1]))[:ranks], 1)
    )


def ratings(
    values: st.SearchStrategy[Any] | None = None, movies: st.SearchStrategy[int] | None = None
) -> st.SearchStrategy[list[Rating]]:
    """Lists of ratings with many ties, duplicates, one-user lists, and movies that are rated often or never."""
    rating = st.tuples(
        st.integers(1, 4) | st.just(2**31 - 1),
        st.integers(1, 8) | st.just(2**31 - 1) if movies is None else movies,
        st.sampled_from(STARS) if values is None else values,
        st.integers(1, 3) | st.sampled_from([-(2**63), 0, 2**63 - 1]),
    )
    return st.lists(rating, min_size=1, max_size=40).flatmap(lambda rows: st.permutations(rows + rows[:3]))


# For each type values of any size and sign, of which many are equal or next to one another
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "FLOAT": st.sampled_from([-4.0, -0.0, 0.0, 2.0**-149, 4.0, 4.0 + 2**-21, 4.0 - 2**-22])
    | st.floats(width=32, allow_nan=False, allow_infinity=False),
    "DOUBLE": st.sampled_from([-4.0 - 2**-50, -4.0, -0.0, 0.0, 5e-324, 4.0, 4.0 + 2**-50, 4.0 - 2**-51])
    | st.floats(allow_nan=False, allow_infinity=False),
    "DECIMAL(38,20)": st.sampled_from([Decimal(4), Decimal("4.00000000000000000001"), Decimal(-4), Decimal(0)])
    | st.decimals(-(10**17), 10**17, places=20),
    "INT": st.integers(-2, 2) | st.integers(-(2**31), 2**31 - 1),
}

MOVIES: list[Movie] = [(number, f"Movie {number}", "Drama") for number in [*range(1, 7), 2**31 - 1]]
