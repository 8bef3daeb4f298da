"""The time of a restore (swap) from S3 against psql and pg_restore from the local disk, and what its users notice.

`psql -1 -f` reads the same file, `pg_restore -j 2` a directory dump of the same database that is not compressed. All run
in turn on one server, psql and pg_restore with the session settings that the restore uses. The restore reads from an S3
server on disk over HTTP; counting rows, ANALYZE and the swap are in its time, and not in that of the others.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psycopg2
from psycopg2 import sql

from deployments.quick_start.databases import ensure_catalog_database, ensure_sample_database
from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.prefect_services import PrefectServer
from deployments.quick_start.s3 import S3Server
from tasks.catalogue.catalogue import Catalogue
from tasks.postgres.dsn import parse
from tasks.restore.psql import session_settings
from tests.benchmarks.measure import Measured, measured

TARGET_RATIO, TARGET_GAP = 1.15, 1.0
BUCKET = "bench"


@dataclass(frozen=True)
class RestoreFigures:
    """The medians for one size; seconds and bytes."""

    megabytes: int
    psql: float
    pg_restore: float
    flow: float
    """With two sessions (the plan field `jobs`)."""
    alone: float
    """The same with one session."""
    process: float
    peak: int
    swap: float
    gap: float
    """The longest time for which a client that writes and reads in a loop could not."""
    half_seen: int

    @property
    def ratio(self) -> float:
        """The flow's time over that of psql."""
        return self.flow / self.psql

    @property
    def against_pg_restore(self) -> float:
        """The flow's time over that of pg_restore; both have two sessions."""
        return self.flow / self.pg_restore


@dataclass(frozen=True)
class Round:
    """What was measured in turn."""

    psql: Measured
    pg_restore: Measured
    alone: Measured
    flow: Measured


