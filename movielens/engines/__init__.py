"""The engines that the job runs on: all that differs between them is behind one protocol."""

from __future__ import annotations

import gc
import logging
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Protocol

from movielens.contract import PipelineError
from movielens.storage.disk import DiskStorage
from movielens.storage.paths import is_local, why_mistaken
from movielens.storage.s3 import S3Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from pyspark.sql import DataFrame, SparkSession

    from movielens.storage import Entry, Storage

log = logging.getLogger("movielens_pipeline")


class Engine(Protocol):
    """An engine with a session on it."""

    name: str
    alternative: str  # the other engine, and how to have it
    shows_progress: bool  # on a terminal, by itself
    distributed: bool  # it may read with more machines than this one

    @property
    def on_one_machine(self) -> bool:
        """Whether all that read and write are on this machine, and see its files."""

    @property
    def version(self) -> str:
        """The version of the engine behind the session."""

    def storage(self, path: str) -> Storage:
        """The storage that holds the path: the disk, or a store by the means of the engine."""

    def path_to_read(self, path: str) -> str:
        """The path as the engine's readers take it, to the letter."""

    def path_to_write(self, path: str) -> str:
        """The path as the engine's writers take it, to the letter."""

    def lines(self, files: Sequence[Entry]) -> DataFrame:
        """The lines of text files that are not blank, whatever bytes they hold: file STRING, line STRING.

        A line ends with LF, CRLF or CR. One that is valid UTF-8 is UTF-8; any other is ISO-8859-1.
        """

    def quick_lines(self, files: Sequence[Entry]) -> DataFrame:
        """The lines that are not empty, as fast as can be: line STRING. A byte that is not UTF-8 may be another."""

    def columns(self, files: Sequence[Entry], schema: str, separator: str, *, header: bool) -> DataFrame | None:
        """The columns of text files whose lines all have them; None where no reader is faster than cutting lines.

        With a header the first line of each file is none of them.
        """

    def tells_of_lines(self, error: Exception) -> bool:
        """Whether `columns` or `quick_lines` failed by what is in the lines, which `lines` survives."""

    def parsed_once(self, frame: DataFrame, read_back: Callable[[], DataFrame]) -> AbstractContextManager[DataFrame]:
        """The frame to derive others from, whose input the engine parses once while the context lasts.

        An engine may cache the frame and drop it at the end, or take what `read_back` returns: the same rows, read from
        the files that were written of them.
        """


@dataclass(frozen=True)
class Unstarted:
    """What can be had of an engine before it starts."""

    name: str
    version: str

    def storage(self, path: str) -> Storage:
        """The storage that holds the path, as the engine would have it."""
        return DiskStorage() if is_local(path) else S3Storage()


def unstarted(name: str, *paths: str) -> Unstarted | None:
    """An engine that has not started, where it would reach the paths by the same means as one that has; else None."""
    if name != "sail" and not all(map(is_local, paths)):
        return None
    try:
        return Unstarted(name, metadata.version({"sail": "pysail", "spark": "pyspark"}[name]))
    except metadata.PackageNotFoundError:
        return None


TO_INSTALL = {
    "sail": "pip install -r requirements/embedded.txt, or use spark-submit",
    "spark": "pip install -r requirements.txt",
}


def seclude(name: str, *paths: str) -> None:
    """Keeps other users of the machine away from the engine that this process, which is the job's own, will start.

    Spark asks whoever calls it for a secret. Sail asks for none, so the process leaves the network where all paths are
    local and it may; where not, a line says what that means, if there are other users.
    """
    if name == "sail":
        from movielens.engines.seclusion import leave_network, other_users

        if not (all(map(is_local, paths)) and leave_network()) and other_users():
            log.warning(
                "other users of this machine could run code as you while the job runs, by the port of its engine: "
                "--engine spark, or a container, keeps them out"
            )


def start(name: str) -> SparkSession:
    """Starts the engine, `sail` or `spark`, and returns a session on it.

    Raises PipelineError when what the engine needs is not installed, or does not start, or cannot write to the folder
    for temporary files because of its name.
    """
    temporary = tempfile.gettempdir()
    if why := why_mistaken(temporary):
        raise PipelineError(f"temporary files would go to {temporary!r}: {why}; let TMPDIR name another folder")
    try:
        with nothing_collected():
            engine = import_module(f"movielens.engines.{name}")
    except ImportError as error:
        raise PipelineError(
            f"the {name} engine is not installed ({error.name} is missing): {TO_INSTALL[name]}"
        ) from error
    session: SparkSession = engine.start()
    return session


@contextmanager
def nothing_collected() -> Iterator[None]:
    """Keeps Python from looking for garbage, which takes a sixth of the time in which large packages are imported."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def engine_of(session: SparkSession) -> Engine:
    """The engine behind a session; one that is reached over Spark Connect is Sail."""
    if ".connect." in type(session).__module__:
        from movielens.engines.sail import Sail

        return Sail(session)
    from movielens.engines.spark import Spark

    return Spark(session)
