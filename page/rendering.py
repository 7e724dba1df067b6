"""The page as text: the template with its style, its script and the movies to search, which need no other file."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from page.text import counted, visible

FOLDER = Path(__file__).parent
LONGEST_SEARCHED = 120  # characters of a title


def render(content: dict[str, Any], search: dict[str, list[Any]] | None) -> str:
    """The page with what `describe` found, and a search over the movies where they are given."""
    style, script = ((FOLDER / name).read_text() for name in ("style.css", "search.js"))
    environment = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    return environment.get_template("page.html.j2").render(
        **content,
        style=Markup(style),  # the project's own, as the script
        style_hash=integrity(style),
        script=Markup(script),
        script_hash=integrity(script),
        search=packed(search) if search else None,
        searched=counted(len(search["titles"]), "movie") if search else "",
    )


def integrity(source: str) -> str:
    """What a content security policy knows an inline style or script by."""
    return f"sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}"


def packed(search: dict[str, list[Any]]) -> str:
    """The movies as gzip in base64, which the script unpacks: a third of the size."""
    titles = [visible(title, LONGEST_SEARCHED) for title in search["titles"]]
    content = json.dumps({**search, "titles": titles}, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(content.encode(), mtime=0)).decode()
