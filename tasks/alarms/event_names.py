"""The names of runs and of our own events, and which event begins and ends which problem. Pure.

The Prefect server keeps the state of a problem by itself, so a message needs no worker: an automation with `after` and
`expect` fires for the first expected event, and then not again until an event of `after` has come, separately for each
value of a label (`reactive_evaluation` in prefect/server/events/triggers.py). The label is the name of the run, which
is the same for every run of a plan; our own events have the same names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tasks.names import base_of

EVERY_PLAN = "every-plan"
#: How times are written in events and messages.
TIME = "%Y-%m-%d %H:%M:%S UTC"

#: What a plan's backups contain, sound or suspicious; and what the health check finds.
DATA, HEALTH = "data-", "health-"
#: Names that begin so stand for something that is well or not: one message when it is not, one when it is again.
KEPT = ("backup-", "backups-of-", "verify-", HEALTH, DATA)
#: Runs that go through the plans. Their results are reported under the names above, plan by plan; under their own names
#: only that they do not run.
CHECK, ALL_BACKUPS = "check-health-", "all-backups"
ROUNDS = (CHECK, ALL_BACKUPS)
#: Runs that somebody started once, each of whose failures is reported; and databases that are gone.
SINGLE = (
    "cleanup-",
    "delete-",
    "keep-",
    "adopt-",
    "download-",
    "list-backups-",
    "list-events-",
    "rebuild-catalogue-",
    "restore-",
    "undo-restore-",
    "gone-",
    "verification-",
)

#: Our own events.
ARMED = "backup.armed"  # from here on, a problem is reported
NOTED = "backup.noted"  # a problem that was reported before goes on: its end is reported
BEGUN = "backup.begun"  # a run has begun, so runs of its deployment begin
ENDED = "backup.ended"  # a run that goes through the plans has ended, whatever its result
OVERDUE = "backup.overdue"
FAILED, WELL = "backup.failed", "backup.well"  # how the newest run ended; the health check repeats it
GONE = "database.gone"  # a database that the plan of a server backed up
SUSPICIOUS, SOUND = "backup.suspicious", "backup.sound"
UNHEALTHY, HEALTHY = "health.failed", "health.ok"

_STATE = "prefect.flow-run."


def state(name: str) -> str:
    """The event of a flow run that enters the state of this name."""
    return f"{_STATE}{name}"


COMPLETED, LATE = state("Completed"), state("Late")
#: Every way in which a run fails.
FAILURES = frozenset({state("Failed"), state("Crashed"), state("TimedOut")})
#: The name of the state of a backup run that found another backup of its plan under way, which reports how it ends.
REFUSED = "Refused"
#: Every way in which a run ends. A run is Skipped when a later run is due as well.
ENDS = FAILURES | {COMPLETED, state("Cancelled"), state("Skipped"), state(REFUSED)}


@dataclass(frozen=True)
class Series:
    """What can be wrong with something, and the events after which it is right again."""

    wrong: frozenset[str]
    right: frozenset[str]

    @property
    def over(self) -> frozenset[str]:
        """The events that lead to the message that a problem is over: our own, because they know when it began."""
        return frozenset(event for event in self.right if not event.startswith(_STATE))

    def __or__(self, other: Series) -> Series:
        return Series(self.wrong | other.wrong, self.right | other.right)


#: Backups, verifications, and the starts of backup-all.
RUN_SERIES = Series(FAILURES | {LATE, OVERDUE, FAILED}, frozenset({COMPLETED, WELL}))
HEALTH_SERIES = Series(frozenset({UNHEALTHY}), frozenset({HEALTHY}))
DATA_SERIES = Series(frozenset({SUSPICIOUS}), frozenset({SOUND}))
#: Whether a run of ROUNDS runs: one that failed has run.
ROUND_SERIES = Series(FAILURES - {state("Failed")} | {LATE}, frozenset({COMPLETED, state("Failed"), ENDED}))
#: Whether the runs of a deployment begin.
BEGIN_SERIES = Series(FAILURES | {LATE}, frozenset({BEGUN}))

#: The automations that must be on the server; `tasks.alarms.apply_automations` makes them.
MARKS_CRASHED = "Backups: mark runs without heartbeat as crashed"
TELLS_PROBLEM = "Backups: tell of a problem"
TELLS_SUSPICIOUS = "Backups: tell of a suspicious backup"
TELLS_END = "Backups: tell that a problem is over"
TELLS_UNCHECKED = "Backups: tell that the health check does not run"
TELLS_CHECKED = "Backups: tell that the health check runs again"
TELLS_UNBEGUN = "Backups: tell that runs do not begin"
TELLS_BEGUN = "Backups: tell that runs begin again"
TELLS_SINGLE = "Backups: tell of any other run that fails"
ALARMS = (
    MARKS_CRASHED,
    TELLS_PROBLEM,
    TELLS_SUSPICIOUS,
    TELLS_END,
    TELLS_UNCHECKED,
    TELLS_CHECKED,
    TELLS_UNBEGUN,
    TELLS_BEGUN,
    TELLS_SINGLE,
)


def backup_name(plan: str) -> str:
    return f"backup-{plan}"


def backups_of(plan: str) -> str:
    """What stands for the backup of all databases of a server: whether it could start every backup."""
    return f"backups-of-{plan}"


def every_backup_name() -> str:
    """The same for backup-all."""
    return backups_of(EVERY_PLAN)


def all_backups_of(plan: str) -> str:
    """The name of a run that backs up all databases of a server."""
    return f"{ALL_BACKUPS}-of-{plan}"


def gone_name(plan: str) -> str:
    """What stands for the end of a database that was backed up."""
    return f"gone-{plan}"


def health_name(plan: str) -> str:
    return f"{HEALTH}{plan}"


def data_name(plan: str) -> str:
    """What stands for the content of a plan's backups."""
    return f"{DATA}{plan}"


