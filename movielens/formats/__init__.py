"""How a line of a release is cut and judged: a file for each format, and here the table that lists them."""

from __future__ import annotations

from movielens.formats.base import Format
from movielens.formats.dat import DAT

__all__ = ["DAT", "FORMATS", "Format"]

FORMATS = (DAT,)
