"""Numbers, times and foreign text as the page says them."""

from __future__ import annotations

import math
import re
from datetime import datetime, timezone

SPACE = "\u202f"  # between a number and its unit: narrow, and never the end of a line
NOTHING = "\u2013"  # a dash, where a table has no number
LONGEST = 90
WHOLE_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
WHOLE_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def counted(number: float, noun: str = "") -> str:
    """`2,000`, with a noun `1 file`, `2,000 files`."""
    return f"{number:,.0f} {noun}{'' if number == 1 else 's'}" if noun else f"{number:,.0f}"


def compact(number: float) -> str:
    """`950`, `1.5k`, `12k`, `3M`: for axes."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"


def percent(share: float) -> str:
    """`35 %`, `4.2 %`; what is neither none nor all is not said to be."""
    hundredths = 100 * share
    if 0 < hundredths < 0.05:  # noqa: PLR2004  # would be 0.0
        return f"under 0.1{SPACE}%"
    if 99.5 <= hundredths < 100:  # noqa: PLR2004  # would be 100
        return f"over 99{SPACE}%"
    return f"{hundredths:.{0 if hundredths >= 10 or hundredths == 0 else 1}f}{SPACE}%"  # noqa: PLR2004


def size(number: int) -> str:
    """`512 B`, `2.5 MB`."""
    power = 0 if number < 1000 else min(4, int(math.log10(number)) // 3)  # noqa: PLR2004
    return f"{number / 1000**power:.{1 if power else 0}f}{SPACE}{('B', 'kB', 'MB', 'GB', 'TB')[power]}"


def change(before: int, after: int) -> str:
    """`+120 (+1.2 %)`, `none`."""
    if before == after:
        return "none"
    sign = "+" if after > before else "\u2212"
    share = f" ({sign}{percent(abs(after - before) / before)})" if before else ""
    return f"{sign}{abs(after - before):,}{share}"


def stars(number: float | None) -> str:
    """`3.58`; a dash where there is none."""
    return NOTHING if number is None else f"{number:.2f}"


def star_value(number: float) -> str:
    """`4`, `3.5`: a rating as it was given."""
    return f"{number:g}"


def visible(text: str, longest: int = LONGEST) -> str:
    """Foreign text for the page: control characters as their pictures, cut where it gets long."""
    shown = re.sub(r"[\x00-\x1f]", lambda found: chr(0x2400 + ord(found[0])), text[: longest + 1])
    shown = re.sub(r"[\x7f-\x9f\u2028\u2029]", "\ufffd", shown)
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def utc(text: str) -> datetime:
    """A time as the manifest has it."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)


def moment(time: datetime) -> str:
    """`25 November 2026, 13:20 UTC`."""
    return f"{time.day} {WHOLE_MONTHS[time.month - 1]} {time:%Y, %H:%M} UTC"


def date_of(seconds: int) -> str:
    """`2000-12-31`; the number itself where no calendar has it."""
    try:
        return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d}"
    except (OverflowError, ValueError, OSError):
        return str(seconds)


def lasted(started: str, finished: str) -> str:
    """`12 s`, `2 min 5 s`."""
    seconds = round((utc(finished) - utc(started)).total_seconds())
    minutes, rest = divmod(seconds, 60)
    if minutes:
        return f"{minutes}{SPACE}min {rest}{SPACE}s"
    return f"{seconds}{SPACE}s" if seconds else f"under 1{SPACE}s"
