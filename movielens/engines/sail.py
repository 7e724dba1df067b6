"""Sail: the embedded engine, a server of Spark Connect inside this process."""

from __future__ import annotations

import bz2
import gzip
import os
import tempfile
import urllib.parse
import warnings
from array import array
from contextlib import contextmanager, nullcontext
from functools import reduce
from itertools import accumulate, groupby
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pysail
from pysail.spark import SparkConnectServer
from pyspark.sql import functions as F

from movielens.contract import PipelineError
from movielens.engines.pandas_later import pandas_later
from movielens.storage.disk import DiskStorage
from movielens.storage.paths import bucket_and_key, is_local
from movielens.storage.s3 import S3Storage, aws_region, s3_client, s3_endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from pyspark.sql import DataFrame, SparkSession

    from movielens.storage import Entry, Storage

COMPRESSIONS = (".gz", ".bz2")
# What its reader of columns says of a line with more or fewer of them, and of one with something else in a column
WRONG_LINES = ("incorrect number of fields", "Error while parsing value")
NO_GRPC_PROXY = "no_grpc_proxy"
LINES_OF_BATCH = 2**18
TRIES = 6  # of a request to the server in this process: some three seconds


def start() -> SparkSession:
    """Starts Sail inside this process on a free loopback port; its settings are environment variables."""
    with pandas_later():
        from pyspark.sql.connect.client.retries import DefaultPolicy
        from pyspark.sql.connect.session import SparkSession as ConnectSession

    for name, value in settings().items():
        os.environ.setdefault(name, value)
    os.environ.update(s3_variables())
    os.environ[NO_GRPC_PROXY] = without_proxy()
    # pyspark.sql.functions makes Connect columns only when this is set, where classic pyspark is installed too
    os.environ["SPARK_CONNECT_MODE_ENABLED"] = "1"
    server = SparkConnectServer("127.0.0.1", 0)
    server.start(background=True)
    _, port = server.listening_address
    session: Any = ConnectSession.builder.remote(f"sc://127.0.0.1:{port}").create()
    session._sail_server = server  # lives as long as the session
    # by itself the client would try for ten minutes to reach a server that died
    warnings.filterwarnings("ignore", r"\[RETRIES_EXCEEDED\]")  # it is raised, too
    session.client.set_retry_policies([DefaultPolicy(max_retries=TRIES, max_backoff=1000)])
    # a client that attaches to an operation again may find that Sail has forgotten it: seen once in a thousand runs
    session.client.disable_reattachable_execute()
    try:
        # of each operation of a column pyspark would look up the place in the script, hundredths of a second a run; and
        # this is a first request, for a server that cannot have sessions starts all the same
        session.conf.set("spark.python.sql.dataFrameDebugging.enabled", "false")
    except Exception as error:
        if names_time_zone():
            raise
        raise PipelineError(
            "the sail engine does not start, for this machine names no time zone: "
            "write one into /etc/timezone (echo Etc/UTC > /etc/timezone), or use --engine spark"
        ) from error
    found: SparkSession = session
    return found


def settings() -> dict[str, str]:
    """What the job wants of Sail; a variable that is set already stays as it is."""
    return {
        "RUST_LOG": "off",
        "SAIL_RUNTIME__MEMORY_POOL__TYPE": "fair",
        "SAIL_RUNTIME__MEMORY_POOL__FAIR__MAX_SIZE": str(memory()),
        # Sail ends a session that has not begun a query for a quarter of an hour, also while one is still running
        "SAIL_SPARK__SESSION_TIMEOUT_SECS": str(7 * 24 * 3600),
        # quicker to write than the defaults, zstd(3) and dictionaries; the files are a little larger
        "SAIL_PARQUET__COMPRESSION": "zstd(1)",
        "SAIL_PARQUET__DICTIONARY_ENABLED": "false",
        # pages end at their size, 1 MB, and not ten times before
        "SAIL_PARQUET__DATA_PAGE_ROW_COUNT_LIMIT": "200000",
    }


def memory() -> int:
    """Bytes for Sail's operators: a third of what the machine or the container allows; beyond that they spill.

    The rest is for decoding and encoding Parquet, the Python process and the page cache.
    """
    allowed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        if limit.is_file() and (text := limit.read_text().strip()).isdigit():
            allowed = min(allowed, int(text))
    return allowed // 3


def s3_variables() -> dict[str, str]:
    """How Sail reaches a store that speaks S3: http:// only when it is allowed, and its region is not looked up."""
    endpoint = s3_endpoint()
    if endpoint is None:
        return {}
    allow_http = str(endpoint.startswith("http://")).lower()
    return {"AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": allow_http, "AWS_REGION": aws_region() or "us-east-1"}


def without_proxy() -> str:
    """The hosts that gRPC reaches without a proxy: those of the environment, and this machine.

    https://grpc.github.io/grpc/core/md_doc_environment_variables.html
    """
    hosts = os.environ.get(NO_GRPC_PROXY) or os.environ.get("no_proxy") or ""
    return ",".join(dict.fromkeys([*filter(None, hosts.split(",")), "127.0.0.1"]))


def names_time_zone() -> bool:
    """Whether the machine says which time zone it is in, where Sail looks for it."""
    link, file = Path("/etc/localtime"), Path("/etc/timezone")
    return link.is_symlink() or (file.is_file() and bool(file.read_text().strip()))


