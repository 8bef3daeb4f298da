"""The step that applies retention, and what it shows."""

from __future__ import annotations

from prefect import task

from tasks.errors import BackupSystemError, CleanUpFailed
from tasks.plans.find_plan import plan_named
from tasks.retention.removal import CleanUp, DatabaseCleanUp, clean_up, clean_up_databases
from tasks.runs.markdown import cell, human_bytes
from tasks.runs.reporting import created_by, current_run_id, now, publish, say
from tasks.runs.retries import RETRIED

_ROWS_SHOWN = 1000


@task(name="retention", **RETRIED)
def apply_retention(plan: str, requested_by: str = "", dry_run: bool = False) -> CleanUp:
    """Removes what is due and shows why each backup stays or goes. Raises CleanUpFailed; completed backups are safe.

    A plan that leaves removal to the clean-up is only shown what would go.
    """
    if not plan_named(plan).retention_after_backup:
        say("Nothing is removed now: the plan leaves that to cleanup/clean-up-now.")
        dry_run = True
    done, databases = retain(plan, requested_by, dry_run)
    publish(f"retention-{plan}", f"Retention of plan {plan}", table(done, databases, dry_run))
    raise_problems(plan, (*done.problems, *databases.problems))
    return done


def retain(plan: str, requested_by: str, dry_run: bool) -> tuple[CleanUp, DatabaseCleanUp]:
    """Removes the backups and databases that are due, and says so in the log. Problems are in what it returns."""
    try:
        done = clean_up(plan_named(plan), current_run_id(), created_by(requested_by), now(), dry_run)
    except BackupSystemError as error:
        kind = type(error)
        raise kind(f"Retention of plan {plan} failed; the backups themselves are safe. {error}") from None
    databases = clean_up_databases(plan_named(plan), now(), dry_run)
    verb = "would be removed" if dry_run else "removed"
    say(f"Retention: {len(done.decisions) - len(done.removed)} backups stay, {len(done.removed)} {verb}.")
    for line in databases.found:
        say(line)
    for name in databases.dropped:
        say(f"The replaced database {name} {'would be' if dry_run else 'was'} dropped.")
    return done, databases


def raise_problems(plan: str, problems: tuple[str, ...]) -> None:
    """Raises CleanUpFailed when there are any."""
    if problems:
        raise CleanUpFailed(f"Retention of plan {plan}: {' '.join(problems)} The backups that stay are safe.")


def table(done: CleanUp, databases: DatabaseCleanUp, dry_run: bool, more: str = "") -> str:
    """Every decision with its reasons, and the databases of restores, as markdown; `more` stands at its end. Pure."""
    rows = "\n".join(
        f"| `{one.backup.filename}` | {'stays' if one.keep else 'goes'} | {'; '.join(one.reasons)} |"
        for one in done.decisions[:_ROWS_SHOWN]
    )
    left_out = len(done.decisions) - _ROWS_SHOWN
    rest = f"\n\n… and {left_out:,} backups more." if left_out > 0 else ""
    title = "What retention would do" if dry_run else "What retention did"
    problems = "".join(f"\n- {cell(problem)}" for problem in (*done.problems, *databases.problems))
    databases_told = kept_table(databases, dry_run) + found_list(databases)
    return f"# {title}\n\n| backup | | why |\n|---|---|---|\n{rows}{rest}\n{problems}\n{databases_told}{more}"


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


def found_list(databases: DatabaseCleanUp) -> str:
    """What dead restores had left, as markdown; empty when they had left nothing. Pure."""
    lines = "".join(f"\n- {cell(line)}" for line in databases.found)
    return f"\n## Left by restores that died\n{lines}\n" if lines else ""