def verify_name(plan: str, backup: str = "latest") -> str:
    """Verifying the newest backup is one series a plan; the result for a named backup says nothing about the next."""
    return f"verify-{plan}" if backup in ("", "latest") else f"verification-{plan}-{backup}"


def names_of_plan(plan: str) -> list[str]:
    """Every name that is watched for a plan, which may be that of a server."""
    own = [backup_name(plan), verify_name(plan), health_name(plan), data_name(plan), f"{CHECK}{plan}"]
    return own if base_of(plan) != plan else [*own, backups_of(plan), all_backups_of(plan)]


def common_names() -> list[str]:
    """Every name that is watched for all plans together."""
    return [ALL_BACKUPS, every_backup_name(), f"{CHECK}{EVERY_PLAN}"]


def series_of(name: str) -> Series:
    """What can be wrong with what a watched name stands for."""
    if name.startswith(ROUNDS):
        return ROUND_SERIES
    return DATA_SERIES if name.startswith(DATA) else HEALTH_SERIES if name.startswith(HEALTH) else RUN_SERIES


def patterns(prefixes: Sequence[str]) -> list[str]:
    """Globs of the names that begin with one of `prefixes`."""
    return [f"{prefix}*" for prefix in prefixes]


def names_before_begin() -> list[str]:
    """Globs of the names that a run can have before it begins: Prefect drew such a name, or somebody gave it."""
    return outside((*KEPT, *ROUNDS, *SINGLE))


def outside(prefixes: Iterable[str]) -> list[str]:
    """Globs that together fit every name that begins with none of `prefixes`, and no other.

    An automation takes a list of globs, of which one must fit: `!backup-*` and `!verify-*` in it would fit everything.
    """
    known = set(prefixes)
    globs = []
    for begun in sorted({prefix[:length] for prefix in known for length in range(len(prefix))}):
        if not any(begun.startswith(prefix) for prefix in known):
            following = "".join(sorted({prefix[len(begun)] for prefix in known if prefix.startswith(begun)}))
            globs += [*([begun] if begun else []), f"{begun}[!{_class(following)}]*"]
    return globs


def _class(characters: str) -> str:
    """A dash stands last in a class of characters, where it means itself."""
    return characters.replace("-", "") + ("-" if "-" in characters else "")
