"""What a run tells programs: the last line of standard output, whatever the exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import movielens_pipeline as job
from movielens import contract
from movielens.summary import Summary
from tests.support.inputs import RATINGS, rating_lines, write_input
from tests.support.jobs import Main, Publish, job_command, job_environment, run_job
from tests.support.project import ROOT
from tests.support.results import manifest_of

SCHEMA = json.loads((ROOT / "docs" / "summary.schema.json").read_bytes())


def summary_in(said: str) -> dict[str, Any]:
    """The summary in the last line of what was said, as the documented schema has it."""
    summary: dict[str, Any] = json.loads(said.splitlines()[-1])
    jsonschema.Draft202012Validator(SCHEMA, format_checker=jsonschema.FormatChecker()).validate(summary)
    return summary


def test_the_documented_schema_is_a_schema_and_names_each_field() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    fields = Summary().to_dict().keys()
    assert set(SCHEMA["properties"]) == set(SCHEMA["required"]) == fields


def test_the_last_line_says_what_was_done(engine: str, run_main: Main, tmp_path: Path, output_path: Path) -> None:
    # given a result of six ratings, of which one is not valid in the next night
    first = write_input(tmp_path / "first")
    second = write_input(tmp_path / "second", rating_lines(RATINGS[:5]) + b"1::2::9::3\n")
    arguments = ("--output_path", output_path, "--max_rejects", 1)
    assert run_main(engine, "--input_path", first, *arguments)[0] == 0
    # when both options of the form are taken
    status, said = run_main(engine, "--input_path", second, *arguments, "--summary", "json", out=True)
    summary, manifest = summary_in(said), manifest_of(output_path)
    # then the summary is what the manifest says, with the rows of before
    assert (status, summary["outcome"], summary["exit_status"], summary["error"]) == (0, "published", 0, None)
    assert summary["run_id"] == summary["result_run_id"] == manifest["run_id"]
    assert summary["job_version"] == contract.VERSION
    assert summary["engine"] == manifest["engine"]
    assert summary["input"] == {
        "path": str(second), "format": "dat", "bytes": sum(file["bytes"] for file in manifest["input_files"]),
        "texts": {
            "ratings": {"files": 1, "bytes": (second / "ratings.dat").stat().st_size, "lines": 6},
            "movies": {"files": 1, "bytes": (second / "movies.dat").stat().st_size, "lines": 5},
        },
    }  # fmt: skip
    assert {name: (entry["rows"], entry["rows_before"]) for name, entry in summary["datasets"].items()} == {
        "ratings": (5, 6), "movies": (5, 5), "movies_with_stats": (5, 5), "top_movies_per_user": (4, 5),
        "rejects": (1, None),
    }  # fmt: skip
    assert summary["rejects"] == 1
    assert summary["rejects_by_reason"] == [{"dataset": "ratings", "reason": "rating not in 0.5..5", "lines": 1}]
    phases = ["ratings", "movies", "movies_with_stats", "top_movies_per_user", "publishing"]
    assert [name for name in summary["seconds"]["phases"] if name in phases] == phases
    assert summary["seconds"]["all"] >= summary["seconds"]["phases"]["publishing"]


def test_a_refused_input_is_summarized_with_its_rejects(
    engine: str, run_main: Main, tmp_path: Path, output_path: Path
) -> None:
    folder = write_input(tmp_path / "in", rating_lines(RATINGS) + b"1::2::9::3\nbad\nworse\n")
    status, said = run_main(engine, "--input_path", folder, "--output_path", output_path, "--summary=json", out=True)
    summary = summary_in(said)
    assert (status, summary["outcome"], summary["exit_status"]) == (3, "failed", 3)
    assert summary["error"] == "3 lines not valid, more than --max_rejects 0 allows; nothing was published"
    assert summary["rejects_by_reason"] == [
        {"dataset": "ratings", "reason": "fields missing", "lines": 2},
        {"dataset": "ratings", "reason": "rating not in 0.5..5", "lines": 1},
    ]
    assert (summary["datasets"], summary["result_run_id"]) == ({}, None)
    assert summary["input"]["texts"]["ratings"]["lines"] is None


def test_a_missing_input_is_summarized(engine: str, run_main: Main, tmp_path: Path, output_path: Path) -> None:
    arguments = ("--input_path", tmp_path / "nowhere", "--output_path", output_path, "--summary", "json")
    status, said = run_main(engine, *arguments, out=True)
    summary = summary_in(said)
    assert (status, summary["exit_status"]) == (3, 3)
    assert summary["engine"]["name"] == engine
    assert summary["input"] == {"path": f"{tmp_path}/nowhere", "format": None, "bytes": None, "texts": {}}
    assert f"there is no {tmp_path}/nowhere" in summary["error"]


@pytest.mark.parametrize("name", [b"caf\xe9", b"two\nlines", b"tab\t", b"esc\x1b"])
def test_a_path_that_no_engine_takes_is_a_usage_error(
    engine: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, name: bytes
) -> None:
    for option, other in (("--input_path", "--output_path"), ("--output_path", "--input_path")):
        path = str(tmp_path / os.fsdecode(name))
        with pytest.raises(SystemExit) as left:
            job.main([option, path, other, str(tmp_path / "x"), "--engine", engine, "--summary", "json"])
        said = capsys.readouterr()
        summary = summary_in(said.out)
        assert left.value.code == summary["exit_status"] == 2
        line = f"{option} {path!r}: a path is UTF-8, without control characters"
        assert summary["error"] == line
        assert said.err.splitlines()[-1] == f"movielens_pipeline: error: {line}"


@pytest.mark.parametrize("name", [b"part-\xff", b"part\n1"])
def test_a_part_whose_name_no_engine_takes_is_a_bad_input(
    engine: str, run_main: Main, tmp_path: Path, output_path: Path, name: bytes
) -> None:
    folder = write_input(tmp_path / "in")
    whole = (folder / "ratings.dat").rename(tmp_path / "whole")
    (folder / "ratings.dat").mkdir()
    part = whole.rename(folder / "ratings.dat" / os.fsdecode(name))
    arguments = ("--input_path", folder, "--output_path", output_path, "--summary", "json")
    status, said = run_main(engine, *arguments, out=True)
    summary = summary_in(said)
    assert status == summary["exit_status"] == 3
    assert summary["error"].startswith(f"{str(part)!r}: names of parts are UTF-8")


@pytest.mark.parametrize("form", [("--summary", "json"), ("--summary=json",)])
def test_a_wrong_command_line_is_summarized(
    form: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as left:
        job.main(["--input_path", str(tmp_path), *form])
    summary = summary_in(capsys.readouterr().out)
    assert left.value.code == summary["exit_status"] == 2
    assert summary["error"] == "the following arguments are required: --output_path/--output-path"


def test_help_is_help_and_a_run_without_the_option_says_nothing_on_standard_output(
    capfd: pytest.CaptureFixture[str], publish: Publish, input_path: Path, output_path: Path
) -> None:
    with pytest.raises(SystemExit):
        job.main(["--help", "--summary", "json"])
    assert capfd.readouterr().out.splitlines()[-1].endswith("interrupted.")
    publish("sail", input_path, output_path)
    assert capfd.readouterr().out == ""


def start_altered(tmp_path: Path, alteration: str, *launcher: str, **options: Any) -> subprocess.Popen[str]:
    """Starts the job with a summary in a process of its own, altered by lines of Python, where it is `job`."""
    script = tmp_path / "altered.py"
    script.write_text(
        "import os, signal, sys, time\nimport movielens_pipeline as job\nfrom movielens import ending\n"
        f"from movielens.terminal import leave\n{alteration}\nleave(job.main(sys.argv[1:], own_process=True))\n"
    )
    paths = ["--input_path", str(tmp_path / "input"), "--output_path", str(tmp_path / "out")]
    return subprocess.Popen(
        [*launcher, sys.executable, str(script), *paths, "--summary", "json"],
        env={**job_environment(), "PYTHONPATH": str(ROOT)}, text=True,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )  # fmt: skip


def test_a_fault_of_the_job_is_summarized_after_its_traceback(tmp_path: Path) -> None:
    # given a fault, in a process whose two streams are one
    fault = """
