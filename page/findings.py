"""What the figures say: headings, marks, charts, and all else that the template shows."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from page import charts
from page.charts import Bar, Chart
from page.text import (
    DAYS,
    NOTHING,
    SPACE,
    WHOLE_DAYS,
    WHOLE_MONTHS,
    change,
    counted,
    date_of,
    lasted,
    moment,
    percent,
    size,
    star_value,
    stars,
    utc,
    visible,
)  # fmt: skip

if TYPE_CHECKING:
    from datetime import datetime

    from page.figures import Figures, Genre, Spread
    from page.published import Result

# The share up to which a finding is fine, and beyond which it is wrong
DENSITY_FROM, DENSITY_TO = 0.0001, 0.2
UNRATED_FINE, UNRATED_WRONG = 0.1, 0.5
WRONG = 0.01
FEW_WRONG = 0.5
HIGH = 4.0  # stars
LEAST_WRITTEN = 0.005  # of all, for a share that is written above its column
MONTHLY_UP_TO = 36  # months
LEAST_FOR_A_MEAN = 10  # ratings
HARDLY = 0.05  # stars
RUNS_DRAWN = 60
FINE, LOOK, BAD = "fine", "look", "wrong"


@dataclass(frozen=True)
class Check:
    """A question about the result: its mark (fine, look, wrong), what was asked, when it is fine, the answer."""

    mark: str
    what: str
    fine_when: str
    answer: str


def describe(result: Result, figures: Figures, now: datetime) -> dict[str, Any]:
    """All that the template shows."""
    checks = health(result, figures)
    return {
        "title": title(figures),
        "run": run(result, figures, now),
        "checks": checks,
        "health_heading": health_heading(checks),
        "how": how_people_rate(figures),
        "who": who_and_what(figures),
        "movies": movies(figures),
        "tops": tops(figures),
    }


def title(figures: Figures) -> str:
    """What it is, in numbers."""
    sizes = counted(figures.rows["ratings"], "rating"), counted(figures.rows["movies"], "movie")
    return f"{sizes[0]} of {sizes[1]} by {counted(figures.users, 'user')}"


def part(whole: float, total: float) -> float:
    """A share; none of nothing."""
    return whole / total if total else 0.0


# --------------------------------------------------------------------------------------------------------------------
# The run


def run(result: Result, figures: Figures, now: datetime) -> dict[str, Any]:
    """When, by what, from what, what became of the lines, and the result before."""
    manifest = result.manifest
    inputs, rejects = manifest["input_files"], manifest["rejects"]
    if rejects:
        heading = f"{counted(rejects, 'line')} {'was' if rejects == 1 else 'were'} rejected"
    elif inputs and all(file.get("accounted") for file in inputs):
        heading = "Every byte of the input is accounted for"
    else:
        heading = "No line of the input was rejected"
    earlier = rows_before(result)
    return {
        "heading": heading,
        "finished": moment(utc(manifest["finished"])),
        "made": moment(now),
        "engine": f"{manifest['engine']['name'].capitalize()} {manifest['engine']['version']}",
        "job": manifest["job_version"],
        "id": manifest["run_id"],
        "output": result.output,
        "seconds": lasted(manifest["started"], manifest["finished"]),
        "input_size": size(sum(file["bytes"] for file in inputs)),
        "input_count": counted(len(inputs), "file"),
        "input_format": manifest["input_format"],
        "inputs": [
            {
                "path": file["path"],
                "bytes": size(file["bytes"]),
                "accounted": {True: "all", False: "not all"}.get(file.get("accounted")),
            }
            for file in inputs
        ],
        "has_earlier": bool(earlier),
        "datasets": [
            {
                "name": name,
                "rows": counted(dataset["rows"]),
                "before": counted(earlier[name]) if name in earlier else NOTHING,
                "change": change(earlier[name], dataset["rows"]) if name in earlier else NOTHING,
                "files": counted(len(dataset["files"])),
                "bytes": size(dataset["bytes"]),
            }
            for name, dataset in manifest["datasets"].items()
        ],
        "reasons": [
            {
                "dataset": reason.dataset,
                "reason": reason.reason,
                "lines": counted(reason.lines),
                "examples": [visible(example) for example in reason.examples],
            }
            for reason in figures.reasons
        ],
        "charts": history(result),
    }


def rows_before(result: Result) -> dict[str, int]:
    """The rows of each dataset in the result before, where the manifest or the history knows them."""
    told: dict[str, int] = (result.manifest.get("previous") or {}).get("rows", {})
    # the history may know of a later run
    before = [*takewhile(lambda run: run["run_id"] != result.manifest["run_id"], result.history)]
    return told or (rows_of(before[-1]) if before else {})


def rows_of(run: dict[str, Any]) -> dict[str, int]:
    """The rows of the datasets of a run in the history."""
    return {name: dataset["rows"] for name, dataset in run["datasets"].items() if isinstance(dataset, dict)}


def history(result: Result) -> list[Chart]:
    """Rows and seconds of the last runs, where there were several."""
    runs = [run for run in result.history if "ratings" in rows_of(run)][-RUNS_DRAWN:]
    if len(runs) < 2:  # noqa: PLR2004  # one is no history
        return []
    days = [run["finished"][5:10] for run in runs]
    rows = [rows_of(run)["ratings"] for run in runs]
    seconds = [(utc(run["finished"]) - utc(run["started"])).total_seconds() for run in runs]
    table = [
        (run["finished"], counted(count), f"{took:,.0f}") for run, count, took in zip(runs, rows, seconds, strict=True)
    ]
    names = ("finished, UTC", "ratings", "seconds")
    grown = charts.columns(
        Chart("history-rows", f"The last {len(runs)} runs: {counted(rows[0])} to {counted(rows[-1])} ratings",
              "Ratings of each published run, by the day that it finished", names, table),
        [Bar(day, count, f"{day}: {counted(count)}") for day, count in zip(days, rows, strict=True)],
    )  # fmt: skip
    lasting = charts.columns(
        Chart("history-seconds", f"They took {min(seconds):,.0f} to {max(seconds):,.0f} seconds",
              "Seconds of each published run, by the day that it finished", names, table),
        [Bar(day, took, f"{day}: {took:,.0f} s") for day, took in zip(days, seconds, strict=True)],
    )  # fmt: skip
    return [grown, lasting]


# --------------------------------------------------------------------------------------------------------------------
# Health


def health(result: Result, figures: Figures) -> list[Check]:
    """The questions that tell whether the result makes sense."""
    rows, datasets = figures.rows, result.manifest["datasets"]
    ratings, movies, users = rows["ratings"], rows["movies"], figures.users
    density = part(ratings, users * movies)
    uneven = sum(count for value, count in figures.stars.items() if value * 2 % 1)
    differing = [name for name in datasets if rows[name] != datasets[name]["rows"]]
    fitting = rows["movies_with_stats"] == movies and rows["top_movies_per_user"] == figures.top_rows_expected
    rejects = result.manifest["rejects"]
    return [
        Check(BAD if differing else FINE, "Rows in the files", "as many as the manifest says",
              f"other in {', '.join(differing)}" if differing else counted(sum(rows.values()))),
        Check(FINE if fitting else BAD, "Datasets fit each other", "statistics of each movie, three rows a user",
              "yes" if fitting else "no"),
        Check(FINE if ratings else BAD, "Ratings", "there are some", counted(ratings)),
        Check(FINE if movies else BAD, "Movies", "there are some", counted(movies)),
        Check(FINE if users else BAD, "Users", "there are some", counted(users)),
        Check(FINE if DENSITY_FROM <= density <= DENSITY_TO else LOOK, "Density: ratings of all that could be",
              f"0.01 to 20{SPACE}%; MovieLens has 0.2 to 6", percent(density)),
        check(figures.unrated, movies, "Movies nobody rated", up_to=UNRATED_FINE, wrong=UNRATED_WRONG),
        check(figures.of_unknown_movies, ratings, "Ratings of unknown movies"),
        check(figures.repeated, ratings, "Ratings by a user who rated the movie before"),
        check(figures.users_below_top, users, "Users with fewer than three ratings", wrong=FEW_WRONG),
        check(figures.out_of_time, ratings, "Ratings before 1995 or later than today"),
        check(uneven, ratings, "Ratings that are not half or whole stars"),
        check(rejects, ratings + movies + rejects, "Rejected lines"),
    ]  # fmt: skip


def check(count: int, total: int, what: str, *, up_to: float = 0.0, wrong: float = WRONG) -> Check:
    """A check of a count, by its share of all: up to which it is fine, and beyond which it is wrong."""
    share = part(count, total)
    mark = FINE if share <= up_to else BAD if share > wrong else LOOK
    return Check(
        mark,
        what,
        f"up to {percent(up_to)}" if up_to else "none",
        f"{counted(count)} ({percent(share)})" if count else "0",
    )


def health_heading(checks: list[Check]) -> str:
    """How many checks are not fine."""
    marks = Counter(check.mark for check in checks)
    said = []
    if marks[BAD]:
        said.append(f"{marks[BAD]} {'is' if marks[BAD] == 1 else 'are'} wrong")
    if marks[LOOK]:
        said.append(f"{marks[LOOK]} {'deserves' if marks[LOOK] == 1 else 'deserve'} a look")
    return f"Of {len(checks)} checks {' and '.join(said)}" if said else f"All {len(checks)} checks are fine"


# --------------------------------------------------------------------------------------------------------------------
# How people rate


def how_people_rate(figures: Figures) -> dict[str, Any]:
    """Stars, times, and means over time."""
    high = part(sum(count for value, count in figures.stars.items() if value >= HIGH), figures.rows["ratings"])
    heading = f"{percent(high)} of the ratings are four stars or more; the mean is {stars(figures.mean)}"
    drawn = [stars_chart(figures)]
    if figures.months:
        drawn += [*time_charts(figures), week_chart(figures)]
    return {"heading": heading if figures.rows["ratings"] else "There are no ratings", "charts": drawn}


def stars_chart(figures: Figures) -> Chart:
    """How often each number of stars is given."""
    given = Counter[float]()
    for value, count in figures.stars.items():
        given[math.floor(2 * value + 0.5) / 2] += count
    step = 1 if all(value % 1 == 0 for value in given) else 0.5
    scale = [step * number for number in range(1, int(5 / step) + 1)]
    total = figures.rows["ratings"]
    most = max(scale, key=lambda value: given[value])
    rounded = "" if all(value * 2 % 1 == 0 for value in figures.stars) else ", rounded to half stars"
    return charts.columns(
        Chart(
            "stars", f"{star_value(most)} stars are given most, {percent(part(given[most], total))} of the time",
            f"Ratings by stars given{rounded}", ("stars", "ratings", "share"),
            [(star_value(value), counted(given[value]), percent(part(given[value], total))) for value in scale],
        ),
        [
            Bar(star_value(value), given[value], f"{star_value(value)} stars: {counted(given[value])}",
                f"{100 * part(given[value], total):.0f}{SPACE}%" if part(given[value], total) >= LEAST_WRITTEN else "")
            for value in scale
        ],
    )  # fmt: skip


def periods(months: list[tuple[int, int, float]]) -> tuple[str, list[tuple[str, str, int, float]]]:
    """`year`, or `month` where all is within three years; of each the label, the name, ratings, the sum of stars."""
    first, last = months[0][0], months[-1][0]
    monthly = last - first < MONTHLY_UP_TO
    length = 1 if monthly else 12
    counts, sums = Counter[int](), Counter[int]()
    for month, ratings, mean in months:
        counts[month // length] += ratings
        sums[month // length] += ratings * mean  # type: ignore[assignment]  # a sum of stars
    found = []
    for number in range(first // length, last // length + 1):
        year, month = divmod(number * length, 12)
        name = f"{WHOLE_MONTHS[month]} {year}" if monthly else str(year)
        label = f"{WHOLE_MONTHS[month][:3]} {year % 100:02}" if monthly else name
        found.append((label, name, counts[number], float(sums[number])))
    return ("month" if monthly else "year"), found


def time_charts(figures: Figures) -> list[Chart]:
    """Ratings and their mean over time."""
    unit, found = periods(figures.months)
    names = (unit, "ratings", "mean, stars")
    table = [(name, counted(count), stars(total / count if count else None)) for _, name, count, total in found]
    most = max(found, key=lambda period: period[2])
    times = charts.columns(
        Chart("times", f"{most[1]} saw the most ratings, {counted(most[2])}", f"Ratings a {unit}, UTC", names, table),
        [Bar(label, count, f"{name}: {counted(count)}") for label, name, count, _ in found],
    )
    points = [
        Bar(label, total / count if count >= LEAST_FOR_A_MEAN else None, f"{name}: {stars(total / max(count, 1))}")
        for label, name, count, total in found
    ]
    known = [(name, point.value) for (_, name, _, _), point in zip(found, points, strict=True) if point.value]
    if not known:
        return [times]
    (first, early), (last, late) = known[0], known[-1]
    if first == last:
        heading = f"The mean of {first} is {stars(early)}"
    elif abs(late - early) < HARDLY:
        heading = f"The mean hardly moved: {stars(early)} in {first}, {stars(late)} in {last}"
    else:
        moved = "rose" if late > early else "fell"
        heading = f"The mean {moved} from {stars(early)} in {first} to {stars(late)} in {last}"
    means = Chart(
        "means", heading,
        f"Mean rating a {unit}, stars, where there are ten ratings or more; mind where the axis begins", names, table,
    )  # fmt: skip
    return [times, charts.curve(means, points)]


def week_chart(figures: Figures) -> Chart:
    """When in the week people rate."""
    busiest = figures.week.index(max(figures.week))
    day, hour = divmod(busiest, charts.HOURS)
    rows = [
        (f"{hour:02}:00", *(counted(figures.week[day * charts.HOURS + hour]) for day in range(len(DAYS))))
        for hour in range(charts.HOURS)
    ]
    few, most = counted(min(figures.week)), counted(max(figures.week))
    return charts.week(
        Chart(
            "week", f"{WHOLE_DAYS[day]} from {hour:02}:00 to {(hour + 1) % charts.HOURS:02}:00 UTC is the busiest hour",
            f"Ratings by hour and weekday; the palest field has {few}, the darkest {most}", ("hour", *DAYS), rows,
        ),
        figures.week,
    )  # fmt: skip


# --------------------------------------------------------------------------------------------------------------------
# Who and what


def who_and_what(figures: Figures) -> dict[str, Any]:
    """How unevenly ratings are spread over users, movies and genres."""
    drawn, heading = [], "Nobody rated"
    if figures.users:
        users, rated = figures.per_user, figures.per_movie
        heading = (
            f"{top_of(users, 'user')} gave {percent(users.share_of_top)} of the ratings; "
            f"{top_of(rated, 'movie').lower()} got {percent(rated.share_of_top)}"
        )
        drawn.append(spread_chart(users, "user", "gave", ""))
        unrated = f"; {counted(figures.unrated)} more got none" if figures.unrated else ""
        drawn.append(spread_chart(rated, "movie", "got", unrated))
    genres = [genre for genre in figures.genres if genre.ratings]
    most = max((genre.ratings for genre in genres), default=0)
    means = [genre.mean for genre in genres if genre.mean is not None]
    at = charts.ticks(min(means), max(means)) if means else [0.0, 5.0]
    return {
        "heading": heading,
        "charts": drawn,
        "genres_heading": genres_heading(genres),
        "genres_more": figures.genre_count - len(figures.genres),
        "genres_axis": (star_value(round(at[0], 2)), star_value(round(at[-1], 2))),
        "genres": [
            {
                "name": visible(genre.name, 40),
                "movies": counted(genre.movies),
                "ratings": counted(genre.ratings),
                "mean": stars(genre.mean),
                "bar": round(100 * part(genre.ratings, most), 1),
                "dot": None if genre.mean is None else round(4 + 92 * (genre.mean - at[0]) / (at[-1] - at[0]), 1),
            }
            for genre in figures.genres
        ],
    }


def genres_heading(genres: list[Genre]) -> str:
    """Which is rated most, and which best."""
    if not genres:
        return "No genre is rated"
    most, best = (visible(genre.name, 40) for genre in (genres[0], max(genres, key=lambda genre: genre.mean or 0)))
    return f"{most} is rated most and best" if most == best else f"{most} is rated most, {best} best"


def top_of(spread: Spread, noun: str) -> str:
    """`1 % of users`, `One user` where that is no more."""
    return f"One {noun}" if spread.top == 1 else f"1{SPACE}% of {noun}s"


def spread_chart(spread: Spread, noun: str, verb: str, more: str) -> Chart:
    """How many have how many ratings, in doublings."""

    def bounds(doubling: int) -> str:
        low, high = 2**doubling, 2 ** (doubling + 1) - 1
        return counted(low) if low == high else f"{counted(low)} to {counted(high)}"

    first = next((doubling for doubling, count in enumerate(spread.doublings) if count), 0)
    shown = list(enumerate(spread.doublings))[first:]
    return charts.columns(
        Chart(
            f"per-{noun}", f"Half of the {noun}s {verb} {counted(spread.median, 'rating')} or fewer",
            f"{noun.capitalize()}s by their ratings: a column goes from the number at its left to twice as many{more}",
            (f"ratings of a {noun}", f"{noun}s"), [(bounds(doubling), counted(count)) for doubling, count in shown],
        ),
        [Bar(compact_power(doubling), count, f"{bounds(doubling)}: {counted(count)}") for doubling, count in shown],
        edges=True,
    )  # fmt: skip


def compact_power(doubling: int) -> str:
    """A power of two as a label: `512`, `4k` for 4,096."""
    thousands, rest = divmod(doubling, 10)
    return f"{2**rest}{('', 'k', 'M')[thousands]}"


# --------------------------------------------------------------------------------------------------------------------
# Movies and top three


def movies(figures: Figures) -> dict[str, Any]:
    """Rated most, best, and most disputed."""

    def listed(found: list[Any]) -> list[dict[str, str]]:
        return [
            {"title": visible(movie.title), "ratings": counted(movie.ratings), "mean": stars(movie.mean),
             "value": stars(movie.value)}
            for movie in found
        ]  # fmt: skip

    heading = "No movie is rated"
    if figures.most_rated:
        most, best = visible(figures.most_rated[0].title, 60), visible(figures.best[0].title, 60)
        heading = f"{most} is rated most and best" if most == best else f"{most} is rated most, {best} best"
    return {
        "heading": heading,
        "enough": counted(figures.enough, "rating"),
        "enough_number": counted(figures.enough),
        "mean": stars(figures.mean),
        "most_rated": listed(figures.most_rated),
        "best": listed(figures.best),
        "disputed": listed(figures.disputed),
    }


def tops(figures: Figures) -> dict[str, Any]:
    """The top three of some users, and the movies that are often among them."""
    heading = "Nobody has a top three"
    if figures.often_in_tops:
        share = part(figures.movies_in_tops, figures.rows["movies"])
        heading = (
            f"{counted(figures.movies_in_tops, 'movie')}, {percent(share)} of all, are in somebody\u2019s top three"
        )
    users: dict[int, dict[str, Any]] = {}
    for pick in figures.picks:
        user = users.setdefault(
            pick.user, {"id": pick.user, "ratings": counted(pick.ratings_of_user, "rating"), "picks": []}
        )
        user["picks"].append(
            {"title": visible(pick.title), "rating": star_value(pick.rating), "date": date_of(pick.time)}
        )
    return {
        "heading": heading,
        "users": list(users.values()),
        "often": [
            {
                "title": visible(movie.title),
                "users": counted(movie.value),
                "share": percent(part(movie.value, figures.users)),
                "ratings": counted(movie.ratings),
            }
            for movie in figures.often_in_tops
        ],
    }
