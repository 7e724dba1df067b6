"""Paths: a link that is switched while the job works, and names of any bytes in any locale, on either engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.inputs import RATINGS, rating_lines, write_input
from tests.support.jobs import Publish, disturb_when_all_is_written
from tests.support.places import Disk
from tests.support.results import assert_equal_by_check


@pytest.mark.parametrize("below", ["", "/below"])
def test_a_link_switched_during_a_run_breaks_no_result(
    engine: str, publish: Publish, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, below: str
) -> None:
    # given two results, and a link to the first
    earlier = write_input(tmp_path / "earlier", rating_lines(RATINGS[:4]))
    for version in ("v1", "v2"):
        publish("sail", earlier, f"{tmp_path}/{version}{below}")
    link = tmp_path / "current"
    link.symlink_to("v1")
    second = Disk(Path(f"{tmp_path}/v2{below}"))
    before = second.files()

    def switch() -> None:
        link.unlink()
        link.symlink_to("v2")

    # when it is switched to the second after a run wrote its datasets
    disturb_when_all_is_written(monkeypatch, switch)
    later = write_input(tmp_path / "later")
    said = publish(engine, later, f"{link}{below}")
    # then the run publishes where the link led when it began, and the second result stays as it was
    assert f"4 datasets in {link}{below} (" in said
    assert_equal_by_check(later, f"{tmp_path}/v1{below}")
    assert second.files() == before
