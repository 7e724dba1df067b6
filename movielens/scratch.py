"""Temporary files of a run: a folder of its own, which the next run removes where a kill left it behind."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from movielens.contract import PipelineError
from movielens.runs import identity, process_is_over

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def scratch_folder() -> Iterator[None]:
    """Has this process, and what it starts, keep temporary files in a folder of its own, which goes at the end.

    Removes what processes of this machine and user left that are over. Raises PipelineError where there is no place for
    temporary files.
    """
    try:
        own = own_folder()
    except OSError as error:
        raise PipelineError(
            f"no folder for temporary files can be made ({error}): let TMPDIR name one with room that can be written"
        ) from error
    before, os.environ["TMPDIR"], tempfile.tempdir = os.environ.get("TMPDIR"), str(own), str(own)
    try:
        yield
    finally:
        tempfile.tempdir = None
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before
        shutil.rmtree(own, ignore_errors=True)


def own_folder() -> Path:
    """A new folder for temporary files of this process, when what others left is removed. Raises OSError."""
    shared = Path(tempfile.gettempdir()) / f"movielens_pipeline-{os.getuid()}"
    with suppress(FileExistsError):
        shared.mkdir(mode=0o700)
    status = shared.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():  # somebody else's
        return Path(tempfile.mkdtemp())
    for left in shared.iterdir():
        if process_is_over(left.name):
            shutil.rmtree(left, ignore_errors=True)
    own = shared / identity(os.getpid())
    own.mkdir(mode=0o700, exist_ok=True)
    return own
