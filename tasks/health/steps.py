"""The Prefect task of the health check: a plan's lines in log, artifact, audit and event."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from prefect import task
from prefect.logging import get_run_logger

from tasks.alarms.event_names import HEALTHY, OVERDUE, UNHEALTHY, backup_name, health_name, verify_name
from tasks.alarms.run_reports import remind, report_event
from tasks.alarms.watch import look_after_runs, standing_of
from tasks.errors import BackupSystemError, HealthFailed
from tasks.health.backups import CATALOGUE
from tasks.health.examine import Examined, examine
from tasks.health.lines import Line, Status, summary, verdict, with_status, worst_first
from tasks.health.metrics import Figures, metrics_lines
from tasks.health.prefect_facts import prefect_facts
from tasks.health.prefect_server import PrefectFacts
from tasks.names import checked_plan_name
from tasks.plans.find_plan import plan_named, plan_names
from tasks.plans.plan import Plan
from tasks.runs.audit import audit, run_event
from tasks.runs.markdown import cell, table
from tasks.runs.reporting import now, publish
from tasks.runs.retries import STEP

_LEVELS: dict[Status, int] = {"ok": logging.INFO, "warning": logging.WARNING, "failed": logging.ERROR}
_SHOWN: dict[Status, str] = {"ok": "✅ ok", "warning": "⚠️ warning", "failed": "❌ failed"}


@dataclass(frozen=True)
class Report:
    """The lines of a plan, the worst first."""

    plan: str
    lines: tuple[Line, ...]

    @property
    def verdict(self) -> str:
        """What failed, in words; empty when nothing did."""
        return verdict(self.plan, self.lines)


def plans_meant(plan: str) -> list[str]:
    """The plan of this name; all plans when the name is empty. Raises BadSetting when there is no such plan."""
    name = plan.strip()
    if not name:
        return plan_names()
    if checked_plan_name(name) not in plan_names():
        plan_named(name)  # what .env describes, or nothing
    return [name]


@task(name="check", task_run_name="check-{plan}", **STEP)
def check_plan(plan: str, requested_by: str) -> Report:
    """A line for each check in log, artifact `health-<plan>` and event. A check that failed raises nothing here."""
    try:
        checked = plan_named(plan)
    except BackupSystemError as error:
        report = Report(plan, (Line("Plan", "failed", str(error), "Correct it under Blocks in the Prefect UI."),))
    else:
        examined = examine(checked, _asks_prefect(plan), now)
        metrics = metrics_lines(checked.metrics_directory, plan, _figures(examined))
        report = Report(plan, worst_first([*examined.lines, *metrics]))
        _record(checked, report, requested_by)
    for line in report.lines:
        get_run_logger().log(_LEVELS[line.status], line.text())
    publish(f"health-{plan}", f"Health of plan {plan}: {summary(report.lines)}", markdown(report))
    _report(report)
    return report


def conclude(reports: Sequence[Report]) -> Sequence[Report]:
    """The reports, after dead runs were reported. Raises HealthFailed with all that failed, if anything did."""
    look_after_runs()
    failed = [report.verdict for report in reports if report.verdict]
    if failed:
        several = f"{len(failed)} of {len(reports)} plans are not healthy. " if len(reports) > 1 else ""
        raise HealthFailed(several + " ".join(failed), text(reports))
    return reports


def markdown(report: Report) -> str:
    """A report as markdown, in which no text is taken for markup. Pure."""
    rows = [(_SHOWN[line.status], cell(line.check), cell(line.what), cell(line.to_do)) for line in report.lines]
    return (
        f"# Health of plan {cell(report.plan)}\n\n{summary(report.lines)}\n\n"
        f"{table(('', 'check', 'result', 'what to do'), rows)}"
    )


def text(reports: Sequence[Report]) -> str:
    """Every line of every report, for a terminal. Pure."""
    return "\n".join(
        line
        for report in reports
        for line in (f"Plan {report.plan}: {summary(report.lines)}", *(line.text() for line in report.lines))
    )


def _figures(examined: Examined) -> Figures:
    records = examined.records
    return Figures(
        now(),
        failed=len(with_status(examined.lines, "failed")),
        warnings=len(with_status(examined.lines, "warning")),
        good=examined.good,
        verified_at=records.verified_at if records else None,
        last_restore=records.last_restore if records else None,
    )


def _asks_prefect(plan: str) -> Callable[[], PrefectFacts]:
    return lambda: prefect_facts(plan, now())


def _record(plan: Plan, report: Report, requested_by: str) -> None:
    """A line in the audit; not when the check of the catalogue failed, so that nothing waits for it again."""
    failed = with_status(report.lines, "failed")
    if any(line.check == CATALOGUE for line in failed):
        return
    warnings = with_status(report.lines, "warning")
    event = run_event(
        "check-health",
        "failed" if failed else "completed",
        plan.name,
        requested_by,
        failed=[line.check for line in failed],
        warnings=[line.check for line in warnings],
    )
    audit(plan.catalogue, replace(event, error=report.verdict or None))


def _report(report: Report) -> None:
    """The event `health.failed` or `health.ok`, and `backup.overdue` when a backup is missing.

    A plan whose backup failed or is overdue has an alarm for that: its `health.failed` then notifies nobody.
    """
    backups, verifications = backup_name(report.plan), verify_name(report.plan)
    stands = standing_of(backups)
    missing = [line for line in report.lines if line.is_overdue]
    for line in missing:
        report_event(OVERDUE, backups, report.plan, sentence=line.text())
    if not missing:
        remind(report.plan, backups, stands)
    remind(report.plan, verifications, standing_of(verifications))
    name = health_name(report.plan)
    if report.verdict and (missing or stands == "failed"):
        name = f"reported otherwise: {name}"
    report_event(
        UNHEALTHY if report.verdict else HEALTHY,
        name,
        report.plan,
        sentence=report.verdict,
        summary=summary(report.lines),
        failed=[line.text() for line in with_status(report.lines, "failed")],
        warnings=[line.text() for line in with_status(report.lines, "warning")],
    )
