"""The lock that keeps restores and other work on one database apart, for the length of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from tasks.errors import (
    AccessRefused,
    BadSetting,
    Transient,
)
from tasks.plans.find_plan import plan_named
from tasks.postgres.locks import backup_lock
from tasks.runs.reporting import current_run_id


@contextmanager
def no_restore(plan: str, refusal: str = "") -> Iterator[None]:
    """Restores of the plan's database are refused until the `with` block ends.

    Raises AlreadyRunning while a restore is under way; its text begins with `refusal`, or speaks of a backup. A server
    that does not answer is no error here: the steps say what is wrong with it.
    """
    with ExitStack() as held:
        with suppress(AccessRefused, BadSetting, Transient):
            held.enter_context(backup_lock(plan_named(plan).database, f"run {current_run_id()}", refusal))
        yield
