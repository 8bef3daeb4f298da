"""What stands in the way of a dump: looked for all at once, before anything is changed.

Every function answers with a list of sentences for a person (what is wrong, which thing, what to do next); an empty
list means that nothing stands in the way. Names are written as PostgreSQL writes them, quoted where needed. The
functions that take a connection only read the catalogues, so a hot standby will do.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Collection
from contextlib import closing
from pathlib import Path

import psycopg2
from psycopg2.extensions import connection as Connection

from tasks.backup.source import DUMPED_RELATIONS
from tasks.errors import BackupSystemError, BadSetting, Unreachable, named
from tasks.postgres.server import rows
from tasks.storage.spool import own_directory

_ROUNDS = 5
_GO_DIRECT = "give the direct address of the database server"
#: What PgBouncer and its kin say and PostgreSQL never does, with what it means for a dump.
_POOLER_SAYS = {
    "unsupported startup parameter": "refuses a setting that a dump needs",
    "statement pooling mode": "lends out server connections for one statement at a time, which would tear a dump apart",
}

#: What LOCK TABLE and COPY of pg_dump need. From 18 on it reads sequences by number: no USAGE on their schema.
_NEEDED = f"SELECT * FROM ({DUMPED_RELATIONS}) r WHERE relkind <> 'm'"
_CLOSED_SCHEMAS = f"""
    SELECT DISTINCT quote_ident(nspname) AS name FROM ({_NEEDED}) needed
     WHERE NOT has_schema_privilege(schema_oid, 'USAGE')
       AND (relkind <> 'S' OR current_setting('server_version_num')::int < 180000)
     ORDER BY name
"""
_CLOSED_RELATIONS = f"""
    SELECT name, relkind = 'S' AS is_sequence FROM ({_NEEDED}) needed
     WHERE NOT has_table_privilege(oid, 'SELECT') ORDER BY name
"""
_HIDING_TABLES = f"""
    SELECT d.name, c.relforcerowsecurity AS forced
      FROM ({DUMPED_RELATIONS}) d JOIN pg_class c USING (oid)
     WHERE d.relkind = 'r' AND row_security_active(oid) ORDER BY d.name
"""
#: Before 18 there is no function that asks for a privilege on a large object.
_CLOSED_OBJECTS_BEFORE_18 = """
    SELECT oid::text AS name FROM pg_largeobject_metadata
     WHERE current_setting('lo_compat_privileges') = 'off' AND current_setting('is_superuser') = 'off'
       AND NOT EXISTS (SELECT FROM aclexplode(coalesce(lomacl, acldefault('L', lomowner))) a
                        WHERE a.privilege_type = 'SELECT' AND (a.grantee = 0 OR pg_has_role(a.grantee, 'USAGE')))
     ORDER BY oid
"""
_CLOSED_OBJECTS = """
    SELECT oid::text AS name FROM pg_largeobject_metadata
     WHERE NOT has_largeobject_privilege(oid, 'SELECT') ORDER BY pg_largeobject_metadata.oid
