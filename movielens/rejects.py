"""Lines that are not valid: found, counted, shown, and let pass or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F

from movielens.contract import BadInputError
from movielens.reading import find_rejects
from movielens.storage.paths import absolute, join
from movielens.tables import read_dataset, write_dataset, write_files
from movielens.terminal import CHARACTERS_SHOWN, count_of, log, shortened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyspark.sql import DataFrame, SparkSession

    from movielens.formats import Format
    from movielens.inputs import Release

FOUND = "_found"
FOUND_COLUMNS = "file STRING, dataset STRING, reason STRING, line STRING"
REJECTS_SHOWN = 10


def stage_rejects(  # noqa: PLR0913, PLR0917  # what a run has decided, and the texts
    spark: SparkSession,
    release: Release,
    staging: str,
    max_rejects: int,
    by_reason: list[dict[str, Any]],
    texts: Sequence[str],
) -> dict[str, int]:
    """Stages the rejects of texts of a release, shows the first, and returns how many each text has.

    Adds dataset, reason and lines of each reason to a list. Raises BadInputError when there are more than allowed.
    """
    found = found_once(spark, release, staging, texts)
    reasons = count(found, release.format)
    by_reason += reasons
    counts = {name: sum(one["lines"] for one in reasons if one["dataset"] == name) for name in texts}
    show(found, release)
    total = sum(counts.values())
    if total > max_rejects:
        raise BadInputError(f"{count_of(total, 'line')} not valid, more than --max_rejects {max_rejects} allows")
    if total:
        write_dataset(found.select("dataset", "reason", "line"), staging, "rejects")
    return counts


def found_once(spark: SparkSession, release: Release, staging: str, texts: Sequence[str]) -> DataFrame:
    """All rejects, as they are read back from where they are kept: file, dataset, reason, line (STRING)."""
    path = join(staging, FOUND)
    write_files(find_rejects(spark, release, texts), path)
    return read_dataset(spark, path, FOUND_COLUMNS)


def count(found: DataFrame, form: Format) -> list[dict[str, Any]]:
    """The reasons of rejects, with dataset, reason and lines of each; says them."""
    by_reason = found.groupBy("dataset", "reason").agg(F.count("*").alias("lines")).orderBy("dataset", "reason")
    reasons = [row.asDict() for row in by_reason.collect()]
    for one in reasons:
        log.warning("%s: %s: %s", form.files[one["dataset"]], one["reason"], count_of(one["lines"], "line"))
    return reasons


def show(found: DataFrame, release: Release) -> None:
    """Shows the first rejects, with their files."""
    lines = found.withColumn("line", F.substring("line", 1, CHARACTERS_SHOWN + 1))
    for row in lines.orderBy("file", "reason", "line").limit(REJECTS_SHOWN).collect():
        log.warning("%s: %s: %s", release.name_of(absolute(row["file"])), row["reason"], shortened(row["line"]))