def fail(engine): raise ZeroDivisionError("a fault\\nin two lines")

job.get_spark_session = fail
"""
    process = start_altered(tmp_path, fault, stderr=subprocess.STDOUT)
    said, _ = process.communicate(timeout=60)
    summary = summary_in(said)
    assert process.returncode == summary["exit_status"] == 1
    assert summary["error"] == "ZeroDivisionError: a fault"
    assert "Traceback" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_is_summarized(tmp_path: Path, output_path: Path, number: signal.Signals) -> None:
    # given a run that is busy for some seconds
    folder = write_input(tmp_path / "in")
    (folder / "ratings.dat").write_bytes(rating_lines(RATINGS) * 500_000)
    command = job_command("sail", "--input_path", folder, "--output_path", output_path, "--summary", "json")
    process = subprocess.Popen(
        ["env", "--default-signal=HUP", *command],  # which nohup has had ignored
        env=job_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr
    assert process.stderr.readline().startswith("engine: ")
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    summary = summary_in(said)
    assert process.returncode == summary["exit_status"] == 128 + number
    assert (summary["outcome"], summary["error"]) == ("failed", "interrupted")


@pytest.mark.thorough
def test_where_spark_submit_merges_streams_it_is_still_the_last_line(input_path: Path, output_path: Path) -> None:
    done = run_job("spark", "--input_path", input_path, "--output_path", output_path, "--summary", "json")
    summary = summary_in(done.stdout)
    assert (done.returncode, summary["outcome"]) == (0, "published")
    assert len(done.stdout.splitlines()) > 1


def test_a_run_that_does_not_come_to_its_end_after_a_signal_is_summarized_all_the_same(tmp_path: Path) -> None:
    # given a run whose work takes no notice of the exception that a signal raises
    stubbornness = """
