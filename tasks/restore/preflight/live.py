"""Problems of the database that is to be replaced. Asked on a connection to another database of the server."""

from __future__ import annotations

from psycopg2.extensions import connection as Connection

from tasks.errors import named
from tasks.postgres.server import rows

#: As pg_terminate_backend() decides it.
_UNENDABLE = """
    SELECT DISTINCT quote_ident(a.usename) AS name FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid
     WHERE a.datname = %(database)s AND current_setting('is_superuser') = 'off'
       AND (r.rolsuper OR NOT (pg_has_role(r.oid, 'USAGE') OR pg_has_role('pg_signal_backend', 'USAGE'))) ORDER BY 1
"""


def exists(server: Connection, database: str) -> bool:
    """Whether there is a database of this name."""
    [row] = rows(server, "SELECT count(*) AS n FROM pg_database WHERE datname = %(database)s", database=database)
    return bool(row["n"])


def quoted(server: Connection, name: str) -> str:
    """The name as SQL writes it."""
    [row] = rows(server, "SELECT quote_ident(%(name)s) AS name", name=name)
    return str(row["name"])


def state_problems(server: Connection, database: str) -> list[str]:
    """Whether it is a template, takes no connections, or holds transactions that are prepared and not yet done."""
    [row] = rows(
        server,
        """
        SELECT quote_ident(datname) AS name, datistemplate OR datname IN ('template0', 'template1') AS template,
               datallowconn, datconnlimit FROM pg_database WHERE datname = %(database)s
    """,
        database=database,
    )
    name, problems = row["name"], []
    if row["template"]:
        problems.append(f"Database {name} is a template: restore into another one, or into a new one.")
    if row["datconnlimit"] == -2:
        problems.append(f"Database {name} is invalid, because a DROP DATABASE of it was broken off: finish that first.")
    elif not row["datallowconn"]:
        problems.append(f"Database {name} takes no connections: run ALTER DATABASE {name} ALLOW_CONNECTIONS true.")
    prepared = rows(
        server,
        "SELECT quote_literal(gid) AS gid FROM pg_prepared_xacts WHERE database = %(database)s ORDER BY prepared",
        database=database,
    )
    return problems + named(
        f"Database {name} has the prepared transaction ",
        [transaction["gid"] for transaction in prepared],
        "run COMMIT PREPARED or ROLLBACK PREPARED for each.",
    )


def session_problems(server: Connection, me: str, database: str) -> list[str]:
    """Roles whose sessions in the database this role may not end; may pass, as they may end by themselves."""
    roles = [row["name"] for row in rows(server, _UNENDABLE, database=database)]
    return named(
        f"Role {me} may not end the sessions of ",
        roles,
        f"have them end, or run GRANT pg_signal_backend TO {me} (no help against superusers).",
    )


def left_behind(server: Connection, database: str) -> list[str]:
    """Warnings of what belongs to the old database and stays with it when another takes its name."""
    slots = rows(
        server,
        "SELECT quote_ident(slot_name) AS name FROM pg_replication_slots WHERE database = %(database)s ORDER BY 1",
        database=database,
    )
    subscriptions = rows(
        server,
        """
        SELECT quote_ident(s.subname) AS name FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
         WHERE d.datname = %(database)s ORDER BY 1
    """,
        database=database,
    )
    return [
        *named(
            "With the replaced database stays the logical replication slot ",
            [row["name"] for row in slots],
            "its readers need a new slot in the restored database.",
        ),
        *named(
            "With the replaced database stays the subscription ",
            [row["name"] for row in subscriptions],
            "drop it there, and refresh the one in the restored database.",
        ),
    ]
