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
    return all(times) and isinstance(found["run_id"], str) and all(isinstance(count, int) for count in rows)


def with_run(content: bytes, run: dict[str, Any]) -> bytes:
    """A history with a run as its last one, and no more than the last runs that are kept; a run is in it once."""
    runs = read_history(content)
    if not any(run["run_id"] == other["run_id"] for other in runs):
        runs.append(run)
    return b"".join(as_line(run) for run in runs[-RUNS_KEPT:])


def as_line(summary: dict[str, Any]) -> bytes:
    """A summary as a line of its own."""
    return json.dumps(summary).encode() + b"\n"
