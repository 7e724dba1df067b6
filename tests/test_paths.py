"""Paths: a link that is switched while the job works, and names of any bytes in any locale, on either engine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.inputs import RATINGS, rating_lines, write_input
from tests.support.jobs import Publish, disturb_when_all_is_written, job_command, job_environment
from tests.support.places import Disk
from tests.support.project import ROOT
from tests.support.results import assert_equal_by_check


@pytest.mark.parametrize("below", ["", "/below"])
def test_a_link_switched_during_a_run_breaks_no_result(
    engine: str, publish: Publish, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, below: str
) -> None:
    # given two results, and a link to the first
    earlier = write_input(tmp_path / "earlier", rating_lines(RATINGS[:4]))
    for version in ("v1", "v2"):
        publish("sail", earlier, f"{tmp_path}/{version}{below}")
    link = tmp_path / "current"
    link.symlink_to("v1")
    second = Disk(Path(f"{tmp_path}/v2{below}"))
    before = second.files()

    def switch() -> None:
        link.unlink()
        link.symlink_to("v2")

    # when it is switched to the second after a run wrote its datasets
    disturb_when_all_is_written(monkeypatch, switch)
    later = write_input(tmp_path / "later")
    said = publish(engine, later, f"{link}{below}")
    # then the run publishes where the link led when it began, and the second result stays as it was
    assert f"4 datasets in {link}{below} (" in said
    assert_equal_by_check(later, f"{tmp_path}/v1{below}")
    assert second.files() == before


# --------------------------------------------------------------------------------------------------------------------
# Locales

LATIN1 = "de_DE.ISO-8859-1"
LOCALES = ("C", "POSIX", "C.UTF-8", LATIN1)
UTF8_NAME, LATIN1_NAME = "öut".encode(), "öut".encode("iso-8859-1")

In = Callable[[str], dict[str, str]]


@pytest.fixture(scope="session")
def in_locale(tmp_path_factory: pytest.TempPathFactory) -> In:
    """The environment of a process in a locale; in none of its own with an empty name, as cron starts it."""
    folder = tmp_path_factory.mktemp("locales")
    if not shutil.which("localedef") or not Path("/usr/share/i18n/locales/de_DE").exists():
        pytest.skip("localedef or the sources of locales are missing (Debian: apt-get install locales)")
    subprocess.run(["localedef", "-i", "de_DE", "-f", "ISO-8859-1", folder / LATIN1], check=True)

    def environment(name: str) -> dict[str, str]:
        own = {"LANG", "PYTHONUTF8", "PYTHONIOENCODING"}
        kept = {variable: value for variable, value in job_environment().items() if variable not in own}
        without = {variable: value for variable, value in kept.items() if not variable.startswith("LC_")}
        return {**without, "LOCPATH": str(folder), **({"LC_ALL": name} if name else {})}

    return environment


def run(command: list[bytes | str], environment: dict[str, str]) -> tuple[int, str]:
    """Runs a command; returns its exit status and what it said, by whichever stream."""
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=300
    )
    return done.returncode, done.stdout.decode(errors="backslashreplace")


def options(input_path: bytes, output_path: bytes, engine: str) -> list[bytes | str]:
    return ["--input_path", input_path, "--output_path", output_path, "--engine", engine]


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """A release in a folder, and with a part file, whose names are not ASCII."""
    release = write_input(tmp_path / "öin")
    whole = (release / "ratings.dat").rename(tmp_path / "whole")
    (release / "ratings.dat").mkdir()
    whole.rename(release / "ratings.dat" / "pärt")
    return release


def names_in(folder: Path) -> set[bytes]:
    return {os.fsencode(entry.name) for entry in folder.iterdir()}


@pytest.mark.parametrize("locale", [*LOCALES, ""])
def test_utf8_paths_work_in_every_locale(engine: str, in_locale: In, tmp_path: Path, parts: Path, locale: str) -> None:
    output = os.fsencode(tmp_path) + b"/" + UTF8_NAME
    job = [sys.executable, str(ROOT / "movielens_pipeline.py"), *options(os.fsencode(parts), output, engine)]
    status, said = run(job, in_locale(locale))
    assert status == 0, said
    assert names_in(tmp_path) == {"öin".encode(), UTF8_NAME}
    assert_equal_by_check(parts, tmp_path / "öut")


@pytest.mark.parametrize(
    ("name", "locale"),
    [*((UTF8_NAME, locale) for locale in ("C", "C.UTF-8", LATIN1, "")),
     *((LATIN1_NAME, locale) for locale in ("C", "C.UTF-8", LATIN1))],
    ids=lambda value: "utf8" if value == UTF8_NAME else "latin1" if value == LATIN1_NAME else value or "cron",
)  # fmt: skip
@pytest.mark.parametrize("option", [pytest.param("input_path", marks=pytest.mark.thorough), "output_path"])
def test_under_spark_submit_a_path_works_or_is_one_line(
    in_locale: In, tmp_path: Path, input_path: Path, name: bytes, locale: str, option: str
) -> None:
    # given Java that runs already, and handed on the path
    folder = os.fsencode(tmp_path)
    given, output = os.fsencode(input_path), folder + b"/output"
    if option == "input_path":
        given = folder + b"/" + name
        os.rename(os.fsencode(input_path), given)  # noqa: PTH104  # a Path takes no bytes
    else:
        output = folder + b"/" + name
    before = names_in(tmp_path)
    status, said = run([*job_command("spark"), *options(given, output, "spark")], in_locale(locale))
    if (name, locale) == (UTF8_NAME, "C.UTF-8"):
        assert status == 0, said
        assert_equal_by_check(Path(os.fsdecode(given)), Path(os.fsdecode(output)))
    else:
        assert status == 2, said
        assert "Traceback" not in said
        assert names_in(tmp_path) == before
        remedy = "set LC_ALL=C.UTF-8" if name == UTF8_NAME or locale == "C" else "UTF-8"
        assert remedy in said.splitlines()[-1]


@pytest.mark.parametrize("locale", [*LOCALES, ""])
@pytest.mark.parametrize("option", ["--input_path", "--output_path"])
def test_a_path_that_is_not_utf8_is_one_line_in_every_locale(
    engine: str, in_locale: In, tmp_path: Path, option: str, locale: str
) -> None:
    paths = [b"/a", os.fsencode(tmp_path) + b"/" + LATIN1_NAME]
    given, output = sorted(paths, reverse=option == "--input_path")
    job = [sys.executable, str(ROOT / "movielens_pipeline.py"), *options(given, output, engine)]
    status, said = run(job, in_locale(locale))
    assert status == 2
    [line] = [line for line in said.splitlines() if "error:" in line]
    assert line.startswith(f"movielens_pipeline: error: {option} ")
    assert line.endswith("a path is UTF-8, without control characters")
    assert names_in(tmp_path) == set()


CALLED = "import sys, movielens_pipeline as job; sys.exit(job.main(sys.argv[1:]))"


@pytest.mark.parametrize("what", ["input", "output", "part"])
def test_a_program_in_another_encoding_gets_one_line(
    engine: str, in_locale: In, tmp_path: Path, parts: Path, what: str
) -> None:
    # given a program, which the job cannot start over
    given, output = os.fsencode(parts), os.fsencode(tmp_path / "output")
    if what == "output":
        output = os.fsencode(tmp_path) + b"/" + UTF8_NAME
    if what != "input":
        given = os.fsencode(parts.rename(tmp_path / "input"))
    before = names_in(tmp_path)
    program: list[bytes | str] = [sys.executable, "-c", CALLED, *options(given, output, engine)]
    status, said = run(program, {**in_locale(LATIN1), "PYTHONPATH": str(ROOT)})
    assert status == (2 if what != "part" else 3), said
    assert "Traceback" not in said
    assert said.splitlines()[-1].endswith("Python decodes paths as iso8859-1 here: start it with PYTHONUTF8=1")
    assert names_in(tmp_path) == before
    # and what the line says helps
    status, said = run(program, {**in_locale(LATIN1), "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"})
    assert status == 0, said
    assert_equal_by_check(Path(os.fsdecode(given)), Path(os.fsdecode(output)))


def test_a_temporary_folder_that_is_not_utf8_is_one_line(
    engine: str, in_locale: In, tmp_path: Path, input_path: Path, output_path: Path
) -> None:
    folder = os.fsencode(tmp_path) + b"/" + LATIN1_NAME
    os.mkdir(folder)  # noqa: PTH102  # a Path takes no bytes
    job = [sys.executable, str(ROOT / "movielens_pipeline.py")]
    arguments = options(os.fsencode(input_path), os.fsencode(output_path), engine)
    status, said = run([*job, *arguments], {**in_locale("C.UTF-8"), "TMPDIR": os.fsdecode(folder)})
    assert status == 1
    [line] = [line for line in said.splitlines() if "error:" in line]
    assert line.endswith("a path is UTF-8, without control characters; let TMPDIR name another folder")
    assert not output_path.exists()
