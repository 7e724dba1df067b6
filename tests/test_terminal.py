"""What a person sees while the job runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.inputs import RATINGS, rating_lines, write_input
from tests.support.jobs import Main


@pytest.mark.parametrize("length", [119, 120, 121, 500])
def test_a_line_is_shown_whole_up_to_120_characters_and_else_as_cut(
    engine: str, run_main: Main, tmp_path: Path, output_path: Path, length: int
) -> None:
    line = "1::10::" + "x" * (length - 8) + "y"
    folder = write_input(tmp_path / "in", rating_lines(RATINGS) + f"{line}\n".encode())
    status, said = run_main(engine, "--input_path", folder, "--output_path", output_path)
    assert status == 3
    shown = repr(line) if length <= 120 else repr(line[:120]) + "..."
    assert [found for found in said.splitlines() if "1::10::x" in found] == [
        f"{folder}/ratings.dat: fields missing: {shown}"
    ]
