"""What the audit says of a run that did not do what it was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tasks.catalogue.catalogue import Event
from tasks.errors import BackupSystemError, Permanent
from tasks.plans.find_plan import plan_named
from tasks.runs.reporting import audit, created_by, current_run_id
from tasks.runs.retries import reason_of


@contextmanager
def failure_recorded(action: str, plan: str, requested_by: str, backup: str, **asked: object) -> Iterator[None]:
    """An error in the `with` block, a cancellation too, is told to the audit: refused, or failed where it may pass.

    `backup` and `asked` are what somebody asked for.
    """
    try:
        yield
    except BaseException as error:
        outcome = "refused" if isinstance(error, Permanent) else "failed"
        try:
            catalogue = plan_named(plan).catalogue
        except BackupSystemError:  # a plan that cannot be read has no catalogue to write to
            pass
        else:
            audit(
                catalogue,
                Event(
                    action,
                    outcome,
                    plan,
                    created_by(requested_by),
                    current_run_id(),
                    error=reason_of(error),
                    details={"backup": backup[:200], **asked},
                ),
            )
        raise
