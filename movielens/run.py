"""A run, from the first look at the input to the published result."""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from movielens.contract import VERSION, BadInputError, PipelineError
from movielens.earlier import require_ratio, standing_result
from movielens.engines import engine_of
from movielens.failures import explaining
from movielens.inputs import find_archive, find_release, given_files, input_read, unpacked
from movielens.manifest import Manifest
from movielens.proof import NotPlainError, proving
from movielens.publishing.publication import Publication
from movielens.reading import TEXTS
from movielens.rejects import stage_rejects
from movielens.runs import new_run_id, utc_now
from movielens.storage.paths import is_local
from movielens.storage.refusals import StorageError, what_to_check
from movielens.terminal import count_of, log, megabytes, phase

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Mapping

    from pyspark.sql import SparkSession

    from movielens.engines import Engine, Unstarted
    from movielens.inputs import Release
    from movielens.proof import Proof
    from movielens.storage import Entry
    from movielens.summary import Summary
    from movielens.tables import Check

    Job = Callable[[SparkSession, Release, str, Check], dict[str, int]]

Answer = TypeVar("Answer")

SECONDS_TO_ANSWER = 30.0


def run(spark: SparkSession, arguments: argparse.Namespace, job: Job, summary: Summary) -> None:
    """Makes and publishes the datasets as the command line says, and fills the summary.

    `job` describes them, writes them to a folder with a check of each, and returns their rows. Raises PipelineError.
    """
    engine = engine_of(spark)
    summary.run_id, summary.engine = new_run_id(), {"name": engine.name, "version": engine.version}
    with opened(spark, arguments.input_path) as release:
        summary.input |= describe_release(release)
        manifest = published(spark, release, arguments, job, summary)
    summary.outcome = "published"
    summary.tell_of(manifest)
    total = sum(dataset.bytes for dataset in manifest.datasets.values())
    log.info(
        "%d datasets in %s (%s, %s), %.1f s in all",
        len(manifest.datasets), summary.output_path, megabytes(total), count_of(manifest.rejects, "reject"),
        summary.elapsed(),
    )  # fmt: skip


def is_unchanged(engine: Engine | Unstarted, arguments: argparse.Namespace, summary: Summary) -> bool:
    """Whether the result that stands is what the run would publish; says so, and fills the summary."""
    given_path, output = arguments.input_path, arguments.output_path
    summary.run_id, summary.engine = new_run_id(), {"name": engine.name, "version": engine.version}
    given = in_time(given_path, BadInputError, lambda: given_files(engine.storage(given_path), given_path))
    standing = standing_result(
        open_publication(engine, output, summary),
        accounted(given),
        engine=summary.engine,
        max_rejects=arguments.max_rejects,
        input_path=given_path,
    )
    if standing:
        summary.outcome = "unchanged"
        summary.tell_of(standing)
        log.info("unchanged: %s is of this very input already (run %s)", summary.output_path, standing.run_id)
    return standing is not None


@contextmanager
def opened(spark: SparkSession, input_path: str) -> Iterator[Release]:
    """The release at a path; of an archive its files, which are unpacked for as long as this lasts.

    Says which engine reads it, and its format.
    """
    engine, form = engine_of(spark), ""
    with ExitStack() as until_the_end:
        try:
            archive = in_time(input_path, BadInputError, lambda: find_archive(spark, input_path))
            if archive:
                release = until_the_end.enter_context(unpacked(spark, archive))
            else:
                release = in_time(input_path, BadInputError, lambda: find_release(spark, input_path))
            form = f", format: {release.format.name}"
        finally:  # also where there is no input
            log.info("engine: %s %s (the other: %s)%s", engine.name, engine.version, engine.alternative, form)
        yield release


def published(
    spark: SparkSession, release: Release, arguments: argparse.Namespace, job: Job, summary: Summary
) -> Manifest:
    """Makes the datasets of a release and publishes them; returns what is said of them."""
    publication = open_publication(engine_of(spark), arguments.output_path, summary)
    publication.output.recover()
    publication.staging.sweep()
    with discarded_on_failure(publication):
        with unchanged(spark, release, arguments.input_path):
            rows = make_datasets(spark, release, arguments, publication.staging.folder, job, summary)
        for name, text in summary.input["texts"].items():
            rejects = (found["lines"] for found in summary.rejects_by_reason if found["dataset"] == name)
            text["lines"] = rows[name] + sum(rejects)
        draft = describe_result(rows, release, arguments.max_rejects, summary)
        with phase("publishing", timer=False) as done:
            manifest = publication.publish(draft, rows, partial(require_ratio, arguments.min_ratio, rows))
            done("complete")
    return manifest


