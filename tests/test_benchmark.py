"""The benchmark is honest: the same rows from all, each run in a process of its own; nothing is asserted of time."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks import benchmark
from tests.support.jobs import job_environment
from tests.support.project import ROOT

pytestmark = pytest.mark.thorough


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.benchmark", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=job_environment(),
    )


def test_all_contestants_give_the_same_rows_and_stand_in_one_table(tmp_path: Path) -> None:
    # when the benchmark runs at a tiny size
    done = run("--ratings", 20_000, "--rounds", 1, "--folder", tmp_path, "--json", tmp_path / "figures.json")
    # then no result differed, which ends it, and each contestant has a line with its figures
    assert done.returncode == 0, done.stderr
    rows = re.findall(
        r"^\| (.+?) \| [0-9.]+ \| [0-9.]+ \([0-9.]+ to [0-9.]+\) \| [0-9.]+ \| [0-9.]+ \| [0-9.]+ \|$",
        done.stdout,
        re.MULTILINE,
    )
    assert rows == list(benchmark.LABELS.values())
    assert re.search(r"\*\*this job, Sail\*\*, seconds: ratings [0-9.]+, movies [0-9.]+", done.stdout)
    # and the tables can be printed again from the figures that were kept
    assert run("--show", tmp_path / "figures.json").stdout == done.stdout
    # and the figures can be set beside those of another time, on fewer cores
    again = run(
        "--ratings", 20_000, "--rounds", 2, "--folder", tmp_path, "--contestants", "duckdb_typical", "duckdb_best",
        "--cores", 1, "--compare", tmp_path / "figures.json",
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert ": 1 core, " in again.stdout
    assert re.search(r"^\| 20,000 \| DuckDB, `max\(struct, 3\)` \| [0-9.]+ \| [0-9.]+ \|", again.stdout, re.MULTILINE)
    assert set(json.loads((tmp_path / "figures.json").read_text())["runs"]) == {"20000"}


def test_the_same_from_and_to_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # when input and output are in a bucket
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    contestants = ["sail", "spark", "duckdb_typical", "polars"]
    figures = tmp_path / "figures.json"
    done = run("--ratings", 20_000, "--rounds", 1, "--s3", "--contestants", *contestants, "--json", figures)
    # then no result differed, and the server is gone
    assert done.returncode == 0, done.stderr
    assert "from and to S3" in done.stdout
    assert set(json.loads(figures.read_text())["runs"]["20000"]) == set(contestants)
    commands = [" ".join(found.info["cmdline"] or []) for found in psutil.process_iter(["cmdline"])]
    assert not [command for command in commands if str(tmp_path) in command]
    # and the figures are not set beside those of a disk
    other = run("--ratings", 20_000, "--rounds", 1, "--contestants", "duckdb_typical", "--compare", figures)
    assert other.returncode == 2
    assert other.stderr.endswith("is of runs on S3, not on disk\n")


def test_figures_that_are_worse_than_earlier_ones_are_said() -> None:
    # given figures of two sittings, on a day on which all took twice as long, and one took longer than that
    def figures(**walls: float) -> dict[str, object]:
        return {"runs": {"1000": {name: [{"wall": wall} for _ in range(3)] for name, wall in walls.items()}}}

    before = figures(sail=1.0, duckdb_typical=1.0, polars=1.0)
    table, worse = benchmark.compared(before, figures(sail=2.28, duckdb_typical=2.0, polars=4.0))
    assert "| 1,000 | **this job, Sail** | 1.00 | 2.28 | 1.00 | 1.14 | +14% |" in table
    assert not worse
    _, worse = benchmark.compared(before, figures(sail=2.32, duckdb_typical=2.0))
    assert worse == ["1,000 ratings, sail: the ratio is 16% worse"]


@pytest.mark.parametrize("figures", sorted((ROOT / "benchmarks").glob("figures*.json")), ids=lambda path: path.stem)
def test_the_figures_of_the_project_are_those_of_its_documents_and_no_worse_than_themselves(figures: Path) -> None:
    kept = json.loads(figures.read_text())
    table, worse = benchmark.compared(kept, kept)
    assert not worse
    assert len(re.findall(r"^\| [0-9,]+ \| .* \| \+0% \|$", table, re.MULTILINE)) == sum(
        map(len, kept["runs"].values())
    )
    assert run("--show", figures).stdout.strip() in (ROOT / "docs" / "performance.md").read_text()


def test_every_run_is_a_process_of_its_own_whose_descendants_count() -> None:
    # given a command that keeps 50 MB in a process below it
    child = "import time; kept = b'x' * 50_000_000; time.sleep(0.3)"
    command = [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"]
    runs = [benchmark.Run(command) for _ in range(2)]
    for measured in runs:
        assert measured.peak > 50_000_000
        assert measured.wall > 0.3
        assert measured.processor > 0


def test_memory_that_a_process_shares_with_its_parent_counts_once() -> None:
    # given a command that keeps 100 MB and again and again forks, as Java does to run a program
    forks = "[os.waitpid(pid, 0) if (pid := os.fork()) else (time.sleep(0.03), os._exit(0)) for _ in range(20)]"
    measured = benchmark.Run([sys.executable, "-c", f"import os, time; kept = b'x' * 100_000_000; {forks}"])
    assert 100_000_000 < measured.peak < 200_000_000


def test_a_result_that_differs_ends_the_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given a peer that gets a rank wrong
    wrong = (
        (ROOT / "benchmarks" / "peers.py")
        .read_text()
        .replace("rank::INT AS rank FROM", "(4 - rank)::INT AS rank FROM", 1)
    )
    (tmp_path / "peers.py").write_text(wrong)
    monkeypatch.setattr(benchmark, "PEERS", tmp_path / "peers.py")
    # then the benchmark says so and ends
    with pytest.raises(SystemExit, match="top_movies_per_user differs"):
        benchmark.measure(["sail", "duckdb_typical"], 20_000, 1, tmp_path, benchmark.Where())
