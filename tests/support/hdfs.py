"""A real HDFS for the tests: a namenode and a datanode of Spark's own Hadoop, in a Java of their own."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pyspark
from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway

from tests.support.jobs import JAVA_OPTIONS

HDFS_JARS = Path(sys.prefix) / "hdfs-jars"
SPARK_JARS = Path(str(pyspark.__file__)).parent / "jars"

# For those who reach it, so that tests take less time
SETTINGS = {
    # how soon a writer asks again whether the datanode has told the namenode of what it wrote
    "dfs.client.block.write.locateFollowingBlock.initial.delay.ms": "5",
    # and how often, each time after twice as long: on a machine with much to do some 20 s in all
    "dfs.client.block.write.locateFollowingBlock.retries": "12",
    # how often a namenode that is not there is looked for
    "ipc.client.connect.max.retries": "1",
}


class Hdfs:
    """HDFS with one datanode, on ports of the loopback address that were free."""

    def __init__(self, folder: Path) -> None:
        assert HDFS_JARS.is_dir(), "run_tests.sh gets the jars of HDFS"
        [py4j] = SPARK_JARS.glob("py4j-*.jar")
        self.log = (folder / "hdfs.log").open("w", buffering=1)
        port, token, self.process = launch_gateway(
            jarpath=str(py4j),
            classpath=f"{HDFS_JARS}/*:{SPARK_JARS}/*",
            javaopts=[*JAVA_OPTIONS.split(), "-Xmx1g"],
            java_path=str(Path(os.environ["JAVA_HOME"], "bin", "java")) if os.environ.get("JAVA_HOME") else "java",
            die_on_exit=True, enable_auth=True, return_proc=True, redirect_stdout=self.log, redirect_stderr=self.log,
        )  # fmt: skip
        # nothing of Java is given back one by one, for all of it goes with the process
        parameters = GatewayParameters(port=port, auth_token=token, enable_memory_management=False)
        self.jvm: Any = JavaGateway(gateway_parameters=parameters).jvm
        # what is written is not forced to disk
        self.jvm.org.apache.hadoop.hdfs.server.namenode.EditLogFileOutputStream.setShouldSkipFsyncForTesting(True)
        cluster = self.jvm.org.apache.hadoop.hdfs.MiniDFSCluster
        conf = self.jvm.org.apache.hadoop.conf.Configuration()
        for name, value in SETTINGS.items():
            conf.set(name, value)
        self.cluster = cluster.Builder(conf, self.jvm.java.io.File(str(folder / "data"))).numDataNodes(1).build()
        self.fs = self.cluster.getFileSystem()
        self.endpoint = str(self.fs.getUri())

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.log.close()

    def set_safe_mode(self, *, on: bool) -> None:
        """Has the namenode refuse whatever changes something, as after its start, or no longer."""
        actions = self.jvm.org.apache.hadoop.fs.SafeModeAction
        self.fs.setSafeMode(actions.ENTER if on else actions.LEAVE)

    def path(self, name: str) -> Any:
        """Hadoop's Path of a name below the root."""
        return self.jvm.org.apache.hadoop.fs.Path(f"/{name}")

    def files(self, folder: str) -> set[str]:
        """The files in a folder and below, relative to it."""
        path, names = self.path(folder), set()
        # pyspark takes whatever is raised for something of its own Java, so that what it is cannot be told
        try:
            found = self.fs.listFiles(path, True) if self.fs.exists(path) else None
            while found and found.hasNext():
                names.add(str(found.next().getPath().toUri().getPath())[len(folder) + 2 :])
        except Exception:  # noqa: BLE001  # a folder that goes while it is listed
            if self.fs.exists(path):
                return self.files(folder)
        return names

    def read(self, name: str) -> bytes | None:
        """The content of a file; None when it is missing."""
        path = self.path(name)
        try:
            if not self.fs.exists(path):
                return None
            stream = self.fs.open(path)
            content = bytes(self.jvm.org.apache.commons.io.IOUtils.toByteArray(stream))
            stream.close()
        except Exception:  # as above
            if self.fs.exists(path):
                raise
            return None
        return content

    def write(self, name: str, content: bytes) -> None:
        """Writes a file."""
        stream = self.fs.create(self.path(name), True)
        stream.write(content)
        stream.close()

    def delete(self, name: str) -> None:
        """Deletes a file, or a folder with all in it."""
        self.fs.delete(self.path(name), True)

    def upload(self, folder: Path, name: str) -> str:
        """Copies a folder with all in it; returns the address of the copy."""
        self.fs.copyFromLocalFile(self.jvm.org.apache.hadoop.fs.Path(folder.as_uri()), self.path(name))
        return f"{self.endpoint}/{name}"

    def download(self, name: str, folder: Path) -> Path:
        """Copies a folder with all in it to the disk, where there is none; returns that folder."""
        self.fs.copyToLocalFile(False, self.path(name), self.jvm.org.apache.hadoop.fs.Path(folder.as_uri()), True)
        return folder
