"""Container engines."""

from __future__ import annotations

import fcntl
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Docker = Callable[..., subprocess.CompletedProcess[str]]


@contextmanager
def one_build_at_a_time() -> Iterator[None]:
    """Keeps builds of images apart that several processes of the suite would do at once; podman may fail over them."""
    with (Path(tempfile.gettempdir()) / "movielens_pipeline-builds.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def network_of_this_machine() -> str:
    """The option by which a container reaches this machine's servers; podman behind the name of docker has it set."""
    version = subprocess.run(["docker", "--version"], capture_output=True, text=True, check=False).stdout
    return "" if "podman" in version else "host"
