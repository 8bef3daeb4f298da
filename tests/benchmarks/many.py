"""The time of backup-all over many small databases: what one backup costs beside its dump, and how that grows.

One PostgreSQL server holds the databases, the catalogue and the Prefect server's own database; two workers of one pool
take the runs, five at a time. A small database dumps in moments, so nearly all of the time is overhead: the start of a
process, Prefect, the preflight, the record, the retention.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg2

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.s3 import S3Server
from tests.benchmarks.measure import measured
from tests.support.many import Many, many

AT_ONCE = 5
#: Time per backup may grow by this factor at most from the smallest number of databases to the largest.
TARGET_GROWTH = 1.15
_SECONDS = 7200.0


@dataclass(frozen=True)
class ManyFigures:
    """One run of backup-all; seconds."""

    databases: int
    completed: int
    twice: int
    """Databases that were backed up more than once."""
    total: float
    """From the first state of backup-all to its last."""
    flow: float
    """The median of the backups' own flow runs."""
    dump: float
    """The median of `pg_dump > /dev/null` of one such database."""

    @property
    def each(self) -> float:
        """Total time over the number of databases."""
        return self.total / self.databases

    @property
    def overhead(self) -> float:
        """What one backup costs in all, while AT_ONCE go on side by side, beside its dump."""
        return self.total * AT_ONCE / self.databases - self.dump


def figures(numbers: Sequence[int], bin_directory: Path) -> list[ManyFigures]:
    """A run for each of `numbers`, in this order, on the same servers."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        cluster = PostgresCluster(directory / "postgresql", bin_directory, durable=False, owned=True)
        s3 = S3Server(directory / "s3", owned=True)
        cluster.start()
        s3.start()
        try:
            with many(directory, cluster, s3, _created) as scene:
                scene.start_worker("one")
                scene.start_worker("two")
                return [_one(scene, number, bin_directory) for number in sorted(numbers)]
        finally:
            s3.stop()
            cluster.stop(immediate=True)


def _one(scene: Many, number: int, bin_directory: Path) -> ManyFigures:
    plans = [f"small-{one}" for one in range(number)]
    print(f"Making {number} databases with a plan each …", flush=True)
    for plan in plans:
        if plan not in scene.plans:
            scene.add(plan)
    alone = [str(bin_directory / "pg_dump"), f"--dbname={scene.installation.world.cluster.url('small_0')}"]
    dump = statistics.median(measured(alone, {}, discard=True).seconds for _ in range(5))
    run = scene.installation.ended(
        scene.installation.begin("backup-all/backup-all-plans", plans=plans, at_once=AT_ONCE), _SECONDS
    )
    made = scene.installation.world.sql(
        "SELECT plan, count(*) FROM database_backups WHERE status = 'completed' AND run_id = ANY (%s) GROUP BY plan",
        [[child["id"] for child in _children(scene, run["id"], plans)]],
        scene.installation.world.catalogue_url,
    )
    flows = [child["total_run_time"] for child in _children(scene, run["id"], plans)]
    began, ended = (datetime.fromisoformat(run[name]) for name in ("start_time", "end_time"))
    result = ManyFigures(
        databases=number,
        completed=len(made),
        twice=sum(count > 1 for _, count in made),
        total=(ended - began).total_seconds(),
        flow=statistics.median(flows),
        dump=dump,
    )
    print(f"{number} databases: {result.total:.0f} s, {result.each:.2f} s each; {run['state']['name']}", flush=True)
    return result


def _children(scene: Many, run_id: str, plans: Sequence[str]) -> list[dict[str, Any]]:
    """The server gives 200 at once at most."""
    return [one for at in range(0, len(plans), 100) for one in scene.children(run_id, plans[at : at + 100])]


def _created(cluster: PostgresCluster, name: str) -> str:
    connection = psycopg2.connect(cluster.url())
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f'CREATE DATABASE "{name}" TEMPLATE template0')
    connection.close()
    return cluster.url(name)


def report(found: Sequence[ManyFigures]) -> str:
    """The figures as a markdown table."""
    rows = "\n".join(
        f"| {one.databases} | {one.completed} | {one.twice} | {one.total:.0f} s | {one.each:.2f} s | {one.flow:.1f} s "
        f"| {one.dump:.2f} s | {one.overhead:.1f} s |"
        for one in found
    )
    table = (
        "| databases | completed | twice | total | total / databases | flow run (median) | pg_dump > /dev/null "
        f"| overhead per backup |\n|---|---|---|---|---|---|---|---|\n{rows}"
    )
    if len(found) < 2:
        return table
    return f"{table}\n\nTime per backup, from {found[0].databases} to {found[-1].databases}: × {growth(found):.2f}."


def growth(found: Sequence[ManyFigures]) -> float:
    """By what factor the time per backup is larger with the most databases than with the fewest; 1 is linear."""
    return found[-1].each / found[0].each


def met(found: Sequence[ManyFigures]) -> bool:
    """Whether every database was backed up, none twice, and the time grew no more than in proportion."""
    return not found or (
        all(one.completed == one.databases and not one.twice for one in found) and growth(found) <= TARGET_GROWTH
    )
