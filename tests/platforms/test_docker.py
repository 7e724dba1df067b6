"""The container image: what docs/containers.md says of it, tried with a real container engine."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

import pytest

from movielens import contract
from tests.support import s3server
from tests.support.containers import Docker, network_of_this_machine, one_build_at_a_time
from tests.support.inputs import generate, rating_lines, write_input
from tests.support.jobs import job_environment
from tests.support.places import Bucket
from tests.support.project import ROOT, copy_project
from tests.support.results import assert_equal_by_check

pytestmark = pytest.mark.thorough

IMAGES = {"sail": "movielens_pipeline", "spark": "movielens_pipeline:spark"}
CALLER = f"{os.getuid()}:{os.getgid()}"
SECRETS = {name: f"{name.lower()}-that-no-layer-holds" for name in s3server.KEYS}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_project(tmp_path_factory.mktemp("docker") / "a clone")


@pytest.fixture(scope="module")
def image(docker: Docker, clone: Path) -> Docker:
    """The default image, built as docs/containers.md says, with credentials at hand that must not get into it."""
    with one_build_at_a_time():
        built = docker("build", "-t", IMAGES["sail"], ".", cwd=clone, env={**os.environ, **SECRETS})
    assert built.returncode == 0, built.stderr[-3000:]
    return docker


@pytest.fixture(scope="module")
def spark_image(image: Docker, clone: Path) -> Docker:
    with one_build_at_a_time():
        built = image("build", "--target", "spark", "-t", IMAGES["spark"], ".", cwd=clone)
    assert built.returncode == 0, built.stderr[-3000:]
    return image


@pytest.fixture(params=contract.ENGINES)
def image_of_engine(request: pytest.FixtureRequest) -> tuple[Docker, str]:
    """Each of the two images, and how to call docker."""
    call = request.getfixturevalue({"sail": "image", "spark": "spark_image"}[request.param])
    return call, IMAGES[request.param]


def said_by(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout + done.stderr


def test_the_bundled_dataset_of_the_mounted_folder_becomes_its_output(
    image_of_engine: tuple[Docker, str], clone: Path
) -> None:
    docker, name = image_of_engine
    shutil.rmtree(clone / "output", ignore_errors=True)
    done = docker("run", "--rm", "--user", CALLER, "--volume", f"{clone}:/app", name)
    assert done.returncode == 0, said_by(done)
    assert_equal_by_check(clone / "dataset", clone / "output")
    for path in (clone / "output").rglob("*"):  # the caller can read and delete it all
        assert path.stat().st_uid == os.getuid()
        assert path.stat().st_mode & 0o444 == 0o444


def test_a_user_whom_the_image_does_not_know_is_no_hindrance(
    image_of_engine: tuple[Docker, str], clone: Path, tmp_path: Path
) -> None:
    docker, name = image_of_engine
    folder = tmp_path / "theirs"
    shutil.copytree(clone / "dataset", folder / "dataset")
    if os.getuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, 4321, 4321)
    user = "4321:4321" if os.getuid() == 0 else CALLER
    done = docker("run", "--rm", "--user", user, "--volume", f"{folder}:/app", name)
    assert done.returncode == 0, said_by(done)
    assert_equal_by_check(folder / "dataset", folder / "output")


@pytest.mark.skipif(os.getuid() != 0, reason="folders of others take root")
@pytest.mark.parametrize("owner", [1000, 4321])
def test_without_user_the_output_belongs_to_the_owner_of_the_mounted_folder(
    image_of_engine: tuple[Docker, str], tmp_path: Path, owner: int
) -> None:
    # given somebody's folder that nobody else may write to
    docker, name = image_of_engine
    shutil.copytree(ROOT / "dataset", tmp_path / "theirs" / "dataset")
    for path in (tmp_path / "theirs", *(tmp_path / "theirs").rglob("*")):
        os.chown(path, owner, owner)
    done = docker("run", "--rm", "--volume", f"{tmp_path / 'theirs'}:/app", name)
    assert done.returncode == 0, said_by(done)
    assert_equal_by_check(ROOT / "dataset", tmp_path / "theirs" / "output")
    assert {(path.stat().st_uid, path.stat().st_gid) for path in (tmp_path / "theirs").rglob("*")} == {(owner, owner)}


@pytest.mark.skipif(os.getuid() != 0, reason="a folder of root takes root")
def test_without_user_a_folder_of_root_is_written_to_as_root_and_a_line_says_so(image: Docker, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "dataset", tmp_path / "dataset")
    done = image("run", "--rm", "--volume", f"{tmp_path}:/app", IMAGES["sail"])
    assert done.returncode == 0, said_by(done)
    first, *_ = done.stderr.splitlines()
    assert first == "the folder that is mounted at /app belongs to root, and so will what is written there"
    assert (tmp_path / "output" / "_manifest.json").stat().st_uid == 0


@pytest.mark.skipif(os.getuid() != 0, reason="a folder of root takes root")
def test_where_nothing_is_mounted_to_be_written_to_it_is_a_user_that_is_not_root(
    image_of_engine: tuple[Docker, str], tmp_path: Path
) -> None:
    # given a release that only root may read
    docker, name = image_of_engine
    write_input(tmp_path / "in").chmod(0o700)
    run = ("run", "--rm", "--volume", f"{tmp_path / 'in'}:/in:ro", name, "--input_path", "/in")
    done = docker(*run, "--output_path", "/tmp/out")
    assert done.returncode == 3, said_by(done)
    assert "permission denied" in said_by(done)
    # and all may
    (tmp_path / "in").chmod(0o755)
    done = docker(*run, "--output_path", "/tmp/out")
    assert done.returncode == 0, said_by(done)


def test_what_a_user_may_not_write_to_is_one_line(image: Docker, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "dataset", tmp_path / "dataset")
    tmp_path.chmod(0o555)  # should user 4321 be the one who runs this
    done = image("run", "--rm", "--user", "4321", "--volume", f"{tmp_path}:/app", IMAGES["sail"])
    assert done.returncode == 1
    assert done.stderr == (
        "entrypoint.sh: error: user 4321 may not write to /app: mount a folder at /app, or one that this user may "
        "write to; without --user it is the folder's owner\n"
    )


@pytest.mark.parametrize(
    ("arguments", "status"), [(["--no_such"], 2), (["--input_path", "/nowhere"], 3), (["--version"], 0)]
)
def test_arguments_go_to_the_job_and_the_status_is_the_job_s(
    image_of_engine: tuple[Docker, str], tmp_path: Path, arguments: list[str], status: int
) -> None:
    docker, name = image_of_engine
    done = docker("run", "--rm", "--user", CALLER, "--volume", f"{tmp_path}:/app", name, *arguments)
    assert done.returncode == status, said_by(done)


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_help_needs_no_folder(image_of_engine: tuple[Docker, str], argument: str) -> None:
    docker, name = image_of_engine
    done = docker("run", "--rm", name, argument)
    assert done.returncode == 0, said_by(done)
    assert "movielens_pipeline" in done.stdout


def test_lines_that_are_not_valid_stop_the_container_with_status_3(image: Docker, tmp_path: Path) -> None:
    write_input(tmp_path / "dataset", b"bad\n")
    run = ("run", "--rm", "--user", CALLER, "--volume", f"{tmp_path}:/app", IMAGES["sail"])
    assert image(*run).returncode == 3
    write_input(tmp_path / "dataset", b"bad\n1::10::4::5\n")
    assert image(*run, "--max_rejects", "1").returncode == 0
    assert_equal_by_check(tmp_path / "dataset", tmp_path / "output")


def test_a_signal_reaches_the_job(image: Docker, tmp_path: Path) -> None:
    many = [(user, 10 + movie, 4.0, user) for user in range(1, 100_001) for movie in range(20)]
    write_input(tmp_path / "dataset", rating_lines(many))
    name = f"movielens-test-{os.getpid()}"
    with open_container(
        "run", "--rm", "--name", name, "--user", CALLER, "--volume", f"{tmp_path}:/app", IMAGES["sail"]
    ) as running:
        assert running.stderr
        assert any("engine" in line for line in running.stderr)  # the job has begun
        stopped = image("kill", "--signal", "TERM", name)
        assert stopped.returncode == 0, stopped.stderr
        assert running.wait(timeout=30) == 128 + signal.SIGTERM
    assert not (tmp_path / "output" / "_manifest.json").exists()


class open_container:  # noqa: N801  # a context manager
    """Starts a container that runs on."""

    def __init__(self, *arguments: object) -> None:
        self.process = subprocess.Popen(["docker", *map(str, arguments)], stderr=subprocess.PIPE, text=True)

    def __enter__(self) -> subprocess.Popen[str]:
        return self.process

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def test_both_images_reach_a_bucket(
    image_of_engine: tuple[Docker, str], s3_server: s3server.S3Server, bucket_path: Bucket, tmp_path: Path
) -> None:
    # given the bundled dataset in the form of another release
    docker, name = image_of_engine
    address = s3_server.upload(generate(tmp_path, "--format", "csv"), f"{bucket_path.prefix}-input")
    environment = s3_server.environment()
    names = [word for variable in environment for word in ("--env", variable)]
    network = [f"--network={network_of_this_machine()}"] if network_of_this_machine() else []
    run = ("run", "--rm", *network, *names, name)
    done = docker(
        *run, "--input_path", address, "--output_path", bucket_path.address, env={**os.environ, **environment}
    )
    assert done.returncode == 0, said_by(done)
    assert_equal_by_check(ROOT / "dataset", bucket_path.address)


def test_java_takes_the_archive_of_classes_that_the_image_holds(spark_image: Docker) -> None:
    done = spark_image(
        "run", "--rm", "--env", "CLASS_ARCHIVE=-XX:SharedArchiveFile=/opt/movielens/spark.jsa -Xshare:on",
        IMAGES["spark"], "--version",
    )  # fmt: skip
    # with -Xshare:on Java refuses to start without a fitting archive
    assert done.returncode == 0, said_by(done)


@pytest.mark.usefixtures("spark_image")
def test_the_benchmark_measures_spark_in_the_image(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.benchmark", "--ratings", "20000", "--rounds", "1"]
    options = ["--folder", tmp_path, "--contestants", "spark", "spark_plain", "--image", IMAGES["spark"]]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False, env=job_environment())
    assert done.returncode == 0, done.stderr
    # then it has their seconds, and no figure for what it does not see in a container
    assert f"from and to disk, Spark in {IMAGES['spark']}:" in done.stdout
    row = r"^\| .+? \| [0-9.]+ \| [0-9.]+ \(.+?\) \|  \|  \| [0-9.]+ \|$"
    assert len(re.findall(row, done.stdout, re.MULTILINE)) == len(["this job", "plain"])


def test_no_layer_and_no_history_holds_a_credential(image: Docker, tmp_path: Path) -> None:
    history = image("history", "--no-trunc", IMAGES["sail"]).stdout
    config = image("image", "inspect", IMAGES["sail"]).stdout
    for text in (history, config):
        assert not any(secret in text for secret in SECRETS.values())
        assert not re.search(r"AKIA[0-9A-Z]{16}|aws_secret", text, re.IGNORECASE)
    saved = tmp_path / "image.tar"
    assert image("save", "--output", saved, IMAGES["sail"]).returncode == 0
    wanted = [secret.encode() for secret in SECRETS.values()]
    with tarfile.open(saved) as layers:
        for member in layers:
            if content := layers.extractfile(member):
                assert not held(content, wanted), member.name
    saved.unlink()


def held(content: IO[bytes], wanted: list[bytes]) -> bool:
    """Whether a layer, compressed or not, holds one of the texts."""
    import gzip

    start = content.read(2)
    content.seek(0)
    source = gzip.GzipFile(fileobj=content) if start == b"\x1f\x8b" else content
    before = b""
    while chunk := source.read(2**24):
        if any(text in before + chunk for text in wanted):
            return True
        before = chunk[-100:]
    return False


def test_the_image_tells_its_version_and_is_not_larger_than_promised(image: Docker) -> None:
    [inspected] = json.loads(image("image", "inspect", IMAGES["sail"]).stdout)
    labels = inspected["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == (ROOT / "VERSION").read_text().strip()
    assert labels["org.opencontainers.image.title"] == "movielens_pipeline"
    [base] = json.loads(image("image", "inspect", "python:3.13-slim-trixie").stdout)
    # docs/containers.md's 700 MB less the 130 MB of the public base image; others may stand in for that
    assert inspected["Size"] - base["Size"] < 570e6


# ---------------------------------------------------------------------------------------------------------------
# The wrappers


def wrapper(clone: Path, script: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a wrapper of the clone."""
    return subprocess.run(
        [clone / script, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=1200,
        env={**os.environ, **variables},
    )  # fmt: skip


@pytest.fixture(scope="module")
def wrappers_ready(docker: Docker, image: Docker, clone: Path) -> Path:  # noqa: ARG001  # its layers are reused
    """A clone whose wrapper has built its image."""
    with one_build_at_a_time():
        docker("rmi", "--force", IMAGES["sail"])  # which may bear the label of another's build of the same files
        done = wrapper(clone, "run_docker_local_compute_local_storage.sh")
    assert done.returncode == 0, said_by(done)
    assert "building the image movielens_pipeline (once; some minutes)" in done.stderr
    return clone


def test_the_wrapper_runs_the_bundled_dataset_and_builds_only_what_is_stale(wrappers_ready: Path) -> None:
    assert_equal_by_check(wrappers_ready / "dataset", wrappers_ready / "output")
    again = wrapper(wrappers_ready, "run_docker_local_compute_local_storage.sh")
    assert again.returncode == 0
    assert "building" not in again.stderr
    script = wrappers_ready / "movielens_pipeline.py"
    before = script.read_text()
    script.write_text(before + "\n# changed\n")
    try:
        changed = wrapper(wrappers_ready, "run_docker_local_compute_local_storage.sh", "--version")
        assert "building" in changed.stderr
    finally:
        script.write_text(before)


def test_the_wrapper_mounts_the_folders_where_they_stand(wrappers_ready: Path, tmp_path: Path) -> None:
    # given names that the options of docker, and cd, could take for something else
    folder, output = write_input(tmp_path / 'in, "put"'), tmp_path / "out,put"
    elsewhere = write_input(tmp_path / "elsewhere" / "dataset").parent
    done = wrapper(
        wrappers_ready, "run_docker_local_compute_local_storage.sh", f"--input_path={folder}", "--output-path", output,
        CDPATH=str(elsewhere),
    )  # fmt: skip
    assert done.returncode == 0, said_by(done)
    assert f"4 datasets in {output} (" in done.stderr
    assert_equal_by_check(folder, output)
    manifest = json.loads((output / "_manifest.json").read_bytes())
    assert manifest["input_files"][0]["path"] == str(folder / "movies.dat")


def test_the_wrapper_takes_an_archive(wrappers_ready: Path, tmp_path: Path) -> None:
    archive = generate(tmp_path / "a b", "--format", "csv", "--zip", "--ratings", 9000) / "movielens.zip"
    done = wrapper(
        wrappers_ready, "run_docker_local_compute_local_storage.sh", "--input_path", archive, "--output_path",
        tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 0, said_by(done)
    assert_equal_by_check(archive, tmp_path / "out")


@pytest.mark.usefixtures("proxy")
def test_the_wrapper_for_buckets_uploads_and_runs_and_shows_no_key(
    wrappers_ready: Path, s3_server: s3server.S3Server, tmp_path: Path
) -> None:
    variables = {
        **s3_server.environment(), "S3_BUCKET_NAME": "from-docker", "DOCKER_NETWORK": network_of_this_machine(),
    }  # fmt: skip
    s3_server.client.create_bucket(Bucket="from-docker")
    script = "run_docker_local_compute_s3_storage.sh"
    with subprocess.Popen(
        [wrappers_ready / script, "--upload_dataset"], env={**os.environ, **variables},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        seen = b""
        while running.poll() is None:
            for line in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):  # gone meanwhile
                    seen += line.read_bytes()
            time.sleep(0.02)
        assert running.stderr
        assert running.returncode == 0, running.stderr.read()
    assert s3server.KEYS["AWS_SECRET_ACCESS_KEY"].encode() not in seen
    assert_equal_by_check(ROOT / "dataset", "s3://from-docker/output")
    done = wrapper(wrappers_ready, script, "--output_path", tmp_path / "out", **variables)
    assert done.returncode == 0, said_by(done)
    assert_equal_by_check(ROOT / "dataset", tmp_path / "out")


@pytest.mark.usefixtures("spark_image")
def test_the_wrapper_with_spark_takes_the_other_image(
    wrappers_ready: Path, s3_server: s3server.S3Server, bucket_path: Bucket
) -> None:
    variables = {
        **s3_server.environment(), "S3_BUCKET_NAME": s3server.BUCKET, "DOCKER_NETWORK": network_of_this_machine(),
    }  # fmt: skip
    output = bucket_path.address
    done = wrapper(
        wrappers_ready, "run_docker_local_compute_s3_storage.sh", "--engine", "spark", "--input_path",
        wrappers_ready / "dataset", "--output_path", output, **variables,
    )  # fmt: skip
    assert done.returncode == 0, said_by(done)
    assert_equal_by_check(ROOT / "dataset", output)


def test_without_docker_the_wrapper_says_so_in_one_line(clone: Path, tmp_path: Path) -> None:
    # given a PATH with all but docker
    for folder in os.environ["PATH"].split(":"):
        for program in Path(folder).glob("*") if Path(folder).is_dir() else ():
            if program.name != "docker" and not (tmp_path / program.name).exists():
                (tmp_path / program.name).symlink_to(program)
    done = wrapper(clone, "run_docker_local_compute_local_storage.sh", PATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == (
        "run_docker_local_compute_local_storage.sh: error: docker is needed: https://docs.docker.com/engine/install\n"
    )
