"""The Prefect task of the health check: a plan's lines in log, artifact, audit and event."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from prefect import task
from prefect.logging import get_run_logger

from tasks.alarms.event_names import HEALTHY, OVERDUE, UNHEALTHY, backup_name, health_name, verify_name
from tasks.alarms.run_reports import remind, report_event
from tasks.alarms.watch import look_after_runs, standing_of
from tasks.databases.coverage import place_of_server, uncovered
from tasks.databases.on_server import databases_of
from tasks.errors import BackupSystemError, HealthFailed, Unreachable
from tasks.health.backups import CATALOGUE
from tasks.health.database import meant_line, uncovered_line
from tasks.health.examine import SECONDS, Examined, examine
from tasks.health.lines import Line, Status, summary, verdict, with_status, worst_first
from tasks.health.metrics import Figures, metrics_lines
from tasks.health.prefect_facts import prefect_facts
from tasks.health.prefect_server import PrefectFacts, prefect_lines
from tasks.names import base_of, database_plan
from tasks.plans.addresses import plan_addresses
from tasks.plans.blocks import BackupPlan, PostgresDatabase
from tasks.plans.find_plan import any_plan_named, backs_up_server, block_documents, plan_names
from tasks.plans.plan import Plan
from tasks.prefect_client import NO_ANSWER
from tasks.runs.at_once import Deadline, answer, begin
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
    """The plan of this name; all plans when the name is empty. Raises BadSetting when there is no such plan.

    The plan of a server stands for itself and for its databases that have been backed up and are there.
    """
    name = plan.strip()
    if name and name not in plan_names():
        any_plan_named(name)  # what .env describes, a database of a server, or nothing
    return [each for one in ([name] if name else plan_names()) for each in (one, *_databases_of(one))]


def _databases_of(plan: str) -> list[str]:
    """The plans of its databases that the server has now, and that have records."""
    if not backs_up_server(plan):
        return []
    try:
        server = any_plan_named(plan)
        there = {database_plan(plan, name) for name in databases_of(server).meant_by(server)}
        return [name for name in server.catalogue.plans_of_server(plan) if name in there]
    except BackupSystemError:  # the check of the server's plan says so
        return []


@task(name="check", task_run_name="check-{plan}", **STEP)
def check_plan(plan: str, requested_by: str) -> Report:
    """A line for each check in log, artifact `health-<plan>` and event. A check that failed raises nothing here."""
    try:
        checked = any_plan_named(plan)
    except BackupSystemError as error:
        report = Report(plan, (Line("Plan", "failed", str(error), "Correct it under Blocks in the Prefect UI."),))
    else:
        if checked.databases:
            return _checked_server(checked, requested_by)
        examined = examine(checked, _asks_prefect(plan), now)
        metrics = metrics_lines(checked.metrics_directory, plan, _figures(examined))
        of_server = [_uncovered(checked)] if base_of(plan) == plan else []
        report = Report(plan, worst_first([*examined.lines, *of_server, *metrics]))
        _record(checked, report, requested_by)
    _tell(report)
    _report(report)
    return report


def _tell(report: Report) -> None:
    for line in report.lines:
        get_run_logger().log(_LEVELS[line.status], line.text())
    publish(f"health-{report.plan}", f"Health of plan {report.plan}: {summary(report.lines)}", markdown(report))


def _checked_server(plan: Plan, requested_by: str) -> Report:
    """The plan of a server: its databases and its schedule. Each of its databases has a report of its own."""
    deadline = Deadline(SECONDS)
    found, known, facts = (
        begin(lambda: databases_of(plan)),
        begin(lambda: plan.catalogue.plans_of_server(plan.name, backed_up=True)),
        begin(_asks_prefect(plan.name)),
    )
    records = answer(known, deadline, f"The catalogue at {plan.catalogue.dsn.place}")
    prefect = answer(facts, deadline, "The Prefect server")
    databases = answer(found, deadline, f"The database server of {plan.database.place}")
    catalogue = [] if records.value is not None else [Line(CATALOGUE, "failed", records.problem, "Solve that first.")]
    meant = [] if plan.restore_only else [meant_line(databases, plan, records.value or ())]
    schedule = prefect_lines(plan.name, prefect, now(), restore_only=plan.restore_only)
    lines = [*meant, *catalogue, _uncovered(plan), *schedule]
    report = Report(plan.name, worst_first(lines))
    _record(plan, report, requested_by)
    _tell(report)
    _report_health(report, health_name(plan.name))
    return report


def _uncovered(plan: Plan) -> Line:
    """Plans are asked of the Prefect server, databases of that of the plan."""

    def ask() -> list[str]:
        try:
            blocks = block_documents([BackupPlan, PostgresDatabase], secrets=True)
        except NO_ANSWER as error:
            raise Unreachable(f"The Prefect server gave no answer ({type(error).__name__}).") from None
        plans = plan_addresses(blocks, Path.cwd())
        return uncovered(databases_of(plan), place_of_server(plan.database), plans)

    return uncovered_line(answer(begin(ask), Deadline(SECONDS), f"The database server of {plan.database.place}"))


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
    _report_health(report, name)


def _report_health(report: Report, name: str) -> None:
    report_event(
        UNHEALTHY if report.verdict else HEALTHY,
        name,
        report.plan,
        sentence=report.verdict,
        summary=summary(report.lines),
        failed=[line.text() for line in with_status(report.lines, "failed")],
        warnings=[line.text() for line in with_status(report.lines, "warning")],
    )
