"""What psql does in each mode: which database it writes to, and what it runs beside the dump."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from psycopg2 import sql
from psycopg2.extensions import connection as Connection

from tasks.backup.dead_runs import end_sessions
from tasks.catalogue.catalogue import Catalogue
from tasks.catalogue.schema import labelled_tables
from tasks.errors import BackupSystemError, RestoreRefused, VerifyImpossible
from tasks.plans.plan import Plan
from tasks.postgres.dsn import Dsn
from tasks.postgres.locks import VERIFY, is_held
from tasks.postgres.server import maintenance, rows, source_session
from tasks.restore import in_place, psql
from tasks.restore.databases import create_like, drop, drop_scratches, drop_verify_scratches
from tasks.restore.download import Parts, wanted_parts
from tasks.restore.psql import Script, application_name
from tasks.restore.tables.into_new_database import new_database_tables
from tasks.restore.tables.replace import replacement
from tasks.restore.tables.selection import unread
from tasks.restore.values import Loaded, RestoreRun
from tasks.storage.spool import Spool
from tasks.stored_backups.backup_files import storage_of

NAME = "restore: prepare"
#: With it psql prints the SQLSTATE of an error, which shows in every language whose fault the error is.
VERBOSE = b"\\set VERBOSITY verbose\n"


def parts_of(plan: Plan, run: RestoreRun, spool: Spool) -> Parts:
    """The parts that this restore needs."""
    skipped = unread(run.backup, run.chosen) if run.tables else ()
    return Parts(spool, storage_of(plan, run.backup), run.backup, wanted_parts(run.backup, skipped))


def load(plan: Plan, run: RestoreRun, spool: Spool, show: Callable[[int], None], say: Callable[[str], None]) -> Loaded:
    """Restores into the scratch database, made anew at every try, or in place. Raises as `psql.load`."""
    create_roles(plan.database, run, say)
    if run.mode != "in_place":
        try:
            return _load_anew(plan, run, spool, show, say, freeze=True)
        except RestoreRefused as error:
            if "COPY FREEZE" not in str(error):
                raise
            say("A table does not take COPY with FREEZE: beginning again without it.")
            return _load_anew(plan, run, spool, show, say, freeze=False)
    target, parts = plan.database.with_dbname(run.scratch), parts_of(plan, run, spool)
    with source_session(target, NAME) as connection:
        _end_dead_tries(connection)
        script = _in_place_script(connection, run, plan.catalogue)
    with in_place.lock_watch(target, application_name(run.run_id)) as watch:
        return psql.load(run, target, parts, script, plan.identities, spool, show, watch.sentence)


def _load_anew(
    plan: Plan, run: RestoreRun, spool: Spool, show: Callable[[int], None], say: Callable[[str], None], freeze: bool
) -> Loaded:
    """Restores into a scratch database that is made for it."""
    with maintenance(plan.database.with_dbname(run.database)).session(NAME) as server:
        for line in _clear_dead(server, run):
            say(line)
        create_like(server, run.scratch, run.ground.like, "verify" if run.verify else "scratch", run.plan, run.database)
    script = new_database_tables(run.backup, run.tables) if run.tables else Script()
    script = replace(script, before=VERBOSE) if run.verify else script
    target, parts = plan.database.with_dbname(run.scratch), parts_of(plan, run, spool)
    return psql.load(run, target, parts, script, plan.identities, spool, show, freeze=freeze)


def _clear_dead(server: Connection, run: RestoreRun) -> list[str]:
    """Drops what earlier tries and dead runs left; a sentence for each."""
    if not run.verify:
        return drop_scratches(server, run.database)
    if not is_held(server, VERIFY, run.database):  # without it, a restore or cleanup would drop the scratch
        raise VerifyImpossible("The connection that holds the lock of verify-backup broke: run verify-backup again.")
    return drop_verify_scratches(server, run.database)


def _end_dead_tries(connection: Connection) -> None:
    """Ends the sessions of earlier tries and dead restores. The caller has the database's lock: no other is alive."""
    rows(
        connection,
        "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE"
        " datname = current_database() AND usename = current_user AND application_name LIKE %(psql)s",
        psql=application_name("%"),
    )


def _in_place_script(connection: Connection, run: RestoreRun, catalogue: Catalogue) -> Script:
    if run.tables:
        return replacement(connection, run.backup, run.tables, run.request.drop_dependents)
    return in_place.removal(connection, run.backup, catalogue_relations(catalogue, connection))


def catalogue_relations(catalogue: Catalogue, connection: Connection) -> tuple[str, ...]:
    """The catalogue's relations that lie in the database of `connection`, as `schema.name`.

    When the catalogue does not answer, these are the tables that are labelled as a catalogue.
    """
    try:
        return catalogue.own_tables_in(connection)
    except BackupSystemError:
        return labelled_tables(connection)


def create_roles(dsn: Dsn, run: RestoreRun, say: Callable[[str], None]) -> None:
    """Creates the missing roles that the restore is to create: unable to log in, with no privilege."""
    if not run.ground.create_roles:
        return
    with maintenance(dsn).session(NAME) as server, server.cursor() as cursor:
        for role in run.ground.create_roles:
            cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", [role])
            if cursor.rowcount == 0:
                name = sql.Identifier(role)
                cursor.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(name))
                if server.get_parameter_status("is_superuser") == "off":  # else it could not give it what it owns
                    options = " WITH SET TRUE, INHERIT TRUE" if server.server_version >= 160000 else ""
                    cursor.execute(sql.SQL("GRANT {} TO CURRENT_USER" + options).format(name))
                say(
                    f"Role {role} was created, unable to log in: give it its password and attributes when it is needed."
                )


@contextmanager
def nothing_left(plan: Plan, run: RestoreRun, say: Callable[[str], None]) -> Iterator[None]:
    """An error in the `with` block drops the scratch database, and ends the sessions of psql."""
    try:
        yield
    except BaseException:
        try:
            _clear(plan, run)
        except BackupSystemError as problem:
            say(f"What this restore left behind could not be cleared now; the next one does that. {problem}")
        raise


def _clear(plan: Plan, run: RestoreRun) -> None:
    if run.mode == "in_place":
        end_sessions(plan.database.with_dbname(run.database), application_name(run.run_id))
        return
    with maintenance(plan.database.with_dbname(run.database)).session(NAME) as server:
        if problem := drop(server, run.scratch, force=True):
            raise BackupSystemError(problem)
