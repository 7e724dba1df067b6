#!/usr/bin/env python3
"""Measures the job against what a user would pick instead: same files, same rows, cold processes, in turn.

    .venv-spark/bin/python -m benchmarks.benchmark --ratings 1000000 --rounds 5

Makes the input with the project's generator, runs every contestant once a round in a process of its own, compares the
rows of all results with those of the job, and prints a table in Markdown: median seconds with their ratio to DuckDB's
typical SQL in the same round (median, least and most), processor seconds, peak memory of the whole process tree, and
bytes of output. The files are in the page cache for all; nothing else should run on the machine. With --s3 the input
is in a bucket of SeaweedFS on this machine, and the output goes there; the peers copy, as `aws s3 cp` would. With
--image the job and the plain script run on Spark in containers of that image; their memory and processor seconds are
those of another process then, and not measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import psutil

from movielens.terminal import count_of
from tests.support.s3server import BUCKET, S3Server

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

BIN = Path(sys.executable).parent
EMBEDDED = ROOT / ".venv" / "bin" / "python"  # the environment of the wrappers, where there is one
PEERS = HERE / "peers.py"
DATASETS = ("ratings", "movies", "movies_with_stats", "top_movies_per_user")
BASELINE = "duckdb_typical"
CONTESTANTS = ("sail", "spark", "duckdb_typical", "duckdb_best", "polars", "pandas", "spark_plain")
ON_SPARK = ("spark", "spark_plain")
OURS = ("sail", "spark")
WIDTH = 120  # of a line in the project's documents
MOST_WORSE = 0.15  # of a ratio to the baseline, against an earlier sitting
LABELS = {
    "sail": "**this job, Sail**",
    "spark": "**this job, Spark**",
    "duckdb_typical": "DuckDB, `row_number()`",
    "duckdb_best": "DuckDB, `max(struct, 3)`",
    "polars": "Polars",
    "pandas": "pandas",
    "spark_plain": "plain Spark script",
}
SECONDS_TO_BE_ITSELF = 0.1
PHASE = re.compile(r"^(\w+): .* in ([0-9.]+) s$", re.MULTILINE)


def command_of(contestant: str, source: str, target: str, image: str | None = None) -> list[str]:
    """What a user would type."""
    paths = ["--input_path", source, "--output_path", target]
    if image and contestant in ON_SPARK:
        folders = [option for path in (source, Path(target).parent, HERE) for option in ("--volume", f"{path}:{path}")]
        # the plain script has no entry point that would give the user a name
        user = ["--user", f"{os.getuid()}:{os.getgid()}", "--volume", "/etc/passwd:/etc/passwd:ro"]
        run = ["docker", "run", "--rm", *user, *folders]
        if contestant == "spark":
            return [*run, image, *paths]
        return [*run, "--entrypoint", "spark-submit", image, str(PEERS), contestant, source, target]
    job = [str(ROOT / "movielens_pipeline.py"), *paths]
    submit = [str(BIN / "spark-submit"), "--driver-class-path", f"{BIN.parent}/s3-jars/*"]
    if contestant == "sail":
        return [str(EMBEDDED if EMBEDDED.exists() else sys.executable), *job]
    if contestant == "spark":
        return [str(ROOT / "exec_local_compute_local_storage.sh"), "--engine", "spark", *paths]
    launcher = submit if contestant == "spark_plain" else [sys.executable]
    return [*launcher, str(PEERS), contestant, source, target]


def environment() -> dict[str, str]:
    """For Spark with the memory that large sizes need, and without a configuration of somebody's."""
    memory = os.environ.get("SPARK_DRIVER_MEMORY", "2g")
    variables = {name: value for name, value in os.environ.items() if name != "SPARK_CONF_DIR"}
    return {**variables, "PATH": f"{BIN}:{os.environ['PATH']}", "SPARK_DRIVER_MEMORY": memory}


