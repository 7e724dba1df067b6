"""Messages compared whole: each stands in a file of tests/support/golden, the paths of the run replaced by names."""

from __future__ import annotations

import os
import re
from pathlib import Path

FOLDER = Path(__file__).parent / "golden"


def assert_golden(name: str, said: str, **places: object) -> None:
    """What was said equals tests/support/golden/<name>.txt; UPDATE_GOLDEN=1 writes the file instead."""
    for place, path in places.items():
        said = said.replace(str(path), f"<{place}>")
    said = re.sub(r"\d+\.\d+ s\b", "<seconds>", said)
    said = re.sub(r"(sail|spark) \d+\.\d+\.\d+ \(the other: [^)]*\)", "<engine>", said)
    file = FOLDER / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(said)
    assert said == file.read_text()
