"""What psql does in each mode: which database it writes to, and what it runs beside the dump."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from psycopg2.extensions import connection as Connection

from tasks.backup.dead_runs import end_sessions
from tasks.catalogue.catalogue import Catalogue
from tasks.catalogue.schema import labelled_tables
from tasks.errors import (
    BackupDamaged,
    BackupSystemError,
    EntriesFailed,
    RestoreRefused,
    RowsDiffer,
    VerifyImpossible,
)
from tasks.plans.plan import Plan
from tasks.postgres.dsn import Dsn
from tasks.postgres.locks import VERIFY, is_held
from tasks.postgres.server import maintenance, rows, source_session
from tasks.restore import in_place, psql
from tasks.restore.databases import drop, drop_scratches, drop_verify_scratches
from tasks.restore.download import Parts, wanted_parts
from tasks.restore.entries import LeftOut
from tasks.restore.load_in_stages import left_out_of, load_in_stages, unread_rows
from tasks.restore.make_roles import create_roles
from tasks.restore.psql import Script, application_name
from tasks.restore.scratch import make_scratch, scratch_dsn, session_settings_of, unfinished
from tasks.restore.tables.table_scripts import new_database_tables, replacement
from tasks.restore.values import Loaded, MissingEntry, RestoreRun
from tasks.storage.spool import Spool
from tasks.stored_backups.backup_files import storage_of

NAME = "restore: prepare"


def parts_of(plan: Plan, run: RestoreRun, spool: Spool) -> Parts:
    """The parts that this restore needs."""
    return Parts(spool, storage_of(plan, run.backup), run.backup, wanted_parts(run.backup, unread_rows(run)))


def load(plan: Plan, run: RestoreRun, spool: Spool, show: Callable[[int], None], say: Callable[[str], None]) -> Loaded:
    """Restores into the scratch database, or in place.

    Raises as `psql.load`; and EntriesFailed for entries of a scratch, which then stays so that a restore can go on.
    """
    create_roles(plan.database, run, say)
    if run.mode == "in_place":
        return _load_in_place(plan, run, spool, show)
    missing = _made_ready(plan, run, say)
    if run.tables:
        loaded = _load_tables_frozen(plan, run, spool, show, say)
    else:
        loaded = load_in_stages(plan, run, parts_of(plan, run, spool), spool, show, missing, say)
    _write_down(plan, run)
    return loaded


def _write_down(plan: Plan, run: RestoreRun) -> None:
    """All that was loaded is on the server's disk: from here on it is counted, and put into place.

    psql commits without waiting for that (`synchronous_commit`), so a server that crashes forgets the last commits. The
    commit of a record of our own in its log waits for all that stands before it. Raises Unreachable.
    """
    with _stand(plan, run).session(NAME) as server, server.cursor() as cursor:
        cursor.execute("SET synchronous_commit = local")
        cursor.execute("SELECT pg_catalog.pg_logical_emit_message(true, 'database backups', 'loaded')")


def _load_tables_frozen(
    plan: Plan, run: RestoreRun, spool: Spool, show: Callable[[int], None], say: Callable[[str], None]
) -> Loaded:
    try:
        return _load_tables(plan, run, spool, show, freeze=True)
    except RestoreRefused as error:
        if "COPY FREEZE" not in str(error):
            raise
        say("A table does not take COPY with FREEZE: beginning again without it.")
        _made_ready(plan, run, say)
        return _load_tables(plan, run, spool, show, freeze=False)


def _load_in_place(plan: Plan, run: RestoreRun, spool: Spool, show: Callable[[int], None]) -> Loaded:
    target, parts = scratch_dsn(plan, run), parts_of(plan, run, spool)
    with source_session(target, NAME) as connection:
        _end_dead_tries(connection)
        left_out = left_out_of(run)
        script = _in_place_script(connection, run, plan.catalogue, left_out)
        settings, _ = session_settings_of(connection, run.backup)
    with in_place.lock_watch(target, application_name(run.run_id)) as watch:
        return psql.load(run, target, parts, script, plan.identities, spool, show, settings, watch.sentence, left_out)


def _load_tables(plan: Plan, run: RestoreRun, spool: Spool, show: Callable[[int], None], freeze: bool) -> Loaded:
    """Restores chosen tables into the scratch database, in one transaction."""
    left_out = left_out_of(run)
    script = new_database_tables(run.backup, run.tables, left_out)
    target, parts = scratch_dsn(plan, run), parts_of(plan, run, spool)
    with source_session(target, NAME) as connection:
        settings, _ = session_settings_of(connection, run.backup)
    return psql.load(
        run, target, parts, script, plan.identities, spool, show, settings, left_out=left_out, freeze=freeze
    )


def _made_ready(plan: Plan, run: RestoreRun, say: Callable[[str], None]) -> tuple[MissingEntry, ...] | None:
    """Makes the scratch database anew: None; or gives the entries that an earlier restore left to do in it."""
    with _stand(plan, run).session(NAME) as server:
        for line in _clear_dead(server, run):
            say(line)
        if run.missing is not None and (
            label := unfinished(server, run.database, run.receiver, run.backup, run.request.schemas)
        ):
            say(f"An earlier restore loaded the rows into {label.name}: going on with {len(label.missing)} entries.")
            return label.missing
        for line in make_scratch(plan, server, run):
            say(line)
    return None


def _stand(plan: Plan, run: RestoreRun) -> Dsn:
    """A database from which the scratch can be made and dropped."""
    return maintenance(plan.database if run.verify else plan.database.with_dbname(run.database))


def _clear_dead(server: Connection, run: RestoreRun) -> list[str]:
    """Drops what earlier tries and dead runs left; a sentence for each."""
    if not run.verify:
        return drop_scratches(server, run.database, keep="" if run.missing is None else run.scratch)
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


def _in_place_script(connection: Connection, run: RestoreRun, catalogue: Catalogue, left_out: LeftOut) -> Script:
    if run.tables:
        return replacement(connection, run.backup, run.tables, run.request.drop_dependents, left_out)
    return in_place.removal(connection, run.backup, catalogue_relations(catalogue, connection), left_out=left_out)


def catalogue_relations(catalogue: Catalogue, connection: Connection) -> tuple[str, ...]:
    """The catalogue's relations that lie in the database of `connection`, as `schema.name`.

    When the catalogue does not answer, these are the tables that are labelled as a catalogue.
    """
    try:
        return catalogue.own_tables_in(connection)
    except BackupSystemError:
        return labelled_tables(connection)


@contextmanager
def nothing_left(plan: Plan, run: RestoreRun, say: Callable[[str], None]) -> Iterator[None]:
    """An error in the `with` block drops the scratch database, and ends the sessions of psql.

    After EntriesFailed it stays, for a restore that goes on.
    """
    try:
        yield
    except BaseException as error:
        goes_on = run.missing is not None and not isinstance(error, (BackupDamaged, RowsDiffer))
        stays = goes_on or (isinstance(error, EntriesFailed) and not run.verify)
        if stays and not run.after_restore:  # else it holds what nobody is to see
            raise  # the scratch stays: another restore goes on from there
        try:
            _clear(plan, run)
        except BackupSystemError as problem:
            say(f"What this restore left behind could not be cleared now; the next one does that. {problem}")
        raise


def _clear(plan: Plan, run: RestoreRun) -> None:
    if run.mode == "in_place":
        end_sessions(plan.database.with_dbname(run.database), application_name(run.run_id))
        return
    with _stand(plan, run).session(NAME) as server:
        if problem := drop(server, run.scratch, force=True):
            raise BackupSystemError(problem)
