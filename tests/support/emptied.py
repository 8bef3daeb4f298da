"""PostgreSQL servers that several files of tests share: each file leaves them without databases and roles of its own."""

from __future__ import annotations

from contextlib import closing

import psycopg2
from psycopg2 import sql

from deployments.quick_start.postgres import PostgresCluster
from tests.support.installation import CATALOGUE, DATABASE

#: Roles that have something in a database of the installation stay.
DROP_ROLES = """
DO $$
DECLARE name text;
BEGIN
  FOR name IN SELECT rolname FROM pg_roles WHERE rolname <> current_user AND NOT starts_with(rolname, 'pg_') LOOP
    BEGIN
      EXECUTE format('DROP OWNED BY %I CASCADE', name);
      EXECUTE format('DROP ROLE %I', name);
    EXCEPTION WHEN dependent_objects_still_exist THEN
      EXECUTE format('ALTER ROLE %I NOSUPERUSER', name);
    END;
  END LOOP;
  EXECUTE format('ALTER ROLE %I RESET ALL', current_user);
END $$
"""


def emptied(cluster: PostgresCluster) -> None:
    """Drops what a file of tests has left: all databases but the two of the `installation`, whose plan `default` has the
    name of many plans, so that its kept databases would be theirs; all roles that none of these needs; settings of the
    superuser.
    """
    _drop_databases(cluster)
    _run(cluster.url(), DROP_ROLES)


def _drop_databases(cluster: PostgresCluster) -> None:
    with closing(psycopg2.connect(cluster.url())) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(
            "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname NOT IN ('postgres', %s, %s)",
            [CATALOGUE, DATABASE],
        )
        for (name,) in cursor.fetchall():
            drop = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
            try:
                cursor.execute(drop)
            except psycopg2.Error:
                cursor.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(sql.Identifier(name)))
                _let_go(cluster.url(name))
                cursor.execute(drop)


def _let_go(url: str) -> None:
    """Ends what keeps a database from being dropped: subscriptions, slots of replication, prepared transactions."""
    _run(
        url,
        *_run(
            url,
            "SELECT statement FROM (SELECT subname, subdbid FROM pg_subscription) AS own, LATERAL (VALUES"
            " (format('ALTER SUBSCRIPTION %I DISABLE', subname)),"
            " (format('ALTER SUBSCRIPTION %I SET (slot_name = NONE)', subname)),"
            " (format('DROP SUBSCRIPTION %I', subname))) AS statements (statement)"
            " WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
            " UNION ALL SELECT format('ROLLBACK PREPARED %L', gid) FROM pg_prepared_xacts WHERE database = current_database()"
            " UNION ALL SELECT format('SELECT pg_drop_replication_slot(%L)', slot_name) FROM pg_replication_slots"
            " WHERE database = current_database()",
        ),
    )


def _run(url: str, *statements: str) -> list[str]:
    """Runs statements one by one; returns the first column of what the last one answers."""
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        for statement in statements:
            cursor.execute(statement)
        return [value for (value,) in cursor.fetchall()] if cursor.description else []
