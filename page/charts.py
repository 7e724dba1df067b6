"""Charts as shapes of SVG, in units that are about a pixel on a phone; the template draws them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from page.text import DAYS, compact, counted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WIDTH = 360
HEIGHT = 190
TOP, RIGHT, BOTTOM = 20, 10, 24
GAP = 6  # between an axis and what is written along it
CHARACTER = 6.2  # the width of a digit in the type of the axes
TICKS = 4
PALEST = 0.08
MOST_ABOVE = 12  # bars that have room for their number above
HOURS = 24


@dataclass(frozen=True)
class Shape:
    """An element of SVG: its attributes, the text in it, and what is said where one points at it."""

    tag: str
    attributes: dict[str, str | float]
    text: str = ""
    tip: str = ""


@dataclass(frozen=True)
class Bar:
    """A value of a chart: its label on the axis, and what is said of it; None where there is no value."""

    label: str
    value: float | None
    tip: str
    above: str = ""


@dataclass
class Chart:
    """A chart with the finding that it shows, what is drawn, and the same as a table."""

    name: str
    heading: str
    caption: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    height: float = HEIGHT
    shapes: list[Shape] = field(default_factory=list)
    width: int = WIDTH


def ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Some four round numbers, of which the first is at or below `low` and the last at or above `high`."""
    if high <= low:
        high = low + 1
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    if whole:
        step = max(1.0, math.ceil(step))
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [step * number for number in range(first, last + 1)]


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Shape:
    """A straight line."""
    return Shape("line", {"class": kind, "x1": x1, "y1": y1, "x2": x2, "y2": y2})


def text(x: float, y: float, said: str, anchor: str = "middle", kind: str = "tick") -> Shape:
    """A line of text."""
    return Shape("text", {"class": kind, "x": x, "y": y, "text-anchor": anchor}, said)


class Plane:
    """The area between the axes: where values and places are in it."""

    def __init__(self, chart: Chart, at: list[float], say: Callable[[float], str], places: int) -> None:
        self.chart, self.places = chart, places
        self.low, self.high = at[0], at[-1]
        self.left = GAP + CHARACTER * max(len(say(value)) for value in at)
        self.bottom = chart.height - BOTTOM
        self.pitch = (chart.width - RIGHT - self.left) / max(1, places)
        for value in at:
            y = self.y(value)
            chart.shapes += [
                line(self.left, y, chart.width - RIGHT, y, "axis" if value == at[0] else "grid"),
                text(self.left - GAP, y + 3.5, say(value), "end"),
            ]

    def y(self, value: float) -> float:
        """How far down a value is."""
        return self.bottom - (self.bottom - TOP) * (value - self.low) / (self.high - self.low)

    def x(self, place: float) -> float:
        """How far right a place is."""
        return self.left + self.pitch * place

    def write_labels(self, labels: Sequence[str], shift: float = 0.5) -> None:
        """Writes labels below the axis: all of them, or every second, fifth, tenth, ... where they are too many."""
        room = CHARACTER * max(map(len, labels), default=0) + GAP
        every = next(step for step in (1, 2, 5, 10, 20, 50, 100, 1000, 10_000) if step * self.pitch >= room)
        numbers = [int(label) for label in labels if label.isdigit()]
        # years are marked where they are round
        offset = -numbers[0] % every if len(numbers) == len(labels) and numbers and numbers[0] > 1000 else 0  # noqa: PLR2004
        for place in range(offset, len(labels), every):
            self.chart.shapes.append(text(self.x(place + shift), self.bottom + 15, labels[place]))


def columns(chart: Chart, bars: list[Bar], *, edges: bool = False) -> Chart:
    """Draws a column for each value, from zero; with `edges` a label stands where its column begins."""
    highest = max((bar.value or 0 for bar in bars), default=0)
    plane = Plane(chart, ticks(0, highest, whole=True), compact, len(bars))
    gap = min(3.0, plane.pitch * 0.2)
    for place, bar in enumerate(bars):
        y = plane.y(bar.value or 0)
        area = {"x": plane.x(place) + gap / 2, "y": y, "width": plane.pitch - gap, "height": plane.bottom - y}
        chart.shapes.append(Shape("rect", {"class": "bar", **area}, tip=bar.tip))
        if bar.above and len(bars) <= MOST_ABOVE:
            chart.shapes.append(text(plane.x(place + 0.5), y - 4, bar.above, kind="above"))
    plane.write_labels([bar.label for bar in bars], 0 if edges else 0.5)
    return chart


def curve(chart: Chart, points: list[Bar]) -> Chart:
    """Draws a line through the values, with gaps where there is none; the axis need not begin at zero."""
    values = [point.value for point in points if point.value is not None]
    low, high = min(values), max(values)
    at = ticks(low, high if high > low else low + 0.1)
    decimals = 0 if at[1] - at[0] >= 1 else 1 if round(at[1] - at[0], 6) * 10 % 1 == 0 else 2
    plane = Plane(chart, at, lambda value: f"{value:,.{decimals}f}", len(points))
    places = {place: plane.y(point.value) for place, point in enumerate(points) if point.value is not None}
    for place, other in pairwise(places):
        if other == place + 1:
            ends = plane.x(place + 0.5), places[place], plane.x(other + 0.5), places[other]
            chart.shapes.append(line(*ends, "curve"))
    for place, y in places.items():
        dot: dict[str, str | float] = {"class": "dot", "cx": plane.x(place + 0.5), "cy": y, "r": 2.4}
        chart.shapes.append(Shape("circle", dot, tip=points[place].tip))
    plane.write_labels([point.label for point in points])
    return chart


def week(chart: Chart, counts: list[int]) -> Chart:
    """Draws a week: a row a day, a field an hour, the darker the more."""
    left, top = 34.0, 8.0
    side = (chart.width - left - RIGHT) / HOURS
    chart.height = top + 7 * side + BOTTOM
    most = max(counts) or 1
    for number, count in enumerate(counts):
        day, hour = divmod(number, HOURS)
        shade = round(PALEST + (1 - PALEST) * count / most, 3)
        area = {"x": left + hour * side, "y": top + day * side, "width": side - 1, "height": side - 1}
        tip = f"{DAYS[day]} {hour:02}:00: {counted(count)}"
        chart.shapes.append(Shape("rect", {"class": "bar", "fill-opacity": shade, **area}, tip=tip))
    for day, name in enumerate(DAYS):
        chart.shapes.append(text(left - GAP, top + (day + 0.5) * side + 3.5, name, "end"))
    for hour in range(0, HOURS, 3):
        chart.shapes.append(text(left + (hour + 0.5) * side, chart.height - 9, f"{hour:02}"))
    return chart
