"""Other users of the machine: none of them gets at a run from disk to disk, and where one could, a line says so."""

from __future__ import annotations

import logging
import os
import pwd
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from movielens.engines import seclude, seclusion
from tests.support.jobs import job_environment
from tests.support.project import ROOT

# The job, which says when it is about to publish, and waits. Its last argument tells whether the process is its own.
WAITING_JOB = """
import sys
import movielens_pipeline as job
from movielens import terminal
from movielens.publishing import publication

def wait(_, manifest, *__):
    print("about to publish", flush=True)
    sys.stdin.read()
    return manifest

publication.Publication.publish = wait
*arguments, own = sys.argv[1:]
terminal.leave(job.main(arguments, own_process=own == "own"))
"""

# A client of Spark Connect that is nobody's, and that sends a Python function to the port that it is given
INTRUDER = """
import os, sys
port, proof = sys.argv[1:]
from pyspark.sql.connect.client.retries import DefaultPolicy
from pyspark.sql.connect.session import SparkSession

def prove(batches):
    from pathlib import Path
    Path(proof).write_text("it was here")
    yield from batches

if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
session = SparkSession.builder.remote(f"sc://127.0.0.1:{port}").create()
session.client.set_retry_policies([DefaultPolicy(max_retries=2, max_backoff=100)])
session.range(1).mapInArrow(prove, "id LONG").collect()
"""


def listening_ports(process: int) -> list[int]:
    """The ports that a process listens on."""
    held = {str(file.readlink()) for file in Path(f"/proc/{process}/fd").iterdir()}
    ports = []
    for line in Path(f"/proc/{process}/net/tcp").read_text().splitlines()[1:]:
        _, address, _, state, *_, inode = line.split()[:10]
        if state == "0A" and f"socket:[{inode}]" in held:
            ports.append(int(address.partition(":")[2], 16))
    return ports


