"""Asks a server which databases it has, and which of them a plan means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg2.extensions import connection as Connection

from tasks.catalogue.catalogue import Catalogue
from tasks.catalogue.schema import labelled_tables
from tasks.plans.plan import Plan
from tasks.postgres.dsn import Dsn
from tasks.postgres.same_server import Server
from tasks.postgres.server import maintenance, rows, within_pg_catalog
from tasks.restore.labels import label_of

NAME = "backup: databases of the server"
#: What providers keep for themselves.
PROVIDERS = frozenset({"rdsadmin", "cloudsqladmin", "cloudsqlreplica", "azure_maintenance", "azure_sys"})
_DATABASES = """
    SELECT datname AS name, shobj_description(oid, 'pg_database') AS comment FROM pg_database
     WHERE datallowconn AND NOT datistemplate ORDER BY datname
"""
#: Whether the database of the session holds rows of somebody, beside a catalogue's relations and what extensions bring.
_HOLDS_MORE = """
    SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                    WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'm', 'f')
                      AND format('%%I.%%I', n.nspname, c.relname) <> ALL (%(own)s)
                      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                                         AND d.objid = c.oid AND d.deptype = 'e'))
        OR EXISTS (SELECT FROM pg_largeobject_metadata) AS more
"""
#: Whether the database of the session holds nothing but what comes with PostgreSQL.
_EMPTY = """
    SELECT NOT EXISTS (SELECT FROM pg_class WHERE oid >= 16384 AND relkind IN ('r', 'p', 'm', 'v', 'f', 'S')) AS empty
"""


@dataclass(frozen=True)
class Databases:
    """The databases of a server that people can connect to, by name."""

    names: tuple[str, ...]
    """Those that may hold somebody's data."""
    others: tuple[str, ...] = ()
    """Those of this system and of the provider: backed up only where a plan names them exactly."""
    empty: tuple[str, ...] = ()
    """Those of `names` that are known to hold nothing."""

    def meant_by(self, plan: Plan) -> tuple[str, ...]:
        """Those that a plan backs up, each as a plan of its own."""
        meant = [name for name in self.names if plan.databases.mean(name)]
        return tuple(sorted(meant + [name for name in self.others if plan.databases.name_exactly(name)]))


def databases_of(plan: Plan) -> Databases:
    """What the server of a plan has now. Templates, and databases that take no connections, are not among them.

    Raises AccessRefused, BadSetting, CatalogueUnavailable or Unreachable.
    """
    return databases_at(plan.database, plan.catalogue)


def databases_at(database: Dsn, catalogue: Catalogue) -> Databases:
    """The same for the address of a database and the catalogue of its plan."""
    with maintenance(database).session(NAME) as connection:
        within_pg_catalog(connection)
        found = rows(connection, _DATABASES)
        others = {row["name"] for row in found if _is_nobodys(row)}
        if _is_catalogues_alone(connection, catalogue, {row["name"] for row in found}):
            others.add(catalogue.dsn.dbname)
        names = [row["name"] for row in found if row["name"] not in others]
        [state] = rows(connection, f"{_EMPTY}, current_database()::text AS name")
    return Databases(tuple(names), tuple(sorted(others)), (state["name"],) if state["empty"] else ())


def _is_nobodys(row: dict[str, Any]) -> bool:
    return row["name"] in PROVIDERS or label_of(row["name"], row["comment"]) is not None


def _is_catalogues_alone(server: Connection, catalogue: Catalogue, names: set[str]) -> bool:
    """Whether a database of this server is the catalogue's, and holds nothing else: one with an application's tables is
    somebody's data. Another server can have one of the same name.
    """
    if catalogue.dsn.dbname not in names:
        return False
    with catalogue.dsn.session(NAME) as connection:
        within_pg_catalog(connection)
        if not Server(server).is_same(Server(connection)):
            return False
        [found] = rows(connection, _HOLDS_MORE, own=list(labelled_tables(connection)))
        return not found["more"]
