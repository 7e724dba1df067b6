"""The history: a line for each run that was published, the oldest first, in a file beside the manifest."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from movielens.runs import utc

HISTORY = "_history.jsonl"
RUNS_KEPT = 400


def read_history(content: bytes) -> list[dict[str, Any]]:
    """The summaries of the runs that a history tells of, the oldest first; a line that is none is left out."""
    runs = []
    for line in content.splitlines():
        with suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
            run = json.loads(line)
            if is_run(run):
                runs.append(run)
    return runs


def is_run(found: Any) -> bool:
    """Whether that is the summary of a run, as far as it is used. Raises what looking at something else raises."""
    times = (utc(found["started"]), utc(found["finished"]))
    rows = [dataset["rows"] for dataset in found["datasets"].values()]
    has_number = isinstance(found.get("number"), int | None)
    return all(times) and has_number and isinstance(found["run_id"], str) and all(type(count) is int for count in rows)


def with_runs(content: bytes, published: list[dict[str, Any]]) -> bytes:
    """A history with these runs added, in the order of their numbers, if it lacks them; it keeps the last runs."""
    runs = read_history(content)
    known = {run["run_id"] for run in runs}
    runs += [run for run in published if run["run_id"] not in known]
    runs.sort(key=lambda run: run.get("number") or 0)  # those of version 0.6 have none, and stay in their order
    return b"".join(as_line(run) for run in runs[-RUNS_KEPT:])


def as_line(summary: dict[str, Any]) -> bytes:
    """A summary as a line of its own."""
    return json.dumps(summary).encode() + b"\n"
