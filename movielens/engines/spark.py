"""Apache Spark: the engine for whoever outgrows one machine."""

from __future__ import annotations

import locale
import logging
import os
import re
import secrets
import sys
import tempfile
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkRuntimeError
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from movielens.contract import PipelineError, UsageError
from movielens.storage.disk import DiskStorage
from movielens.storage.hadoop import HadoopStorage, hadoop_path
from movielens.storage.paths import is_local
from movielens.storage.s3 import aws_region, s3_endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pyspark.sql import DataFrame

    from movielens.storage import Entry, Storage

UTF8_LOCALE = "C.UTF-8"
NOT_UTF8 = "\ufffd"


def start() -> SparkSession:
    """Starts Apache Spark, or joins the one that spark-submit started; --conf settings hold."""
    os.environ.pop("SPARK_CONNECT_MODE_ENABLED", None)
    if "PYSPARK_GATEWAY_PORT" not in os.environ and SparkContext._gateway is None:
        # for the Java that is to start here, which takes no notice of TMPDIR
        os.environ["SPARK_SUBMIT_OPTS"] = f"{temporary_folder_of_java()} {os.environ.get('SPARK_SUBMIT_OPTS', '')}"
    try:
        # py4j would log what it raises, and what interrupts it by the root logger, which speaks unless it has a handler
        logging.getLogger("py4j").setLevel(logging.CRITICAL)
        logging.getLogger().addHandler(logging.NullHandler())
        with utf8_for_children():
            SparkContext._ensure_initialized()  # or what spark-submit was told would not be in its configuration
        require_java_name(SparkContext._jvm, tempfile.gettempdir())
        conf = SparkConf()
        for name, value in settings(str(conf.get("spark.master"))).items():
            conf.setIfMissing(name, value)
        if conf.get("spark.master", "local").startswith("local"):
            conf.setIfMissing("spark.local.dir", tempfile.gettempdir())
        session = SparkSession.builder.config(conf=conf).getOrCreate()
    except PySparkRuntimeError as error:
        raise PipelineError(f"Spark did not start ({error}): it needs Java 17 or 21 on PATH or in JAVA_HOME") from error
    # whatever the cluster says, a file that is damaged or gone is an error, and not fewer rows
    session.conf.set("spark.sql.files.ignoreCorruptFiles", "false")
    session.conf.set("spark.sql.files.ignoreMissingFiles", "false")
    return session


@contextmanager
def utf8_for_children() -> Iterator[None]:
    """Has processes that start in the context decode paths as UTF-8, whatever the locale of this process."""
    before = os.environ.get("LC_ALL")
    if locale.nl_langinfo(locale.CODESET) != "UTF-8":
        os.environ["LC_ALL"] = UTF8_LOCALE
    try:
        yield
    finally:
        os.environ.pop("LC_ALL", None)
        if before is not None:
            os.environ["LC_ALL"] = before


def require_java_name(jvm: Any, path: str) -> None:
    """Raises UsageError for a path that Java takes for another.

    In place of a character that the encoding of its locale lacks, Java puts `?`, and in place of bytes that are not
    UTF-8 U+FFFD; also in what spark-submit hands on to the script.
    """
    if NOT_UTF8 in path and "PYSPARK_GATEWAY_PORT" in os.environ:
        raise UsageError(f"{path!a}: Java puts {NOT_UTF8!a} in place of bytes that are not UTF-8: rename it")
    may_differ = "?" in path or (is_local(path) and not path.isascii())
    if may_differ and jvm.java.lang.System.getProperty("sun.jnu.encoding") != "UTF-8":
        raise UsageError(
            f"{path}: Java would take this path for another, because its locale is not UTF-8: set LC_ALL={UTF8_LOCALE} "
            "where Spark starts"
        )


def temporary_folder_of_java() -> str:
    """The option that has Java keep its temporary files where this process does, as Spark's launcher reads it."""
    folder = re.sub(r'(["\\])', r"\\\1", tempfile.gettempdir())
    return f'"-Djava.io.tmpdir={folder}"'