"""


def database_problems(
    connect: Callable[[], Connection],
    host: str,
    port: int,
    excluded: Collection[str] = (),
    emptied: Collection[str] = (),
) -> list[str]:
    """Everything that stands in the way of dumping the database that `connect` leads to.

    `connect` is called up to three times, two connections being open at once; all are closed again. What it raises
    comes through, but for what only a pooler says. `excluded` are the relations that the dump leaves out, `emptied` the
    tables of which it leaves out the rows: pg_dump locks these, and needs the privilege for that.
    """
    pooled = pooler_problems(connect, host, port)
    if pooled:
        return pooled  # what a pooler answers may be true of another connection
    with closing(connect()) as connection:
        connection.autocommit = True
        return [
            *closed_database(connection),
            *unreadable(connection, excluded),
            *hidden_rows(connection, [*excluded, *emptied]),
        ]


def pooler_problems(connect: Callable[[], Connection], host: str, port: int) -> list[str]:
    """Whether a pooler stands in between that lends out a server connection for a transaction or a statement only.

    Known addresses are recognised by name, without connecting; all others by what they do. Pooling of whole
    sessions passes. What `connect` raises comes through, but for what only a pooler says. Raises Unreachable when
    one of two connections breaks while both are open, as with a pooler that has only one to give.
    """
    known = _known_pooler(host, port)
    if known:
        return [known]
    try:
        with closing(connect()) as first, closing(connect()) as second:
            shared = _asked_at_once(first, second, f"{host}:{port}")
    except (psycopg2.OperationalError, BackupSystemError) as error:
        if meaning := pooler_refusal(str(error)):
            return [f"The connection pooler at {host}:{port} {meaning}: {_GO_DIRECT}."]
        raise
    if not shared:
        return []
    behaviour = "lends out server connections for one transaction at a time, which would tear a dump apart"
    return [f"The connection pooler at {host}:{port} {behaviour}: {_GO_DIRECT}, or that of a pooler in session mode."]


def pooler_refusal(message: str) -> str:
    """What stands in the way, if only a pooler writes such a message for a failed connection; else empty."""
    return next((meaning for sign, meaning in _POOLER_SAYS.items() if sign in message), "")


def closed_database(connection: Connection) -> list[str]:
    """Whether the database takes no new connections, so that pg_dump could not connect to it."""
    [row] = rows(
        connection,
        """
        SELECT quote_ident(datname) AS name, datallowconn, datconnlimit
          FROM pg_database WHERE datname = current_database()
    """,
    )
    if row["datconnlimit"] == -2:
        advice = "name another database, and finish the drop of this one"
        return [f"Database {row['name']} is invalid, because a DROP DATABASE of it was broken off: {advice}."]
    if not row["datallowconn"]:
        advice = f"run ALTER DATABASE {row['name']} ALLOW_CONNECTIONS true"
        return [f"Database {row['name']} takes no new connections: {advice}."]
    return []


def unreadable(connection: Connection, excluded: Collection[str] = ()) -> list[str]:
    """What the connection's role must be able to read for a dump and cannot: a sentence each for schemas, for tables
    and sequences, and for large objects. Members of extensions, foreign tables and `excluded` are not needed.
    """
    role = _role(connection)
    schemas = [row["name"] for row in rows(connection, _CLOSED_SCHEMAS, excluded=list(excluded))]
    closed = rows(connection, _CLOSED_RELATIONS, excluded=list(excluded))
    relations = [("sequence " if row["is_sequence"] else "table ") + row["name"] for row in closed]
    closed_objects = _CLOSED_OBJECTS if connection.server_version >= 180000 else _CLOSED_OBJECTS_BEFORE_18
    objects = [row["name"] for row in rows(connection, closed_objects)]
    open_schemas = f"run GRANT USAGE ON SCHEMA … TO {role} for each."
    open_relations = f"run GRANT SELECT ON ALL TABLES IN SCHEMA … TO {role}, and the same for ALL SEQUENCES."
    if connection.server_version >= 140000:
        open_schemas = open_relations = f"run GRANT pg_read_all_data TO {role}."
    return [
        *named(f"Role {role} has no USAGE on schema ", schemas, open_schemas),
        *named(f"Role {role} has no SELECT on ", relations, open_relations),
        *named(
            f"Role {role} cannot read large object ",
            objects,
            f"run GRANT SELECT ON LARGE OBJECT … TO {role} for each, or dump as a superuser.",
        ),
    ]


def hidden_rows(connection: Connection, excluded: Collection[str] = ()) -> list[str]:
    """Tables of which row-level security would hide rows from the connection's role. (pg_dump fails on them; with
    `--enable-row-security` it would leave the rows out without a word.)
    """
    role = _role(connection)
    tables = rows(connection, _HIDING_TABLES, excluded=list(excluded))
    bypass = f"run ALTER ROLE {role} BYPASSRLS as a superuser"
    unforced = [row["name"] for row in tables if not row["forced"]]
    forced = [row["name"] for row in tables if row["forced"]]
    return [
        *named(
            f"Row-level security hides rows from role {role} in table ",
            unforced,
            f"{bypass}, or dump as the owner of the tables.",
        ),
        *named(
            f"Row-level security hides rows from role {role}, and even from the owner, in table ",
            forced,
            f"{bypass}, or ALTER TABLE … NO FORCE ROW LEVEL SECURITY as the owner.",
        ),
    ]


def spool_problems(directory: Path, needed: int) -> list[str]:
    """Whether `needed` bytes of part files fit into `directory`, which is made (mode 700) if it is not there.

    Nothing else stays: a file without a name shows whether files can be written.
    """
    advice = "name another directory in SPOOL_DIRECTORY"
    try:
        own_directory(directory)
        with tempfile.TemporaryFile(dir=directory) as trial:
            trial.write(b"\0")
        free = shutil.disk_usage(directory).free
    except BadSetting as error:
        return [str(error)]
    except OSError as error:
        return [f"The spool directory {directory} cannot be written to ({error.strerror}): {advice}."]
    if free >= needed:
        return []
    amounts = f"needs {_mebibytes(needed, up=True)} and has {_mebibytes(free)} free"
    return [f"The spool directory {directory} {amounts}: make room, or {advice}."]


def _known_pooler(host: str, port: int) -> str:
    """The sentence for the address of a provider's transaction pooler; empty for any other. Pure."""
    name, _, domain = host.lower().rstrip(".").partition(".")
    if name.endswith("-pooler") and domain.endswith("neon.tech"):
        direct = f"{name.removesuffix('-pooler')}.{domain}"
        return f"{host} is Neon's transaction pooler: remove -pooler from the host's name ({direct})."
    if port == 6543 and domain.endswith(("pooler.supabase.com", "supabase.co")):
        advice = "use the direct connection, or the session pooler at port 5432"
        return f"{host}:6543 is Supabase's transaction pooler: {advice}."
    return ""


