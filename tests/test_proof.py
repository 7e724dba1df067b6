"""Every byte of the input is in a row that was written or a line that was rejected; nothing cheats the proof."""

from __future__ import annotations

import bz2
import gzip
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import movielens_pipeline as job
from movielens import contents, contract, proof, tables
from movielens.engines import engine_of
from movielens.formats import CSV, DAT, ML100K
from movielens.formats.plain import Plain
from movielens.inputs import Release, find_release
from movielens.storage.disk import DiskStorage
from tests.support.inputs import write_input
from tests.support.jobs import Main, Publish
from tests.support.results import assert_equal_by_check, manifest_of, visible_names

Row = tuple[int | None, int | None, str | None, int | None]

# Lines of all lengths, and pairs of lines of one length
GOOD = [
    b"1::10::5::978300760", b"1::200::3.5::1112486027", b"2::10::0.5::978302109", b"30::4000::4::978301968",
    b"31::4001::2::1094785740", b"600::71::1.5::978824291", b"601::72::1::978824268", b"7000::80::4.5::1260759144",
]  # fmt: skip


def text_of(lines: list[bytes], end: bytes = b"\n") -> bytes:
    return b"".join(line + end for line in lines)


def entry_of(path: Path, data: bytes) -> Any:
    path.write_bytes(data)
    [entry] = [entry for entry in DiskStorage().entries(str(path.parent)) if entry.path == str(path)]
    return entry


# --------------------------------------------------------------------------------------------------------------------
# The arithmetic alone: a reader that takes what any reader of typed columns may take


def lenient_rows(data: bytes, plain: Plain) -> list[Row]:
    """What a reader makes of a text that leaves out what it cannot read, and takes all that looks like a number."""
    lines = re.split(rb"\r\n|\r|\n", data.removeprefix(b"\xef\xbb\xbf"))
    rows = []
    while lines:
        fields = lines.pop(0).split(plain.format.separator.encode())
        if len(fields) == 4 and not fields[3] and lines:  # Sail's reader goes on where the last field is empty
            fields[3] = lines.pop(0)
        numbers = fields[:2] + fields[3:]
        if len(fields) == 4 and all(map(may_be_number, numbers)):
            user, movie, time = (int(field) if field else None for field in numbers)
            rating = fields[2].decode("latin-1")
            rows.append((user, movie, rating if rating in plain.ratings else None, time))
    return rows


def may_be_number(field: bytes) -> bool:
    """Whether a field may be taken for a whole number, or for none."""
    return not field or re.fullmatch(rb"[ \t]*[+-]?[0-9]+[ \t]*", field) is not None


def is_accepted(found: contents.Contents, rows: list[Row], plain: Plain) -> bool:
    """Whether rows are taken for all of a text, by sums as the engines make them."""
    numbers = [number for user, movie, _, time in rows for number in (user, movie, time) if number is not None]
    digits = sum(1 for number in numbers for power in range(10) if number >= 10**power)
    ratings = "".join(rating for *_, rating, _ in rows if rating)
    length = digits + len(ratings) + 3 * len(plain.format.separator) * len(rows)
    whole = all(value is not None for row in rows for value in row)
    last_digits = sum(time % 100 if time > 0 else -(-time % 100) for *_, time in rows if time is not None)
    return proof.agree(found, len(rows), length if whole else None, last_digits)


def line_of(row: Row, plain: Plain) -> bytes:
    return plain.format.separator.join(map(str, row)).encode()


