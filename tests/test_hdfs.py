"""HDFS: Spark reads from and publishes to a real namenode and datanode, and what they refuse is said in one line."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from check_local_results import main as check_main
from movielens import run
from movielens.history import HISTORY
from movielens.storage.hadoop import HadoopStorage
from tests.support.hdfs import Hdfs
from tests.support.inputs import RATINGS, rating_lines, write_input
from tests.support.jobs import Main, Publish, disturb_when_all_is_written
from tests.support.places import HdfsFolder
from tests.support.results import DATASETS, assert_equal_by_check

pytestmark = pytest.mark.thorough


@pytest.fixture
def hdfs_input(hdfs_server: Hdfs, input_path: Path, hdfs_path: HdfsFolder) -> str:
    """The small input on HDFS."""
    return hdfs_server.upload(input_path, f"{hdfs_path.folder}-input")


def test_hdfs_is_read_and_published_to(
    publish: Publish, hdfs_input: str, hdfs_path: HdfsFolder, input_path: Path, tmp_path: Path, hdfs_server: Hdfs
) -> None:
    other = write_input(tmp_path / "other", rating_lines(RATINGS[:4]) + b"1::2::9::3\n")
    others = hdfs_server.upload(other, f"{hdfs_path.folder}-other")
    for address, folder in ((others, other), (hdfs_input, input_path)):  # the second replaces the first
        said = publish("spark", address, f"{hdfs_path.address}/", "--max_rejects", 1)
        assert_equal_by_check(folder, hdfs_path.snapshot())
        manifest = json.loads(hdfs_path.read("_manifest.json") or b"")
        listed = {file for dataset in manifest["datasets"].values() for file in dataset["files"]}
        found = {file for file in hdfs_path.files() if not file.startswith(("_journal/", "_manifests/"))}
        assert found == listed | {"_manifest.json", HISTORY}
        # a line that is not valid is named with its file
        assert (f"{others}/ratings.dat: rating not in 0.5..5: '1::2::9::3'\n" in said) == (folder == other)
    assert {file.partition("/")[0] for file in listed} == DATASETS


@pytest.mark.parametrize("below", ["", "/below"])
def test_an_output_path_on_hdfs_that_is_a_file_or_below_one_is_wrong_usage(
    run_main: Main, input_path: Path, hdfs_server: Hdfs, hdfs_path: HdfsFolder, below: str
) -> None:
    hdfs_server.write(hdfs_path.folder, b"theirs")
    status, said = run_main("spark", "--input_path", input_path, "--output_path", f"{hdfs_path.address}{below}")
    assert status == 2, said
    assert said.splitlines()[-1] == (
        f"movielens_pipeline: error: {hdfs_path.address} is a file: choose another --output_path"
    )
    assert hdfs_server.read(hdfs_path.folder) == b"theirs"


def test_an_input_on_hdfs_that_changes_to_one_of_the_same_size_is_not_published(
    run_main: Main, hdfs_server: Hdfs, hdfs_input: str, hdfs_path: HdfsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{hdfs_path.folder}-input/ratings.dat"
    disturb_when_all_is_written(monkeypatch, lambda: hdfs_server.write(name, (hdfs_server.read(name) or b"")[::-1]))
    status, said = run_main("spark", "--input_path", hdfs_input, "--output_path", hdfs_path.address)
    assert status == 3
    assert said.splitlines()[-1].endswith(f"{hdfs_input} changed while it was read; nothing was published")
    assert not hdfs_path.files()


def test_an_input_that_is_not_there_is_said_with_what_is(
    run_main: Main, hdfs_server: Hdfs, hdfs_path: HdfsFolder, output_path: Path
) -> None:
    hdfs_path.write("in/links.csv", b"")
    for address, there in (
        (hdfs_server.endpoint + "/nowhere", f"there is no {hdfs_server.endpoint}/nowhere"),
        (hdfs_path.address + "/nowhere", f"there is no {hdfs_path.address}/nowhere"),
        (hdfs_path.address + "/in", f"{hdfs_path.address}/in holds links.csv"),
    ):
        status, said = run_main("spark", "--input_path", address, "--output_path", output_path)
        assert said.splitlines()[-1].startswith(f"movielens_pipeline: error: {address} should hold movies.dat and ")
        assert said.endswith(f": {there}\n")
        assert status == 3


def test_a_result_at_the_root_of_hdfs_is_published(
    publish: Publish, hdfs_server: Hdfs, input_path: Path, tmp_path: Path
) -> None:
    publish("spark", input_path, hdfs_server.endpoint)
    for name in (*DATASETS, "_manifest.json", "_manifests", "_journal"):
        hdfs_server.download(name, tmp_path / "found" / name)
        hdfs_server.delete(name)
    assert_equal_by_check(input_path, tmp_path / "found")


@pytest.mark.parametrize("answers", [False, True], ids=["nobody_there", "no_answer"])
def test_a_namenode_that_does_not_answer_is_said(
    run_main: Main, input_path: Path, output_path: Path, answers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given an address at which nobody listens, and one that takes connections and never answers
    monkeypatch.setattr(run, "SECONDS_TO_ANSWER", 20 if not answers else 2)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if answers:
            server.listen()
        address = f"hdfs://127.0.0.1:{server.getsockname()[1]}/folder"
        for input_, output, status in ((address, output_path, 3), (input_path, address, 1)):
            told, said = run_main("spark", "--input_path", input_, "--output_path", output)
            reason = "no answer in 2 seconds" if answers else "the store cannot be reached"
            *_, last = said.splitlines()
            assert last.startswith(f"movielens_pipeline: error: {address}")
            assert last.endswith(f": {reason}; check the network, and that a namenode runs at that address")
            assert told == status


def test_what_hdfs_refuses_is_said_and_leaves_the_earlier_result(
    publish: Publish, run_main: Main, hdfs_server: Hdfs, hdfs_path: HdfsFolder, input_path: Path, tmp_path: Path
) -> None:
    other = write_input(tmp_path / "other", rating_lines(RATINGS[:4]))
    publish("spark", input_path, hdfs_path.address)
    folder = hdfs_server.path(hdfs_path.folder)

    def refused() -> str:
        status, said = run_main("spark", "--input_path", other, "--output_path", hdfs_path.address)
        assert status == 1
        assert "Traceback" not in said
        return said.splitlines()[-1].removeprefix(f"movielens_pipeline: error: {hdfs_path.address}: ")

    # given a namenode that has just been started
    hdfs_server.set_safe_mode(on=True)
    try:
        assert refused() == "the namenode is in safe mode; try again later; nothing was published"
    finally:
        hdfs_server.set_safe_mode(on=False)
    # and a folder that may hold no more files
    hdfs_server.fs.setQuota(folder, 25, 2**40)
    assert refused() == "a quota of the store is used up; nothing was published"
    hdfs_server.fs.setQuota(folder, 2**40, 2**40)
    assert_equal_by_check(input_path, hdfs_path.snapshot())
    # then the next run finds what it needs
    publish("spark", other, hdfs_path.address)
    assert_equal_by_check(other, hdfs_path.snapshot())


class Deleting:
    """The file system of Java; it deletes what it creates while it is written."""

    def __init__(self, java: Any) -> None:
        self.java = java

    def __getattr__(self, name: str) -> Any:
        return getattr(self.java, name)

    def create(self, path: Any, overwrite: bool) -> Any:
        stream = self.java.create(path, overwrite)
        self.java.delete(path, False)
        return stream


def test_file_deleted_while_it_is_written_is_not_created(
    use_engine: Callable[[str], Any], hdfs_path: HdfsFolder
) -> None:
    # given a run that is suspended while it creates a file, until another took its temporary file for a leftover
    file = f"{hdfs_path.address}/_journal/1.json"
    storage = HadoopStorage(use_engine("spark"), file)
    storage.fs = Deleting(storage.fs)
    assert not storage.create(file, b"{}")
    assert storage.read(file) is None
    assert not hdfs_path.files()


def test_the_check_says_how_a_result_on_hdfs_is_compared(capsys: pytest.CaptureFixture[str], input_path: Path) -> None:
    assert check_main(["--input_path", str(input_path), "--output_path", "hdfs://namenode/output"]) == 2
    assert capsys.readouterr().err == (
        "check_local_results: error: hdfs://namenode/output: compare a copy on disk: "
        "hadoop fs -copyToLocal hdfs://namenode/output FOLDER\n"
    )