def intrude(input_path: Path, output_path: Path, own: str, proof: Path) -> subprocess.CompletedProcess[str]:
    """Has another user send a function to a run that is about to publish; returns what the other user was told."""
    environment = {**job_environment(), "PYTHONPATH": str(ROOT)}
    arguments = ["--input_path", str(input_path), "--output_path", str(output_path), own]
    with subprocess.Popen(
        [sys.executable, "-c", WAITING_JOB, *arguments],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as job:  # fmt: skip
        assert job.stdin
        assert job.stdout
        assert job.stdout.readline() == "about to publish\n"
        [port] = listening_ports(job.pid)
        told = subprocess.run(
            [sys.executable, "-c", INTRUDER, str(port), str(proof)],
            env={**environment, "SPARK_CONNECT_MODE_ENABLED": "1"},
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        job.stdin.close()
        assert job.wait(timeout=60) == 0
    return told


def may_leave_network() -> bool:
    """Whether this user may have a network namespace."""
    options = [] if os.geteuid() == 0 else ["--user"]
    tried = subprocess.run(["unshare", *options, "--net", "true"], capture_output=True, check=False)
    return tried.returncode == 0


def test_another_user_cannot_run_code_in_a_run_from_disk_to_disk(
    input_path: Path, output_path: Path, tmp_path: Path
) -> None:
    proof = tmp_path / "proof"
    if may_leave_network():
        told = intrude(input_path, output_path, "own", proof)
        assert told.returncode == 1
        assert "failed to connect" in told.stderr
        assert not proof.exists()
    # and the same gets in where a program of somebody else's calls the job, whose network is left as it is
    told = intrude(input_path, output_path, "another's", proof)
    assert told.returncode == 0, told.stderr
    assert proof.read_text() == "it was here"


ALONE = """
import ctypes, encodings.idna, fcntl, os, socket, sys
from pathlib import Path
from movielens.engines.seclusion import leave_network
own, folder, port = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
if os.geteuid() == 0:
    os.setgroups([4711]); os.setgid(65533); os.setuid(65532)
    ctypes.CDLL(None).prctl(4, 1)  # PR_SET_DUMPABLE, as each program is that such a user starts
if not leave_network():
    sys.exit("no namespace")
# files are still the user's, and what the user may not do, the process may not do either
(folder / "written").touch()
(folder / "made").mkdir()
(own / "closed").touch()
(own / "closed").chmod(0)
try:
    (own / "closed").read_bytes()
except PermissionError:
    pass
else:
    sys.exit("no permission stops it")
assert os.geteuid() == os.stat(own / "closed").st_uid
# the loopback address is there, and nothing else of the machine is on it
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(server.getsockname()).close()
try:
    socket.create_connection(("127.0.0.1", port))
except ConnectionRefusedError:
    print("alone")
"""


def test_a_user_without_rights_leaves_the_network_and_files_stay_as_they_are() -> None:
    if not may_leave_network():
        pytest.skip("this machine lets nobody have a network namespace")
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        own, group = Path(folder) / "own", Path(folder) / "group"
        own.mkdir()
        group.mkdir()
        uid, gid = os.geteuid(), os.getegid()
        if os.geteuid() == 0:
            # a folder of a group that the user is in, too, and that hands itself on to what is made in it
            uid, gid = 65532, 4711
            os.chown(own, 65532, 65533)
            os.chown(group, 0, gid)
        group.chmod(0o2775)
        Path(folder).chmod(0o755)
        with socket.create_server(("127.0.0.1", 0)) as of_the_machine:
            done = subprocess.run(
                [sys.executable, "-c", ALONE, own, group, str(of_the_machine.getsockname()[1])],
                env={**job_environment(), "PYTHONPATH": str(ROOT)},
                capture_output=True, text=True, check=False, timeout=60,
            )  # fmt: skip
        assert (done.stdout, done.stderr) == ("alone\n", "")
        for made in (group / "written", group / "made"):
            assert (made.stat().st_uid, made.stat().st_gid) == (uid, gid)
        assert (group / "made").stat().st_mode & 0o2000


SERVICE = SimpleNamespace(pw_uid=1001, pw_shell="/usr/sbin/nologin")
NOBODY = SimpleNamespace(pw_uid=65534, pw_shell="/bin/sh")
ROOT_ACCOUNT = SimpleNamespace(pw_uid=0, pw_shell="/bin/bash")
ONESELF = SimpleNamespace(pw_uid=1000, pw_shell="/bin/bash")
ANOTHER = SimpleNamespace(pw_uid=1002, pw_shell="/bin/zsh")


@pytest.mark.parametrize(
    ("engine", "paths", "others", "said"),
    [
        ("sail", ["/in", "s3://bucket/out"], [ANOTHER], True),
        ("sail", ["s3a://bucket/in", "/out"], [SERVICE, ANOTHER], True),
        ("sail", ["s3://bucket/in", "s3://bucket/out"], [SERVICE, NOBODY], False),
        ("sail", ["/in", "/out"], [ANOTHER], True),  # where the namespace is not to be had
        ("sail", ["/in", "/out"], [], False),
        ("spark", ["/in", "s3://bucket/out"], [ANOTHER], False),
    ],
)
def test_a_line_says_where_another_user_could_run_code(
    engine: str, paths: list[str], others: list[SimpleNamespace], said: bool,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    # given a user of a machine with other accounts, who may not have a namespace
    left: list[bool] = []
    monkeypatch.setattr(seclusion, "leave_network", lambda: bool(left.append(True)))
    monkeypatch.setattr(os, "geteuid", lambda: ONESELF.pw_uid)
    monkeypatch.setattr(pwd, "getpwall", lambda: [ROOT_ACCOUNT, ONESELF, *others])
    monkeypatch.setattr(logging.getLogger("movielens_pipeline"), "propagate", True)
    seclude(engine, *paths)
    line = (
        "other users of this machine could run code as you while the job runs, by the port of its engine: "
        "--engine spark, or a container, keeps them out"
    )
    assert {record.getMessage() for record in caplog.records} == ({line} if said else set())
    # a run that needs the network keeps it
    assert left == [True] * (engine == "sail" and paths == ["/in", "/out"])
