"""Before a restore changes anything: which backup, which database, and whether all is there that it takes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from tasks.plans.plan import Plan
from tasks.postgres.server import source_session
from tasks.restore.databases import scratch_name
from tasks.restore.preflight.survey import survey
from tasks.restore.tables.patterns import chosen
from tasks.restore.tables.replace import replacement
from tasks.restore.values import RestoreRequest, RestoreRun
from tasks.storage.spool import clear_dead_spools
from tasks.stored_backups.find_backup import chosen_backup


def validate(
    plan: Plan, request: RestoreRequest, run_id: str, actor: str, at: datetime, say: Callable[[str], None]
) -> RestoreRun:
    """A restore that nothing known stands in the way of. Nothing of the databases is changed.

    `say` is told what was cleared away. Raises BackupNotFound, BackupDamaged, BadSetting, PreflightFailed with every
    problem at once, RestoreRefused when something depends on chosen tables, or Unreachable when all that is wrong may
    pass.
    """
    for dead in clear_dead_spools(plan.spool_directory):
        say(f"The spool of the dead run {dead} was removed.")
    backup = chosen_backup(plan, request.backup)
    names = chosen(request.tables, backup.tables, backup.parents) if request.tables else ()
    ground = survey(plan, request, backup)
    if request.mode == "in_place" and request.tables:
        with source_session(plan.database, "restore: validate") as connection:
            replacement(connection, backup, request.tables, request.drop_dependents, backup.parents)
    return RestoreRun(
        run_id=run_id,
        plan=plan.name,
        actor=actor,
        started_at=at,
        backup=backup,
        mode=request.mode,
        database=ground.database,
        scratch=ground.database if request.mode == "in_place" else scratch_name(ground.database, at),
        like=ground.like,
        live_exists=ground.live_exists,
        tables=request.tables,
        chosen=names,
        psql=ground.psql.path,
        psql_version=ground.psql.version_text,
        server_version=ground.server_version,
        create_roles=ground.create_roles,
        analyze=request.analyze,
        drop_dependents=request.drop_dependents,
        spool_directory=str(plan.spool_directory),
        spool_limit=plan.spool_limit,
        warnings=(*backup.warnings, *ground.warnings),
    )