class Run:
    """One run of a contestant in a process of its own: seconds, processor seconds, peak memory, phases."""

    def __init__(self, command: list[str], variables: dict[str, str] | None = None) -> None:
        self.peak = 0
        started = time.monotonic()
        with tempfile.TemporaryFile("w+") as said:
            process = psutil.Popen(command, env=variables, stdout=said, stderr=said)
            ended = threading.Event()
            watcher = threading.Thread(target=self.watch, args=[process, ended])
            watcher.start()
            _, status, usage = os.wait4(process.pid, 0)
            self.wall = time.monotonic() - started
            ended.set()
            watcher.join()
            said.seek(0)
            self.said = said.read()
        if status:
            sys.exit(f"{' '.join(command)}\n{self.said}")
        self.processor = usage.ru_utime + usage.ru_stime  # with that of all that it waited for
        self.phases = {name: float(seconds) for name, seconds in PHASE.findall(self.said)}

    def watch(self, process: psutil.Popen, ended: threading.Event) -> None:
        """Adds up the memory of the process and its descendants, fifty times a second."""
        first_seen: dict[int, float] = {}
        while not ended.wait(0.02):
            with suppress(psutil.Error):
                now, below = time.monotonic(), process.children(recursive=True)
                # a process that was just forked has its parent's memory, until it runs a program of its own
                ages = [now - first_seen.setdefault(found.pid, now) for found in below]
                grown = [found for found, age in zip(below, ages, strict=True) if age > SECONDS_TO_BE_ITSELF]
                self.peak = max(self.peak, sum(found.memory_info().rss for found in [process, *grown]))


def make_input(ratings: int, folder: Path) -> Path:
    """The input of that size, made once; read once, so that no contestant is the first to read it."""
    source = folder / f"input-{ratings}"
    if not source.exists():
        made = folder / "made"
        generator = [sys.executable, str(ROOT / "dataset" / "generate.py"), "--ratings", str(ratings)]
        subprocess.run([*generator, "--output_path", str(made)], check=True, stderr=subprocess.DEVNULL)
        plain_movies(made / "movies.dat")
        made.rename(source)
    for path in source.iterdir():
        with path.open("rb") as file:
            while file.read(1 << 24):
                pass
    return source


def plain_movies(path: Path) -> None:
    """Takes out of movies.dat what the peers cannot read: titles in ISO-8859-1, and with `::` in them."""
    lines = []
    for line in path.read_bytes().splitlines():
        try:
            text = line.decode()
        except UnicodeDecodeError:
            text = line.decode("iso-8859-1")
        movie, _, rest = text.partition("::")
        title, _, genres = rest.rpartition("::")
        lines.append(f"{movie}::{title.replace('::', ' ')}::{genres}\n")
    path.write_text("".join(lines), encoding="utf-8")


def digest_of(output: Path, dataset: str) -> tuple[Any, ...]:
    """Rows and an order-independent sum over all of them, by DuckDB: equal for equal rows, whatever the files."""
    columns = {
        "ratings": "userId, movieId, rating, timestamp",
        "movies": "movieId, title, genres",
        "movies_with_stats": "movieId, title, genres, max_rating, min_rating, avg_rating",
        "top_movies_per_user": "userId, movieId, rating, timestamp, rank",
    }[dataset]
    query = f"SELECT count(*), sum(hash({columns})::HUGEINT) FROM read_parquet('{output}/{dataset}/*.parquet')"
    found = duckdb.connect().execute(query).fetchone()
    assert found
    return found


def bytes_of(output: Path) -> int:
    """How large the Parquet files are."""
    return sum(path.stat().st_size for path in output.rglob("*.parquet"))


def take_from(store: S3Server, prefix: str, folder: Path) -> None:
    """Moves what is below the prefix into a folder."""
    for key in store.keys(prefix):
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        store.client.download_file(BUCKET, f"{prefix}/{key}", str(path))
        store.client.delete_object(Bucket=BUCKET, Key=f"{prefix}/{key}")


class Where(NamedTuple):
    """The bucket of input and output, else they are on disk; the image in which Spark runs, if any."""

    store: S3Server | None = None
    image: str | None = None


