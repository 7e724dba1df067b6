"""How a line of a release is cut and judged: a file for each format, and here the table that lists them."""

from __future__ import annotations

from movielens.formats.base import Format
from movielens.formats.csv import CSV
from movielens.formats.dat import DAT
from movielens.formats.ml100k import ML100K

__all__ = ["CSV", "DAT", "FORMATS", "ML100K", "Format"]

FORMATS = (DAT, CSV, ML100K)
