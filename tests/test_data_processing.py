"""What a valid line is: one definition, the same on both engines and on all ways of reading."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import movielens_pipeline as job
from movielens import contract
from movielens.formats.plain import Plain
from movielens.inputs import find_release
from movielens.reading import find_rejects
from tests.support.inputs import MOVIES, movie_lines, write_input

INT_MAX = 2**31 - 1
NUMBERS = [
    "0", "1", "9", "10", "05", "+5", "-5", "5.", ".5", " 5", "5 ", "1e0", "NaN", "", "five", "0x1", "1_0", "٣",
    "2147483646", "2147483647", "2147483648", "2147483700", "2200000000", "9999999999", "99999999999999999999",
    "9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809", "-0",
    "3.00000011920928955078125", "3.000000119209289550781250000001",  # between two floats, and just above the middle
    "0.5", "0.49", "0.500", "3.7", "4.99", "5.0", "5.01", "6", "05.0", "4,5", "infinity", "null", "true",
]  # fmt: skip


def single(text: str) -> float:
    """The FLOAT nearest to a decimal; of two as near the even one. Not by way of a DOUBLE, which would round twice."""
    (bits,) = struct.unpack("I", struct.pack("f", float(text)))
    near = [(struct.unpack("f", struct.pack("I", number))[0], number % 2) for number in (bits - 1, bits, bits + 1)]
    return float(min(near, key=lambda found: (abs(Fraction(found[0]) - Fraction(text)), found[1]))[0])


def valid_rating(line: str) -> tuple[int, int, float, int] | None:
    """The definition again, in plain Python."""
    fields = line.split("::")
    if len(fields) != 4:
        return None
    user, movie, rating, timestamp = fields
    if not all(re.fullmatch("[1-9][0-9]*", value) and int(value) <= INT_MAX for value in (user, movie)):
        return None
    if not re.fullmatch(r"(0|[1-9][0-9]*)(\.[0-9]+)?", rating) or not 0.5 <= float(rating) <= 5:
        return None
    if not re.fullmatch("0|-?[1-9][0-9]*", timestamp) or not -(2**63) <= int(timestamp) < 2**63:
        return None
    return int(user), int(movie), single(rating), int(timestamp)


def is_plain(line: str) -> bool:
    """The definition of a plain line, as well."""
    return bool(re.fullmatch(r"([1-9]\d*::){2}([1-5]|[0-4]\.5)::[1-9]\d{1,9}", line, re.ASCII)) and bool(
        valid_rating(line)
    )


def assert_read_as_defined(spark: Any, folder: Path, lines: list[str]) -> None:
    """All ways of reading give the rows of the valid lines, and the rejects are the others."""
    release = find_release(spark, str(write_input(folder, "\n".join(lines).encode(), movie_lines(MOVIES))))
    expected = sorted(row for line in lines if (row := valid_rating(line)))
    for way in (release, replace(release, odd_bytes=True)):
        assert sorted(tuple(row) for row in job.load_ratings(spark, way).collect()) == expected, way
    rejects = find_rejects(spark, str(folder)).collect()
    assert sorted(row["line"] for row in rejects) == sorted(
        line for line in lines if line.strip(" \t") and not valid_rating(line)
    )
    assert all(row["reason"] for row in rejects)
    # the plain way is for plain lines alone
    plain = "\n".join(line for line in lines if is_plain(line)).encode()
    release = find_release(spark, str(write_input(folder / "plain", plain, movie_lines(MOVIES))))
    rows = job.load_ratings(spark, replace(release, plain=Plain(release.format, ""))).collect()
    assert sorted(tuple(row) for row in rows) == sorted(valid_rating(line) for line in lines if is_plain(line))


def test_every_way_to_write_a_number_is_judged_alike_everywhere(spark: Any, tmp_path: Path) -> None:
    # given each number in each place of an otherwise good line
    good = ["1", "2", "3", "4"]
    lines = ["::".join([*good[:place], number, *good[place + 1 :]]) for number in NUMBERS for place in range(4)]
    assert_read_as_defined(spark, tmp_path, lines)


FIELDS = st.sampled_from([*NUMBERS, "1", "2", "3", "4", "5"]) | st.integers(-10, 2**32).map(str)
LINES = st.lists(FIELDS, min_size=3, max_size=5).map("::".join) | st.text(
    st.characters(blacklist_characters="\r\n", blacklist_categories=["Cs"]), max_size=12
).map(lambda text: text.removeprefix("\ufeff").replace("\x03", ""))


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(LINES, min_size=30, max_size=60))
def test_any_lines_are_read_as_defined(spark: Any, tmp_path: Path, lines: list[str]) -> None:
    assert_read_as_defined(spark, tmp_path, ["1::2::3::40", *lines])


@pytest.mark.parametrize("limit", [10, 47, 2**31 - 1, 2**63 - 1])
def test_the_pattern_of_positive_integers_is_exact_at_its_limit(limit: int) -> None:
    pattern = re.compile(contract.positive_integer_up_to(limit))
    inside = {1, 2, 9, limit // 2, limit - 1, limit} | {limit - 10**n for n in range(len(str(limit)) - 1)}
    outside = {0, -1, limit + 1, limit + 2, limit * 10} | {limit + 10**n for n in range(len(str(limit)))}
    assert all(pattern.fullmatch(str(number)) for number in inside if number > 0)
    assert not any(pattern.fullmatch(str(number)) for number in outside)
    assert not pattern.fullmatch("01")


@pytest.mark.parametrize("limit", [10, 105, 2**31 - 1, 2**63 - 1])
def test_whole_numbers_are_valid_up_to_the_limit_and_no_further(limit: int) -> None:
    # given numbers that are as long, or differ in one place, by each digit
    steps = (digit * 10**place for place in range(len(str(limit)) + 1) for digit in range(10))
    numbers = {number for step in steps for number in (step, limit - step, limit + step)}
    valid = re.compile(contract.positive_integer_up_to(limit))
    for number in numbers:
        assert bool(valid.fullmatch(str(number))) == (1 <= number <= limit), number
    assert not [text for text in ("", "01", "+1", " 1", "1 ", "1.0", "1e1") if valid.fullmatch(text)]


def test_what_is_valid_keeps_all_the_rules_of_its_field() -> None:
    for field in (*contract.RATING_FIELDS, *contract.MOVIE_FIELDS):
        kept = {text for text in NUMBERS if all(re.fullmatch(rule, text) for rule, _ in field.rules)}
        assert kept == {text for text in NUMBERS if re.fullmatch(field.valid, text)}, field.name
