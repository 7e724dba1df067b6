"""A run, from the first look at the input to the published result."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from movielens.contract import VERSION, BadInputError, PipelineError
from movielens.engines import engine_of
from movielens.failures import explaining
from movielens.inputs import find_release
from movielens.manifest import Dataset, Manifest
from movielens.publishing import Publication
from movielens.reading import count_lines, looked_at
from movielens.rejects import stage_rejects
from movielens.runs import new_run_id, utc_now
from movielens.storage.paths import is_local, join
from movielens.storage.refusals import CHECK_THE_NETWORK, StorageError
from movielens.tables import columns_of
from movielens.terminal import count_of, log, phase

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from pyspark.sql import SparkSession

    from movielens.inputs import Release

    Job = Callable[[SparkSession, Release, str], dict[str, int]]

Answer = TypeVar("Answer")

SECONDS_TO_ANSWER = 30.0


def run(spark: SparkSession, arguments: argparse.Namespace, job: Job) -> None:
    """Makes and publishes the datasets as the command line says.

    `job` describes them and writes them to a folder, and returns the rows of each. Raises PipelineError.
    """
    engine = engine_of(spark)
    started, clock = utc_now(), time.monotonic()
    form = ""
    try:
        release = in_time(arguments.input_path, BadInputError, lambda: find_release(spark, arguments.input_path))
        form = f", format: {release.format.name}"
    finally:  # also where there is no input
        log.info("engine: %s %s (the other: %s)%s", engine.name, engine.version, engine.alternative, form)
    publication = in_time(arguments.output_path, PipelineError, lambda: open_publication(spark, arguments.output_path))
    if not publication.recover():
        publication.sweep()
    with discarded_on_failure(publication):
        rows = make_datasets(spark, release, arguments, publication.staging, job)
        if find_release(spark, arguments.input_path) != release:
            raise BadInputError(f"{arguments.input_path} changed while it was read")
        manifest = Manifest(
            run_id=publication.run_id,
            job_version=VERSION,
            engine={"name": engine.name, "version": engine.version},
            started=started,
            finished=utc_now(),
            input_files=[{"path": file.path, "bytes": file.size} for file in release.files],
            rejects=rows.get("rejects", 0),
            datasets={name: describe_dataset(spark, publication, name, count) for name, count in rows.items()},
        )
        with phase("publishing", timer=False) as done:
            publication.publish(manifest)
            done("complete")
    total = sum(dataset.bytes for dataset in manifest.datasets.values())
    log.info(
        "%d datasets in %s (%.1f MB, %s), %.1f s in all",
        len(rows), arguments.output_path, total / 1e6, count_of(manifest.rejects, "reject"), time.monotonic() - clock,
    )  # fmt: skip


def open_publication(spark: SparkSession, output: str) -> Publication:
    """The publication of a new run. Raises UsageError when publishing would delete what is somebody else's."""
    publication = Publication(engine_of(spark).storage(output), output, new_run_id())
    publication.require_own_folders()
    return publication


@contextmanager
def discarded_on_failure(publication: Publication) -> Iterator[None]:
    """Deletes what was staged when the run fails, and adds to the reason what became of the result."""
    try:
        yield
    except PipelineError as error:
        publication.discard()
        raise type(error)(f"{error}; {publication.outcome()}") from error
    except BaseException:
        publication.discard()
        raise


def in_time(path: str, failure: type[PipelineError], look: Callable[[], Answer]) -> Answer:
    """The answer of the first look at a path; raises the failure when its store refuses, or does not answer."""
    answers: list[Answer] = []
    errors: list[Exception] = []

    def ask() -> None:
        try:
            answers.append(look())
        except Exception as error:  # noqa: BLE001  # raised again below, in the thread that waits
            errors.append(error)

    if is_local(path):
        ask()
    else:
        # in a thread of its own: clients try again for minutes, and some calls into Java cannot be given a limit
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(SECONDS_TO_ANSWER)
    if answers:
        return answers[0]
    if not errors:
        raise failure(f"{path}: no answer in {SECONDS_TO_ANSWER:.0f} seconds; {CHECK_THE_NETWORK}")
    [error] = errors
    if isinstance(error, StorageError):
        raise failure(str(error)) from error
    raise error


def make_datasets(
    spark: SparkSession, release: Release, arguments: argparse.Namespace, staging: str, job: Job
) -> dict[str, int]:
    """Writes all datasets below the staging folder and proves that no line was lost; returns their rows."""
    places = arguments.input_path, arguments.output_path
    with explaining(*places, writing=False):
        release, lines = first_look(spark, release)
    with explaining(*places, writing=True):
        rows = job(spark, release, staging)
        if lines != {name: rows[name] for name in lines}:
            rejects = stage_rejects(spark, release, staging, arguments.max_rejects)
            if lines["ratings"] != rows["ratings"] + rejects["ratings"]:  # blank lines may be among those counted
                lines["ratings"] = count_lines(spark, release, "ratings")
            if any(rejects.values()):
                rows["rejects"] = sum(rejects.values())
            require_all_lines(release, lines, rows, rejects)
    require_rows(release, rows, arguments.input_path)
    return rows


def first_look(spark: SparkSession, release: Release) -> tuple[Release, dict[str, int]]:
    """The release as it can be read the fastest way, and the lines of `movies` and `ratings`.

    Of ratings, lines that are blank but not empty may count.
    """
    with phase("lines", timer=not engine_of(spark).shows_progress) as done:
        lines = {"movies": count_lines(spark, release, "movies")}
        release = looked_at(spark, release)
        lines["ratings"] = release.look.lines
        done(", ".join(f"{lines[name]:,} of {file}" for name, file in release.format.files.items()))
    return release, lines


def require_all_lines(release: Release, lines: dict[str, int], rows: dict[str, int], rejects: dict[str, int]) -> None:
    """Raises PipelineError unless each line of each text is a row or a reject."""
    for name, file in release.format.files.items():
        if lines[name] != rows[name] + rejects[name]:
            raise PipelineError(
                f"{file} has {lines[name]:,} lines, but {rows[name]:,} rows and {rejects[name]:,} rejects came of them"
            )


def require_rows(release: Release, rows: dict[str, int], input_path: str) -> None:
    """Raises PipelineError unless there are ratings and movies, and as many movies with statistics."""
    for name, file in release.format.files.items():
        if not rows[name]:
            raise BadInputError(f"{join(input_path, file)} has no valid line")
    if rows["movies_with_stats"] != rows["movies"]:
        raise PipelineError(f"movies_with_stats has {rows['movies_with_stats']:,} rows, but movies {rows['movies']:,}")


def describe_dataset(spark: SparkSession, publication: Publication, name: str, rows: int) -> Dataset:
    """What the manifest says of a staged dataset."""
    folder = join(publication.staging, name)
    files = sorted(
        (file for file in publication.storage.entries(folder) if not file.name.startswith(("_", "."))),
        key=lambda file: file.name,
    )
    return Dataset(
        rows=rows,
        bytes=sum(file.size for file in files),
        columns=columns_of(spark, folder),
        files=[join(name, file.name) for file in files],
        file_bytes=[file.size for file in files],
    )