def describe_result(rows: Mapping[str, int], release: Release, max_rejects: int, summary: Summary) -> Manifest:
    """The manifest of what a run has made so far, without its datasets."""
    return Manifest(
        run_id=str(summary.run_id),
        job_version=VERSION,
        engine=dict(summary.engine),
        started=summary.started,
        finished=utc_now(),
        input_files=accounted(release.given),
        rejects=rows.get("rejects", 0),
        datasets={},
        input_path=summary.input["path"],
        input_format=summary.input["format"],
        input_texts=summary.input["texts"],
        max_rejects=max_rejects,
        rejects_by_reason=summary.rejects_by_reason,
        seconds={"phases": {**summary.seconds["phases"]}, "all": summary.elapsed()},
    )


def accounted(given: tuple[Entry, ...]) -> list[dict[str, Any]]:
    """What a manifest says of the input files: path, bytes, what tells each from a later one, and that all is there."""
    return [
        {"path": file.path, "bytes": file.size, "modified": file.modified, "version": file.version, "accounted": True}
        for file in given
    ]


def open_publication(engine: Engine | Unstarted, output: str, summary: Summary) -> Publication:
    """The publication of a run. Raises UsageError when publishing would delete what is somebody else's."""

    def look() -> Publication:
        publication = Publication(engine.storage(output), output, str(summary.run_id))
        publication.output.require_own_folders()
        return publication

    return in_time(output, PipelineError, look)


def describe_release(release: Release) -> dict[str, Any]:
    """What a summary says of the input: format, bytes, and for each text its files and bytes; lines come later."""
    texts = {"ratings": release.ratings, "movies": release.movies}
    return {
        "format": release.format.name,
        "bytes": sum(file.size for file in release.given),
        "texts": {
            name: {"files": len(files), "bytes": sum(file.size for file in files), "lines": None}
            for name, files in texts.items()
        },
    }


@contextmanager
def discarded_on_failure(publication: Publication) -> Iterator[None]:
    """Deletes what was staged when the run fails, and adds to the reason what became of the result."""
    try:
        yield
    except PipelineError as error:
        publication.staging.delete()
        raise type(error)(f"{error}; {publication.outcome()}") from error
    except BaseException:
        publication.staging.delete()
        raise


@contextmanager
def unchanged(spark: SparkSession, release: Release, input_path: str) -> Iterator[None]:
    """Raises BadInputError where the release is another one in the end, whatever else failed by that.

    Also where its store refuses then, unless what failed before is an expected failure.
    """

    def require_unchanged() -> None:
        if given_files(engine_of(spark).storage(input_path), input_path) != release.given:
            raise BadInputError(f"{input_path} changed while it was read")

    try:
        yield
    except PipelineError:
        with suppress(StorageError):
            require_unchanged()
        raise
    except Exception:
        input_read(require_unchanged)
        raise
    input_read(require_unchanged)


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
        raise failure(f"{path}: no answer in {SECONDS_TO_ANSWER:.0f} seconds; {what_to_check(path)}")
    [error] = errors
    if isinstance(error, StorageError):
        raise failure(str(error)) from error
    raise error


def make_datasets(  # noqa: PLR0913, PLR0917  # all that a run is made of
    spark: SparkSession, release: Release, arguments: argparse.Namespace, staging: str, job: Job, summary: Summary
) -> dict[str, int]:
    """Writes all datasets below the staging folder, with the proof that nothing is lost; returns their rows."""
    input_path, output_path = arguments.input_path, arguments.output_path
    judge = partial(stage_rejects, spark, release, staging, arguments.max_rejects, summary.rejects_by_reason)
    with (
        explaining(input_path, output_path),
        proving(spark, release, input_path, staging, judge) as proof,
    ):
        rows = written_and_proved(spark, proof, job)
        rejects = sum(proof.rejects.values())
    return {**rows, "rejects": rejects} if rejects else rows


def written_and_proved(spark: SparkSession, proof: Proof, job: Job) -> dict[str, int]:
    """Writes all datasets the quickest way that proves right; returns the rows of those that the job describes."""
    engine, plain = engine_of(spark), proof.plain_release()
    judged = replace(plain, plain=None)
    for release in (plain, judged, replace(judged, odd_bytes=True)):
        if release is judged:
            log.info("%s: not all bytes are accounted for; judging each line", release.format.ratings_file)
            proof.rejects = proof.judge(TEXTS)
        try:
            rows = job(spark, release, proof.staging, partial(proof.check, release))
        except Exception as error:
            proof.require_whole_files()  # what is wrong with an archive is known better than engines say
            if release.odd_bytes or not (isinstance(error, NotPlainError) or engine.tells_of_lines(error)):
                raise
        else:
            break
    proof.require_whole_files()
    return rows
