"""How a line of a release is cut and judged: a file for each format, and here what they have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from movielens.contract import NUL_BYTE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyspark.sql import Column

    from movielens.contract import Field


def reason(wrong_lines: Sequence[tuple[Column, str]], fields: Sequence[Field], cut: Callable[[int], Column]) -> Column:
    """The first thing that is wrong in a line, STRING; NULL where nothing is.

    `wrong_lines` tells what is wrong with a `line` as a whole, and why; `cut` gives its fields, by their place.
    """
    chain = F.when(F.col("line").rlike(r"\x00"), NUL_BYTE)
    for wrong, why in wrong_lines:
        chain = chain.when(wrong, why)
    for place, field in enumerate(fields):
        for pattern, why in field.rules:
            # \z and not $, which in Java also matches before a line end
            chain = chain.when(~cut(place).rlike(rf"^{pattern}\z"), why)
    return chain
