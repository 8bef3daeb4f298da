"""The databases that a restore makes: created with the encoding and locale of another, dropped when it has died.

All of it happens on a connection (autocommit) to another database of the same server: `maintenance` says which.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import connection as Connection

from tasks.errors import AccessRefused, RestoreRefused
from tasks.postgres.dsn import Dsn
from tasks.postgres.locks import DATABASE, VERIFY, is_held
from tasks.postgres.server import on, primary, rows, source_session, transaction
from tasks.restore.labels import Kind, Label, is_scratch_name, is_verify_scratch_name, label_of, own_comment, target_of
from tasks.restore.loader_role import drop_dead_loaders
from tasks.storage.backup_values import DatabaseProperties

#: Databases of a server, each with its comment.
Commented = list[tuple[str, str | None]]
#: The first version of the server that knows such a locale.
_SINCE = {"icu": 150000, "rules": 160000, "builtin": 170000}

_SUBSCRIPTIONS = """
    SELECT subname FROM pg_subscription
     WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def create_like(
    server: Connection, name: str, like: DatabaseProperties, kind: Kind = "scratch", plan: str = "", target: str = ""
) -> None:
    """An empty database `name` with owner, encoding, locale and tablespace of `like`, closed to PUBLIC.

    Its label says that it is a scratch (or of another `kind`) of `plan`, to become `target`; it holds the comment of
    `like`. Raises AccessRefused when the role may not create it, RestoreRefused when the server cannot have such a
    database; nothing stays then.
    """
    [row] = rows(
        server,
        """
        SELECT t.spcname AS name FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace
         WHERE d.datname = 'template0'
    """,
    )
    statement = create_statement(name, like, server.server_version, default_tablespace=row["name"])
    label = Label(kind, name, target, comment=own_comment(like.name, like.comment), plan=plan)
    with server.cursor() as cursor, _creation_explained(server, name, like):
        cursor.execute(statement)
        try:
            with transaction(server):
                cursor.execute(on("REVOKE CONNECT, TEMPORARY ON DATABASE {d} FROM PUBLIC", name))
                cursor.execute(on("COMMENT ON DATABASE {d} IS ", name) + sql.Literal(label.text()))
        except psycopg2.Error:
            if not server.closed:
                cursor.execute(on("DROP DATABASE {d}", name))
            raise


def create_statement(name: str, like: DatabaseProperties, version: int, default_tablespace: str) -> sql.Composed:
    """CREATE DATABASE for a server of `version` (180000 for 18.0). Pure.

    The tablespace is not named where it is the one that a new database gets anyway: naming it takes a privilege.
    Raises RestoreRefused when that version has no such locale.
    """
    wanted = "rules" if like.icu_rules else like.locale_provider
    if version < _SINCE.get(wanted, 0):
        raise RestoreRefused(
            f"Database {like.name} has a locale ({wanted}) that PostgreSQL {version // 10_000} does "
            f"not know: restore to PostgreSQL {_SINCE[wanted] // 10_000} or newer."
        )
    options = [("ENCODING", like.encoding), ("LC_COLLATE", like.collate), ("LC_CTYPE", like.ctype)]
    if version >= _SINCE["icu"]:
        options.append(("LOCALE_PROVIDER", like.locale_provider))
    options += [
        (word, value)
        for word, value in (
            ("ICU_LOCALE", like.icu_locale),
            ("ICU_RULES", like.icu_rules),
            ("BUILTIN_LOCALE", like.builtin_locale),
        )
        if value
    ]
    parts = [sql.SQL("CREATE DATABASE {} TEMPLATE template0 OWNER {}").format(*map(sql.Identifier, (name, like.owner)))]
    parts += [sql.SQL(word + " {}").format(sql.Literal(value)) for word, value in options]
    if like.tablespace != default_tablespace:
        parts.append(sql.SQL("TABLESPACE {}").format(sql.Identifier(like.tablespace)))
    return sql.SQL(" ").join(parts)


