"""The wrappers, as a newcomer runs them: from a fresh clone, any folder, with spaces in paths."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.support import s3server
from tests.support.inputs import MOVIES, RATINGS, generate, movie_lines, rating_lines, write_input
from tests.support.jobs import job_environment
from tests.support.project import ROOT, copy_project
from tests.support.results import assert_equal_by_check, visible_names

Shell = Callable[..., subprocess.CompletedProcess[str]]
SCRIPTS = sorted(path.name for path in ROOT.glob("*.sh"))


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone in a folder with a space in its name."""
    return copy_project(tmp_path_factory.mktemp("a clone") / "movie lens")


def path_without_the_suite() -> str:
    """PATH without the suite's own environment."""
    own = str(Path(sys.executable).parent)
    return ":".join(folder for folder in os.environ["PATH"].split(":") if folder != own)


@pytest.fixture(scope="module")
def shell(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """Runs a script of the clone with an empty HOME, from another folder."""
    home = tmp_path_factory.mktemp("home")

    def run(
        script: str, *arguments: object, variables: Mapping[str, str] | None = None, **options: object
    ) -> subprocess.CompletedProcess[str]:
        environment = {**job_environment(), "HOME": str(home), "PATH": path_without_the_suite()}
        environment.pop("SPARK_CONF_DIR", None)
        environment.pop("VIRTUAL_ENV", None)
        environment.update(variables or {})
        settings = {"cwd": home, "env": environment, "timeout": 600, **options}
        command = [clone / script, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, **settings)  # type: ignore[call-overload]

    return run


@pytest.fixture(scope="module")
def first_run(shell: Shell) -> subprocess.CompletedProcess[str]:
    return shell("exec_local_compute_local_storage.sh")


def test_the_first_start_makes_its_environment_and_a_right_result(
    first_run: subprocess.CompletedProcess[str], clone: Path
) -> None:
    assert first_run.returncode == 0, first_run.stderr
    assert first_run.stdout == ""
    first, *_ = first_run.stderr.splitlines()
    assert first == f"making {clone}/.venv from requirements/embedded.txt (once; a minute or two)"
    assert_equal_by_check(clone / "dataset", clone / "output")
    # the check runs in that environment
    done = subprocess.run([clone / ".venv/bin/python", clone / "check_local_results.py"], check=False)
    assert done.returncode == 0


@pytest.mark.usefixtures("first_run")
def test_the_second_start_installs_nothing(shell: Shell) -> None:
    # given a package index that cannot be reached
    done = shell("exec_local_compute_local_storage.sh", "--version")
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.startswith("movielens_pipeline ")


@pytest.mark.usefixtures("first_run")
def test_arguments_override_the_defaults(shell: Shell, tmp_path: Path) -> None:
    folder = write_input(tmp_path / "in put")
    done = shell("exec_local_compute_local_storage.sh", "--input_path", folder, "--output_path", tmp_path / "out put")
    assert done.returncode == 0, done.stderr
    assert_equal_by_check(folder, tmp_path / "out put")


@pytest.mark.usefixtures("first_run")
def test_with_report_there_is_a_page_when_the_job_is_done(shell: Shell, tmp_path: Path) -> None:
    folder = write_input(tmp_path / "in put")
    output = tmp_path / "out put"
    arguments = ("--report", "--input_path", folder, f"--output-path={output}", "--summary", "json")
    done = shell("exec_local_compute_local_storage.sh", *arguments, cwd=tmp_path)
    # then it is of that result, and where it is was said, and not where the summary is the last line
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == f"{tmp_path}/report.html"
    assert json.loads(done.stdout)["outcome"] == "published"
    assert "6 ratings of 5 movies by 2 users" in (tmp_path / "report.html").read_text()
    # and where the job fails there is none, and its status is the job's
    (tmp_path / "report.html").unlink()
    done = shell("exec_local_compute_local_storage.sh", "--report", "--input_path", "nowhere", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert not (tmp_path / "report.html").exists()


@pytest.mark.usefixtures("first_run")
def test_a_release_is_read_as_it_was_downloaded(shell: Shell, clone: Path, tmp_path: Path) -> None:
    # given an archive of CSV
    archive = generate(tmp_path, "--format", "csv", "--zip", "--ratings", 9000) / "movielens.zip"
    # when the wrapper gets it
    done = shell("exec_local_compute_local_storage.sh", "--input_path", archive, "--output_path", tmp_path / "out")
    # then the result is right, as the check of that environment says
    assert done.returncode == 0, done.stderr
    check = [clone / ".venv/bin/python", clone / "check_local_results.py"]
    done = subprocess.run([*check, "--input_path", archive, "--output_path", tmp_path / "out"], check=False)
    assert done.returncode == 0


@pytest.mark.usefixtures("first_run")
@pytest.mark.parametrize(("arguments", "status"), [(["--no_such"], 2), (["--input_path", "nowhere"], 3)])
def test_the_exit_status_is_the_job_s(shell: Shell, arguments: list[str], status: int) -> None:
    assert shell("exec_local_compute_local_storage.sh", *arguments).returncode == status


@pytest.mark.thorough
@pytest.mark.usefixtures("first_run")
@pytest.mark.parametrize("with_uv", [False, True], ids=["as_it_is", "with_uv"])
def test_the_environment_is_remade_when_its_requirements_change_and_kept_when_that_fails(
    shell: Shell, clone: Path, tmp_path: Path, with_uv: bool
) -> None:
    # given uv, or what there is by itself
    path = path_without_the_suite()
    if with_uv:
        (tmp_path / "uv").symlink_to(Path(sys.executable).parent / "uv")
        path = f"{tmp_path}:{path}"
    installer = "uv" if shutil.which("uv", path=path) else "pip"
    # and a requirement that no index has
    requirements = clone / "requirements" / "embedded.txt"
    pinned, before = requirements.read_text(), (clone / ".venv").resolve()
    requirements.write_text(pinned + "no-such-package-as-this==1.0 --hash=sha256:" + "0" * 64 + "\n")
    try:
        done = shell("exec_local_compute_local_storage.sh", "--version", variables={"PATH": path})
        assert done.returncode == 1
        assert done.stderr.splitlines()[0].startswith(f"making {clone}/.venv from requirements/embedded.txt")
        assert done.stderr.splitlines()[-1] == (
            f"exec_local_compute_local_storage.sh: error: {installer} could not install {requirements}; "
            "is the package index reachable?"
        )
    finally:
        requirements.write_text(pinned)
    # then the one before is as it was, and nothing else is left
    assert (clone / ".venv").resolve() == before
    assert shell("exec_local_compute_local_storage.sh", "--version").stderr == ""
    assert list(clone.glob(".venv-*Z-*")) == [before]


@pytest.mark.thorough
@pytest.mark.usefixtures("first_run")
def test_an_environment_whose_python_is_gone_is_remade_and_what_runs_keeps_its_own(
    shell: Shell, clone: Path, tmp_path: Path
) -> None:
    # given a run in the environment, and then a Python that was upgraded away
    before = (clone / ".venv").resolve()
    fifo = tmp_path / "in"
    os.mkfifo(fifo)
    held = "import sys; open(sys.argv[1]).read(); import duckdb, pandas; print(duckdb.__file__)"
    with subprocess.Popen([before / "bin" / "python", "-c", held, fifo], stdout=subprocess.PIPE, text=True) as running:
        python = (before / "bin" / "python").readlink()
        (before / "bin" / "python").unlink()
        (before / "bin" / "python").symlink_to("/usr/bin/python-that-was")
        # when the wrapper is called
        done = shell("exec_local_compute_local_storage.sh", "--output_path", tmp_path / "out")
        # then it has a new one, and what ran from the one before finds all it needs
        assert done.returncode == 0, done.stderr
        assert done.stderr.splitlines()[0].startswith(f"making {clone}/.venv from requirements/embedded.txt")
        assert (clone / ".venv").resolve() != before
        fifo.write_text("go on")
        assert running.stdout
        assert running.stdout.read().startswith(str(before))
    (before / "bin" / "python").unlink()
    (before / "bin" / "python").symlink_to(python)


def test_an_environment_of_a_python_as_debian_has_it_is_made_once(clone: Path, tmp_path: Path) -> None:
    # given a Python that keeps packages of its own in another folder than its environments do
    library = Path(sysconfig.get_path("stdlib"))
    base = tmp_path / "base"
    (base / "bin").mkdir(parents=True)
    (base / "lib" / library.name).mkdir(parents=True)
    shutil.copy(Path(sys.base_prefix) / "bin" / library.name, base / "bin" / "python3")
    for entry in library.iterdir():
        if entry.name not in ("site-packages", "dist-packages"):
            (base / "lib" / library.name / entry.name).symlink_to(entry)
    environment = tmp_path / "environment"
    subprocess.run([base / "bin" / "python3", "-m", "venv", "--without-pip", environment], check=True)
    requirements = clone / "requirements" / "embedded.txt"
    shutil.copy(requirements, environment / "requirements.installed")
    # then an environment of it that is there is taken, and not made anew
    command = f"source scripts/environments.sh && is_ready '{environment}' '{requirements}'"
    assert subprocess.run(["bash", "-c", command], cwd=clone, check=False).returncode == 0
    shutil.rmtree(environment / "lib")
    assert subprocess.run(["bash", "-c", command], cwd=clone, check=False).returncode == 1


@pytest.mark.usefixtures("first_run")
def test_an_exported_cdpath_does_no_harm(clone: Path, tmp_path: Path) -> None:
    # given a folder of the same name where cd would look first
    (tmp_path / clone.name).mkdir()
    done = subprocess.run(
        [f"{clone.name}/exec_local_compute_local_storage.sh", "--version"],
        cwd=clone.parent, env={**job_environment(), "CDPATH": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def link_spark_environment(clone: Path) -> None:
    """The environment for --engine spark, with the S3 connector."""
    if not (clone / ".venv-spark").exists():
        (clone / ".venv-spark").symlink_to(Path(sys.executable).parent.parent)


def test_spark_runs_in_an_environment_of_its_own(shell: Shell, clone: Path, tmp_path: Path) -> None:
    # given that environment, which the suite has made already: the one it runs in
    link_spark_environment(clone)
    # and a Java that does not start without a fitting archive of classes
    done = shell(
        "exec_local_compute_local_storage.sh", "--engine", "spark", "--output_path", tmp_path / "out",
        variables={"SPARK_SUBMIT_OPTS": "-Xshare:on"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "engine: spark " in done.stdout
    assert_equal_by_check(clone / "dataset", tmp_path / "out")


@pytest.mark.thorough
def test_spark_runs_from_a_path_of_odd_characters_whatever_python_a_notebook_takes(tmp_path: Path) -> None:
    clone = copy_project(tmp_path / "q, \"x' y\\z")
    link_spark_environment(clone)
    environment = {**job_environment(), "PYSPARK_DRIVER_PYTHON": "ipython", "PYSPARK_DRIVER_PYTHON_OPTS": "notebook"}
    environment.pop("SPARK_CONF_DIR")
    command = [clone / "exec_local_compute_local_storage.sh", "--engine", "spark", "--output_path", tmp_path / "out"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert_equal_by_check(clone / "dataset", tmp_path / "out")


@pytest.mark.thorough
def test_a_signal_while_the_archive_of_classes_is_made_leaves_nothing_behind(tmp_path: Path) -> None:
    # given an environment without one
    clone = copy_project(tmp_path / "clone")
    (clone / ".venv-spark").mkdir()
    for name in ("bin", "lib", "pyvenv.cfg", "requirements.installed"):
        (clone / ".venv-spark" / name).symlink_to(Path(sys.prefix).resolve() / name)
    # but that of another Java, and that of runs with a store
    for name in ("classes-11.0.2.jsa", "classes-s3-11.0.2.jsa"):
        (clone / ".venv-spark" / name).touch()
    environment = job_environment()
    environment.pop("SPARK_CONF_DIR")
    process = subprocess.Popen(
        [clone / "exec_local_compute_local_storage.sh", "--engine", "spark"], env=environment, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stderr
    assert process.stderr.readline().startswith(f"making {clone}/.venv-spark/classes-")
    time.sleep(2)
    # when the script alone is told to end
    process.terminate()
    process.communicate(timeout=60)
    # then so does what it started, and no part of an archive stays, nor that which is of no use any more
    assert process.returncode == 143
    assert subprocess.run(["pgrep", "-f", f"^[^ ]*java .*{clone}"], capture_output=True, check=False).returncode == 1
    assert not list((clone / ".venv-spark").glob("*.part"))
    assert [file.name for file in (clone / ".venv-spark").glob("*.jsa")] == ["classes-s3-11.0.2.jsa"]


@pytest.mark.parametrize("version", [None, "11.0.2", "1.8.0_292", "25.0.3"])
def test_java_missing_too_old_or_too_new_is_one_line(shell: Shell, tmp_path: Path, version: str | None) -> None:
    # given a JAVA_HOME with an old Java, or with none
    (tmp_path / "bin").mkdir()
    if version:
        (tmp_path / "bin" / "java").write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
        (tmp_path / "bin" / "java").chmod(0o755)
    environment = {**os.environ, "JAVA_HOME": str(tmp_path)}
    done = shell("exec_local_compute_local_storage.sh", "--engine=spark", env=environment)
    found = {None: "none", "11.0.2": "11", "1.8.0_292": "1", "25.0.3": "25"}[version]
    assert done.returncode == 1
    assert done.stderr == (
        f"exec_local_compute_local_storage.sh: error: the spark engine needs Java 17 or 21, found {found}; "
        "on Debian or Ubuntu: sudo apt-get install openjdk-17-jre-headless\n"
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_the_header(shell: Shell, clone: Path, script: str) -> None:
    done = shell(script, "--help")
    assert done.returncode == 0
    assert re.match(rf"Usage: (source )?{script}\b", done.stdout)
    for line in done.stdout.splitlines():
        assert f"# {line}".rstrip() in (clone / script).read_text()
    assert "Exit status:" in done.stdout


@pytest.mark.thorough
@pytest.mark.usefixtures("first_run")
def test_two_first_starts_at_once_both_end_well(clone: Path, tmp_path: Path) -> None:
    # given an environment that is made anew, by two at once, each after the other's lock
    (clone / ".venv" / "requirements.installed").unlink()
    command = [clone / "exec_local_compute_local_storage.sh", "--output_path"]
    running = [
        subprocess.Popen([*command, tmp_path / str(number)], stderr=subprocess.PIPE, text=True) for number in (1, 2)
    ]
    said = [process.communicate(timeout=600)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    assert sum("making" in text for text in said) == 1
    assert visible_names(tmp_path / "1") == visible_names(tmp_path / "2")


@pytest.mark.usefixtures("first_run")
def test_the_wrapper_itself_takes_no_time_to_speak_of(shell: Shell, clone: Path) -> None:
    # no figure is asserted: that is for the benchmark; but neither pip nor venv may be called
    started = time.time()
    shell("exec_local_compute_local_storage.sh", "--version")
    changed = [path for path in (clone / ".venv").iterdir() if path.stat().st_mtime > started]
    assert not changed


# ---------------------------------------------------------------------------------------------------------------
# S3


@pytest.fixture
def bucket(s3_server: s3server.S3Server, proxy: s3server.FaultyProxy) -> str:  # noqa: ARG001  # sets the variables
    """A bucket of its own, without anything in it."""
    name = f"shell-{secrets.token_hex(4)}"
    s3_server.client.create_bucket(Bucket=name)
    return name


@pytest.mark.thorough
@pytest.mark.usefixtures("first_run")
def test_a_bucket_gets_the_dataset_once_and_a_right_result_from_both_engines(
    clone: Path, bucket: str, tmp_path: Path
) -> None:
    link_spark_environment(clone)
    command = ["bash", "-c", 'source ./set_env_vars.sh && ./exec_local_compute_s3_storage.sh "$@"', "-"]
    environment = {**job_environment(), "S3_BUCKET_NAME": bucket}
    environment.pop("SPARK_CONF_DIR")

    def run(*arguments: object) -> str:
        done = subprocess.run(
            [*command, *map(str, arguments)], cwd=clone, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stderr

    assert f"uploaded the bundled dataset to s3://{bucket}/dataset\n" in run("--upload_dataset")
    assert_equal_by_check(f"s3://{bucket}/dataset", f"s3://{bucket}/output")
    assert "uploaded" not in run("--upload-dataset", "--output_path", tmp_path / "out")
    assert_equal_by_check(clone / "dataset", tmp_path / "out")
    run("--engine", "spark", "--input_path", "dataset")
    assert_equal_by_check(clone / "dataset", f"s3://{bucket}/output")
    # the check takes the addresses on its command line
    check = [clone / ".venv/bin/python", clone / "check_local_results.py", "--output_path", f"s3://{bucket}/output"]
    assert subprocess.run(check, check=False).returncode == 0
    assert subprocess.run([*check[:-1], f"s3://{bucket}/nothing"], check=False).returncode == 2


def test_a_release_of_another_format_that_is_in_the_bucket_is_left_alone(
    s3_server: s3server.S3Server, bucket: str
) -> None:
    s3_server.client.put_object(Bucket=bucket, Key="dataset/ratings.csv", Body=b"")
    upload = [sys.executable, ROOT / "scripts" / "upload_dataset.py", bucket]
    environment = {**job_environment(), **s3_server.environment()}
    done = subprocess.run(upload, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert s3_server.client.list_objects_v2(Bucket=bucket, Prefix="dataset/")["KeyCount"] == 1


def test_without_the_name_of_a_bucket_it_is_one_line(shell: Shell) -> None:
    for script in ("exec_local_compute_s3_storage.sh", "run_docker_local_compute_s3_storage.sh"):
        done = shell(script)
        assert done.returncode == 2
        assert done.stderr == (f"{script}: error: S3_BUCKET_NAME is not set; set it, or: source set_env_vars.sh\n")


@pytest.mark.usefixtures("first_run")
def test_a_dataset_in_parts_is_not_joined_by_the_bundled_one(
    shell: Shell, s3_server: s3server.S3Server, bucket: str, tmp_path: Path
) -> None:
    # given a bucket whose ratings are a folder of parts
    for key, content in (
        ("dataset/ratings.dat/part-0", rating_lines(RATINGS)),
        ("dataset/movies.dat/part-0", movie_lines(MOVIES)),
    ):
        s3_server.client.put_object(Bucket=bucket, Key=key, Body=content)
    environment = {**job_environment(), "S3_BUCKET_NAME": bucket}
    done = shell(
        "exec_local_compute_s3_storage.sh", "--upload_dataset", "--output_path", tmp_path / "out", env=environment
    )
    # then they are what is read
    assert done.returncode == 0, done.stderr
    assert "uploaded" not in done.stderr
    assert_equal_by_check(f"s3://{bucket}/dataset", tmp_path / "out")


@pytest.mark.usefixtures("first_run")
def test_a_dataset_that_cannot_be_uploaded_is_one_line(shell: Shell, bucket: str) -> None:
    environment = {**job_environment(), "S3_BUCKET_NAME": f"not-{bucket}"}
    done = shell("exec_local_compute_s3_storage.sh", "--upload_dataset", env=environment)
    assert done.returncode == 1
    assert done.stderr == (
        f"upload_dataset: error: s3://not-{bucket}: there is no such bucket; "
        "check its name, and AWS_ENDPOINT_URL where it is set\n"
    )


def source_variables(clone: Path, **variables: str) -> tuple[dict[str, str], str]:
    """What a shell has after it sourced set_env_vars.sh, and what that said."""
    environment = {"PATH": os.environ["PATH"], "HOME": "/nowhere", **variables}
    done = subprocess.run(
        ["bash", "-uc", "source ./set_env_vars.sh; env -0"], cwd=clone, env=environment, capture_output=True, check=True
    )
    pairs = [pair.partition("=") for pair in done.stdout.decode().split("\0") if pair]
    return {name: value for name, _, value in pairs}, done.stderr.decode()


def test_variables_have_defaults_and_what_is_missing_is_said(clone: Path) -> None:
    found, said = source_variables(clone)
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    assert found["AWS_DEFAULT_REGION"] == "us-east-1"
    # the name of the bucket has the account in it, which nobody tells without credentials
    assert found["S3_BUCKET_NAME"] == found["IAM_ROLE_ARN"] == ""
    assert said == (
        "region us-east-1, bucket not known, for your account is not: set S3_BUCKET_NAME\n"
        "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE\n"
    )
    # and in a store of one's own there is no account
    found, _ = source_variables(clone, AWS_ENDPOINT_URL="http://store")
    assert found["S3_BUCKET_NAME"] == f"movielens-pipeline-{user}"


def test_variables_that_are_set_stay_and_secrets_are_not_shown(clone: Path) -> None:
    given = {
        "AWS_DEFAULT_REGION": "eu-west-1", "S3_BUCKET_NAME": "mine", "IAM_ROLE_ARN": "arn:of:mine",
        "AWS_ENDPOINT_URL": "http://store", "AWS_ACCESS_KEY_ID": "the-id", "AWS_SECRET_ACCESS_KEY": "the-secret",
    }  # fmt: skip
    found, said = source_variables(clone, **given)
    assert {name: found[name] for name in given} == given
    assert said == "region eu-west-1, bucket mine, store http://store\n"


def test_variables_are_not_set_by_a_script_that_is_run(shell: Shell) -> None:
    done = shell("set_env_vars.sh")
    assert done.returncode == 2
    assert done.stderr == "set_env_vars.sh: error: it sets variables of your shell: source set_env_vars.sh\n"


# A Java that gets, whatever Ivy is asked for, the jars that lie in a folder
JAVA_THAT_GETS = """#!/usr/bin/env bash
while [[ $1 != -retrieve ]]; do shift; done
mkdir -p "$(dirname "$2")"
cp "$JARS"/*.jar "$(dirname "$2")"
"""


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda _: None, None),
        (lambda jars: (jars / "one-1.jar").write_bytes(b"another"), "one-1.jar"),
        (lambda jars: (jars / "two-2.jar").unlink(), "two-2.jar"),
        (lambda jars: (jars / "evil.jar").write_bytes(b"evil"), "evil.jar"),
        (lambda jars: (jars / "two-2.jar").rename(jars / "two-3.jar"), "two-2.jar, two-3.jar"),
    ],
    ids=["as_pinned", "changed", "missing", "one_more", "renamed"],
)
def test_jars_are_taken_only_as_they_are_pinned(
    tmp_path: Path, change: Callable[[Path], object], named: str | None
) -> None:
    # given a registry whose jars were pinned, and changed since
    jars, java, installed = tmp_path / "registry", tmp_path / "java" / "bin" / "java", tmp_path / "jars"
    jars.mkdir()
    (jars / "one-1.jar").write_bytes(b"one")
    (jars / "two-2.jar").write_bytes(b"two")
    pins = tmp_path / "pins.sha256"
    with pins.open("wb") as file:
        subprocess.run(["sha256sum", "one-1.jar", "two-2.jar"], cwd=jars, stdout=file, check=True)
    change(jars)
    java.parent.mkdir(parents=True)
    java.write_text(JAVA_THAT_GETS)
    java.chmod(0o755)
    # when the S3 connector is asked for
    script = 'set -euo pipefail; source common.sh; source environments.sh; make_s3_jars "$@"'
    done = subprocess.run(
        ["bash", "-c", script, "run_tests.sh", tmp_path / "spark", installed, pins],
        cwd=ROOT / "scripts", env={**os.environ, "JAVA_HOME": str(tmp_path / "java"), "JARS": str(jars)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    # then what is not as it was is named, and nothing of it is kept
    [_, *said] = done.stderr.splitlines()
    if named is None:
        assert (done.returncode, said) == (0, [])
        assert {jar.name for jar in installed.iterdir()} == {"one-1.jar", "two-2.jar"}
    else:
        assert (done.returncode, said) == (
            1,
            [f"run_tests.sh: error: not what pins.sha256 pins: {named}; nothing of it was kept"],
        )
        assert not list(tmp_path.glob("jars*/"))


def test_the_jars_that_the_tests_run_with_are_those_that_are_pinned() -> None:
    for name in ("s3-jars", "hdfs-jars"):
        found = subprocess.run(
            ["sha256sum", "--check", "--strict", "--quiet", ROOT / "requirements" / f"{name}.sha256"],
            cwd=Path(sys.prefix) / name, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert found.returncode == 0, found.stdout + found.stderr
