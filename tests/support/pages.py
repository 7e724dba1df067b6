"""Looking at HTML pages: their text, their tables, and a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

NO_TEXT = {"style", "script"}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class Parsed(HTMLParser):
    """A page: its headings in order, and the rows of each table by the heading that it follows."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.tags: list[str] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:  # noqa: ARG002  # the base's
        self.tags.append(tag)
        if tag not in ("meta", "link", "br", "wbr", "input"):
            self.open.append(tag)
        if tag in ("h1", "h2", "h3"):
            self.headings.append("")
        if tag == "table":
            self.tables[self.headings[-1]] = []
        if tag == "tr":
            self.tables[self.headings[-1]].append([])
        if tag in ("th", "td"):
            self.tables[self.headings[-1]][-1].append("")
        if tag == "br":
            self.handle_data("\n")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if NO_TEXT & set(self.open):
            return
        data = data.replace("\u202f", " ")
        self.text += data
        if {"h1", "h2", "h3"} & set(self.open):
            self.headings[-1] += data
        elif {"th", "td"} & set(self.open):
            self.tables[self.headings[-1]][-1][-1] += data

    def heading(self, part: str) -> str:
        """The one heading that has a part."""
        [found] = [heading for heading in self.headings if part in heading]
        return found

    def table(self, part: str) -> list[list[str]]:
        """The rows of the table below the heading that has a part, without its head and without fields that draw."""
        return [[cell.strip() for cell in row if cell] for row in self.tables[self.heading(part)][1:]]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window; skips the test where there is none."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("there is no Chromium; on Debian: apt-get install chromium")
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-quic", "--disable-sync"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=quiet)
        yield browser
        browser.close()


class Opened:
    """A page in the browser, with what it asked for and what it complained of."""

    def __init__(self, browser: Browser, html: Path, *, width: int = 1180, scheme: str = "light") -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if scheme == "dark" else "light",
            reduced_motion="reduce",
        )
        self.page: Page = context.new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))
        self.page.goto(html.as_uri())

    def close(self) -> None:
        """Closes it with its context."""
        self.page.context.close()