def measure(
    contestants: list[str], ratings: int, rounds: int, folder: Path, where: Where
) -> dict[str, list[dict[str, Any]]]:
    """Runs all contestants in turn, each round in another order; ends where a result differs from the others."""
    store, image = where
    made = make_input(ratings, folder)
    source = store.upload(made, made.name) if store else str(made)
    runs: dict[str, list[dict[str, Any]]] = {contestant: [] for contestant in contestants}
    expected: dict[str, tuple[Any, ...]] = {}
    for number in range(rounds):
        shift = number % len(contestants)
        for contestant in contestants[shift:] + contestants[:shift]:
            output = folder / f"output-{contestant}"
            shutil.rmtree(output, ignore_errors=True)
            variables = environment()
            if store:
                command = command_of(contestant, source, f"s3://{BUCKET}/{output.name}")
                run = Run(command, {**variables, **store.environment()})
                take_from(store, output.name, output)
            else:
                run = Run(command_of(contestant, source, str(output), image), variables)
            seen = not (image and contestant in ON_SPARK)
            for dataset in DATASETS if number == 0 else ():
                digest = digest_of(output, dataset)
                if expected.setdefault(dataset, digest) != digest:
                    sys.exit(f"{contestant}: {dataset} differs: {digest}, not {expected[dataset]}")
            runs[contestant].append(
                {
                    "wall": run.wall,
                    "processor": run.processor if seen else None,
                    "peak": run.peak if seen else None,
                    "output": bytes_of(output),
                    "phases": run.phases,
                }
            )
            print(f"{ratings:,} {contestant} {number + 1}/{rounds}: {run.wall:.2f} s", file=sys.stderr)
            shutil.rmtree(output)
    return runs


def table_of(ratings: int, runs: dict[str, list[dict[str, Any]]]) -> str:
    """The figures of one size as Markdown, with the phases of the job's own runs below."""
    baseline = BASELINE if BASELINE in runs else next(iter(runs))
    lines = [
        f"{ratings:,} ratings, {len(runs[baseline])} rounds, medians; a ratio is that of the seconds in one round",
        "",
        f"| | wall s | ratio to {LABELS[baseline]} | processor s | peak memory, GB | output, MB |",
        "|---|---|---|---|---|---|",
    ]
    for contestant, found in runs.items():
        ratios = [run["wall"] / base["wall"] for run, base in zip(found, runs[baseline], strict=True)]
        lines.append(
            f"| {LABELS[contestant]} | {median_of(found, 'wall', 1, 2)} | {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}) | {median_of(found, 'processor', 1, 1)} | "
            f"{median_of(found, 'peak', 1e9, 2)} | {median_of(found, 'output', 1e6, 1)} |"
        )
    for contestant in OURS:
        if runs.get(contestant):
            names = runs[contestant][0]["phases"]
            phases = {name: statistics.median(run["phases"][name] for run in runs[contestant]) for name in names}
            rest = statistics.median(run["wall"] for run in runs[contestant]) - sum(phases.values())
            shown = ", ".join(f"{name} {seconds:.1f}" for name, seconds in phases.items())
            said = f"{LABELS[contestant]}, seconds: {shown}, start and all else {rest:.1f}"
            lines += ["", *textwrap.wrap(said, WIDTH)]
    return "\n".join(lines)


def median_of(runs: list[dict[str, Any]], figure: str, unit: float, digits: int) -> str:
    """The median of a figure of some runs, in the unit; nothing where it was not measured."""
    values = [run[figure] for run in runs]
    return "" if None in values else f"{statistics.median(values) / unit:.{digits}f}"


