#!/usr/bin/env python3
"""Puts small faults into the job, one at a time, and tells which of them no test on the embedded engine notices.

Not part of the suite, for it runs tests once a fault: seconds each, hours in all. It works on a copy of the project, by
cosmic-ray, which is to be on PATH (pip install cosmic-ray, in an environment of its own), with the Python that it is
started with. Exit status: 0 when every fault was noticed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from tests.support.project import ROOT, copy_project

# The tests that are to notice a fault in a room, the quickest to do so first
TESTS = {
    "contract": [
        "test_rooms", "test_data_processing", "test_data_loading", "test_rejects", "test_exceptions_handling",
        "test_docs",
    ],
    "transforms": ["test_data_processing", "test_movie_statistics", "test_top_movies_per_user"],
    "formats": ["test_formats", "test_proof", "test_data_loading", "test_rejects"],
    "publishing": ["test_publishing", "test_suspension", "test_faults", "test_exceptions_handling"],
    "manifest": ["test_manifest", "test_publishing", "test_faults"],
    "runs": ["test_publishing"],
}  # fmt: skip
# The tests that start no Spark, by their names
EMBEDDED = "not spark and not s3a and not hdfs and not engines"
# What makes no other program, for types are not looked at while the job runs; and what nobody writes by mistake: one of
# + - * / for another is a fault, a shift is noticed by whatever notices that; so are < and == beside "is"
IGNORED = [
    r"core/ReplaceBinaryOperator_BitOr_.*",
    r"core/ReplaceBinaryOperator_.*_(RShift|LShift|BitXor|BitOr|BitAnd|Pow|Mod|FloorDiv)",
    r"core/ReplaceComparisonOperator_(Eq|NotEq|Lt|LtE|Gt|GtE)_(Is|IsNot)",
]
# What tells readers and the type checker something, and changes nothing while the job runs as it does
FOR_READERS = {"core/AddNot": r"if TYPE_CHECKING:", "core/ReplaceTrueWithFalse": r"\b(frozen|strict)=True\b"}
SECONDS_FOR_A_FAULT = 240.0  # some faults make a run wait for another, which is a sign


def files_of(room: str) -> list[str]:
    """The files of a room, from the top of the project."""
    found = [ROOT / "movielens" / f"{room}.py", *sorted((ROOT / "movielens" / room).glob("*.py"))]
    return [str(file.relative_to(ROOT)) for file in found if file.exists()]


def write_configuration(copy: Path, room: str) -> None:
    """What cosmic-ray is to do, in its file."""
    tests = [f"tests/{name}.py" for name in TESTS[room] if (copy / "tests" / f"{name}.py").exists()]
    command = f"{sys.executable} -m pytest -x -q -p no:cacheprovider -m 'not thorough' -k '{EMBEDDED}'"
    lines = [
        "[cosmic-ray]",
        f"module-path = {json.dumps(files_of(room))}",
        f"timeout = {SECONDS_FOR_A_FAULT}",
        "excluded-modules = []",
        f"test-command = {json.dumps(' '.join([command, *tests]))}",
        "[cosmic-ray.distributor]",
        'name = "local"',
        "[cosmic-ray.filters.operators-filter]",
        f"exclude-operators = {json.dumps(IGNORED)}",
    ]
    (copy / "mutation.toml").write_text("\n".join(lines) + "\n")


def is_for_readers(copy: Path, module: str, row: int, operator: str) -> bool:
    """Whether a fault is one of FOR_READERS."""
    line = (copy / module).read_text().splitlines()[row - 1]
    return operator in FOR_READERS and re.search(FOR_READERS[operator], line) is not None


def keep_sample(copy: Path, session: str, share: float, seed: int) -> None:
    """Has a session forget all its faults but a share of them, chosen by chance."""
    pending = """
        SELECT job_id, module_path, start_pos_row, operator_name FROM mutation_specs
        WHERE job_id NOT IN (SELECT job_id FROM work_results)
        ORDER BY module_path, start_pos_row, start_pos_col, operator_name, occurrence
    """
    with closing(sqlite3.connect(copy / session)) as database, database:
        found = database.execute(pending).fetchall()
        faults = [fault for fault, *where in found if not is_for_readers(copy, *where)]
        kept = set(random.Random(seed).sample(faults, round(share * len(faults))))
        for table in ("mutation_specs", "work_items"):
            database.executemany(
                f"DELETE FROM {table} WHERE job_id = ?", [(fault,) for fault, *_ in found if fault not in kept]
            )


def survivors(copy: Path, room: str, share: float, seed: int) -> tuple[int, list[str]]:
    """How many faults were put in, and those that no test noticed, as differences."""

    def call(*command: str, quiet: bool = True) -> str:
        # the tests of a fault are to write no bytecode, or the next fault of the same second is not seen
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "MOVIELENS_DATA": str(copy / "none")}
        done = subprocess.run(
            command, cwd=copy, env=environment, text=True, check=True, stdout=subprocess.PIPE if quiet else None
        )
        return done.stdout or ""

    write_configuration(copy, room)
    session = f"{room}.sqlite"
    call("cosmic-ray", "init", "mutation.toml", session)
    call("cr-filter-operators", session, "mutation.toml")
    keep_sample(copy, session, share, seed)
    call("cosmic-ray", "baseline", "mutation.toml")
    call("cosmic-ray", "exec", "mutation.toml", session, quiet=False)
    report = call("cr-report", "--show-diff", session)
    faults = re.split(r"^\[job-id\].*\n", report, flags=re.MULTILINE)[1:]
    done = [fault for fault in faults if "WorkerOutcome.SKIPPED" not in fault]
    return len(done), [fault for fault in done if "SURVIVED" in fault]


def main() -> int:
    """Puts faults into the rooms that the command line names and prints those that were not noticed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("rooms", nargs="*", choices=list(TESTS), default=list(TESTS))
    parser.add_argument("--share", type=float, default=1.0, help="of the faults, chosen by chance")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    unnoticed = 0
    for room in arguments.rooms:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o755)  # some tests are those of another user
            number, left = survivors(copy_project(Path(folder) / "copy"), room, arguments.share, arguments.seed)
        print("\n".join(left))
        print(f"{room}: {number} faults, {len(left)} not noticed ({100 * (number - len(left)) / max(number, 1):.1f} %)")
        unnoticed += len(left)
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())
