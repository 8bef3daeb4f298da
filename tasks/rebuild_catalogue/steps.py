"""The step that rebuilds one plan's catalogue: it shows what differs, writes it, and shows what was written."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from prefect import task

from tasks.catalogue.events import Event
from tasks.plans.find_plan import plan_named
from tasks.postgres.locks import removal_lock
from tasks.rebuild_catalogue.differences import Comparison, Difference, Kind, compare
from tasks.rebuild_catalogue.write_rows import ACTION, write
from tasks.runs.audit import audit
from tasks.runs.markdown import cell
from tasks.runs.reporting import created_by, current_run_id, now, publish, say, warn
from tasks.runs.retries import RETRIED

_LINES_SHOWN = 1000
_FATES: dict[Kind, tuple[str, str]] = {
    "add": ("would get a row", "got a row"),
    "complete": ("would become completed", "is completed again"),
    "repair": ("would be repaired", "was repaired"),
    "missing": ("would become missing", "is missing now"),
    "deleted": ("would become deleted", "is deleted now"),
    "expired": ("would become expired", "is expired now"),
    "tell": ("stays as it is", "stays as it is"),
}


@dataclass(frozen=True)
class Rebuilt:
    """What differed between bucket and catalogue of a plan, and the names of the backups whose rows were changed."""

    plan: str
    dry_run: bool
    compared: Comparison
    changed: frozenset[str] = frozenset()


@task(name="rebuild", **RETRIED)
def rebuild(plan: str, dry_run: bool, requested_by: str) -> Rebuilt:
    """Shows what differs between bucket and catalogue, then writes it, and shows what was done. With `dry_run`, only
    shows it.

    Nobody removes backups of the plan meanwhile. Raises AlreadyRunning when somebody does so for long.
    """
    found, actor, run_id, began = plan_named(plan), created_by(requested_by), current_run_id(), now()
    with removal_lock(found.catalogue.dsn, plan, f"run {run_id}"):
        compared = compare(found)
        _publish(Rebuilt(plan, True, compared))
        done = Rebuilt(plan, dry_run, compared)
        if not dry_run:
            found.catalogue.create_lost_tables()
            done = Rebuilt(plan, False, compared, write(found, compared.changes, run_id, actor))
            _publish(done)
    _say(done)
    if not (dry_run and compared.without_tables):
        details = {"dry_run": dry_run, "backups": compared.whole, **_counted(done)}
        audit(
            found.catalogue,
            Event(
                ACTION,
                "completed",
                plan,
                actor,
                run_id,
                duration_seconds=(now() - began).total_seconds(),
                details=details,
            ),
        )
    return done


def _counted(done: Rebuilt) -> dict[str, int]:
    told = (
        one for one in done.compared.differences if one.kind == "tell" or done.dry_run or one.filename in done.changed
    )
    return dict(Counter(one.kind for one in told))


def _say(done: Rebuilt) -> None:
    for one in done.compared.differences[:_LINES_SHOWN]:
        tell = warn if one.kind == "tell" else say
        tell(f"{one.filename} {one.why} It {_fate(one, done)}.")
    say(
        f"{done.compared.whole:,} whole backups in the bucket, {len(done.compared.differences):,} differences, "
        f"{len(done.changed):,} rows changed. The artifact rebuild-{done.plan} lists them."
    )


def _publish(done: Rebuilt) -> None:
    title = "What differs" if done.dry_run else "Rebuilt catalogue"
    publish(f"rebuild-{done.plan}", f"{title}: plan {done.plan}", shown(done))


def shown(done: Rebuilt) -> str:
    """What differs, and what was done about it, as markdown. Pure."""
    compared = done.compared
    title = "What differs between bucket and catalogue" if done.dry_run else "What was written into the catalogue"
    lost = "".join(
        f"\n- The table {name} {'is lost' if done.dry_run else 'was lost, and made anew'}."
        for name in compared.without_tables
    )
    facts = f"{compared.whole:,} whole backups in the bucket, {compared.rows:,} rows in the catalogue before."
    if not compared.differences:
        return f"# {title}\n\n{facts}\n{lost}\n\nNothing differs.\n"
    lines = "\n".join(
        f"| `{one.filename}` | {cell(one.why)} | {_fate(one, done)} |" for one in compared.differences[:_LINES_SHOWN]
    )
    left_out = len(compared.differences) - _LINES_SHOWN
    rest = f"\n\n… and {left_out:,} more." if left_out > 0 else ""
    return f"# {title}\n\n{facts}\n{lost}\n\n| backup | what differs | its row |\n|---|---|---|\n{lines}{rest}\n"


def _fate(one: Difference, done: Rebuilt) -> str:
    would, did = _FATES[one.kind]
    if done.dry_run or one.kind == "tell":
        return would
    return did if one.filename in done.changed else "was changed by somebody else meanwhile: run this again"