class RestoreBench:
    """Measures restores on the servers of a bench."""

    def __init__(self, directory: Path, bin_directory: Path, postgres: PostgresCluster, prefect: PrefectServer) -> None:
        self._directory, self._bin, self._postgres, self._prefect = directory, bin_directory, postgres, prefect
        self._s3 = S3Server(directory / "s3", owned=True)

    def figures(self, megabytes: int, rounds: int) -> RestoreFigures:
        """Medians over the rounds, after one of each that does not count."""
        name = f"shop_{megabytes}"
        url = self._postgres.url(name)
        ensure_sample_database(self._postgres.url(), name, megabytes, lambda _: None)
        catalogue = Catalogue(parse(ensure_catalog_database(url)))
        catalogue.prepare()
        self._s3.start()
        try:
            self._s3.create_bucket(BUCKET)
            environment = self._environment(url)
            measured([sys.executable, "-m", "tests.benchmarks.timed_backup"], environment)
            file = self._directory / "local.sql"
            self._s3.client.download_file(BUCKET, catalogue.rows("default")[0].s3_key, str(file))
            self._dump_directory(url)
            measurements = [self._round(url, file, environment) for _ in range(rounds + 1)][1:]
            watched = [self._watched(environment) for _ in range(rounds)]
        finally:
            self._s3.stop()
        result = RestoreFigures(
            megabytes,
            psql=statistics.median(one.psql.seconds for one in measurements),
            pg_restore=statistics.median(one.pg_restore.seconds for one in measurements),
            flow=statistics.median(_said(one.flow.output)["flow seconds"] for one in measurements),
            alone=statistics.median(_said(one.alone.output)["flow seconds"] for one in measurements),
            process=statistics.median(one.flow.seconds for one in measurements),
            peak=max(one.flow.peak for one in measurements),
            swap=max(one["swap seconds"] for one in watched),
            gap=max(one["longest"] for one in watched),
            half_seen=int(sum(one["half"] for one in watched)),
        )
        print(
            f"{megabytes} MB, restore: ratio {result.ratio:.2f} (pg_restore {result.against_pg_restore:.2f}), peak {result.peak / 1e6:.0f} MB, "
            f"no connections for {result.gap * 1000:.0f} ms",
            flush=True,
        )
        return result

    def _round(self, url: str, file: Path, environment: dict[str, str]) -> Round:
        return Round(
            self._psql(url, file),
            self._pg_restore(url),
            self._restored(environment, jobs=1),
            self._restored(environment, jobs=2),
        )

    def _restored(self, environment: dict[str, str], jobs: int) -> Measured:
        self._settle()
        flow = measured([sys.executable, "-m", "tests.benchmarks.timed_restore", str(jobs)], environment)
        self._drop("%\\_\\_before\\_%")
        return flow

    def _settle(self) -> None:
        """Nothing of what ran before is left to be written."""
        self._run(sql.SQL("CHECKPOINT"))
        os.sync()

    def _watched(self, environment: dict[str, str]) -> dict[str, float]:
        """What a client notices of a restore, which takes a core that the restore would have."""
        client = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.client"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert client.stdout is not None
        client.stdout.readline()
        flow = measured([sys.executable, "-m", "tests.benchmarks.timed_restore"], environment)
        seen, _ = client.communicate("end\n")
        self._drop("%\\_\\_before\\_%")
        return _said(f"{flow.output} {seen}")

    def _psql(self, url: str, file: Path) -> Measured:
        """`psql -1 -f`, as docs/restore.md has it, into a new database."""
        return self._into_new(url, "psql", "-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-f", str(file))

    def _pg_restore(self, url: str) -> Measured:
        return self._into_new(url, "pg_restore", "--exit-on-error", "--jobs=2", str(self._directory / "dump"))

    def _into_new(self, url: str, program: str, *words: str) -> Measured:
        self._settle()
        self._drop("alone")
        self._run(sql.SQL("CREATE DATABASE alone TEMPLATE template0"))
        dsn = parse(url).with_dbname("alone").with_options(session_settings("swap", self._postgres.major * 10_000))
        arguments = [str(self._bin / program), "-d", dsn.conninfo(), *words]
        done = measured(arguments, dsn.child_environment("bench"), discard=True)
        self._drop("alone")
        return done

    def _dump_directory(self, url: str) -> None:
        """A dump for pg_restore, which is not compressed either."""
        dsn, directory = parse(url), self._directory / "dump"
        shutil.rmtree(directory, ignore_errors=True)
        words = [str(self._bin / "pg_dump"), "-d", dsn.conninfo(), "-Fd", "-Z0", "-j2", "-f", str(directory)]
        measured(words, dsn.child_environment("bench"), discard=True)

    def _drop(self, pattern: str) -> None:
        for (name,) in self._run(
            sql.SQL("SELECT datname FROM pg_database WHERE datname LIKE {}").format(sql.Literal(pattern))
        ):
            self._run(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def _run(self, statement: sql.Composable) -> list[tuple[str]]:
        connection = psycopg2.connect(self._postgres.url())
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def _environment(self, url: str) -> dict[str, str]:
        return {
            **os.environ,
            **self._prefect.environment(),
            "DATABASE_URL": url,
            "CATALOG_URL": "",
            "S3_ENDPOINT_URL": self._s3.endpoint_url,
            "S3_BUCKET": BUCKET,
            "CLOUDFLARE_ACCESS_KEY_ID": self._s3.access_key_id,
            "CLOUDFLARE_SECRET_ACCESS_KEY": self._s3.secret_access_key,
            "PG_BIN_DIRECTORY": str(self._bin),
            "SPOOL_DIRECTORY": str(self._directory / "spool"),
        }


def _said(output: str) -> dict[str, float]:
    """`name figure` by line or column, as timed_restore and the client print them."""
    found = {}
    words = output.split()
    for first, second, third in zip(words, words[1:], [*words[2:], ""], strict=False):
        if second == "seconds":
            found[f"{first} {second}"] = float(third)
        elif first in ("longest", "half"):
            found[first] = float(second)
    return found


def report(figures: list[RestoreFigures]) -> str:
    """The figures as a markdown table."""
    rows = "\n".join(
        f"| {one.megabytes} | {one.psql:.2f} s | {one.pg_restore:.2f} s | {one.alone:.2f} s | {one.flow:.2f} s "
        f"| **{one.ratio:.2f}** | {one.against_pg_restore:.2f} | {one.process / one.psql:.2f} "
        f"| {one.peak / 1e6:.0f} MB | {one.swap * 1000:.0f} ms | {one.gap * 1000:.0f} ms | {one.half_seen} |"
        for one in figures
    )
    return (
        "| plain MB | psql -1 -f | pg_restore -j2 | restore (swap), 1 job | 2 jobs | ratio to psql | to pg_restore "
        "| ratio, whole process | peak memory of the tree | swap | client without connection | half states seen |\n"
        f"|---|---|---|---|---|---|---|---|---|---|---|---|\n{rows}"
    )


def met(figures: list[RestoreFigures]) -> bool:
    """Whether the largest keeps to the target of time, and all to the others."""
    if not figures:
        return True
    largest = max(figures, key=lambda one: one.megabytes)
    return largest.ratio <= TARGET_RATIO and all(one.gap < TARGET_GAP and not one.half_seen for one in figures)