def compared(old: dict[str, Any], new: dict[str, Any]) -> tuple[str, list[str]]:
    """Medians of two files of figures side by side as Markdown, and what is said of each that is worse than it may be.

    Ratios are those to the baseline of the same sitting, for machines have better days.
    """
    lines = [
        "| ratings | contestant | wall s before | now | ratio before | now | change of the ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    worse = []
    for ratings in [size for size in new["runs"] if size in old["runs"]]:
        for contestant in [name for name in new["runs"][ratings] if name in old["runs"][ratings]]:
            (before, ratio_before), (now, ratio_now) = (
                wall_and_ratio(figures["runs"][ratings], contestant) for figures in (old, new)
            )
            change = ratio_now / ratio_before - 1
            lines.append(
                f"| {int(ratings):,} | {LABELS[contestant]} | {before:.2f} | {now:.2f} | {ratio_before:.2f} "
                f"| {ratio_now:.2f} | {change:+.0%} |"
            )
            if contestant in OURS and change > MOST_WORSE:
                worse.append(f"{int(ratings):,} ratings, {contestant}: the ratio is {change:.0%} worse")
    return "\n".join(lines), worse


def wall_and_ratio(runs: dict[str, list[dict[str, Any]]], contestant: str) -> tuple[float, float]:
    """Median seconds of a contestant, and their median ratio to the baseline in the same round."""
    found = runs[contestant]
    base = runs.get(BASELINE, found)
    ratios = [run["wall"] / other["wall"] for run, other in zip(found, base, strict=True)]
    return statistics.median(run["wall"] for run in found), statistics.median(ratios)


def tables_of(figures: dict[str, Any]) -> str:
    """All figures of a sitting as docs/performance.md has them."""
    tables = [table_of(int(size), runs) for size, runs in figures["runs"].items()]
    measured = f"Measured on {figures['date']}, version {figures['version']}, from and to {figures['where']}"
    return "\n\n".join([f"{measured}: {figures['machine']}.", *tables])


def machine() -> str:
    """What it was measured on."""
    memory = psutil.virtual_memory().total / 2**30
    system = f"{platform.system()} {platform.machine()}"
    cores = len(os.sched_getaffinity(0))
    return f"{count_of(cores, 'core')}, {memory:.0f} GiB, {system}, Python {platform.python_version()}"


def main() -> None:
    """Measures, prints the tables, keeps the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--ratings", type=int, nargs="+", default=[1_000_000], metavar="N", help="sizes (default: 1000000)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="runs of each contestant (default: 5)")
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS), help="default: all")
    parser.add_argument(
        "--folder", type=Path, help="where input and output go; the input is kept there for the next time"
    )
    parser.add_argument(
        "--cores", type=int, metavar="N", help="all runs have the first N cores (default: all there are)"
    )
    parser.add_argument("--s3", action="store_true", help="from and to a bucket (default: from and to the disk)")
    parser.add_argument("--image", help="Spark runs in containers of this image, that of `docker build --target spark`")
    parser.add_argument("--json", type=Path, help="keeps all figures in this file")
    parser.add_argument(
        "--compare",
        type=Path,
        metavar="JSON",
        help="sets the figures beside those of an earlier file; exit status 1 where a ratio of the job is 15 %% worse",
    )
    parser.add_argument(
        "--show", type=Path, metavar="JSON", help="prints the tables of figures that were kept, and measures nothing"
    )
    arguments = parser.parse_args()
    if arguments.show:
        print(tables_of(json.loads(arguments.show.read_text())))
        return
    if arguments.cores:
        os.sched_setaffinity(0, range(arguments.cores))  # and that of all that it starts
    if arguments.s3 and arguments.image:
        parser.error("--image is for runs from and to the disk")
    where = "S3" if arguments.s3 else "disk"
    if arguments.image:
        where += f", Spark in {arguments.image}"
    earlier = json.loads(arguments.compare.read_text()) if arguments.compare else None
    if earlier and earlier["where"] != where:
        parser.error(f"{arguments.compare} is of runs on {earlier['where']}, not on {where}")
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        folder = (arguments.folder or Path(scratch)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        store = S3Server(Path(scratch)) if arguments.s3 else None
        try:
            runs = {
                str(ratings): measure(
                    arguments.contestants, ratings, arguments.rounds, folder, Where(store, arguments.image)
                )
                for ratings in arguments.ratings
            }
        finally:
            if store:
                store.stop()
    date, version = datetime.now(timezone.utc).date().isoformat(), (ROOT / "VERSION").read_text().strip()
    figures = {"date": date, "machine": machine(), "version": version, "where": where, "runs": runs}
    print(tables_of(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))
    if earlier:
        table, worse = compared(earlier, figures)
        print(f"\n{table}")
        if worse:
            sys.exit("\n".join(worse))


if __name__ == "__main__":
    main()
