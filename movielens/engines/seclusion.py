"""A network of the process's own, so that no other user of the machine reaches a port that an engine listens on."""

from __future__ import annotations

import os
import pwd
import socket
import struct
from pathlib import Path

# linux/sched.h, linux/sockios.h, linux/if.h, linux/capability.h
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
CAPABILITY_VERSION_3 = 0x20080522

LEAST_UID_OF_A_PERSON = 500 if os.uname().sysname == "Darwin" else 1000
NOBODY = 65534


def leave_network() -> bool:
    """Moves this process into a network namespace of its own, with a loopback address alone; tells whether it could.

    Root always may; others may where they can have a user namespace, and only while the process has no other threads.
    Files, their owners, users and processes stay as they are.
    """
    # tried by a child first: what goes half of the way has no network at all
    child = os.fork()
    if child == 0:
        try:
            enter_namespace()
        except BaseException:  # noqa: BLE001  # whatever it is, the namespace cannot be had
            os._exit(1)
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        return False
    enter_namespace()
    return True


def enter_namespace() -> None:
    """Enters the namespace and brings up its loopback address. Raises OSError or AttributeError where it cannot."""
    import ctypes  # Python itself has unshare() from 3.12 on
    import fcntl

    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.geteuid(), os.getegid()
    as_root = uid == 0
    if libc.unshare(CLONE_NEWNET | (0 if as_root else CLONE_NEWUSER)):
        raise OSError(ctypes.get_errno(), "unshare")
    if not as_root:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))
    if not as_root:  # in its namespace it is one, whom the permissions of its own files would not stop
        version = struct.pack("Ii", CAPABILITY_VERSION_3, 0)
        if libc.capset(version, bytes(struct.calcsize("6I"))):
            raise OSError(ctypes.get_errno(), "capset")


def other_users() -> bool:
    """Whether the machine has accounts of other people."""
    return any(
        LEAST_UID_OF_A_PERSON <= account.pw_uid != os.geteuid()
        and account.pw_uid != NOBODY
        and not account.pw_shell.endswith(("nologin", "false"))
        for account in pwd.getpwall()
    )
