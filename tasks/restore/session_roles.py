"""Roles that a superuser's restore makes for one session in the scratch database, so that it has no right elsewhere."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

from psycopg2.extensions import connection as Connection

from tasks.errors import RestoreRefused
from tasks.postgres.dsn import Dsn
from tasks.postgres.server import on, rows, source_session
from tasks.restore.loader_role import LEFT, PREFIX, Loader, create_role, event_triggers_off

NAME = "restore: makes a role"
#: The first version that has the roles pg_read_all_data and pg_write_all_data.
READER_SINCE = 140000


@contextmanager
def reader_of(dsn: Dsn, application_name: str) -> Iterator[Connection]:
    """A session in the scratch database of a role that can read everything there, and nothing else."""
    with source_session(dsn, NAME) as connection, _member_of(dsn, connection, ["pg_read_all_data"]) as reader:
        with reader.may_connect() as address:
            session = address.connect(application_name)
        with closing(session), address.sentences():
            yield session


@contextmanager
def writer_of(dsn: Dsn, application_name: str, owner: str) -> Iterator[Connection]:
    """A session in the scratch database of a role that can read and write every row there, and acts as `owner`.

    It has no rights of a superuser: where `owner` is one, it can write rows, and nothing else. What it makes belongs to
    `owner` afterwards. Raises RestoreRefused when that would make it a superuser's.
    """
    with source_session(dsn, NAME) as connection:
        query = "SELECT FROM pg_roles WHERE rolname = %(owner)s AND NOT rolsuper"
        acts_as = [owner] if rows(connection, query, owner=owner) else []
        every_row = ["pg_read_all_data", "pg_write_all_data"] if connection.server_version >= READER_SINCE else []
        with _member_of(dsn, connection, [*every_row, *acts_as]) as writer:
            with writer.may_connect() as address:
                session = address.connect(application_name)
            with closing(session), address.sentences():
                yield session
            with event_triggers_off(connection):
                _leave_to(connection, writer, owner if acts_as else "")


@contextmanager
def _member_of(dsn: Dsn, connection: Connection, roles: Sequence[str]) -> Iterator[Loader]:
    """A role with the rights of `roles`, for the length of a `with` block."""
    member = Loader(dsn, connection, f"{PREFIX}{secrets.token_hex(8)}")
    create_role(connection, member.name, dsn.dbname)
    try:
        for role in roles:
            since_16 = " WITH INHERIT TRUE" if connection.server_version >= 160000 else ""
            member.run(on("GRANT {d} TO {r}" + since_16, role, r=member.name))
        if connection.server_version < 160000:
            member.run("ALTER ROLE {r} INHERIT")
        yield member
    finally:
        with event_triggers_off(connection):
            member.run("DROP OWNED BY {r}; DROP ROLE {r}")


def _leave_to(connection: Connection, writer: Loader, owner: str) -> None:
    """What the role has made belongs to `owner`. Raises RestoreRefused where there is something, and no owner."""
    if owner:
        writer.run(on("REASSIGN OWNED BY {r} TO {d}", owner, r=writer.name))
    elif left := rows(connection, LEFT, prefix=writer.name):
        raise RestoreRefused(
            f"after_restore has made {left[0]['name']}, which a superuser would own: nothing was put into place. Let "
            "an ordinary role own the target database, or leave that statement out."
        )