@contextmanager
def _creation_explained(server: Connection, name: str, like: DatabaseProperties) -> Iterator[None]:
    try:
        yield
    except psycopg2.errors.InsufficientPrivilege as error:
        raise AccessRefused(
            f"Role {server.info.user} may not create a database like {like.name} ({primary(error)}): give it CREATEDB "
            "and membership in the owner's role, or restore with the mode in_place."
        ) from None
    except psycopg2.errors.DuplicateDatabase:
        raise RestoreRefused(f"There is a database {name} already: drop it, or restore under another name.") from None
    except psycopg2.Error as error:
        if error.pgcode is None or server.closed:
            raise
        raise RestoreRefused(
            f"The server cannot create a database like {like.name}: {primary(error)}; change that, or create an empty "
            "database there by hand and restore into it with the mode in_place."
        ) from None


def drop_scratches(
    server: Connection, database: str, keep: str = "", unfinished_since: datetime | None = None
) -> list[str]:
    """Drops what dead restores and verify runs of `database` left, ending the sessions in it; a sentence for each.

    The caller holds the database's lock. A verify run that is alive keeps its scratch. A database with such a name and
    no label is dropped only when it is empty: a restore that dies right after creating it leaves it so. The scratch
    `keep` stays, and so do those in which a restore can go on, where it failed after `unfinished_since`.
    """
    databases = [(name, comment) for name, comment in _databases(server) if name != keep]
    sentences = _drop_left(server, database, databases, "scratch", unfinished_since)
    if not is_held(server, VERIFY, database):  # asked last: a verify run that has begun since is not in the list
        sentences += _drop_left(server, database, databases, "verify")
    return sentences


def drop_verify_scratches(server: Connection, database: str) -> list[str]:
    """The same for verify runs alone. The caller holds their lock of `database`."""
    return _drop_left(server, database, _databases(server), "verify")


def drop_dead_scratches(
    server: Connection, plan: str, database: str, unfinished_since: datetime, dry_run: bool = False
) -> list[str]:
    """Drops what dead restores of `plan` to databases other than `database` left behind; a sentence for each.

    A restore that is alive holds the lock of the database that it restores, so its scratch stays. With `dry_run` the
    sentences only say what would be dropped.
    """
    databases = _databases(server)  # asked first: what a restore makes that begins in between is not in the list
    sentences = []
    for target in sorted(_scratch_targets(databases, plan) - {database}):
        if not is_held(server, DATABASE, target):
            if dry_run:
                sentences += _left(target, databases, unfinished_since)
            else:
                sentences += _drop_left(server, target, databases, "scratch", unfinished_since)
    return sentences


def scratches_left(server: Connection, database: str, unfinished_since: datetime) -> list[str]:
    """What `drop_scratches` would drop, a sentence for each. The caller holds the lock, so no restore is alive."""
    return _left(database, _databases(server), unfinished_since)


def _scratch_targets(databases: Commented, plan: str) -> set[str]:
    """The names that the scratches of `plan` are to get; for those without a label, as their own names show."""
    targets = set()
    for name, comment in databases:
        label = label_of(name, comment)
        if label is None:
            targets.add(target_of(name))
        elif label.kind in ("scratch", "unfinished") and label.plan == plan:
            targets.add(label.database)
    return targets - {""}


def _left(database: str, databases: Commented, unfinished_since: datetime) -> list[str]:
    return [
        f"Database {name}, left unfinished by a restore that {_end(label)}, would be dropped."
        for name, comment in databases
        if is_scratch_name(name, database)
        and (label := label_of(name, comment))
        and (label.kind == "scratch" or (label.kind == "unfinished" and not _can_go_on(label, unfinished_since)))
    ]


def _can_go_on(label: Label, unfinished_since: datetime | None) -> bool:
    """Whether the scratch of a restore that failed stays, for another one to go on in it. Pure."""
    return unfinished_since is not None and label.at is not None and label.at > unfinished_since