def settings(master: str) -> dict[str, str]:
    """What the job wants of Spark with such a master; a setting that is made already stays as it is."""
    is_here = master.startswith("local")
    return {
        "spark.app.name": "movielens_pipeline",
        "spark.log.level": "OFF",  # what fails is raised; the rest is chatter
        "spark.ui.showConsoleProgress": str(sys.stderr.isatty()).lower(),
        # nor does the place in the script matter where an operation was described, which takes five calls into Java
        "spark.python.sql.dataFrameDebugging.enabled": "false",
        # what is kept is read twice: compressing it takes longer than that
        "spark.sql.inMemoryColumnarStorage.compressed": "false",
        # or what is kept would have as many parts, and files, as a shuffle has at most
        "spark.sql.optimizer.canChangeCachedPlanOutputPartitioning": "true",
        # a local master does not look again for tasks that wait for a machine nearer to their data: with some that have
        # theirs here and others on a datanode elsewhere the run would never end
        # elsewhere Java of the executors, whose locale is not known here, is to take paths as UTF-8
        **({"spark.locality.wait": "0s"} if is_here else {"spark.executorEnv.LC_ALL": UTF8_LOCALE}),
        **{f"spark.hadoop.fs.s3a.{name}": value for name, value in s3_settings().items()},
    }


def s3_settings() -> dict[str, str]:
    """How Hadoop's S3 client reaches a store that speaks S3; AWS itself it finds, and EMR has settings of its own."""
    endpoint = s3_endpoint()
    if endpoint is None:
        return {}
    return {"endpoint": endpoint, "path.style.access": "true", "endpoint.region": aws_region() or "us-east-1"}


class Spark:
    """The engine behind a classic session."""

    name = "spark"
    alternative = "in process, no Java: --engine sail"
    shows_progress = True
    distributed = True

    def __init__(self, session: SparkSession) -> None:
        self.session = session

    @property
    def version(self) -> str:
        return str(self.session.version)

    @property
    def on_one_machine(self) -> bool:
        return str(self.session.sparkContext.master).startswith("local")

    def storage(self, path: str) -> Storage:
        require_java_name(self.session._jvm, path)
        return DiskStorage() if is_local(path) else HadoopStorage(self.session, path)

    def path_to_read(self, path: str) -> str:
        # readers take wildcards unless they are escaped
        return re.sub(r"([\\*?\[\]{}])", r"\\\1", self.path_to_write(path))

    def path_to_write(self, path: str) -> str:
        require_java_name(self.session._jvm, path)
        return hadoop_path(self.session, path)

    def lines(self, files: Sequence[Entry]) -> DataFrame:
        raw = F.col("value")  # the bytes as they are
        line = F.when(F.is_valid_utf8(raw), raw).otherwise(F.decode(raw.cast("binary"), "ISO-8859-1"))
        lines = self.text(files).select(F.col("_metadata.file_path").alias("file"), line.alias("line"))
        return lines.filter(F.col("line").rlike(r"[^ \t]"))

    def quick_lines(self, files: Sequence[Entry]) -> DataFrame:
        return self.text(files).select(F.col("value").alias("line")).filter(F.col("line") != "")

    def columns(self, files: Sequence[Entry], schema: str, separator: str, *, header: bool) -> None:
        pass

    def tells_of_lines(self, error: Exception) -> bool:  # noqa: ARG002  # it takes any line
        return False

    @contextmanager
    def parsed_once(
        self,
        frame: DataFrame,
        read_back: Callable[[], DataFrame],  # noqa: ARG002  # sail's
    ) -> Iterator[DataFrame]:
        try:
            yield frame.persist()
        finally:
            with suppress(Exception):  # Java may be gone, which is not why the run failed
                frame.unpersist()

    def text(self, files: Sequence[Entry]) -> DataFrame:
        """The lines of text files: value STRING.

        Spark takes cached rows for any plan that equals a cached one, although the files have changed. An option that
        no other read has makes each plan differ.
        """
        reader = self.session.read.option("movielens_pipeline.read", secrets.token_hex(8))
        return reader.text([self.path_to_read(file.path) for file in files])