def _asked_at_once(first: Connection, second: Connection, place: str) -> bool:
    try:
        return _share_a_backend(first, second)
    except psycopg2.OperationalError as error:
        message = " ".join(str(error).split())
        raise Unreachable(f"{place} did not serve two connections at once, as a dump needs: {message}") from None


def _share_a_backend(first: Connection, second: Connection) -> bool:
    """Whether two open connections had the same server process, or one connection two processes."""
    first.autocommit = second.autocommit = True
    of_first, of_second = {_backend(first)}, {_backend(second)}
    for number in range(_ROUNDS):
        if len(of_first) + len(of_second) > 2 or of_first & of_second:
            return True
        # While the first has an open transaction, a pooler must give the second another process.
        holder, other = (first, second) if number % 2 else (second, first)
        of_holder, of_other = (of_first, of_second) if holder is first else (of_second, of_first)
        rows(holder, "BEGIN; SELECT 1 AS one")
        of_holder.add(_backend(holder))
        of_other.add(_backend(other))
        rows(holder, "COMMIT; SELECT 1 AS one")
        of_other.add(_backend(other))
        of_holder.add(_backend(holder))
    return len(of_first) + len(of_second) > 2


def _backend(connection: Connection) -> str:
    """The server process behind `connection`; the server's own start tells processes of several servers apart."""
    [row] = rows(connection, "SELECT pg_backend_pid() || ' of ' || pg_postmaster_start_time() AS process")
    return str(row["process"])


def _role(connection: Connection) -> str:
    [row] = rows(connection, "SELECT quote_ident(current_user) AS role")
    return str(row["role"])


def _mebibytes(size: int, up: bool = False) -> str:
    """Whole MiB, rounded so that what is needed never looks smaller than what is there."""
    return f"{-(-size // (1 << 20)) if up else size // (1 << 20):,} MiB"
