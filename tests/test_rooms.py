"""The house: imports run downward, each room is small, and only the engines ask which engine it is."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from movielens import contract
from tests.support.project import ROOT

# From the top of the house to its ground; a room may import those below it, and what is in it
ORDER = [
    "movielens_pipeline", "arguments", "ending", "run", "rejects", "proof", "reading", "inputs", "archives", "contents",
    "formats", "transforms", "tables", "frames", "earlier", "publishing", "history", "summary", "manifest", "scratch",
    "runs", "failures", "terminal", "engines", "storage", "contract",
]  # fmt: skip
SCRIPT = ROOT / "movielens_pipeline.py"
FILES = [SCRIPT, *sorted((ROOT / "movielens").rglob("*.py"))]


def room_of(file: Path) -> str:
    """The room that a file is, or is in."""
    return "movielens_pipeline" if file == SCRIPT else file.relative_to(ROOT / "movielens").with_suffix("").parts[0]


def imported_rooms(file: Path) -> set[str]:
    """The rooms that a file imports, wherever in it, also for types only, or names to a module's loader."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "movielens":
            names |= {f"movielens.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names |= set(re.findall(r"^movielens\.[\w.]+$", node.value))
    return {name.split(".")[1] for name in names if name.startswith("movielens.")}


def test_imports_run_downward_only() -> None:
    graph = {(room_of(file), room) for file in FILES for room in imported_rooms(file)} - {
        (room, room) for room in ORDER
    }
    assert {room for arrow in graph for room in arrow} == set(ORDER)
    upward = sorted(f"{room} imports {other}" for room, other in graph if ORDER.index(other) <= ORDER.index(room))
    assert not upward, upward


def test_every_room_is_in_the_table_of_the_house() -> None:
    table = re.findall(r"^\| `(?:movielens/)?(\w+)(?:\.py|/)` \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert table == ORDER
    assert {room_of(file) for file in FILES} == {*ORDER, "__init__"}


def test_only_the_engines_ask_which_engine_it_is() -> None:
    for file in FILES:
        if room_of(file) != "engines":
            asked = re.findall(r'is_sail|[=!]= ?"(?:sail|spark)"|\.connect\.', file.read_text())
            assert not asked, file


def test_storages_are_chosen_by_the_engines_alone() -> None:
    for file in FILES:
        if room_of(file) not in ("engines", "storage"):
            assert not re.search(r"(?:Disk|S3|Hadoop)Storage", file.read_text()), file


def test_the_script_is_taken_in_at_once() -> None:
    assert len(SCRIPT.read_text().splitlines()) <= 150


def test_the_version_of_the_package_is_the_project_s() -> None:
    assert (ROOT / "VERSION").read_text().strip() == contract.VERSION
