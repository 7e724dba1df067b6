"""The ways to run it every night, as docs/nightly.md shows them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.jobs import job_environment
from tests.support.project import ROOT, copy_project
from tests.support.results import assert_equal_by_check, history_of
from tests.support.s3server import BUCKET, S3Server
from tests.test_summary import summary_in

PAGE = (ROOT / "docs" / "nightly.md").read_text()


def block(mark: str) -> str:
    """The block of the page that follows a mark."""
    found = re.search(rf"<!-- {re.escape(mark)} -->\n```\w*\n(.*?)```\n", PAGE, re.DOTALL)
    assert found, mark
    return found[1]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a clone of the project, whose environment is made: the suite's own, by another name."""
    home = tmp_path_factory.mktemp("home")
    clone = copy_project(home / "movielens_pipeline")
    environment = clone / ".venv"
    environment.mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (environment / name).symlink_to(Path(sys.prefix) / name)
    shutil.copy(clone / "requirements" / "embedded.txt", environment / "requirements.installed")
    return home


def in_shell(command: str, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a command as cron does."""
    return subprocess.run(
        ["/bin/sh", "-c", command], cwd=home, env={**job_environment(), "HOME": str(home), **variables},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def test_the_commands_of_the_page_do_what_they_say(home: Path) -> None:
    first, second = re.findall(r"```sh\n(.*?)\n```", PAGE, re.DOTALL)
    clone = home / "movielens_pipeline"
    done = in_shell(f"cd movielens_pipeline && {first}", home)
    assert (done.returncode, summary_in(done.stdout)["outcome"]) == (0, "published"), done.stderr
    assert_equal_by_check(clone / "dataset", clone / "output")
    command, _, jq = second.partition(" | jq ")
    assert jq == "'{outcome, rows: .datasets.ratings.rows}'"
    told = json.loads(in_shell(f"cd movielens_pipeline && {command}", home).stdout)
    assert (told["outcome"], told["datasets"]["ratings"]["rows"]) == ("published", 100000)


def test_what_cron_runs_is_silent_on_a_good_night_and_tells_of_a_bad_one(home: Path) -> None:
    mailto, line = block("crontab").splitlines()
    assert mailto == "MAILTO=you@example.org"
    when, command = re.fullmatch(r"((?:\S+ ){5})(.*)", line).groups()  # type: ignore[union-attr]
    assert when == "0 3 * * * "
    assert "%" not in command  # which cron would take for a line end
    clone = home / "movielens_pipeline"
    (clone / "nightly.sh").write_text(block("nightly.sh"))
    shutil.rmtree(clone / "output", ignore_errors=True)
    # given two nights with one input
    for outcome in ("published", "unchanged"):
        done = in_shell(command, home)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert summary_in((clone / "nightly.log").read_text())["outcome"] == outcome
    # and one whose input is half of what it was
    ratings = clone / "dataset" / "ratings.dat"
    content = ratings.read_bytes()
    ratings.write_bytes(b"".join(content.splitlines(keepends=True)[:50_000]))
    done = in_shell(command, home)
    ratings.write_bytes(content)
    assert (done.returncode, done.stdout.splitlines()[0]) == (3, "exit status 3")
    assert "ratings has 50,000 rows, fewer than 0.9 times the 100,000 of the result before" in done.stdout
    assert len(history_of(clone / "output")) == len({run["run_id"] for run in history_of(clone / "output")})
    # and one while the one before still runs
    with subprocess.Popen(["flock", clone / ".nightly.lock", "cat"], stdin=subprocess.PIPE) as slow:
        subprocess.run(f'until ! flock -n "{clone}/.nightly.lock" true; do sleep 0.01; done', shell=True, check=True)
        assert in_shell(command, home).stdout.startswith("exit status 75\n")
        slow.communicate()


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze here")
    units = [tmp_path / "movielens.service", tmp_path / "movielens.timer"]
    for unit in units:
        # verify looks whether there is such a program
        unit.write_text(block(unit.name).replace("/opt/movielens_pipeline", str(ROOT)).replace("User=movielens\n", ""))
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    # of other units of this machine it complains, too
    said = [line for line in (done.stdout + done.stderr).splitlines() if "movielens" in line]
    assert not said
    # and it would not accept any
    units[1].write_text(block("movielens.timer").replace("03:00:00", "noon"))
    done = subprocess.run(["systemd-analyze", "verify", units[1]], capture_output=True, text=True, check=False)
    assert "movielens.timer" in done.stdout + done.stderr


def test_the_command_of_the_workflow_publishes_from_bucket_to_bucket(home: Path, s3_server: S3Server) -> None:
    [step] = [
        step for step in yaml.safe_load((ROOT / "docs/nightly-workflow.yml").read_text())["jobs"]["publish"]["steps"]
        if "run" in step
    ]  # fmt: skip
    s3_server.upload(ROOT / "dataset", "dataset")
    variables = {**s3_server.environment(), "S3_BUCKET_NAME": BUCKET}
    assert step["env"].keys() <= {*variables, "AWS_DEFAULT_REGION"}
    for outcome in ("published", "unchanged"):
        done = in_shell(f"cd movielens_pipeline && {step['run']}", home, **variables)
        assert (done.returncode, summary_in(done.stdout)["outcome"]) == (0, outcome), done.stderr


@pytest.mark.thorough
def test_airflow_runs_the_dag_and_hands_the_summary_on(home: Path, tmp_path: Path) -> None:
    # given Airflow, in an environment of its own
    environment, uv = tmp_path / "airflow", Path(sys.executable).parent / "uv"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, environment], check=True)
    requirements = ROOT / "requirements" / "airflow.txt"
    command: list[object] = [uv, "pip", "install", "--quiet", "--require-hashes", "--requirement", requirements]
    subprocess.run([*command, "--python", environment / "bin" / "python"], check=True)
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "movielens.py").write_text(
        block("dag").replace("/opt/movielens_pipeline", str(home / "movielens_pipeline"))
    )
    runner = tmp_path / "run.py"
    runner.write_text(
        "import sys\nsys.path.insert(0, sys.argv[1])\nfrom airflow.utils.db import initdb\ninitdb()\n"
        "from movielens import dag\n"
        "for _ in range(2):\n"
        "    run = dag.test()\n"
        "    [task] = run.get_task_instances()\n"
        "    print('told', run.state, task.xcom_pull(task_ids='publish')['outcome'], file=sys.stderr)\n"
    )
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("SPARK_", "PYSPARK_"))},
        "AIRFLOW_HOME": str(tmp_path / "airflow-home"), "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags), "HOME": str(home),
    }  # fmt: skip
    done: Any = subprocess.run(
        [environment / "bin" / "python", runner, dags], env=variables, capture_output=True, text=True, check=False,
        timeout=300,
    )  # fmt: skip
    assert re.findall(r"^told (\S+) (\S+)$", done.stderr, re.MULTILINE)[-1:] == [("success", "unchanged")], (
        done.stdout + done.stderr
    )
