"""Paths as the job handles them: absolute on the local disk, or the address of a store."""

from __future__ import annotations

import os
import re
import sys
import urllib.parse

from movielens.contract import SCHEMES, UsageError


def checked(path: str, engine: str) -> str:
    """The path made absolute. Raises UsageError where it is none that the engine reads from or writes to."""
    schemes = SCHEMES[engine]
    scheme, separator, place = path.partition("://")
    if not path or (separator and (scheme not in schemes or not place.strip("/"))):
        kinds = ", ".join(f"{kind}://" for kind in schemes)
        raise UsageError(f"the {engine} engine takes a folder, or one at {kinds}")
    if scheme == "file" and separator and not place.startswith("/"):
        raise UsageError(f"file:// reaches no other machine, as {place.partition('/')[0]} would be: write file:///...")
    if path.startswith("//"):
        raise UsageError("a path begins with one slash")
    user = path.partition("/")[0]
    home = os.path.expanduser(user)  # noqa: PTH111  # Path.expanduser() raises
    if user.startswith("~") and (home == user or (user != "~" and not os.path.isdir(home))):  # noqa: PTH112  # as above
        raise UsageError(f"{user} is no home folder; a folder of that name is ./{user}")
    if why := why_mistaken(path):
        raise UsageError(why)
    return absolute(path)


def why_mistaken(path: str) -> str:
    """Why engines would take a path for another; empty if they take it for what it is.

    They take UTF-8 without control characters. Python decodes the bytes of a path by the encoding of its locale.
    """
    encoding = sys.getfilesystemencoding()
    if not is_sayable(path):
        return "a path is UTF-8, without control characters"
    if not path.isascii() and encoding != "utf-8":
        return f"Python decodes paths as {encoding} here: start it with PYTHONUTF8=1"
    return ""


def is_sayable(path: str) -> bool:
    """Whether a path can be told to engines: they take UTF-8 without control characters."""
    return re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", path) is None


def absolute(path: str) -> str:
    """A local path as an absolute one, without `file:`; an address of a store without a slash at the end.

    Raises UsageError for a local path that engines would take for another, or that is relative to a folder that is
    gone.
    """
    scheme, separator, _ = path.partition("://")
    if separator and scheme != "file":
        return path.rstrip("/")
    if path.startswith("file:"):
        path = urllib.parse.unquote(urllib.parse.urlsplit(path).path, errors="surrogateescape")
    try:
        path = os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111  # Path.resolve() would follow links
    except FileNotFoundError as error:
        raise UsageError(f"{path} is below the current folder, which is gone: begin it with /") from error
    if why := why_mistaken(path):
        raise UsageError(f"{path!r}: {why}")
    return path


def resolved(path: str) -> str:
    """An absolute local path with its links followed once; any other path as it is.

    A path with a link that leads nowhere stays as it is, so that `require_writable` can name the link; so does one
    with a link to what engines would take for another.
    """
    if not is_local(path):
        return path
    parts = path.split("/")
    above = ("/".join(parts[:end]) for end in range(2, len(parts) + 1))
    is_dangling = any(os.path.islink(part) and not os.path.exists(part) for part in above)  # noqa: PTH110, PTH114  # a Path raises
    real = os.path.realpath(path)
    return path if is_dangling or why_mistaken(real) else real


def is_local(path: str) -> bool:
    """Whether an absolute path is on the local disk."""
    return path.startswith("/")


def same_place(path: str, other: str) -> bool:
    """Whether two paths name the same folder; s3:// and s3a:// do."""
    return re.sub("^s3a://", "s3://", path) == re.sub("^s3a://", "s3://", other)


def join(folder: str, *names: str) -> str:
    """The path of something below a folder."""
    return "/".join([folder.rstrip("/"), *names])


def bucket_and_key(path: str) -> tuple[str, str]:
    """`bucket` and `a/b` of s3://bucket/a/b."""
    bucket, _, key = path.partition("://")[2].partition("/")
    return bucket, key
