"""Why backups stay for now although they are due: answers of the store that may be wrong, or more than usual.

A backup that stays costs a little room; one that was removed because of a wrong answer is gone for good.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, timedelta

from tasks.catalogue.rows import UNPROVED, Record
from tasks.errors import RemovalHalted
from tasks.names import FULL
from tasks.plans.plan import Plan
from tasks.retention.policy import Decision

#: Until a store that contradicts itself is asked once more.
ASK_AGAIN_SECONDS = 2.0
#: Backups that may always go on one day.
LEAST_A_DAY = 3
#: The days from which is known how many backups a plan makes on one day.
_DAYS = 31
_NAMED_AT_MOST = 5
_REMOVED = """
    SELECT count(*) AS removed FROM backup_events
     WHERE plan = %s AND action = 'retention' AND outcome = 'expired' AND at > now() - interval '20 hours'
"""


def stored_sizes(plan: Plan, backups: Sequence[Record]) -> dict[str, int]:
    """The size of each object in the folders of the backups, by key, after the store's answers were compared.

    HEAD and LIST must agree on the newest backup and on one that is not listed. Raises RemovalHalted when they do not,
    twice, and when more than one backup is not there.
    """
    listed, doubt = _asked(plan, backups)
    if doubt:
        time.sleep(ASK_AGAIN_SECONDS)
        listed, doubt = _asked(plan, backups)
    if doubt:
        raise RemovalHalted(f"{doubt} Nothing is removed until somebody has looked at the bucket.")
    return listed


def _asked(plan: Plan, backups: Sequence[Record]) -> tuple[dict[str, int], str]:
    """What the store lists, and a sentence on what is doubtful in that."""
    folders = sorted({backup.s3_key.rpartition("/")[0] + "/" for backup in backups})
    listed = {stored.key: stored.size for folder in folders for stored in plan.storage.objects(folder)}
    missing = [backup for backup in backups if backup.s3_key not in listed]
    bucket = plan.storage.bucket
    if len(missing) > 1:
        names = ", ".join(backup.filename for backup in missing[:_NAMED_AT_MOST])
        more = f" and {len(missing) - _NAMED_AT_MOST} more" if len(missing) > _NAMED_AT_MOST else ""
        return listed, (
            f"{len(missing)} of {len(backups)} completed backups of plan {plan.name} are not in bucket {bucket} "
            f"({names}{more}): if they are gone for good, run rebuild-catalogue, which notes that."
        )
    for backup in (*missing, *[backup for backup in backups if backup.backup_type == FULL][:1]):
        size = plan.storage.size(backup.s3_key)
        if size != listed.get(backup.s3_key):
            return listed, (
                f"The store contradicts itself about {backup.filename} in bucket {bucket}: "
                f"it lists {_bytes(listed.get(backup.s3_key))}, and answers {_bytes(size)} when asked for it."
            )
    return listed, ""


def _bytes(size: int | None) -> str:
    return "no such object" if size is None else f"{size:,} bytes"


def most_a_day(rows: Sequence[Record]) -> int:
    """How many backups may go on one day: twice what the plan made on its busiest day of late, 3 at least. Pure.

    In the long run a plan removes as many as it makes.
    """
    made = [row.created_at.astimezone(UTC) for row in rows if row.status not in ("failed", "in_progress", UNPROVED)]
    if not made:
        return LEAST_A_DAY
    since = max(made) - timedelta(days=_DAYS)
    return max(LEAST_A_DAY, 2 * max(Counter(at.date() for at in made if at > since).values()))


def removed_of_late(plan: Plan) -> int:
    """How many backups of the plan retention has removed within the last day."""
    with plan.catalogue.cursor() as cursor:
        cursor.execute(_REMOVED, [plan.name])
        return int(cursor.fetchall()[0]["removed"])


def within_bounds(
    decisions: Sequence[Decision], a_day: int, removed: int, confirmed: int
) -> tuple[tuple[Decision, ...], int]:
    """The decisions, of which no more than usual remove a backup, and how many wait because of that. Pure.

    The oldest go first. `confirmed` is how many a person allows to go now.
    """
    due = [decision for decision in reversed(decisions) if not decision.keep]
    room = max(0, a_day - removed)
    if len(due) <= max(room, confirmed):
        return tuple(decisions), 0
    reason = f"due, but no more than {a_day} backups go on one day, unless cleanup is run with confirm={len(due)}"
    waiting = {decision.backup for decision in due[room:]}
    bounded = (
        replace(decision, keep=True, reasons=(reason,)) if decision.backup in waiting else decision
        for decision in decisions
    )
    return tuple(bounded), len(waiting)


def halted(backups: Sequence[Record], why: str) -> tuple[Decision, ...]:
    """The decision that every backup stays. Pure."""
    return tuple(Decision(backup, True, (f"Removal is halted. {why}",)) for backup in backups)
