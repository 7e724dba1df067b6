#!/usr/bin/env python3
"""The same four datasets by what a user would pick instead, each in its usual form.

Usage: peers.py PEER INPUT OUTPUT. None of them looks for bad lines, publishes safely or writes a manifest.
What is at s3:// is copied to the disk first, and the results back.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

DATASETS = ("ratings", "movies", "movies_with_stats", "top_movies_per_user")

TYPICAL_TOP = """
    SELECT userId, movieId, rating, timestamp, rank::INT AS rank FROM (
        SELECT *, row_number() OVER (PARTITION BY userId ORDER BY rating DESC, timestamp DESC, movieId) AS rank
        FROM ratings)
    WHERE rank <= 3"""
# the best of DuckDB's own forms: no sort, three structs for each user; the largest is the best
BEST_TOP = """
    SELECT userId, (-best.movie)::INT AS movieId, best.rating AS rating, best.time AS timestamp, rank::INT AS rank
    FROM (
        SELECT userId, unnest(best) AS best, generate_subscripts(best, 1) AS rank FROM (
            SELECT userId, max({'rating': rating, 'time': timestamp, 'movie': -movieId}, 3) AS best
            FROM ratings GROUP BY userId))"""


def file_of(target: Path, dataset: str) -> Path:
    """The one file of a dataset, in a folder of its own as the job has it."""
    (target / dataset).mkdir(parents=True)
    return target / dataset / "part.parquet"


def duckdb_with(top: str, source: Path, target: Path) -> None:
    """DuckDB with one or the other form of the top three."""
    import duckdb

    connection = duckdb.connect()
    connection.execute(
        f"""
        CREATE TABLE ratings AS SELECT * FROM read_csv('{source}/ratings.dat', delim='::', header=false, quote='',
            columns={{'userId': 'INT', 'movieId': 'INT', 'rating': 'FLOAT', 'timestamp': 'BIGINT'}});
        CREATE TABLE movies AS SELECT regexp_extract(line, '^([0-9]+)::', 1)::INT AS movieId,
            regexp_extract(line, '^[0-9]+::(.*)::', 1) AS title, regexp_extract(line, '.*::(.*)$', 1) AS genres
            FROM read_csv('{source}/movies.dat', delim='\x03', header=false, quote='', columns={{'line': 'VARCHAR'}});
        CREATE VIEW movies_with_stats AS SELECT m.*, max_rating, min_rating, avg_rating FROM movies m LEFT JOIN (
            SELECT movieId, max(rating) AS max_rating, min(rating) AS min_rating, avg(rating) AS avg_rating
            FROM ratings GROUP BY movieId) s ON m.movieId = s.movieId;
        CREATE VIEW top_movies_per_user AS {top};
        """
    )
    for name in DATASETS:
        connection.execute(f"COPY {name} TO '{file_of(target, name)}' (FORMAT parquet, COMPRESSION zstd)")


def duckdb_typical(source: Path, target: Path) -> None:
    """DuckDB with row_number, as most would write it."""
    duckdb_with(TYPICAL_TOP, source, target)


def duckdb_best(source: Path, target: Path) -> None:
    """DuckDB with max(struct, 3)."""
    duckdb_with(BEST_TOP, source, target)


def polars(source: Path, target: Path) -> None:
    """Polars, lazy; its separator is one character, so every second column is an empty one."""
    import polars as pl

    fields = {"userId": pl.Int32, "a": pl.String, "movieId": pl.Int32, "b": pl.String, "rating": pl.Float32}
    ratings = (
        pl.scan_csv(
            source / "ratings.dat",
            separator=":",
            has_header=False,
            quote_char=None,
            schema={**fields, "c": pl.String, "timestamp": pl.Int64},
        )
        .select("userId", "movieId", "rating", "timestamp")
        .collect()
    )
    line = pl.col("line")
    movies = pl.read_csv(
        source / "movies.dat", separator="\x03", has_header=False, quote_char=None, new_columns=["line"]
    ).select(
        line.str.extract(r"^([0-9]+)::").cast(pl.Int32).alias("movieId"),
        line.str.extract(r"^[0-9]+::(.*)::").alias("title"),
        line.str.extract(r".*::(.*)$").alias("genres"),
    )
    rating = pl.col("rating")
    statistics = ratings.group_by("movieId").agg(
        rating.max().alias("max_rating"),
        rating.min().alias("min_rating"),
        rating.cast(pl.Float64).mean().alias("avg_rating"),
    )
    top = (
        ratings.sort(["userId", "rating", "timestamp", "movieId"], descending=[False, True, True, False])
        .group_by("userId", maintain_order=True)
        .head(3)
        .with_columns((pl.int_range(pl.len()).over("userId") + 1).cast(pl.Int32).alias("rank"))
    )
    frames = {
        "ratings": ratings,
        "movies": movies,
        "movies_with_stats": movies.join(statistics, on="movieId", how="left"),
        "top_movies_per_user": top,
    }
    for name, frame in frames.items():
        frame.write_parquet(file_of(target, name))


def pandas(source: Path, target: Path) -> None:
    """pandas, by its fast parser, for which every second column is an empty one."""
    import pandas as pd

    ratings = pd.read_csv(
        source / "ratings.dat",
        sep=":",
        header=None,
        quoting=3,
        usecols=[0, 2, 4, 6],
        dtype={0: "int32", 2: "int32", 4: "float32", 6: "int64"},
    )
    ratings.columns = pd.Index(["userId", "movieId", "rating", "timestamp"])
    lines = pd.read_csv(source / "movies.dat", sep="\x03", header=None, quoting=3, names=["line"])["line"]
    movies = lines.str.extract(r"^(?P<movieId>[0-9]+)::(?P<title>.*)::(?P<genres>.*)$").astype({"movieId": "int32"})
    by_movie = ratings.assign(exact=ratings["rating"].astype("float64")).groupby("movieId")
    statistics = by_movie.agg(
        max_rating=("rating", "max"), min_rating=("rating", "min"), avg_rating=("exact", "mean")
    ).reset_index()
    ordered = ratings.sort_values(["userId", "rating", "timestamp", "movieId"], ascending=[True, False, False, True])
    top = ordered.groupby("userId").head(3).copy()
    top["rank"] = (top.groupby("userId").cumcount() + 1).astype("int32")
    frames = {
        "ratings": ratings,
        "movies": movies,
        "movies_with_stats": movies.merge(statistics, on="movieId", how="left"),
        "top_movies_per_user": top,
    }
    for name, frame in frames.items():
        frame.to_parquet(file_of(target, name), index=False)


def spark_plain(source: Path, target: Path) -> None:
    """Spark in the shape of the public versions of the job: CSV in, cache, a window, overwrite."""
    from pyspark.sql import SparkSession, Window
    from pyspark.sql import functions as F

    spark = SparkSession.builder.appName("plain").getOrCreate()
    ratings = spark.read.csv(
        str(source / "ratings.dat"), sep="::", schema="userId INT, movieId INT, rating FLOAT, timestamp BIGINT"
    ).cache()
    movies = spark.read.csv(
        str(source / "movies.dat"), sep="::", quote="", schema="movieId INT, title STRING, genres STRING"
    ).cache()
    statistics = ratings.groupBy("movieId").agg(
        F.max("rating").alias("max_rating"),
        F.min("rating").alias("min_rating"),
        F.avg("rating").alias("avg_rating"),
    )
    best_first = Window.partitionBy("userId").orderBy(F.desc("rating"), F.desc("timestamp"), "movieId")
    frames = {
        "ratings": ratings,
        "movies": movies,
        "movies_with_stats": movies.join(statistics, "movieId", "left"),
        "top_movies_per_user": ratings.withColumn("rank", F.row_number().over(best_first)).filter("rank <= 3"),
    }
    for name, frame in frames.items():
        frame.write.mode("overwrite").parquet(str(target / name))
    spark.stop()


PEERS: dict[str, Callable[[Path, Path], None]] = {
    function.__name__: function for function in (duckdb_typical, duckdb_best, polars, pandas, spark_plain)
}


def with_copies(peer: Callable[[Path, Path], None], source: str, target: str) -> None:
    """Runs a peer on a copy of what is in a bucket, and copies its results there."""
    import boto3

    client = boto3.client("s3")
    (source_bucket, source_key), (target_bucket, target_key) = (
        address.removeprefix("s3://").split("/", 1) for address in (source, target)
    )
    with tempfile.TemporaryDirectory() as scratch:
        copy, results = Path(scratch, "input"), Path(scratch, "output")
        copy.mkdir()
        for name in ("movies.dat", "ratings.dat"):
            client.download_file(source_bucket, f"{source_key}/{name}", str(copy / name))
        peer(copy, results)
        for path in results.rglob("*.parquet"):
            client.upload_file(str(path), target_bucket, f"{target_key}/{path.relative_to(results)}")


if __name__ == "__main__":
    name, given_source, given_target = sys.argv[1:]
    if given_source.startswith("s3://"):
        with_copies(PEERS[name], given_source, given_target)
    else:
        PEERS[name](Path(given_source), Path(given_target))
