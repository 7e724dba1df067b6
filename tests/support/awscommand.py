"""The command line of AWS, started quickly: a call is mostly the start of it, and the suite makes hundreds.

One process has the modules of the command line imported; for each call it forks, and the child becomes what the command
would have been: with the arguments, the environment, the working folder, the three standard streams and the ignored
signals of its caller it runs the same script `aws`. The caller is a small client of that name, put first on PATH. It
hands on the signals that it gets, and ends as the command ended; where it is killed, so is the command.
"""

from __future__ import annotations

import gc
import importlib
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from pathlib import Path

SCRIPT = Path(sys.prefix) / "bin" / "aws"
SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
SERVICES = {"cloudformation", "ecr", "ecs", "emr", "emr-serverless", "logs", "s3", "sts"}

CLIENT = """#!{python} -IS
import os, signal, socket, sys
SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
ignored = [number for number in SIGNALS if signal.getsignal(number) == signal.SIG_IGN]
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
for number in SIGNALS:
    if number not in ignored:
        signal.signal(number, lambda number, _: server.send(bytes([number])))
ignored = " ".join(str(int(number)) for number in ignored)
variables = (name + b"=" + value for name, value in os.environb.items())
words = [os.getcwdb(), ignored.encode(), str(len(sys.argv)).encode(), *map(os.fsencode, sys.argv), *variables]
said = b"\\0".join(words)
socket.send_fds(server, [len(said).to_bytes(4, "big")], [0, 1, 2])
server.sendall(said)
signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
status = int.from_bytes(server.recv(4), "big")
if os.WIFSIGNALED(status):
    signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
    os.kill(os.getpid(), os.WTERMSIG(status))
os._exit(os.waitstatus_to_exitcode(status))
"""


class AwsCommand:
    """A folder to be put first on PATH, in which `aws` is the client of a process that this starts."""

    def __init__(self) -> None:
        # a short path, as sockets need
        self.temporary = tempfile.TemporaryDirectory(prefix="aws-")
        self.folder = Path(self.temporary.name)
        address = self.folder / "socket"
        client = self.folder / "aws"
        client.write_text(CLIENT.format(python=sys.executable, address=str(address)))
        client.chmod(0o755)
        # it ends when its standard input does
        self.server = subprocess.Popen(
            [sys.executable, "-m", "tests.support.awscommand", address], stdin=subprocess.PIPE, start_new_session=True,
            cwd=Path(__file__).parents[2],
        )  # fmt: skip
        while not address.exists():
            assert self.server.poll() is None
            time.sleep(0.05)

    def stop(self) -> None:
        self.server.communicate()
        self.temporary.cleanup()


def serve(address: str) -> None:
    """Answers clients until standard input ends."""
    import awscli
    import botocore

    for package in (awscli, botocore):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if ".vendored" not in module.name and ".crt" not in module.name:
                with suppress(ImportError):  # what is there for other systems
                    importlib.import_module(module.name)
    keep_descriptions()
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(f"{address}.part")
    listening.listen(100)
    Path(f"{address}.part").rename(address)
    while True:
        ready, _, _ = select.select([listening, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        caller, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            attend(caller)
        caller.close()


def keep_descriptions() -> None:
    """Has all commands find the descriptions of the services read already, which takes half of the time of a call."""
    from awscli.clidriver import create_clidriver

    session = create_clidriver().session
    loader = session.get_component("data_loader")
    for kind in ("service-2", "paginators-1", "waiters-2", "endpoint-rule-set-1", "examples-1"):
        for service in SERVICES & set(loader.list_available_services(kind)):
            loader.load_service_model(service, kind)
    for others in ("endpoints", "partitions", "sdk-default-configuration", "_retry", "cli"):
        loader.load_data(others)
    sys.modules[type(session).__module__].create_loader = lambda _: loader  # type: ignore[attr-defined]


def attend(caller: socket.socket) -> None:
    """Runs the command of one caller, hands on its signals, and tells it how the command ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, streams, _, _ = socket.recv_fds(caller, 4, 3)
    said = b""
    while len(said) < int.from_bytes(size, "big"):
        said += caller.recv(int.from_bytes(size, "big") - len(said))
    ended, held = os.pipe()  # the command holds its other end until it ends
    command = os.fork()
    if command == 0:
        caller.close()
        os.close(ended)
        become_command(said, streams)
    for other in (0, 1, 2, held, *streams):
        os.close(other)
    while ended not in select.select([caller, ended], [], [])[0]:
        signals = caller.recv(16)
        for number in signals or [signal.SIGKILL]:
            os.kill(command, number)
        if not signals:
            break
    _, status = os.waitpid(command, 0)
    with suppress(OSError):
        caller.sendall(status.to_bytes(4, "big"))
    os._exit(0)


def become_command(said: bytes, streams: list[int]) -> None:
    """Is the command from here on."""
    folder, ignored, number, *words = said.split(b"\0")
    arguments, variables = words[: int(number)], words[int(number) :]
    for stream, standard in zip(streams, (0, 1, 2), strict=True):
        os.dup2(stream, standard)
        os.close(stream)
    for signal_number in SIGNALS:
        default = signal.default_int_handler if signal_number == signal.SIGINT else signal.SIG_DFL
        signal.signal(signal_number, signal.SIG_IGN if str(int(signal_number)).encode() in ignored.split() else default)
    os.environb.clear()
    os.environb.update(variable.split(b"=", 1) for variable in variables)
    time.tzset()
    os.chdir(folder)
    importlib.reload(sys.modules["awscli"])  # which sets a variable when it is imported
    sys.stdin, sys.stdout, sys.stderr = (open(standard, mode) for standard, mode in ((0, "r"), (1, "w"), (2, "w")))  # noqa: SIM115, PTH123
    sys.argv = [str(SCRIPT), *map(os.fsdecode, arguments[1:])]
    status: object = 0
    try:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    except SystemExit as ended:
        status = ended.code
    except BaseException:  # noqa: BLE001  # as Python itself does
        traceback.print_exc()
        status = 1
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 0 if status is None else 1)


if __name__ == "__main__":
    serve(sys.argv[1])
