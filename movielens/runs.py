"""Runs: the id by which one is known, and whether the process behind an id still lives."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import socket
import subprocess
import uuid
from datetime import datetime, timezone
from functools import cache
from pathlib import Path

RUN_ID = re.compile(r"\d{8}T\d{6}Z(?:-[A-Za-z0-9._]+){3,4}")


def new_run_id() -> str:
    """`<start, UTC>-<host>-<boot>-<process>.<its start>-<token>`: unique, sorts by time, and tells who runs."""
    host = re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname()) or "unknown"
    return f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{host}-{identity(os.getpid())}-{secrets.token_hex(4)}"


def identity(pid: int) -> str:
    """`<boot>-<process>.<its start>`: what no other process has, here or elsewhere, now or after a restart."""
    return f"{boot()}-{pid}.{start_of(pid) or 'unknown'}"


@cache
def boot() -> str:
    """Where and until when a process id means one process: a start of a machine, and a container on it.

    Machines without a boot id give their own in its place.
    """
    try:
        started = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        started, namespace = str(uuid.getnode()), 0
    return hashlib.sha256(f"{started} {namespace}".encode()).hexdigest()[:12]


def start_of(pid: int) -> str | None:
    """When a process started, in a form of this machine; empty for one that is dead, None where it cannot be told."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        if Path("/proc/self/stat").exists():
            return None  # the processes of other users may be hidden
        shown = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return re.sub(r"[^A-Za-z0-9]", "", shown.stdout)
    # a dead process that nobody waited for, as in a container whose first process does not, is gone
    return "" if status[0] == "Z" else status[19]


def is_over(run_id: str, own_run_id: str) -> bool | None:
    """Whether a run has ended, known by its process; None where that cannot be known from here."""
    if run_id == own_run_id:
        return False
    of_process = "-".join(run_id.split("-")[2:4])
    # the job runs once at a time in a process, so another run of this one has ended
    return True if of_process == identity(os.getpid()) else process_is_over(of_process)


def process_is_over(of_process: str) -> bool | None:
    """Whether the process with this identity has ended; None where that cannot be known from here."""
    found = re.fullmatch(r"([0-9a-f]+)-(\d+)\.(\w+)", of_process)
    if not found or found[1] != boot():
        return None
    return not process_lives(int(found[2]), found[3])


def process_lives(pid: int, start: str) -> bool:
    """Whether the process of this machine that has the id is the one that started then."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return start_of(pid) in (start, None)


def utc(text: str) -> datetime:
    """A time as manifests have it."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)


def utc_now() -> str:
    """The time as manifests have it."""
    return f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}"
