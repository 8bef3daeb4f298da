"""The step that rebuilds one plan's catalogue: it shows what differs, writes it, and shows what was written."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from prefect import task

from tasks.names import PLAN_NAME, artifact_key, plan_prefix
from tasks.plans.find_plan import plan_named
from tasks.plans.plan import Plan
from tasks.postgres.locks import removal_lock
from tasks.rebuild_catalogue.rebuild import ACTION, Comparison, Difference, Kind, compare, write
from tasks.runs.audit import audit, run_event
from tasks.runs.markdown import cell, table
from tasks.runs.reporting import created_by, current_run_id, now, publish, say, warn
from tasks.runs.retries import RETRIED

_MOST_LINES = 1000
_FATES: dict[Kind, tuple[str, str]] = {
    "add": ("would get a row", "got a row"),
    "trust": ("would be trusted", "is trusted"),
    "complete": ("would become completed", "is completed again"),
    "repair": ("would be repaired", "was repaired"),
    "missing": ("would become missing", "is missing now"),
    "deleted": ("would become deleted", "is deleted now"),
    "expired": ("would become expired", "is expired now"),
    "report": ("stays as it is", "stays as it is"),
}


@dataclass(frozen=True)
class Rebuilt:
    """What differed between bucket and catalogue of a plan, and the names of the backups whose rows were changed."""

    plan: str
    dry_run: bool
    compared: Comparison
    changed: frozenset[str] = frozenset()


def stored_plans(server: Plan) -> list[str]:
    """The plans of the databases of a server that have something in its bucket, whether or not there are records."""
    root = plan_prefix(server.folder, server.name).removesuffix(f"{server.name}/")
    found = {
        stored.key.removeprefix(root).partition("/")[0] for stored in server.storage.objects(f"{root}{server.name}.")
    }
    return sorted(name for name in found if re.fullmatch(PLAN_NAME, name))


@task(name="rebuild", **RETRIED)
def rebuild(plan: str, dry_run: bool, trust: Sequence[str], requested_by: str) -> Rebuilt:
    """Shows what differs between bucket and catalogue, writes it unless it is a dry run, and shows what was done.

    Nobody removes backups of the plan meanwhile. Raises AlreadyRunning when somebody does so for long. A catalogue
    whose database is lost is made anew.
    """
    source, actor, run_id, began = plan_named(plan), created_by(requested_by), current_run_id(), now()
    if not dry_run:
        source.catalogue.create_lost_database()
    with removal_lock(source.catalogue.dsn, plan, f"run {run_id}"):
        done = Rebuilt(plan, True, compare(source, trust))
        _publish(done)
        if not dry_run:
            source.catalogue.create_lost_tables()
            done = Rebuilt(plan, False, done.compared, write(source, done.compared.changes, run_id, actor))
            _publish(done)
    _log(done)
    if not (dry_run and done.compared.without_tables):
        event = run_event(
            ACTION, "completed", plan, requested_by, dry_run=dry_run, backups=done.compared.whole, **_counted(done)
        )
        audit(source.catalogue, replace(event, duration_seconds=(now() - began).total_seconds()))
    return done


def _counted(done: Rebuilt) -> dict[str, int]:
    """How many differences of each kind there are, without those that somebody else changed meanwhile."""
    return dict(
        Counter(
            one.kind
            for one in done.compared.differences
            if one.kind == "report" or done.dry_run or one.filename in done.changed
        )
    )


def _log(done: Rebuilt) -> None:
    for one in done.compared.differences[:_MOST_LINES]:
        write_line = warn if one.kind == "report" else say
        write_line(f"{one.filename} {one.why} It {_fate(one, done)}.")
    if unproved := done.compared.unproved:
        say(
            f"{unproved:,} of these are unproved, since whoever can write to the bucket may have made them: run this "
            "again with trust and the names of those that are yours ('*': all). Until then they are not restored."
        )
    say(
        f"{done.compared.whole:,} whole backups in the bucket, {len(done.compared.differences):,} differences, "
        f"{len(done.changed):,} rows changed. The artifact {artifact_key(f'rebuild-{done.plan}')} lists them."
    )


def _publish(done: Rebuilt) -> None:
    title = "What differs" if done.dry_run else "Rebuilt catalogue"
    publish(f"rebuild-{done.plan}", f"{title}: plan {done.plan}", shown(done))


def shown(done: Rebuilt) -> str:
    """What differs, and what was done about it, as markdown. Pure."""
    compared = done.compared
    title = "What differs between bucket and catalogue" if done.dry_run else "What was written into the catalogue"
    fate = "is lost" if done.dry_run else "was lost, and made anew"
    lost = "".join(f"\n- The table {name} {fate}." for name in compared.without_tables)
    counts = f"{compared.whole:,} whole backups in the bucket, {compared.rows:,} rows in the catalogue before."
    rows = [(f"`{one.filename}`", cell(one.why), _fate(one, done)) for one in compared.differences]
    differences = table(("backup", "what differs", "its row"), rows, most=_MOST_LINES) if rows else "Nothing differs.\n"
    return f"# {title}\n\n{counts}\n{lost}\n\n{differences}"


def _fate(one: Difference, done: Rebuilt) -> str:
    would, did = _FATES[one.kind]
    if done.dry_run or one.kind == "report":
        return would
    return did if one.filename in done.changed else "was changed by somebody else meanwhile: run this again"
