"""README.md and docs/ are kept true: their commands run, their tables are those of the code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

import movielens_pipeline as job
from movielens import contract
from movielens.formats import FORMATS
from tests.support.inputs import RATINGS, rating_lines
from tests.support.jobs import Publish, job_environment
from tests.support.numbered import commit, manifest_at, number_result, write_manifest
from tests.support.places import Disk
from tests.support.project import ROOT, copy_project
from tests.support.results import manifest_of

FILES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "CONTRIBUTING.md",
    ROOT / "dataset" / "README.md",
]
TEXTS = {file: file.read_text() for file in [*FILES, ROOT / "CHANGES.md"]}
README = TEXTS[ROOT / "README.md"]
ALL_TEXT = "\n".join(TEXTS[file] for file in FILES)


def page(name: str) -> str:
    """A page of docs/."""
    return TEXTS[ROOT / "docs" / f"{name}.md"]


# Commands that are tested elsewhere or cannot run here, with the reason
NOT_RUN_HERE = {
    "./run_tests.sh": "this is it; .ci/run calls it",
    "./exec_local_compute_local_storage.sh": "test_shell runs it in a fresh clone",
    "./exec_local_compute_local_storage.sh --input_path dataset --output_path output": "as above, with arguments",
    "./exec_local_compute_local_storage.sh --engine spark": "as above, on spark",
    "./exec_local_compute_local_storage.sh --input_path ml-latest-small.zip": "as above, with an archive",
    ".venv/bin/python check_local_results.py --input_path ml-latest-small.zip": "as above",
    "./exec_local_compute_local_storage.sh --report": "as above, with the page",
    "uv run report.py": "test_requirements does",
    ".venv-spark/bin/python -m tests.picture": "test_report does",
    "uv run movielens_pipeline.py --input_path dataset --output_path output": "test_requirements does",
    "python3 -m venv my-environment": "test_shell makes the same environment",
    "my-environment/bin/pip install --require-hashes -r requirements/embedded.txt": "as above",
    "for name in requirements requirements/embedded requirements/spark requirements/aws requirements/airflow "
    "requirements/dev; do": ("takes newer versions"),
    'uv pip compile --universal --python-version 3.11 --generate-hashes "$name.in" -o "$name.txt" --upgrade': "so too",
    "done": "as above",
    "source set_env_vars.sh": "test_shell does all of this section",
    "./exec_local_compute_s3_storage.sh --upload_dataset": "as above",
    "./exec_local_compute_s3_storage.sh --engine spark": "as above",
    '.venv/bin/python check_local_results.py --input_path "s3://$S3_BUCKET_NAME/dataset" '
    '--output_path "s3://$S3_BUCKET_NAME/output"': "as above",
    "./exec_local_compute_local_storage.sh --if_changed --min_ratio 0.9 --summary json": "test_nightly does",
    "./exec_local_compute_local_storage.sh --summary json | tail -n 1 | jq '{outcome, rows: .datasets.ratings.rows}'": (
        "so too"
    ),
    "docker build -t movielens_pipeline .": "test_docker builds it and all that follows",
    'docker run --rm -v "$(pwd)":/app movielens_pipeline': "as above",
    'docker run --rm -v "$(pwd)":/app movielens_pipeline --max_rejects 10': "as above",
    "docker build --target spark -t movielens_pipeline:spark .": "as above",
    'docker run --rm -v "$(pwd)":/app movielens_pipeline:spark': "as above",
    "./run_docker_local_compute_local_storage.sh": "as above",
    "./run_docker_local_compute_s3_storage.sh --upload_dataset": "as above",
    "docker run --rm --entrypoint dpkg-query movielens_pipeline --show": "as above",
    "docker build --pull --no-cache -t movielens_pipeline .": "as the first, from the newest base image",
    "./create_role_emr_serverless.sh": "test_emr does all of this section",
    "./exec_EMR_compute_s3_storage.sh --check": "as above",
    "./exec_EMR_compute_s3_storage.sh --upload_dataset": "as above",
    "./exec_EMR_compute_s3_storage.sh --serverless": "as above",
    "./run_docker_EMR_compute_s3_storage.sh --serverless": "as above",
    "./create_docker_resources.sh": "test_fargate does all of this section",
    "./run_docker_fargate.sh --check": "as above",
    "./run_docker_fargate.sh --upload_dataset": "as above",
    "./run_docker_fargate.sh --dry_run": "as above",
    "./delete_docker_resources.sh": "as above",
    "export ALARM_EMAIL=you@example.org": "test_schedule does all of this section",
    './create_schedule.sh "cron(0 3 * * ? *)"': "as above",
    "./delete_schedule.sh": "as above",
    "./create_role_emr_serverless.sh --delete": "test_emr does",
    'aws s3 rb --force "s3://$S3_BUCKET_NAME"': "the bucket of the tests is that of all",
    "./scripts/lint.sh": ".ci/run calls it",
    ".venv-spark/bin/python -m benchmarks.benchmark --ratings 20000 --rounds 1": "test_benchmark does",
    ".venv-spark/bin/python -m tests.stress --engine sail --kills 3 --races 3": "test_publishing does",
    ".venv-spark/bin/python -m tests.mutation contract transforms": "takes hours",
    ".venv-dev/bin/cyclonedx-py environment .venv/bin/python --of JSON -o sbom.json": (
        "needs what scripts/lint.sh makes; .ci/run calls it after that"
    ),
    "pipx run pip-audit --disable-pip --require-hashes --requirement requirements/embedded.txt": "asks a service",
}


def marked_block(mark: str, language: str = "") -> str:
    found = re.search(rf"<!-- {mark} -->\n+```{language}\n(.*?)```", ALL_TEXT, re.DOTALL)
    assert found, mark
    return found[1]


def table_after(text: str, heading: str) -> dict[str, str]:
    section = text.partition(heading)[2]
    rows = re.findall(r"^\| (.+?) \| (.+) \|$", re.split(r"\n#+ ", section)[0], re.MULTILINE)
    return {first.strip("`"): rest for first, rest in rows if not set(first) <= set("-| ")}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = copy_project(tmp_path_factory.mktemp("readme"))
    for name in (".venv", ".venv-spark", "my-environment"):  # both engines are in the suite's own environment
        (folder / name).symlink_to(Path(sys.executable).parent.parent)
    return folder


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", ALL_TEXT, re.DOTALL)
    whole = (re.sub(r" *\\\n *", " ", block) for block in blocks)
    lines = [line.strip() for block in whole for line in block.splitlines() if line.strip()]
    return [line for line in dict.fromkeys(lines) if line not in NOT_RUN_HERE]


@pytest.mark.thorough
def test_every_command_ends_well(clone: Path) -> None:
    # given the result of the first command, which test_shell tries
    first = "my-environment/bin/python movielens_pipeline.py --input_path dataset --output_path output"
    assert first in commands()
    for command in [first, *commands()]:
        done = subprocess.run(
            ["bash", "-c", command], cwd=clone, env=job_environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        assert not re.search("Warning:|deprecated", done.stdout + done.stderr), command


def test_no_command_is_left_out_without_being_there() -> None:
    text = re.sub(r" *\\\n *", " ", ALL_TEXT)
    for command in NOT_RUN_HERE:
        assert command in text


@pytest.mark.parametrize("mark", ["lazy", "recipe"])
def test_every_python_example_runs(clone: Path, mark: str) -> None:
    main = [sys.executable, "movielens_pipeline.py", "--input_path", "dataset", "--output_path", "output"]
    subprocess.run(main, cwd=clone, env=job_environment(), check=True, capture_output=True)
    number_result(Disk(clone / "output"))
    # an example in which the engine is still running leaves it to the interpreter to end; see leave()
    source = marked_block(mark, "python") + "\nimport os, sys; sys.stdout.flush(); os._exit(0)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source],
        cwd=clone, env=job_environment(), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = {"lazy": "'ratings': 100000", "recipe": "ratings 100000\nmovies 1700\n"}[mark]
    assert expected in done.stdout


def run_recipe(folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs the recipe for readers in the folder that holds `output`."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", marked_block("recipe", "python")],
        cwd=folder, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.fixture
def published(publish: Publish, input_path: Path, output_path: Path) -> Disk:
    """A result of 6 ratings, of number 1, and one of 3 beside it in the folder `newer`."""
    for folder, lines in ((output_path, 6), (output_path.parent / "newer", 3)):
        (input_path / "ratings.dat").write_bytes(rating_lines(RATINGS[:lines]))
        publish("sail", input_path, folder)
    number_result(Disk(output_path))
    return Disk(output_path)


def test_the_recipe_reads_the_highest_number_that_is_whole(published: Disk, tmp_path: Path) -> None:
    assert run_recipe(tmp_path).stdout.startswith("ratings 6\n")
    for number in range(2, 12):
        write_manifest(published, number, manifest_at(published))
    commit(published, tmp_path / "newer")
    # given what is none
    folder = published.folder / "_manifests"
    os.mkfifo(folder / "13.json")
    (folder / "14.json").mkdir()
    (folder / "15.json").write_bytes(b'{"datasets": ')
    for name in ("016.json", "1\u00b2.json", "notes.json", "17.json.part"):
        (folder / name).write_bytes(b"{}")
    published.delete("_manifest.json")
    assert run_recipe(tmp_path).stdout.startswith("ratings 3\n")


def test_the_recipe_starts_over_for_a_newer_result(
    published: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, left = duckdb.read_parquet, iter(range(9))

    def read_late(files: list[str]) -> duckdb.DuckDBPyRelation:
        if next(left, None) is not None:
            commit(published, tmp_path / "newer")
        return read(files)

    monkeypatch.setattr(duckdb, "read_parquet", read_late)
    monkeypatch.chdir(tmp_path)
    defined: dict[str, Any] = {}
    exec(marked_block("recipe", "python").partition("\n\n\nfor name")[0], defined)
    tables = defined["read_all"](tmp_path / "output")
    assert {name: table.num_rows for name, table in tables.items()} == {
        "ratings": 3, "movies": 5, "movies_with_stats": 5, "top_movies_per_user": 3
    }  # fmt: skip


def test_the_recipe_ends_where_there_is_no_result(published: Disk, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    line = "\nRuntimeError: output holds no result; run the job first\n"
    assert run_recipe(tmp_path / "elsewhere").stderr.endswith(line)
    (tmp_path / "elsewhere" / "output").mkdir()
    assert run_recipe(tmp_path / "elsewhere").stderr.endswith(line)
    write_manifest(published, 2, {**manifest_at(published), "datasets": {}})
    assert run_recipe(tmp_path).stderr.endswith(line)
    # given a file that is lost
    published.delete("_manifests/2.json")
    published.delete(manifest_at(published)["datasets"]["movies"]["files"][0])
    assert "RuntimeError: output cannot be read, after 10 tries: " in run_recipe(tmp_path).stderr


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="argparse of Python 3.13 lays help out in another way")
def test_the_help_is_the_one_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        job.parse_args(["--help"])
    assert capsys.readouterr().out == marked_block("help")


def test_the_datasets_of_the_readme_are_the_contract_s() -> None:
    described = table_after(README, "## What you get")
    for name in ("ratings", "movies", "movies_with_stats", "top_movies_per_user"):
        columns = re.sub(r" \(.*?\)", "", described[name].partition(" | ")[0])
        assert columns.replace("those of `movies`", contract.SCHEMAS["movies"]) == contract.SCHEMAS[name]
    rejects = re.search(r"dataset `rejects` \((.*?)\)", page("input").replace("\n", " "))
    assert rejects
    assert rejects[1] == contract.SCHEMAS["rejects"]


def test_the_reasons_of_the_readme_are_the_code_s() -> None:
    of_lines = {
        contract.NUL_BYTE, contract.HEADER_NOT_EXPECTED, contract.QUOTES_NOT_BALANCED, contract.FIELDS_MISSING,
        contract.TOO_MANY_FIELDS, contract.FLAG_NOT_0_OR_1, contract.DUPLICATE_MOVIE,
    }  # fmt: skip
    reasons = of_lines | {
        reason for field in contract.RATING_FIELDS + contract.MOVIE_FIELDS for _, reason in field.rules
    }
    assert table_after(page("input"), "## Malformed lines").keys() - {"reason"} == reasons


def test_the_exit_statuses_of_the_readme_are_the_code_s() -> None:
    statuses = {str(value) for name, value in vars(contract).items() if name.startswith("EXIT_")} | {"130"}
    assert table_after(README, "## Exit status").keys() - {"status"} == statuses


def test_the_options_of_the_readme_are_the_code_s(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        job.parse_args(["--help"])
    options = set(re.findall(r"^  (--\w+)[ ,]", capsys.readouterr().out, re.MULTILINE)) - {"--version"}
    assert {name for name in table_after(page("configuration"), "## Options") if name.startswith("--")} == options


@pytest.mark.thorough
def test_the_manifest_of_the_readme_has_the_shape_of_a_real_one(
    engine: str, publish: Callable[..., str], output_path: Path
) -> None:
    for _ in range(2):  # so that there is a result before
        publish(engine, ROOT / "dataset", output_path)
    number_result(Disk(output_path))
    real = manifest_of(output_path)
    shown = json.loads(marked_block("manifest", "json"))

    def shape(value: object) -> object:
        if isinstance(value, dict):
            return {name: shape(entry) for name, entry in value.items()}
        return [shape(value[0])] if isinstance(value, list) and value else type(value).__name__

    for entries in (real["datasets"], real["previous"]["rows"], real["input_texts"], real["seconds"]["phases"]):
        for name in entries.keys() - {"movies"}:
            del entries[name]
    assert shape(real) == shape(shown)
    for field in ("schema_version", "job_version", "rejects"):
        assert real[field] == shown[field]
    assert real["datasets"]["movies"]["columns"] == shown["datasets"]["movies"]["columns"]
    assert real["datasets"]["movies"]["rows"] == shown["datasets"]["movies"]["rows"]
    assert [file["bytes"] for file in real["input_files"]] == [file["bytes"] for file in shown["input_files"]]


def test_the_schema_of_the_summary_names_every_format() -> None:
    schema = json.loads((ROOT / "docs" / "summary.schema.json").read_text())
    named = schema["properties"]["input"]["properties"]["format"]["enum"]
    assert set(named) == {form.name for form in FORMATS} | {None}


def test_the_version_is_the_same_everywhere() -> None:
    version = (ROOT / "VERSION").read_text().strip()
    assert version == contract.VERSION
    assert set(re.findall(r'image\.version="(.*?)"', (ROOT / "Dockerfile").read_text())) == {version}
    assert re.findall(r"^## \[(\d+\.\d+\.\d+)\]", (ROOT / "CHANGES.md").read_text(), re.MULTILINE)[0] == version


def test_every_link_within_the_project_leads_somewhere() -> None:
    for file, text in TEXTS.items():
        for picture in re.findall(r'<img src="(.*?)"', text):
            assert (file.parent / picture).exists(), f"{file}: {picture}"
        for target, _, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(#([^)]+))?\)", text):
            found = (file.parent / target).resolve() if target else file
            assert found.exists(), f"{file}: {target}"
            assert not anchor or anchor in anchors(found), f"{file}: {target}#{anchor}"


def anchors(file: Path) -> set[str]:
    """What can be linked to in a page, as hosting sites name it."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", file.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_can_be_found_from_the_readme() -> None:
    for file in FILES:
        assert f"]({file.relative_to(ROOT)})" in README or file == ROOT / "README.md"


def test_no_page_is_empty() -> None:
    assert {file.name for file, text in TEXTS.items() if len(text.split()) < 100} == set()


def test_the_readme_is_read_in_three_minutes() -> None:
    assert len(README.split()) <= 900


def test_each_promise_names_a_file_and_tests_that_exist() -> None:
    rows = table_after(page("guarantees"), "## Where each promise is kept")
    del rows["promise"]
    assert len(rows) >= 10
    for promise, row in rows.items():
        place, _, tests = row.partition(" | ")
        assert (ROOT / place.strip("`")).is_file(), f"{promise}: {place}"
        names = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", tests)
        assert len(names) == tests.count("::") > 0, promise
        for file, name in names:
            assert f"\ndef {name}(" in (ROOT / file).read_text(), f"{promise}: {file}::{name}"


def test_no_line_is_too_long_to_be_read() -> None:
    for file, text in TEXTS.items():
        # a row of a table cannot be broken
        long = [line for line in text.splitlines() if len(line) > 120 and not line.startswith("|")]
        assert not long, f"{file}: {long[0]}"
