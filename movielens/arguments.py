"""The command line."""

from __future__ import annotations

import argparse
import os
from itertools import pairwise
from typing import NoReturn

from movielens import contract
from movielens.storage.paths import checked, same_place


class Parser(argparse.ArgumentParser):
    """Leaves with what is wrong as the cause."""

    def error(self, message: str) -> NoReturn:
        """Says what is wrong, and leaves."""
        try:
            super().error(message)
        except SystemExit as left:
            raise left from contract.UsageError(message)


def parse_args(argv: list[str]) -> argparse.Namespace:
    """The command line, its paths made absolute. Raises SystemExit(2), having said why, when it is wrong."""
    parser = Parser(
        prog="movielens_pipeline",
        description="Publishes four Parquet datasets made from a release of MovieLens.",
        epilog="Exit status: 0 done, 1 unexpected failure, 2 usage, 3 bad input, 4 the output is being published by "
        "another run, 130 interrupted.",
        allow_abbrev=False,
    )
    where_from = (
        "a release of MovieLens, its folder or its .zip: here, at file://, s3:// or s3a:// or, on spark, hdfs://"
    )
    where_to = "where to publish; the same kinds of path"
    which = "sail runs in this process; spark is Apache Spark (default: spark under spark-submit, otherwise sail)"
    how_many = "let up to N lines that are not valid pass, into the dataset rejects (default: %(default)s)"
    how_few = "publish nothing where a dataset has fewer than R times the rows of the result before"
    when = "do nothing where the result is of this very input already"
    what_to_tell = "end standard output with a line of JSON that says what was done, for programs"
    parser.add_argument("--input_path", "--input-path", required=True, metavar="PATH", help=where_from)
    parser.add_argument("--output_path", "--output-path", required=True, metavar="PATH", help=where_to)
    parser.add_argument("--engine", choices=contract.ENGINES, default=contract.default_engine(), help=which)
    parser.add_argument("--max_rejects", "--max-rejects", type=int, default=0, metavar="N", help=how_many)
    parser.add_argument("--min_ratio", "--min-ratio", type=float, metavar="R", help=how_few)
    parser.add_argument("--if_changed", "--if-changed", action="store_true", help=when)
    parser.add_argument("--summary", choices=("json",), help=what_to_tell)
    parser.add_argument("--version", action="version", version=f"%(prog)s {contract.VERSION}")
    arguments = parser.parse_args(argv)
    if arguments.max_rejects < 0:
        parser.error("--max_rejects must not be negative")
    if arguments.min_ratio is not None and not 0 < arguments.min_ratio <= 1:
        parser.error("--min_ratio must be above 0 and at most 1")
    for option in ("input_path", "output_path"):
        path = getattr(arguments, option)
        try:
            setattr(arguments, option, checked(path, arguments.engine))
        except contract.UsageError as error:
            parser.error(f"--{option} {path!r}: {error}")
    home = os.path.normpath(os.path.expanduser("~"))  # noqa: PTH111  # Path.expanduser() raises where there is none
    if arguments.output_path in ("/", home) or same_place(arguments.output_path, arguments.input_path):
        parser.error(f"--output_path {arguments.output_path}: choose a folder of its own for the results")
    return arguments


def asks_for_summary(argv: list[str]) -> bool:
    """Whether a summary is asked for, even if something else of the command line is wrong."""
    return "--summary=json" in argv or ("--summary", "json") in pairwise(argv)