def start(engine):
    print("started", file=sys.stderr, flush=True)
    while True:
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            pass

job.get_spark_session = start
"""
    process = start_altered(tmp_path, stubbornness)
    assert process.stderr
    while process.stderr.readline() != "started\n":
        time.sleep(0.01)
    process.terminate()
    said, _ = process.communicate(timeout=60)
    summary = summary_in(said)
    assert process.returncode == summary["exit_status"] == 143
    assert summary["error"] == "interrupted"


INTERRUPTED_CALL = """
import re, threading
from pathlib import Path
from pyspark import SparkContext

sys.argv += ["--engine", "spark"]

def start_and_call(context, *given, start=SparkContext.__init__, **named):
    start(context, *given, **named)
    [ignored] = re.findall(r"SigIgn:\\s*(\\w+)", Path(f"/proc/{context._gateway.proc.pid}/status").read_text())
    print("Java ignores it:", bool(int(ignored, 16) & 1 << signal.SIGINT - 1), file=sys.stderr)
    threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT]).start()
    context._jvm.java.lang.Thread.sleep(60_000)

SparkContext.__init__ = start_and_call
"""


@pytest.mark.thorough
@pytest.mark.usefixtures("input_path")
def test_a_run_that_is_interrupted_while_spark_starts_is_no_failure(tmp_path: Path) -> None:
    # given a signal during a call into Java, when Spark has put its own way to handle signals in place
    process = start_altered(tmp_path, INTERRUPTED_CALL)
    said, errors = process.communicate(timeout=120)
    summary = summary_in(said)
    assert errors.splitlines()[-2:] == ["Java ignores it: True", "movielens_pipeline: interrupted"]
    assert "Traceback" not in errors
    assert process.returncode == summary["exit_status"] == 130
    assert summary["error"] == "interrupted"


MOMENTS = {
    "before_the_command_line_is_read": "job.parse_args = lambda argv: stop()",
    "when_all_was_published": "ending.utc_now = lambda now=ending.utc_now: stop() or now()",
}


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.usefixtures("input_path")
def test_a_signal_at_the_very_beginning_or_end_leaves_the_run_a_summary(
    tmp_path: Path, number: str, moment: str
) -> None:
    process = start_altered(tmp_path, f"def stop(): os.kill(os.getpid(), signal.{number})\n{MOMENTS[moment]}")
    said, _ = process.communicate(timeout=60)
    summary = summary_in(said)
    assert process.returncode == summary["exit_status"]
    if moment == "when_all_was_published":
        assert (summary["outcome"], summary["exit_status"]) == ("published", 0)
    else:
        assert (summary["error"], summary["exit_status"]) == ("interrupted", 128 + signal.Signals[number])


@pytest.mark.usefixtures("input_path")
def test_with_nohup_a_run_goes_on_when_its_terminal_is_closed(tmp_path: Path) -> None:
    hang_up = """
