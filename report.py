#!/usr/bin/env python3
# /// script
# requires-python = ">=3.11"
# dependencies = ["boto3==1.44.5", "duckdb==2.0.0", "jinja2==3.1.6"]
# ///
"""Makes one HTML file, a page to look at, from what the job published.

Reads what the manifest lists, on disk or in a bucket, with DuckDB; needs no Spark, no Sail and no network, and the page
loads nothing from anywhere. Prints where the page is.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

HERE = Path(__file__).resolve().parent

if TYPE_CHECKING:
    from page.figures import Figures
    from page.published import Result


def use_environment() -> None:
    """Starts over in the environment of the wrappers, where this Python lacks what the page is made with."""
    if all(map(importlib.util.find_spec, ("boto3", "duckdb", "jinja2"))):
        return
    environment = HERE / ".venv"
    python = environment / "bin" / "python"
    if not python.exists() or environment.samefile(sys.prefix):
        print(
            "report: error: this Python has no boto3, duckdb and jinja2; start it by `uv run report.py`, or make .venv "
            "by ./exec_local_compute_local_storage.sh",
            file=sys.stderr,
        )
        sys.exit(1)
    os.execv(python, [str(python), __file__, *sys.argv[1:]])


def make_page(output_path: str, html: Path) -> None:
    """Writes the page of the result at a folder or at s3://bucket/folder. Raises PipelineError."""
    from page.findings import describe
    from page.published import TRIES, ReplacedError, find_result
    from page.rendering import render

    now = datetime.now(timezone.utc)
    for _ in range(TRIES):
        with suppress(ReplacedError):
            result = find_result(output_path)
            figures = figures_of(result, now)
            return write(html, render(describe(result, figures, now), figures.search))
    raise ReplacedError(output_path)


def figures_of(result: Result, now: datetime) -> Figures:
    """The numbers of a result. Raises ReplacedError if a newer one took its place, else PipelineError."""
    import duckdb

    from movielens.contract import BadInputError, PipelineError
    from page.figures import measure
    from page.published import fetch

    try:
        with tempfile.TemporaryDirectory() as scratch:
            figures = measure(fetch(result, Path(scratch)), now, Path(scratch))
    except (duckdb.Error, PipelineError) as error:
        result.require_still_there()
        if isinstance(error, PipelineError):
            raise
        [first, *_] = str(error).splitlines()
        raise BadInputError(f"{result.output} cannot be read: {first}") from error
    if not result.is_numbered:
        result.require_still_there()
    return figures


def write(html: Path, page: str) -> None:
    """Writes the page; one that was there before stays until the new one is whole. Raises PipelineError."""
    from movielens.contract import PipelineError

    html = html.resolve()
    if html.exists() and not (html.is_file() or html.is_dir()):
        raise PipelineError(f"{html} cannot be written: it is no file")
    part = html.with_name(f"{html.name}.{os.getpid()}.part")
    try:
        part.write_text(page, encoding="utf-8")
        part.replace(html)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise PipelineError(f"{html} cannot be written: {os.strerror(error.errno or 0).lower()}") from error


def parse_args(argv: list[str]) -> argparse.Namespace:
    """The command line: where the job published, and where the page goes."""
    parser = argparse.ArgumentParser(
        prog="report",
        description="Makes one HTML file, a page to look at, from what the job published, and prints where it is.",
        epilog="Exit status: 0 done, 1 unexpected failure, 2 usage, 3 no result or a damaged one, 4 try again: "
        "runs are publishing.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--output_path", "--output-path", default=str(HERE / "output"), metavar="PATH",
        help="where the job published: a folder, or s3://bucket/folder (default: output)",
    )  # fmt: skip
    parser.add_argument("--html", default="report.html", type=Path, metavar="FILE", help="(default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Makes the page as the command line says; returns the exit status."""
    arguments = parse_args(argv)
    use_environment()
    from movielens.contract import PipelineError

    try:
        make_page(arguments.output_path, arguments.html.absolute())
    except PipelineError as error:
        print(f"report: error: {error}", file=sys.stderr)
        return error.status
    print(arguments.html.absolute())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
