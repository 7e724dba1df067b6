"""The summary of a run, for programs: what a history keeps of it, and what `--summary json` prints in the end.

docs/summary.schema.json says what is in it. A field never changes its meaning without `schema_version`; new ones may
come at any time.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from movielens.contract import EXIT_DONE, VERSION
from movielens.runs import utc_now

if TYPE_CHECKING:
    from movielens.manifest import Manifest

SCHEMA_VERSION = 1


@dataclass
class Summary:
    """What is known of a run so far; None, or nothing, where it is not known (yet).

    `input` has path, format, bytes, and for each text its files, bytes and lines. `datasets` have rows, bytes, and the
    rows of the result before. `seconds` has those of each phase, and all.
    """

    outcome: str = "failed"  # or published, or unchanged
    exit_status: int | None = None
    error: str | None = None
    run_id: str | None = None
    result_run_id: str | None = None  # of the result that stands in the end
    number: int | None = None  # of its commit
    job_version: str = VERSION
    engine: dict[str, str | None] = field(default_factory=lambda: {"name": None, "version": None})
    started: str = field(default_factory=utc_now)
    finished: str | None = None
    input: dict[str, Any] = field(default_factory=lambda: {"path": None, "format": None, "bytes": None, "texts": {}})
    output_path: str | None = None
    datasets: dict[str, dict[str, int | None]] = field(default_factory=dict)
    rejects: int | None = None
    rejects_by_reason: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, Any] = field(default_factory=lambda: {"phases": {}, "all": None})
    began: float = field(default_factory=time.monotonic)  # of this process's clock; not told

    def elapsed(self) -> float:
        """The seconds since the run began."""
        return round(time.monotonic() - self.began, 3)

    def tell_of(self, manifest: Manifest) -> None:
        """Takes over what a manifest says of the result and of what it was made from."""
        self.input = {
            "path": manifest.input_path,
            "format": manifest.input_format,
            "bytes": sum(file["bytes"] for file in manifest.input_files),
            "texts": manifest.input_texts,
        }
        before = manifest.previous["rows"] if manifest.previous else {}
        self.datasets = {
            name: {"rows": dataset.rows, "bytes": dataset.bytes, "rows_before": before.get(name)}
            for name, dataset in manifest.datasets.items()
        }
        self.rejects, self.rejects_by_reason = manifest.rejects, manifest.rejects_by_reason
        self.result_run_id, self.number = manifest.run_id, manifest.number

    def to_dict(self) -> dict[str, Any]:
        """The summary as it is written."""
        told = {"schema_version": SCHEMA_VERSION, **asdict(self)}
        del told["began"]
        return told


def summary_of(manifest: Manifest, output: str) -> dict[str, Any]:
    """What a history keeps of a published run: its summary, whose seconds end where publishing begins."""
    summary = Summary(
        outcome="published",
        exit_status=EXIT_DONE,
        run_id=manifest.run_id,
        job_version=manifest.job_version,
        engine={**manifest.engine},
        started=manifest.started,
        finished=manifest.finished,
        output_path=output,
        seconds=manifest.seconds,
    )
    summary.tell_of(manifest)
    return summary.to_dict()
