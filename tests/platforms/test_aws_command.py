"""The quick start of the command line of AWS that the other tests take: it does what the command itself does."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import s3server
from tests.support.awscommand import SCRIPT, AwsCommand

pytestmark = pytest.mark.thorough

KEYS = {**s3server.KEYS, "AWS_DEFAULT_REGION": s3server.REGION, "AWS_MAX_ATTEMPTS": "1"}


@pytest.fixture(scope="module")
def commands() -> Iterator[list[Path]]:
    """The command itself, and its quick start."""
    command = AwsCommand()
    yield [SCRIPT, command.folder / "aws"]
    command.stop()


def test_a_call_is_answered_as_by_the_command_itself(
    commands: list[Path], s3_server: s3server.S3Server, tmp_path: Path
) -> None:
    environment = {**os.environ, **KEYS, "AWS_ENDPOINT_URL": s3_server.endpoint}
    (tmp_path / "file").write_bytes(b"content")
    calls: list[tuple[list[str], dict[str, str]]] = [
        (["--version"], {}),
        (["s3api", "put-object", "--bucket", s3server.BUCKET, "--key", "called", "--body", "file"], {}),
        (["s3api", "list-objects-v2", "--bucket", s3server.BUCKET, "--query", "Contents[].Key"], {}),
        (["s3", "cp", "-", f"s3://{s3server.BUCKET}/given"], {}),
        (["s3", "cp", f"s3://{s3server.BUCKET}/given", "-"], {}),
        (["s3api", "head-bucket", "--bucket", "no-such-bucket"], {}),
        (["no-such-service"], {}),
        (["sts", "get-caller-identity"], {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}),
        (["sts", "get-caller-identity"], {"AWS_PROFILE": "nobody"}),
    ]  # fmt: skip
    for arguments, variables in calls:
        own, quick = (
            subprocess.run(
                [command, *arguments], env={**environment, **variables}, cwd=tmp_path, input="given to it",
                capture_output=True, text=True, check=False,
            )
            for command in commands
        )  # fmt: skip
        assert (quick.returncode, quick.stdout, quick.stderr) == (own.returncode, own.stdout, own.stderr)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("ignored", [False, True])
def test_a_signal_does_to_a_call_what_it_does_to_the_command_itself(
    commands: list[Path], number: signal.Signals, ignored: bool
) -> None:
    ended = []
    for command in commands:
        # given a call that waits for its answer
        with socket.create_server(("127.0.0.1", 0)) as server:
            environment = {**os.environ, **KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.getsockname()[1]}"}
            ignore = "trap '' INT TERM; " if ignored else ""
            process = subprocess.Popen(
                ["bash", "-c", f'{ignore}exec "$0" sts get-caller-identity', command], env=environment,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
            )  # fmt: skip
            server.settimeout(60)
            connection, _ = server.accept()
            with connection:
                # when its process group gets a signal
                os.killpg(process.pid, number)
                connection.settimeout(1 if ignored and number != signal.SIGKILL else 60)
                # then it is over, with its connection, or goes on
                try:
                    while connection.recv(2**16):
                        pass
                except TimeoutError:
                    os.killpg(process.pid, signal.SIGKILL)
                    ended.append("goes on")
                said = process.communicate(timeout=60)
                ended.append((process.returncode, *said))
    own, quick = ended[: len(ended) // 2], ended[len(ended) // 2 :]
    assert quick == own
    assert ("goes on" in own) == (ignored and number != signal.SIGKILL)