def hang_up(engine, start=job.get_spark_session):
    os.kill(os.getpid(), signal.SIGHUP)
    return start(engine)

job.get_spark_session = hang_up
"""
    process = start_altered(tmp_path, hang_up, "nohup")
    said, errors = process.communicate(timeout=60)
    assert (process.returncode, summary_in(said)["outcome"]) == (0, "published"), errors


def in_a_shell(line: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs the job as `"$@"` in a line of a shell, which says its exit status on standard error."""
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}; echo status $? >&2", "-", *job_command("sail", *arguments)],
        env=job_environment(), text=True, check=False, timeout=60, capture_output=True,
    )  # fmt: skip


@pytest.mark.parametrize("closed", ['"$@" >&-', '"$@" 2>&-', '"$@" <&- >&- 2>&-'])
def test_a_run_whose_streams_are_closed_publishes_as_ever(input_path: Path, output_path: Path, closed: str) -> None:
    done = in_a_shell(closed, "--input_path", input_path, "--output_path", output_path)
    assert done.stderr.endswith("status 0\n")
    assert "Traceback" not in done.stderr
    assert manifest_of(output_path)["datasets"]["ratings"]["rows"] == len(RATINGS)


def test_a_summary_is_said_where_standard_error_is_closed_or_full(input_path: Path, output_path: Path) -> None:
    for line in ('"$@" 2>&-', '"$@" 2>/dev/full'):
        done = in_a_shell(line, "--input_path", input_path, "--output_path", output_path, "--summary", "json")
        assert (summary_in(done.stdout)["outcome"], done.stderr) == ("published", "status 0\n")


@pytest.mark.parametrize(
    ("line", "reason"), [('"$@" >/dev/full', "no space left on device"), ('"$@" | true', "broken pipe")]
)
def test_a_summary_that_cannot_be_written_is_a_failure_in_a_line_that_says_what_became_of_the_run(
    input_path: Path, output_path: Path, line: str, reason: str
) -> None:
    done = in_a_shell(line, "--input_path", input_path, "--output_path", output_path, "--summary", "json")
    *_, last, status = done.stderr.splitlines()
    assert last == (
        f"movielens_pipeline: error: the summary cannot be written to standard output ({reason}); outcome: published"
    )
    assert status == "status 1"
    assert manifest_of(output_path)
    # and a run that failed itself keeps its own status
    done = in_a_shell(line, "--input_path", input_path / "none", "--output_path", output_path, "--summary", "json")
    *_, why, last, status = done.stderr.splitlines()
    assert "there is no" in why
    assert last.endswith("outcome: failed")
    assert status == "status 3"
