"""Before a restore changes anything: which backup, which database, and whether all is there that it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from tasks.plans.plan import Plan, pinned
from tasks.postgres.server import maintenance
from tasks.restore.labels import scratch_name
from tasks.restore.preflight.survey import survey
from tasks.restore.preflight.target_entries import entries_no_drill_loads
from tasks.restore.scratch import unfinished
from tasks.restore.tables.patterns import chosen
from tasks.restore.throw_away import clear_dead_servers
from tasks.restore.values import OWN_SERVER, Ground, MissingEntry, Place, RestoreRequest, RestoreRun
from tasks.storage.backup_values import StoredBackup
from tasks.storage.spool import clear_dead_spools
from tasks.stored_backups.find_backup import chosen_backup


def validate(
    plan: Plan,
    request: RestoreRequest,
    run_id: str,
    actor: str,
    at: datetime,
    say: Callable[[str], None],
    verify: bool = False,
    place: Place = OWN_SERVER,
    source: Plan | None = None,
    receiver: str = "",
) -> RestoreRun:
    """A restore that no known problem stands in the way of. Nothing in the databases is changed.

    `say` gets a sentence for each spool that was removed. To `verify` a backup, the request's target is the scratch
    database, and the plan's database is on the server of `place`. `source` is the plan of the backup where `plan` has
    the server of another, and `receiver` the name of that, if it is a plan.
    Raises BackupNotFound, BackupDamaged, PreflightFailed with every problem at once, or Unreachable when all
    that is wrong may pass.
    """
    for dead in clear_dead_spools(plan.spool_directory):
        say(f"The spool of the dead run {dead} was removed.")
    for sentence in clear_dead_servers(plan.spool_directory):
        say(sentence)
    backup = chosen_backup(source or plan, request.backup, drill=verify)
    if verify:  # the rest is worth proving, and the warnings name what was left out
        request = replace(request, without=entries_no_drill_loads(backup))
    ground = survey(plan, request, backup, verify, place.is_elsewhere, is_plan=not request.into or bool(receiver))
    plan = pinned(plan)
    names = chosen(request.tables, backup.tables, backup.parents) if request.tables else ()
    if verify:
        scratch, ground = ground.database, replace(ground, database=place.database or plan.database.dbname)
        return RestoreRun(
            run_id, plan.name, actor, at, request, backup, ground, scratch, names, verify=True, place=place
        )
    if request.mode == "in_place":
        scratch, missing = ground.database, None
    else:
        scratch, missing = _scratch(plan, receiver or plan.name, request, backup, ground, at)
    after = len(plan.after_restore) if request.into else 0
    return RestoreRun(
        run_id,
        plan.name,
        actor,
        at,
        request,
        backup,
        ground,
        scratch,
        names,
        missing,
        into_plan=receiver,
        after_restore=after,
    )


def _scratch(
    plan: Plan, receiver: str, request: RestoreRequest, backup: StoredBackup, ground: Ground, at: datetime
) -> tuple[str, tuple[MissingEntry, ...] | None]:
    """The scratch database; and what is left to do in it, where a restore of this backup failed and can go on."""
    if not request.tables:
        with maintenance(plan.database.with_dbname(ground.database)).session("restore: validate") as server:
            if label := unfinished(server, ground.database, receiver, backup, request.schemas):
                return label.name, label.missing
    return scratch_name(ground.database, at), None