ODD_BYTES = st.sampled_from([bytes([byte]) for byte in b'0159:.,+- \t\r\n\x00\x03e"\xef\xe9'] + [b"\r\n", b"::"])
LINE_ENDS = st.sampled_from([b"\n", b"\r\n"])


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A good text, with one line end or another, to which something was done in a few places."""
    end = draw(LINE_ENDS)
    data = text_of(draw(st.lists(st.sampled_from(GOOD), min_size=1, max_size=5)), end)
    if draw(st.booleans()):
        data = data.removesuffix(end)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        before, old = data[:start], data[start : start + draw(st.sampled_from([0, 0, 1, 1, 2, 12]))]
        data = before + draw(ODD_BYTES | st.sampled_from([b"", old * 2])) + data[start + len(old) :]
    return data


@pytest.mark.parametrize("decimals", ["", ".0"])
def test_every_plain_line_is_a_valid_one(decimals: str) -> None:
    # for plain lines are not held against the rules of their fields
    ids = [str(number) for power in range(10) for number in (10**power, min(10 ** (power + 1), 2**31) - 1)]
    times = [str(number) for power in range(1, 10) for number in (10**power, 10 ** (power + 1) - 1)]
    plain = {"userId": ids, "movieId": ids, "rating": Plain(DAT, decimals).ratings, "timestamp": times}
    for field in contract.RATING_FIELDS:
        for text in plain[field.name]:
            assert all(re.fullmatch(rule, text) for rule, _ in field.rules), (field.name, text)


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mutated())
def test_what_adds_up_is_plain_whatever_was_done_to_a_good_text(tmp_path: Path, data: bytes) -> None:
    plain, storage, file = Plain(DAT, ""), DiskStorage(), entry_of(tmp_path / "text", data)
    rows = lenient_rows(data, plain)
    lines = [line for line in re.split(rb"[\r\n]+", data.removeprefix(b"\xef\xbb\xbf")) if line]
    for look in (contents.look_through, contents.look_at_ends) if data else ():
        if is_accepted(look(storage, file, b""), rows, plain):
            assert sorted(lines) == sorted(line_of(row, plain) for row in rows), look


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(GOOD), min_size=1, max_size=9), st.sampled_from([b"\n", b"\r\n", b"\r"]), st.booleans())
def test_a_good_text_adds_up(tmp_path: Path, lines: list[bytes], end: bytes, ended: bool) -> None:
    data = text_of(lines, end) if ended else text_of(lines, end).removesuffix(end)
    for before in (b"", b"\xef\xbb\xbf"):
        file, plain = entry_of(tmp_path / "text", before + data), Plain(DAT, "")
        rows = lenient_rows(before + data, plain)
        assert is_accepted(contents.look_through(DiskStorage(), file, b""), rows, plain)
        # of what is far away with the shortest line ends alone
        assert is_accepted(contents.look_at_ends(DiskStorage(), file, b""), rows, plain) == (
            len(end) == 1 or (len(lines) == 1 and not ended)
        )


def test_a_row_that_is_lost_is_not_made_up_for_by_another_that_counts_twice(tmp_path: Path) -> None:
    # given two lines of the same length
    plain, data = Plain(DAT, ""), text_of(GOOD)
    found = contents.look_through(DiskStorage(), entry_of(tmp_path / "text", data), b"")
    rows = lenient_rows(data, plain)
    assert is_accepted(found, rows, plain)
    assert len(line_of(rows[0], plain)) + 2 == len(line_of(rows[2], plain))
    for lost, twice in ((3, 5), (4, 1), (5, 3)):
        others = [row for place, row in enumerate(rows) if place != lost] + [rows[twice]]
        assert not is_accepted(found, others, plain), (lost, twice)


# --------------------------------------------------------------------------------------------------------------------
# What is found in files


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 2**20])
@pytest.mark.parametrize("with_numpy", [True, False])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"1::2::3::45", b"678", b" "]), min_size=1, max_size=12).map(
        b"".join
    )
)
def test_bytes_and_lines_are_counted_wherever_a_file_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, with_numpy: bool, data: bytes
) -> None:
    monkeypatch.setattr(contents, "CHUNK", chunk)
    if not with_numpy:
        monkeypatch.setattr(contents, "np", None)
    file = entry_of(tmp_path / "text", data)
    found = contents.look_through(DiskStorage(), file, b"")
    lines = [line for line in re.split(rb"[\r\n]+", data) if line]
    assert (found.size, found.in_lines) == (len(data), sum(map(len, lines)))
    if with_numpy:
        assert found.lines == len(lines)
        if all(len(line) > 1 and line[-2:].isdigit() for line in lines):
            assert found.last_digits == sum(int(line[-2:]) for line in lines)
    else:
        # without it, empty lines count
        ends = re.findall(rb"\r\n|\r|\n", data)
        assert found.lines == len(ends) + (not data.endswith((b"\r", b"\n")))
        assert found.last_digits is None
    assert contents.count_lines(DiskStorage(), [file]) == sum(1 for line in lines if line.strip(b" \t"))


@pytest.mark.parametrize("form", [CSV, DAT, ML100K], ids=lambda form: form.name)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_headers_and_marks_of_each_part_are_no_lines(tmp_path: Path, form: Any, mark: bytes, end: bytes) -> None:
    header = form.ratings_header.encode()
    start = mark + (header + end if header else b"")
    files = [
        entry_of(tmp_path / "a", start + b"1234" + end),
        entry_of(tmp_path / "b.gz", gzip.compress(start + b"5678")),
        entry_of(tmp_path / "c.bz2", bz2.compress(start) + bz2.compress(b"9012" + end)),
    ]
    found = contents.contents_of(DiskStorage(), files, header, near=True)
    assert (found.in_lines, found.lines, found.last_digits) == (12, 3, 34 + 78 + 12)


# --------------------------------------------------------------------------------------------------------------------
# Both engines


def proved(spark: Any, release: Release, plain: Plain) -> list[tuple[Any, ...]] | None:
    """The rows that the plain way reads, if they are proved to be all."""
    rows = job.load_ratings(spark, replace(release, plain=plain))
    try:
        [found] = rows.agg(plain.length().alias("bytes"), plain.last_digits().alias("digits")).collect()
        read = [tuple(row) for row in rows.collect()]
    except Exception as error:
        if not engine_of(spark).tells_of_lines(error):
            raise
        return None
    look = contents.contents_of(DiskStorage(), release.ratings, release.format.ratings_header.encode(), near=True)
    return sorted(read) if proof.agree(look, len(read), found["bytes"], found["digits"] or 0) else None


# Pairs of faults, one of which is as many bytes too long as the other is too short, and others that cost none
CANCELLING = {
    "half_without_zero": [b"1::10::.5::978300760", b"1::010::5::978300760"],
    "two_forms": [b"1::10::5.0::978300760", b"1::10::3::978300760"],
    "exponent_and_sign": [b"1::1e3::5::978300760", b"+1::10::5::978300760"],
    "sign_and_half": [b"1::10::+.5::978300760"],
    "half_of_three": [b"1::10::.50::978300760"],
    "time_on_the_next_line": [b"1::10::5::", b"978300760"],
    "time_between": [b"1::10::5::", b"1::10::5::978300760"],
    "lines_in_one": [b"1::10::5::978300760\x0b1::10::5::978300760"],
    "spaces": [b" 1::10::5::978300760", b"1::10:: 5::978300760"],
    "pads": [b"1:0:10::5::978300760"],
    "shifted": [b"1::10::5::97::30"],
    "minus_zero": [b"1::10::5::-0"],
    "small_time": [b"1::10::5::7", b"1::10::5::0000000000"],
    "zero": [b"0::10::5::978300760"],
    "blank": [b"  ", b""],
    "no_user": [b"::10::5::978300760"],
    "no_movie": [b"1::::5::978300760"],
    "no_rating": [b"1::10::::978300760"],
    "no_user_and_no_movie": [b"::10::5::978300760", b"1::::5::978300760"],
}


@pytest.mark.parametrize("case", CANCELLING)
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_faults_that_cancel_each_other_are_not_proved(spark: Any, tmp_path: Path, case: str, end: bytes) -> None:
    mixed = [*GOOD[:4], *CANCELLING[case], *GOOD[4:]]
    texts = [text_of(mixed, end), text_of(mixed, end).removesuffix(end)]
    if end == b"\r\n":
        texts.append(text_of(mixed, end).replace(b"\r\n", b"\n", 1))  # a line end that is shorter than the others
    for data in texts:
        release = find_release(spark, str(write_input(tmp_path, data)))
        assert proved(spark, release, Plain(DAT, "")) is None, data


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mutated())
def test_what_is_proved_on_an_engine_is_right(spark: Any, tmp_path: Path, data: bytes) -> None:
    if data:
        lines = [line for line in re.split(rb"[\r\n]+", data.removeprefix(b"\xef\xbb\xbf")) if line]
        rows = proved(spark, find_release(spark, str(write_input(tmp_path, data))), Plain(DAT, ""))
        if rows is not None:
            read = [f"{user}::{movie}::{rating:g}::{time}".encode() for user, movie, rating, time in rows]
            assert sorted(read) == sorted(lines)


@pytest.mark.parametrize("form", [CSV, DAT, ML100K], ids=lambda form: form.name)
@pytest.mark.parametrize("decimals", ["", ".0"])
def test_of_lines_that_are_not_plain_the_rating_is_missing(spark: Any, form: Any, decimals: str) -> None:
    plain, sign = Plain(form, decimals), form.separator
    good = {line_of((1, 20, rating, 978300760), plain).decode(): float(rating) for rating in plain.ratings}
    others = ["05", "5.00", ".5", "+5", "1e0", " 5", "0", "5.5", "", *({*"12345", "1.0", "5.0"} - {*plain.ratings})]
    bad = [line_of((1, 20, rating, 978300760), plain).decode() for rating in others]
    bad += [f"{line}{sign}" for line in good] + [f"{sign}{line}" for line in good]
    bad += [line.partition(sign)[2] for line in good]
    lines = [*([form.ratings_header] if form.ratings_header else []), *good, *bad]
    rows = plain.cut_lines(spark.createDataFrame([(line,) for line in lines], "line STRING")).collect()
    assert [row.rating for row in rows] == [*good.values(), *[None] * len(bad)]
    assert {tuple(row[name] for name in ("userId", "movieId", "timestamp")) for row in rows if row.rating} == {
        (1, 20, 978300760)
    }


@pytest.mark.parametrize("form", [CSV, DAT, ML100K], ids=lambda form: form.name)
@pytest.mark.parametrize("decimals", ["", ".0"])
def test_the_length_of_plain_lines_is_known_from_their_rows(spark: Any, form: Any, decimals: str) -> None:
    plain = Plain(form, decimals)
    numbers = [10**power + less for power in range(10) for less in (-1, 0) if 10**power + less > 0] + [2**31 - 1]
    times = [10**power + less for power in range(1, 11) for less in (-1, 0) if 10 <= 10**power + less < 10**10]
    rows = [
        (number, numbers[-place - 1], plain.ratings[place % 10], times[place % len(times)])
        for place, number in enumerate(numbers)
    ]
    frame = spark.createDataFrame(
        [(user, movie, float(rating), time) for user, movie, rating, time in rows], contract.SCHEMAS["ratings"]
    )
    [found] = frame.agg(plain.length(), plain.last_digits()).collect()
    assert tuple(found) == (sum(len(line_of(row, plain)) for row in rows), sum(time % 100 for *_, time in rows))


@pytest.mark.parametrize(
    ("beginning", "decimals"),
    [
        (b"1::2::5::978300760\n", ""),
        (b"1::2::5.0::978300760\n", ".0"),
        (b"1::2::3.5::978300760\n1::2::4.0::978300760\n", ".0"),
        (b"1::2::3.5::978300760\n", ""),
        (b"", ""),
    ],
)
def test_the_first_whole_rating_tells_how_all_are_written(beginning: bytes, decimals: str) -> None:
    assert Plain.of(DAT, beginning).decimals == decimals


# --------------------------------------------------------------------------------------------------------------------
# The whole job


def test_a_run_says_that_all_bytes_are_accounted_for(
    engine: str, publish: Publish, tmp_path: Path, output_path: Path
) -> None:
    # given ratings with a mark, CRLF and no last line end, in two parts, one of them compressed
    first, second = b"\xef\xbb\xbf" + text_of(GOOD[:3], b"\r\n"), text_of(GOOD[3:], b"\r\n").removesuffix(b"\r\n")
    folder = write_input(tmp_path / "in")
    (folder / "ratings.dat").unlink()
    (folder / "ratings.dat").mkdir()
    (folder / "ratings.dat" / "part-0").write_bytes(first)
    (folder / "ratings.dat" / "part-1.gz").write_bytes(gzip.compress(second))
    said = publish(engine, folder, output_path)
    assert f"ratings: 8 rows, all of {len(first) + len(second)} bytes accounted for in " in said
    assert "movies: 5 rows, all of 5 lines accounted for in " in said
    assert all(file["accounted"] is True for file in manifest_of(output_path)["input_files"])
    assert_equal_by_check(folder, output_path)


def test_ratings_that_are_valid_and_not_plain_are_published_all_the_same(
    engine: str, publish: Publish, tmp_path: Path, output_path: Path
) -> None:
    # given other forms of numbers, a time before 1970, and a blank line
    lines = [b"1::10::3.00::978300760", b"1::11::5.0::7", b"", b"2::10::3::-5", b"2::11::3.7::99999999999"]
    said = publish(engine, write_input(tmp_path / "in", text_of(lines)), output_path)
    assert "ratings.dat: not all bytes are accounted for; judging each line\n" in said
    assert "ratings: 4 rows, all of 4 lines accounted for in " in said
    assert_equal_by_check(tmp_path / "in", output_path)


TAMPERED = {
    "a_row_twice": lambda frame: frame.unionAll(frame.filter("timestamp = 978301968")),
    "one_lost_and_one_twice": lambda frame: frame.filter("timestamp <> 978301968").unionAll(
        frame.filter("timestamp = 978824291")
    ),
    "half_lost_and_half_twice": lambda frame: frame.filter("timestamp % 2 = 0").unionAll(
        frame.filter("timestamp % 2 = 0")
    ),
    "all_lost": lambda frame: frame.filter("timestamp < 0"),
}


@pytest.mark.parametrize("fault", TAMPERED)
def test_rows_that_are_lost_or_doubled_on_the_way_are_not_published(
    engine: str, run_main: Main, tmp_path: Path, output_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    # given a reader that loses lines and gives others twice, of as many bytes
    write = tables.write_files

    def write_others(frame: Any, path: str) -> None:
        write(TAMPERED[fault](frame) if path.endswith("/ratings") else frame, path)

    monkeypatch.setattr(tables, "write_files", write_others)
    folder = write_input(tmp_path / "in", text_of(GOOD))
    status, said = run_main(engine, "--input_path", folder, "--output_path", output_path)
    assert "accounted for; judging each line\n" in said
    assert status == 1, said
    assert not visible_names(output_path)


def test_a_reader_that_drops_a_part_of_the_text_is_noticed(
    engine: str, run_main: Main, tmp_path: Path, output_path: Path, spark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_input(tmp_path / "in", text_of(GOOD))
    kind = type(engine_of(spark))
    columns, lines = kind.columns, kind.quick_lines

    def some_columns(self: Any, *arguments: Any, **options: Any) -> Any:
        frame = columns(self, *arguments, **options)
        return None if frame is None else frame.limit(6)

    monkeypatch.setattr(kind, "columns", some_columns)
    monkeypatch.setattr(kind, "quick_lines", lambda self, files: lines(self, files).limit(6))
    status, said = run_main(engine, "--input_path", folder, "--output_path", output_path)
    assert said.splitlines()[-1].endswith(
        "ratings.dat has 8 lines, but 6 rows and 0 rejects came of them; nothing was published"
    )
    assert status == 1
    assert not visible_names(output_path)


@pytest.mark.parametrize("fault", ["half", "one_user_for_another"])
def test_a_part_of_the_top_three_that_is_missing_is_noticed(
    engine: str, run_main: Main, tmp_path: Path, output_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    write = tables.write_files

    def write_less(frame: Any, path: str) -> None:
        if path.endswith("/top_movies_per_user"):
            some = frame.filter("userId <> 600")
            frame = frame.filter("userId % 2 = 0") if fault == "half" else some.unionAll(some.filter("userId = 601"))
        write(frame, path)

    monkeypatch.setattr(tables, "write_files", write_less)
    folder = write_input(tmp_path / "in", text_of(GOOD))
    status, said = run_main(engine, "--input_path", folder, "--output_path", output_path)
    assert "that are not the best 3 of each user" in said.splitlines()[-1]
    assert status == 1
    assert not visible_names(output_path)


def test_movies_that_are_lost_doubled_or_changed_for_others_are_noticed(
    engine: str, run_main: Main, tmp_path: Path, output_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = tables.write_files
    folder = write_input(tmp_path / "in", text_of(GOOD))
    for dataset in ("movies", "movies_with_stats"):

        def write_other(frame: Any, path: str, dataset: str = dataset) -> None:
            one_for_another = frame.filter("movieId <> 10").unionAll(frame.filter("movieId = 11"))
            write(one_for_another if path.endswith(f"/{dataset}") else frame, path)

        monkeypatch.setattr(tables, "write_files", write_other)
        status, said = run_main(engine, "--input_path", folder, "--output_path", output_path)
        assert said.splitlines()[-1].startswith(f"movielens_pipeline: error: {dataset} "), said
        assert status == 1
        assert not visible_names(output_path)


def test_movies_that_are_all_lost_are_not_blamed_on_the_input(
    engine: str, run_main: Main, input_path: Path, output_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a store that loses what is written
    write = tables.write_files

    def write_nothing(frame: Any, path: str) -> None:
        write(frame.filter("movieId < 0") if path.endswith("/movies") else frame, path)

    monkeypatch.setattr(tables, "write_files", write_nothing)
    status, said = run_main(engine, "--input_path", input_path, "--output_path", output_path)
    assert said.splitlines()[-1].startswith("movielens_pipeline: error: movies.dat has 5 lines, but 0 rows and "), said
    assert status == 1
    assert not visible_names(output_path)


def test_movies_are_read_once(
    engine: str, run_main: Main, input_path: Path, output_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given movies that are away while statistics are made of them
    write = tables.write_files
    movies = input_path / "movies.dat"

    def write_without(frame: Any, path: str) -> None:
        if path.endswith("/movies_with_stats"):
            movies.rename(movies.with_suffix(".away"))
        write(frame, path)
        if path.endswith("/movies_with_stats"):
            movies.with_suffix(".away").rename(movies)

    monkeypatch.setattr(tables, "write_files", write_without)
    status, said = run_main(engine, "--input_path", input_path, "--output_path", output_path)
    # then all is made; that the file was touched is told in the end
    assert "movies_with_stats: 5 rows in " in said
    assert "top_movies_per_user: 5 rows in " in said
    assert said.splitlines()[-1].endswith("changed while it was read; nothing was published")
    assert status == 3
