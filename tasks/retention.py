"""The step that applies retention."""

from __future__ import annotations

from prefect import task

from tasks.core.errors import BackupSystemError, CleanUpFailed
from tasks.core.removal import CleanUp, clean_up
from tasks.plans import plan_named
from tasks.reporting import created_by, current_run_id, now, publish, say
from tasks.steps import RETRIED


@task(name="retention", **RETRIED)
def apply_retention(plan: str, requested_by: str = "", dry_run: bool = False) -> CleanUp:
    """Removes what is due and shows why each backup stays or goes. Raises CleanUpFailed; completed backups are safe."""
    try:
        done = clean_up(plan_named(plan), current_run_id(), created_by(requested_by), now(), dry_run)
    except BackupSystemError as error:
        kind = type(error)
        raise kind(f"Retention of plan {plan} failed; the backups themselves are safe. {error}") from None
    publish(f"retention-{plan}", f"Retention of plan {plan}", table(done, dry_run))
    verb = "would be removed" if dry_run else "removed"
    say(f"Retention: {len(done.decisions) - len(done.removed)} backups stay, {len(done.removed)} {verb}.")
    if done.problems:
        raise CleanUpFailed(f"Retention of plan {plan}: {' '.join(done.problems)} The backups that stay are safe.")
    return done


def table(done: CleanUp, dry_run: bool) -> str:
    """Every decision with its reasons, as markdown. Pure."""
    rows = "\n".join(
        f"| `{one.candidate.filename}` | {'stays' if one.keep else 'goes'} | {' '.join(one.reasons)} |"
        for one in done.decisions
    )
    title = "What retention would do" if dry_run else "What retention did"
    problems = "".join(f"\n- {problem}" for problem in done.problems)
    return f"# {title}\n\n| backup | | why |\n|---|---|---|\n{rows}\n{problems}\n"
