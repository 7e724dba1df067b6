"""Makes docs/report.png, the picture of the page of the bundled dataset: python -m tests.picture [--to FILE]."""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

import report
from tests.support.jobs import run_job
from tests.support.pages import Opened, chromium
from tests.support.project import ROOT
from tests.support.results import manifest_of

WIDTH, HEIGHT = 1180, 2150  # down to the charts of who rates how much
COLOURS = 128
HOME = "/home/me/movielens_pipeline"
RUN = "20261122T134338Z-laptop-9c1b7de02a54-4711.88213-9f2c61aa"  # as in docs/output.md


def take(target: Path) -> None:
    """Runs the job on the bundled dataset and takes a picture of the upper part of its page."""
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        output, html = Path(folder) / "output", Path(folder) / "report.html"
        run_job("sail", "--input_path", ROOT / "dataset", "--output_path", output).check_returncode()
        report.make_page(str(output), html)
        shown = html.read_text().replace(folder, HOME).replace(str(ROOT), HOME)
        shown = shown.replace(manifest_of(output)["run_id"], RUN)
        html.write_text(shown)
        opened = Opened(browser, html, width=WIDTH)
        frame = {"x": 0.0, "y": 0.0, "width": float(WIDTH), "height": float(HEIGHT)}
        picture = opened.page.screenshot(full_page=True, clip=frame)  # type: ignore[arg-type]  # a TypedDict
        opened.close()
    Image.open(io.BytesIO(picture)).convert("RGB").quantize(COLOURS).save(target, optimize=True)


def main(argv: list[str]) -> int:
    """Takes the picture as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "report.png", help="(default: docs/report.png)")
    take(parser.parse_args(argv).to)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
