"""Which databases of a server no plan backs up, by the addresses of all plans."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from tasks.databases.on_server import Databases
from tasks.plans.addresses import PlanAddress
from tasks.plans.database_patterns import DatabasePatterns
from tasks.postgres.dsn import Dsn

Place = tuple[str, int]


def place_of_server(dsn: Dsn) -> Place:
    """Host and port: the same for every plan whose address names the server alike."""
    return dsn.host, dsn.port


def uncovered(found: Databases, server: Place, plans: Iterable[PlanAddress]) -> list[str]:
    """The databases of a server that none of these plans backs up. Pure.

    Those of this system and of the provider do not count, nor those that are known to be empty. The one database
    of a plan that is only restored into is without backups on purpose; patterns of such a plan say nothing.
    """
    named: set[str] = set()
    patterns: list[DatabasePatterns] = []
    for plan in plans:
        if plan.database is None or place_of_server(plan.database) != server:
            continue
        if plan.databases:
            patterns += [] if plan.restore_only else [plan.databases]
        else:
            named.add(plan.database.dbname)
    return [name for name in found.names if name not in {*found.empty, *named} and not _mean(patterns, name)]


def _mean(patterns: Collection[DatabasePatterns], database: str) -> bool:
    return any(one.mean(database) for one in patterns)
