"""`make bench`: the time of a backup against `pg_dump > /dev/null` of the same database, and its memory.

Then that of a restore, and that of many small databases; see tests.benchmarks.restores and tests.benchmarks.many.

Both run in turn, so that a machine that slows down slows both; each figure is the median of the rounds. The flow
runs as `python -m flows.backup` on a Prefect server; the S3 server discards what it is sent. The figure of a backup
is the flow run's own time, first state to last; `process` adds Python's start and imports.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from deployments.quick_start.databases import ensure_catalog_database, ensure_sample_database
from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.prefect_services import PrefectServer
from tasks.catalogue.catalogue import Catalogue
from tasks.postgres.dsn import parse
from tasks.postgres.tools import installed, wheel_bin_directory
from tests.benchmarks import many, restores
from tests.benchmarks.measure import Measured, measured

TARGET_RATIO, TARGET_MEMORY, TARGET_GROWTH = 1.15, 200_000_000, 1.05


@dataclass(frozen=True)
class Figures:
    """The medians for one size and codec."""

    megabytes: int
    codec: str
    pg_dump: float
    flow: float
    process: float
    peak: int

    @property
    def ratio(self) -> float:
        """The flow's time over that of `pg_dump > /dev/null`."""
        return self.flow / self.pg_dump


def main() -> int:
    """0 when the targets are met at the largest size, else 1. Whoever names sizes of one kind measures that alone."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("--megabytes", type=int, nargs="*")
    parser.add_argument("--codecs", nargs="+", default=["none"], choices=["none", "zstd", "gzip"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--restore-megabytes", type=int, nargs="*")
    parser.add_argument("--databases", type=int, nargs="*")
    given = parser.parse_args()
    every = all(one is None for one in (given.megabytes, given.restore_megabytes, given.databases))
    sizes, restore_sizes, numbers = (
        (default if every else asked or [])
        for asked, default in (
            (given.megabytes, [1000, 4000]),
            (given.restore_megabytes, [1000, 4000]),
            (given.databases, [50, 200]),
        )
    )
    with tempfile.TemporaryDirectory() as directory, Bench(Path(directory)) as bench:
        figures = [bench.figures(size, codec, given.rounds) for size in sizes for codec in given.codecs]
        restored = [bench.restores.figures(size, given.rounds) for size in restore_sizes]
    several = many.figures(numbers, _bin_directory()) if numbers else []
    told = [report(figures)] * bool(figures) + [restores.report(restored)] * bool(restored)
    print("\n\n".join([*told, *[many.report(several)] * bool(several)]))
    return 0 if met(figures) and restores.met(restored) and many.met(several) else 1


def _bin_directory() -> Path:
    """The client tools and the server that are measured: the system's, else those of the quick start."""
    places = [Path(tool.path).resolve().parent for tool in installed("postgres")]
    return next(found for found in (*places, wheel_bin_directory()) if found)


class Bench:
    """PostgreSQL, Prefect server and S3 sink, for the length of a `with` block."""

    def __init__(self, directory: Path) -> None:
        self._bin = _bin_directory()
        self._directory = directory
        self._postgres = PostgresCluster(directory / "postgresql", self._bin, durable=False, owned=True)
        self._prefect = PrefectServer(directory / "prefect", owned=True)
        self.restores = restores.RestoreBench(directory, self._bin, self._postgres, self._prefect)

    def __enter__(self) -> Bench:
        self._postgres.start()
        self._prefect.start()
        self._sink = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.sink"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._sink.stdout is not None
        self._port = int(self._sink.stdout.readline())
        return self

    def __exit__(self, *_: object) -> None:
        self._sink.kill()
        self._sink.wait()
        self._prefect.stop()
        self._postgres.stop(immediate=True)

    def figures(self, megabytes: int, codec: str, rounds: int) -> Figures:
        """Medians over the rounds, after one of each that does not count."""
        name = f"shop_{megabytes}"
        print(f"Filling a database of {megabytes} MB …", flush=True)
        ensure_sample_database(self._postgres.url(), name, megabytes, lambda _: None)
        url = self._postgres.url(name)
        catalogue = ensure_catalog_database(url)
        Catalogue(parse(catalogue)).prepare()
        pairs = [self._pair(url, codec) for _ in range(rounds + 1)][1:]
        result = Figures(
            megabytes,
            codec,
            pg_dump=statistics.median(dump.seconds for dump, _ in pairs),
            flow=statistics.median(_flow_seconds(flow) for _, flow in pairs),
            process=statistics.median(flow.seconds for _, flow in pairs),
            peak=max(flow.peak for _, flow in pairs),
        )
        print(f"{megabytes} MB, {codec}: ratio {result.ratio:.2f}, peak {result.peak / 1e6:.0f} MB", flush=True)
        return result

    def _pair(self, url: str, codec: str) -> tuple[Measured, Measured]:
        dsn = parse(url)
        alone = [str(self._bin / "pg_dump"), f"--dbname={dsn.conninfo()}"]
        dump = measured(alone, dsn.child_environment("bench"), discard=True)
        environment = {
            **os.environ,
            **self._prefect.environment(),
            "DATABASE_URL": url,
            "CATALOG_URL": "",
            "S3_ENDPOINT_URL": f"http://127.0.0.1:{self._port}",
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "COMPRESSION": codec,
            "PG_BIN_DIRECTORY": str(self._bin),
            "SPOOL_DIRECTORY": str(self._directory / "spool"),
        }
        return dump, measured([sys.executable, "-m", "tests.benchmarks.timed_backup"], environment)


def _flow_seconds(flow: Measured) -> float:
    return float(next(line for line in flow.output.splitlines() if line.startswith("flow seconds ")).split()[-1])


def report(figures: list[Figures]) -> str:
    """The figures as a markdown table."""
    rows = "\n".join(
        f"| {one.megabytes} | {one.codec} | {one.pg_dump:.2f} s | {one.flow:.2f} s | **{one.ratio:.2f}** "
        f"| {one.process / one.pg_dump:.2f} | {one.peak / 1e6:.0f} MB |"
        for one in figures
    )
    return (
        "| plain MB | codec | pg_dump > /dev/null | backup | ratio | ratio, whole process | peak memory of the tree |\n"
        f"|---|---|---|---|---|---|---|\n{rows}"
    )


def met(figures: list[Figures]) -> bool:
    """Whether ratio, memory and its growth keep to the targets, for uncompressed backups."""
    plain = sorted((one for one in figures if one.codec == "none"), key=lambda one: one.megabytes)
    if not plain:
        return True
    small, large = plain[0], plain[-1]
    return large.ratio <= TARGET_RATIO and large.peak <= TARGET_MEMORY and large.peak <= small.peak * TARGET_GROWTH


if __name__ == "__main__":
    sys.exit(main())