def _end(label: Label | None) -> str:
    return "failed" if label and label.kind == "unfinished" else "died"


def _drop_left(
    server: Connection, database: str, databases: Commented, kind: Kind, unfinished_since: datetime | None = None
) -> list[str]:
    is_ours, what = (is_verify_scratch_name, "verify run") if kind == "verify" else (is_scratch_name, "restore")
    sentences = []
    for name, comment in databases:
        if not is_ours(name, database):
            continue
        label = label_of(name, comment)
        if kind == "scratch" and label and label.kind == "unfinished":
            if _can_go_on(label, unfinished_since):
                continue
        elif (label is None or label.kind != kind) and not _is_empty(server, name):
            sentences.append(f"Database {name} is named like a scratch of {database}, but no {what} made it: it stays.")
            continue
        problem = drop(server, name, force=True)
        sentences.append(problem or f"Database {name}, left unfinished by a {what} that {_end(label)}, was dropped.")
    return sentences


def drop(server: Connection, name: str, force: bool = False) -> str:
    """Drops a database, with `force` also the sessions in it; returns a sentence when it could not, else nothing."""
    try:
        with server.cursor() as cursor:
            cursor.execute("SELECT datistemplate FROM pg_database WHERE datname = %s", [name])
            row = cursor.fetchone()
            if row and row[0]:
                cursor.execute(on("ALTER DATABASE {d} IS_TEMPLATE false", name))
            statement = on("DROP DATABASE IF EXISTS {d}" + " WITH (FORCE)" * force, name)
            try:
                cursor.execute(statement)
            except psycopg2.errors.ObjectInUse:
                if not force:
                    raise
                _drop_subscriptions(server, name)
                cursor.execute(statement)
    except psycopg2.Error as error:
        if error.pgcode is None or server.closed:
            raise
        return f"Database {name} could not be dropped and stays: {primary(error)}."
    return "" if server.get_parameter_status("is_superuser") == "off" else " ".join(drop_dead_loaders(server))


def _drop_subscriptions(server: Connection, name: str) -> None:
    """Drops the subscriptions in a database, of which none was ever enabled: nothing is asked of their publishers."""
    with source_session(_beside(server, name), "drops a scratch database") as inside, inside.cursor() as cursor:
        for row in rows(inside, _SUBSCRIPTIONS):
            for words in ("DISABLE", "SET (slot_name = NONE)"):
                cursor.execute(on(f"ALTER SUBSCRIPTION {{d}} {words}", row["subname"]))
            cursor.execute(on("DROP SUBSCRIPTION {d}", row["subname"]))


def _databases(server: Connection) -> Commented:
    query = "SELECT datname, shobj_description(oid, 'pg_database') AS c FROM pg_database ORDER BY 1"
    return [(row["datname"], row["c"]) for row in rows(server, query)]


def _beside(server: Connection, name: str) -> Dsn:
    """Another database of the server, for the same role."""
    parameters = {**server.info.dsn_parameters, "password": server.info.password, "dbname": name}
    return Dsn({k: v for k, v in parameters.items() if v})


def _is_empty(server: Connection, name: str) -> bool:
    """Whether nothing was made in a database; false when this role cannot look."""
    try:
        with source_session(_beside(server, name), "looks into a scratch database") as inside:
            [row] = rows(
                inside,
                """
                SELECT NOT EXISTS (SELECT FROM pg_class WHERE oid >= 16384)
                       AND NOT EXISTS (SELECT FROM pg_proc WHERE oid >= 16384)
                       AND NOT EXISTS (SELECT FROM pg_namespace WHERE oid >= 16384)
                       AND NOT EXISTS (SELECT FROM pg_type WHERE oid >= 16384)
                       AND NOT EXISTS (SELECT FROM pg_extension WHERE oid >= 16384)
                       AND NOT EXISTS (SELECT FROM pg_largeobject_metadata) AS empty
            """,
            )
            return bool(row["empty"])
    except AccessRefused:
        return False
