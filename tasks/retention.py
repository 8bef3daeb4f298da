"""The step that applies retention."""

from __future__ import annotations

from prefect import task

from tasks.core.errors import BackupSystemError, CleanUpFailed
from tasks.core.removal import CleanUp, DatabaseCleanUp, clean_up, clean_up_databases
from tasks.plans import plan_named
from tasks.reporting import cell, created_by, current_run_id, human_bytes, now, publish, say
from tasks.steps import RETRIED


@task(name="retention", **RETRIED)
def apply_retention(plan: str, requested_by: str = "", dry_run: bool = False) -> CleanUp:
    """Removes what is due and shows why each backup stays or goes. Raises CleanUpFailed; completed backups are safe."""
    try:
        done = clean_up(plan_named(plan), current_run_id(), created_by(requested_by), now(), dry_run)
    except BackupSystemError as error:
        kind = type(error)
        raise kind(f"Retention of plan {plan} failed; the backups themselves are safe. {error}") from None
    databases = clean_up_databases(plan_named(plan), now(), dry_run)
    publish(f"retention-{plan}", f"Retention of plan {plan}", table(done, databases, dry_run))
    verb = "would be removed" if dry_run else "removed"
    say(f"Retention: {len(done.decisions) - len(done.removed)} backups stay, {len(done.removed)} {verb}.")
    for line in databases.found:
        say(line)
    for name in databases.dropped:
        say(f"The replaced database {name} {'would be' if dry_run else 'was'} dropped.")
    problems = (*done.problems, *databases.problems)
    if problems:
        raise CleanUpFailed(f"Retention of plan {plan}: {' '.join(problems)} The backups that stay are safe.")
    return done


def table(done: CleanUp, databases: DatabaseCleanUp, dry_run: bool) -> str:
    """Every decision with its reasons, and the replaced databases, as markdown. Pure."""
    rows = "\n".join(
        f"| `{one.candidate.filename}` | {'stays' if one.keep else 'goes'} | {' '.join(one.reasons)} |"
        for one in done.decisions
    )
    title = "What retention would do" if dry_run else "What retention did"
    problems = "".join(f"\n- {cell(problem)}" for problem in (*done.problems, *databases.problems))
    return f"# {title}\n\n| backup | | why |\n|---|---|---|\n{rows}\n{problems}\n{kept_table(databases, dry_run)}"


def kept_table(databases: DatabaseCleanUp, dry_run: bool) -> str:
    """The databases that restores replaced, as markdown; empty when there are none. Pure."""
    if not databases.kept:
        return ""
    goes = "would be dropped" if dry_run else "dropped"
    lines = "\n".join(
        f"| {cell(one.name)} | {one.at:%Y-%m-%d %H:%M:%S} UTC | {'' if one.size is None else human_bytes(one.size)} "
        f"| {goes if one.name in databases.dropped else 'stays for undo-restore'} |"
        for one in databases.kept
    )
    return f"\n## Replaced databases\n\n| database | replaced at | size | |\n|---|---|---:|---|\n{lines}\n"
