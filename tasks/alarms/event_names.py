"""What alarms are made of: the names of runs, of our own events, and which run belongs to which kind of message. Pure.

The Prefect server keeps the state of an incident by itself, so that a message needs no worker: an automation with
`after` and `expect` fires once for the first expected event, and then no more until an event of `after` has come,
separately for each value of a label (`reactive_evaluation` in prefect/server/events/triggers.py). The label is the name
of the run, which is the same for every run of a plan; our own events bear the same names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

EVERY_PLAN = "every-plan"

#: Names that begin so stand for a thing that is well or not: one message when it is not, one when it is again.
KEPT = ("backup-", "backups-of-", "verify-", "health-", "data-")
#: Runs that go through the plans. What they find is told by the names above, plan by plan; by their own only that they
#: do not run.
CHECK, ALL_BACKUPS = "check-health-", "all-backups"
ROUNDS = (CHECK, ALL_BACKUPS)
#: Runs that somebody asked for once: each that fails is told.
SINGLE = (
    "cleanup-",
    "delete-",
    "download-",
    "drill-",
    "list-backups-",
    "list-events-",
    "rebuild-catalogue-",
    "restore-",
    "undo-restore-",
)

#: Our own events.
ARMED = "backup.armed"  # from here on, a problem is told
NOTED = "backup.noted"  # a problem that was told before lasts: its end is told
BEGUN = "backup.begun"  # a run has begun, so that runs of its deployment begin
OVERDUE = "backup.overdue"
FAILED, WELL = "backup.failed", "backup.well"  # how the newest run ended, said again by the health check
SUSPICIOUS, SOUND = "backup.suspicious", "backup.sound"
UNHEALTHY, HEALTHY = "health.failed", "health.ok"


def state(name: str) -> str:
    """The event of a flow run that comes into the state of this name."""
    return f"prefect.flow-run.{name}"


COMPLETED, LATE = state("Completed"), state("Late")
#: Every way in which a run fails.
FAILURES = frozenset({state("Failed"), state("Crashed"), state("TimedOut")})
#: The name of the state of a backup run that found another one at its plan. That one tells how it ends.
REFUSED = "Refused"
#: Every way in which a run ends; Skipped is what a run is that was caught up by a later one.
ENDS = FAILURES | {COMPLETED, state("Cancelled"), state("Skipped"), state(REFUSED)}
#: What is wrong with a thing of KEPT, and what is right with it.
WRONG = FAILURES | {LATE, OVERDUE, FAILED, SUSPICIOUS, UNHEALTHY}
RIGHT = frozenset({COMPLETED, WELL, SOUND, HEALTHY})

#: The automations that must be on the server; `tasks.alarms.apply_automations` makes them.
MARKS_CRASHED = "Backups: mark runs without heartbeat as crashed"
TELLS_PROBLEM = "Backups: tell of a problem"
TELLS_END = "Backups: tell that a problem is over"
TELLS_UNCHECKED = "Backups: tell that the health check does not run"
TELLS_CHECKED = "Backups: tell that the health check runs again"
TELLS_UNBEGUN = "Backups: tell that runs do not begin"
TELLS_BEGUN = "Backups: tell that runs begin again"
TELLS_SINGLE = "Backups: tell of any other run that fails"
ALARMS = (
    MARKS_CRASHED,
    TELLS_PROBLEM,
    TELLS_END,
    TELLS_UNCHECKED,
    TELLS_CHECKED,
    TELLS_UNBEGUN,
    TELLS_BEGUN,
    TELLS_SINGLE,
)


def backup_name(plan: str) -> str:
    return f"backup-{plan}"


def every_backup_name() -> str:
    """What stands for backup-all: whether it could start every backup that it was to start."""
    return f"backups-of-{EVERY_PLAN}"


def health_name(plan: str) -> str:
    return f"health-{plan}"


def data_name(plan: str) -> str:
    """What stands for the content of a plan's backups: sound or suspicious."""
    return f"data-{plan}"


def drill_name(plan: str, backup: str) -> str:
    """Drills of the newest backup are one series a plan; that of a certain backup says nothing of the next."""
    return f"verify-{plan}" if backup in ("", "latest") else f"drill-{plan}-{backup}"


def names_of_plan(plan: str) -> list[str]:
    """Every name that is kept for a plan."""
    return [backup_name(plan), drill_name(plan, "latest"), health_name(plan), data_name(plan), f"{CHECK}{plan}"]


def common_names() -> list[str]:
    """Every name that is kept for all plans together."""
    return [ALL_BACKUPS, every_backup_name(), f"{CHECK}{EVERY_PLAN}"]


def patterns(prefixes: Sequence[str]) -> list[str]:
    """Globs of the names that begin with one of `prefixes`."""
    return [f"{prefix}*" for prefix in prefixes]


def outside(prefixes: Iterable[str]) -> list[str]:
    """Globs that together fit every name that begins with none of `prefixes`, and no other.

    An automation takes a list of globs, of which one must fit: `!backup-*` and `!verify-*` in it would fit everything.
    A run that has not begun bears a name that Prefect drew, or somebody gave it: the globs are how it is known.
    """
    known = set(prefixes)
    found = []
    for begun in sorted({prefix[:length] for prefix in known for length in range(len(prefix))}):
        if not any(begun.startswith(prefix) for prefix in known):
            following = "".join(sorted({one[len(begun)] for one in known if one.startswith(begun)}))
            found += [*([begun] if begun else []), f"{begun}[!{_class(following)}]*"]
    return found


def _class(characters: str) -> str:
    """A dash stands last in a class of characters, where it means itself."""
    return characters.replace("-", "") + ("-" if "-" in characters else "")
