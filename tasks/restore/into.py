"""A restore into the server of another plan: the backups and keys of one plan, and all else of the other."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from tasks.errors import BackupSystemError, BadSetting, PreflightFailed
from tasks.plans.find_plan import database_named, has_plan, plan_named
from tasks.plans.plan import Plan, pinned
from tasks.postgres.dsn import Dsn
from tasks.postgres.server import maintenance, source_session
from tasks.restore.preflight.live import exists
from tasks.restore.values import RestoreRequest, RestoreRun

NAME = "restore: into another server"


def receiver_of(into: str) -> str:
    """The plan that `into` names; empty where it names a PostgreSQL Database block, or nothing."""
    return into if into and has_plan(into) else ""


def restoring(plan: str, into: str) -> Plan:
    """The plan by which a run restores: name, storages and keys of `plan`, and all else of `into`.

    `into` names another plan, or a PostgreSQL Database block, whose server gets a new database and keeps no records.
    Raises BadSetting when there is no such thing.
    """
    own = plan_named(plan)
    if not into:
        return own
    if into == plan:
        raise BadSetting(f"into names plan {plan} itself: leave it empty to restore into the plan's own server.")
    if not receiver_of(into):
        return replace(own, database=database_named(plan, into), after_restore=())
    other = plan_named(into)
    return replace(
        own,
        database=other.database,
        catalogue=other.catalogue,
        after_restore=other.after_restore,
        kept_days=other.kept_days,
        tools_directory=other.tools_directory,
        spool_directory=other.spool_directory,
        spool_limit=other.spool_limit,
    )


def plan_of(run: RestoreRun) -> Plan:
    """The plan by which `run` restores."""
    return restoring(run.plan, run.request.into)


def refuse_itself(source: Plan, plan: Plan, request: RestoreRequest) -> None:
    """Raises PreflightFailed where `into` leads to what is backed up, or to the database with its catalogue.

    A server that does not answer is known by its address alone.
    """
    if not request.into or request.mode == "new_database":
        return
    target = pinned(plan).database
    live = target.with_dbname(request.target or target.dbname)
    subject = f"Plan {source.name} cannot be restored into {request.into}"
    if _is_same(source.database, live):
        problem = f"{live.dbname} is the database that plan {source.name} backs up: leave into empty to restore it, or"
        raise PreflightFailed(subject, [f"{problem} correct the address that into leads to."])
    with maintenance(live).session(NAME) as server:
        is_there = exists(server, live.dbname)
    if is_there and _has_catalogue(source, live):
        advice = "move it to a database of its own, or restore with the mode new_database."
        raise PreflightFailed(subject, [f"{live.dbname} holds the catalogue of plan {source.name}: {advice}"])


def _has_catalogue(source: Plan, live: Dsn) -> bool:
    """Whether the catalogue lies in the database; one that does not answer is not known to."""
    with suppress(BackupSystemError), source_session(live, NAME) as connection:
        return bool(source.catalogue.own_tables_in(connection))
    return False


def _is_same(backed_up: Dsn, live: Dsn) -> bool:
    with suppress(BackupSystemError):
        backed_up = backed_up.pinned()
    if backed_up.dbname != live.dbname:
        return False
    if backed_up.server and live.server:
        return backed_up.server.is_same(live.server)
    return (backed_up.host, backed_up.port) == (live.host, live.port)
