"""What is installed: each version is said once, and where a tool forces a second place the two agree."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import tomllib

from tests.support.inputs import write_input
from tests.support.jobs import job_environment
from tests.support.project import ROOT
from tests.support.results import assert_equal_by_check

SOURCES = [ROOT / "requirements.in", *sorted((ROOT / "requirements").glob("*.in"))]


def asked_for(source: Path) -> list[str]:
    """The packages of a .in file, as they stand there."""
    lines = (line.partition("#")[0].strip() for line in source.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("-")]


def name_of(requirement: str) -> str:
    return re.split(r"[\[<>=~! ]", requirement)[0]


def locked(file: Path) -> dict[str, str]:
    """The versions that a .txt file pins."""
    return dict(re.findall(r"^([\w.-]+)(?:\[.*?\])?==([^ ;\\]+)", file.read_text(), re.MULTILINE))


def test_a_version_is_said_once() -> None:
    said = [name_of(line) for source in SOURCES for line in asked_for(source) if re.search("[<>=~]", line)]
    assert sorted(said) == sorted(set(said))


@pytest.mark.parametrize("name", ["pysail", "pyspark", "pyspark-client", "pyarrow", "pandas", "numpy", "duckdb"])
def test_what_the_results_depend_on_is_tested_in_the_version_that_is_run(name: str) -> None:
    files = [source.with_suffix(".txt") for source in SOURCES if source.stem != "constraints"]
    assert len({locked(file)[name] for file in files if name in locked(file)}) == 1


@pytest.mark.parametrize(
    ("script", "wanted"),
    [
        # the check and the report, which are scripts of their own, need what the job does not
        ("movielens_pipeline.py", {"pysail", "pyspark-client", "boto3", "pandas"}),
        ("report.py", {"boto3", "duckdb", "jinja2"}),
    ],
)
def test_a_script_asks_for_what_the_embedded_environment_holds(script: str, wanted: set[str]) -> None:
    block = re.search(r"^# /// script\n((?:#.*\n)+?)# ///\n", (ROOT / script).read_text(), re.MULTILINE)
    assert block
    asked = tomllib.loads(re.sub(r"^# ?", "", block[1], flags=re.MULTILINE))
    assert asked["requires-python"] == ">=3.11"
    versions = locked(ROOT / "requirements" / "embedded.txt")
    assert set(asked["dependencies"]) == {f"{name}=={versions[name]}" for name in wanted}


def test_the_embedded_environment_holds_what_the_scripts_need_and_no_more() -> None:
    held = {name_of(line) for line in asked_for(ROOT / "requirements" / "embedded.in")}
    assert held == {"pysail", "pyspark-client", "boto3", "pandas", "duckdb", "jinja2"}


@pytest.mark.thorough
def test_uv_runs_the_scripts_on_a_machine_where_nothing_is_installed(tmp_path: Path) -> None:
    # given uv, an empty home, and nothing of the project but what the scripts are made of
    uv = shutil.which("uv")
    assert uv, "uv comes with requirements.txt"
    for script, package in (("movielens_pipeline.py", "movielens"), ("report.py", "page")):
        shutil.copy(ROOT / script, tmp_path)
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    folder = write_input(tmp_path / "in")
    environment = {**job_environment(), "HOME": str(tmp_path / "home"), "UV_CACHE_DIR": str(tmp_path / "cache")}
    environment.pop("VIRTUAL_ENV", None)

    def run(*arguments: object) -> str:
        done = subprocess.run(
            [uv, "run", *map(str, arguments)],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    # when they are run as docs/configuration.md and docs/report.md say
    run("movielens_pipeline.py", "--input_path", folder, "--output_path", tmp_path / "out")
    assert_equal_by_check(folder, tmp_path / "out")
    assert run("report.py", "--output_path", tmp_path / "out") == f"{tmp_path}/report.html\n"