class Sail:
    """The engine behind a session of Spark Connect."""

    name = "sail"
    alternative = "Apache Spark: --engine spark, or spark-submit"
    shows_progress = False
    distributed = False
    on_one_machine = True

    def __init__(self, session: SparkSession) -> None:
        self.session = session

    @property
    def version(self) -> str:
        return str(pysail.__version__)

    def storage(self, path: str) -> Storage:
        return DiskStorage() if is_local(path) else S3Storage()

    def path_to_read(self, path: str) -> str:
        return urllib.parse.quote(f"file://{path}" if is_local(path) else path, safe="/:")

    path_to_write = path_to_read

    def lines(self, files: Sequence[Entry]) -> DataFrame:
        # not by createDataFrame(), which looks whether it is given what pandas makes
        paths = self.session.range(1).select(F.explode(F.array(*(F.lit(file.path) for file in files))))
        lines = paths.mapInArrow(split_lines, "file STRING, line STRING")
        return lines.filter(F.col("line").rlike(r"[^ \t]"))

    def quick_lines(self, files: Sequence[Entry]) -> DataFrame:
        # its CSV reader is three times as fast as its text reader, and alone in taking any bytes but \x03
        return self.columns(files, "line STRING", "\x03", header=False)

    def columns(self, files: Sequence[Entry], schema: str, separator: str, *, header: bool) -> DataFrame:
        by_compression = groupby(sorted(files, key=compression), key=compression)
        frames = [
            self.session.read.csv(
                [self.path_to_read(file.path) for file in group],
                schema=schema,
                sep=separator,
                header=header,
                quote="\n",  # disables quoting, for no field begins with a line end
                encoding="ISO-8859-1",
            )
            for _, group in by_compression
        ]
        return reduce(lambda left, right: left.unionAll(right), frames)

    def tells_of_lines(self, error: Exception) -> bool:
        return any(sign in str(error) for sign in WRONG_LINES)

    def parsed_once(
        self,
        frame: DataFrame,  # noqa: ARG002  # spark's
        read_back: Callable[[], DataFrame],
    ) -> AbstractContextManager[DataFrame]:
        return nullcontext(read_back())


def compression(file: Entry) -> str:
    """The suffix that tells how a file is compressed; empty for plain text."""
    suffix = PurePosixPath(file.path).suffix
    return suffix if suffix in COMPRESSIONS else ""


# --------------------------------------------------------------------------------------------------------------------
# Lines, to the letter


def split_lines(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Maps files (file STRING) to their lines (file STRING, line STRING), for mapInArrow."""
    for batch in batches:
        for path in batch.column(0).to_pylist():
            with open_input(path) as file:
                for lines in batches_of_lines(file):
                    columns = [texts([path] * len(lines)), texts(lines)]
                    yield pa.RecordBatch.from_arrays(columns, ["file", "line"])


def texts(strings: list[str]) -> pa.StringArray:
    """The strings as Arrow has them; pa.array() would look whether they are what pandas makes."""
    encoded = [string.encode() for string in strings]
    offsets = array("i", accumulate(map(len, encoded), initial=0))
    return pa.StringArray.from_buffers(len(encoded), pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded)))


@contextmanager
def open_input(path: str) -> Iterator[Any]:
    """Opens a file on disk or on S3 for its bytes, decompressed."""
    with raw_file(path) as file:
        if path.endswith(".gz"):
            yield gzip.GzipFile(fileobj=file)
        elif path.endswith(".bz2"):
            yield bz2.BZ2File(file)
        else:
            yield file


def raw_file(path: str) -> Any:
    """A file on disk; of one on S3 a copy that goes when it is closed, for a stream breaks with its connection."""
    if is_local(path):
        return Path(path).open("rb")
    bucket, key = bucket_and_key(path)
    copy = tempfile.TemporaryFile()  # noqa: SIM115  # for the caller to close
    s3_client().download_fileobj(bucket, key, copy)
    copy.seek(0)
    return copy


def batches_of_lines(file: Any) -> Iterator[list[str]]:
    """Yields the lines of a binary file, so few at a time that their path, beside each, is not too much for Arrow."""
    for lines in decoded_chunks(file):
        for start in range(0, len(lines), LINES_OF_BATCH):
            yield lines[start : start + LINES_OF_BATCH]


def decoded_chunks(file: Any) -> Iterator[list[str]]:
    """Yields the lines of a binary file, some megabytes at a time."""
    rest = file.read(3).removeprefix(b"\xef\xbb\xbf")  # a byte-order mark
    while chunk := file.read(8 * 2**20):
        whole, end, tail = chunk.rpartition(b"\n")
        if end:
            yield decoded(rest + whole)
            rest = tail
        else:
            rest += tail
    yield decoded(rest)


def decoded(lines: bytes) -> list[str]:
    """Splits at line ends; each line is UTF-8 if that is valid, else ISO-8859-1."""
    lines = lines.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    try:
        return lines.decode().split("\n")
    except UnicodeDecodeError:
        return [decoded_line(line) for line in lines.split(b"\n")]


def decoded_line(line: bytes) -> str:
    """The line as UTF-8 if it is valid UTF-8, else as ISO-8859-1."""
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("iso-8859-1")
