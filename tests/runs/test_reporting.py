"""What people see of a run: sizes they can read, one sentence for an error, results as tables."""

from __future__ import annotations

import logging
import sys
import time
from datetime import UTC, datetime, timedelta
from threading import Event
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import httpx
import pytest

from tasks.backup import steps as backup_steps
from tasks.errors import BackupSystemError, BadSetting, Unreachable
from tasks.retention.debris import Databases
from tasks.retention.policy import Decision
from tasks.retention.removal import Retained
from tasks.retention.steps import Cleaned, retention_page
from tasks.runs import reporting
from tasks.runs.markdown import cell, facts, human_bytes, table
from tasks.storage.backup_stages import Backup
from tests.support import eventually
from tests.support.recorded import a_record

START = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
BACKUP = Backup(
    backup_id=7,
    plan="shop",
    filename="backup_2026-03-01_02-00-00_9f2c41ab.sql",
    bucket="main-bucket",
    key="database-backups/shop/backup_2026-03-01_02-00-00_9f2c41ab.sql",
    file_size=1_234_567,
    plain_size=5_000_000,
    rows=12_345,
    tables=6,
    created_at=START,
    completed_at=START + timedelta(seconds=10),
)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (50 << 20, "50.0 MiB"),
        (3 << 30, "3.0 GiB"),
        (5 << 40, "5.0 TiB"),
        (7000 << 40, "7000.0 TiB"),
    ],
)
def test_sizes_are_written_for_people(count: int, text: str) -> None:
    assert human_bytes(count) == text


def record_of(module: str, message: str, error: Exception | None = None) -> logging.LogRecord:
    """A log record of one of Prefect's modules."""
    try:
        if error is not None:
            raise error
    except Exception:
        caught: Any = sys.exc_info()
    else:
        caught = None
    return logging.LogRecord("prefect.flow_runs", logging.ERROR, f"{module}.py", 1, message, None, caught)


@pytest.mark.parametrize("error", [BadSetting("The host x has no address."), Unreachable("Nobody answers.")])
def test_an_error_of_our_own_is_logged_as_one_sentence_once(error: BackupSystemError) -> None:
    of_task = record_of("task_engine", "Task run failed with exception", error)
    of_flow = record_of("flow_engine", "Encountered exception during execution", error)
    of_process = record_of("flow_engine", "Engine execution exited with unexpected exception", error)
    assert not reporting.OwnLines().filter(of_task)
    assert not reporting.OwnLines().filter(of_process)
    assert reporting.OwnLines().filter(of_flow)
    assert logging.Formatter().format(of_flow) == str(error)
    assert reporting.states_failure(of_flow)


@pytest.mark.parametrize("module", ["task_engine", "flow_engine"])
def test_any_other_error_keeps_its_traceback(module: str) -> None:
    noted = record_of(module, "it failed", KeyError("x"))
    assert reporting.OwnLines().filter(noted)
    assert "Traceback" in logging.Formatter().format(noted)
    assert not reporting.states_failure(noted)


@pytest.mark.parametrize("module", ["task_engine", "flow_engine"])
def test_states_of_prefect_are_not_in_the_logs(module: str) -> None:
    assert not reporting.OwnLines().filter(record_of(module, "Finished in state Completed()"))
    assert reporting.OwnLines().filter(record_of(module, "Task run failed - Retry 1/3 will start"))


def test_lines_of_the_steps_are_in_the_logs_whatever_they_say() -> None:
    assert reporting.OwnLines().filter(record_of("reporting", "Finished in state Completed()"))


@pytest.mark.parametrize("name", ["prefect.flow_runs", "prefect.task_runs"])
def test_the_logs_of_runs_are_filtered_so(name: str) -> None:
    assert any(isinstance(one, reporting.OwnLines) for one in logging.getLogger(name).filters)


def test_the_time_is_aware_and_in_utc() -> None:
    assert reporting.now().utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("Änne 💾", "Änne 💾"),
        ("  ops  ", "ops"),
        ("nul\0line\nbreak", "nul line break"),
        ("half a pair \ud800", "half a pair"),
        ("x" * 500, "x" * 200),
    ],
    ids=repr,
)
def test_whoever_asks_is_named_in_a_form_that_every_record_can_hold(given: str, kept: str) -> None:
    assert reporting.created_by(given) == kept


@pytest.mark.parametrize("given", ["", "   ", "\0\n"], ids=repr)
def test_whoever_does_not_say_who_asks_is_the_user_of_this_machine(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "alice")
    assert reporting.created_by(given) == "alice"


def started(monkeypatch: pytest.MonkeyPatch, scheduled: bool, by: str | None, deployment: bool = True) -> None:
    """The flow run is one that the Prefect server says was started so."""
    creator = SimpleNamespace(display_value=by) if by is not None else None
    run = SimpleNamespace(auto_scheduled=scheduled, created_by=creator, deployment_id="id" if deployment else None)
    monkeypatch.setattr(reporting.FlowRunContext, "get", lambda: SimpleNamespace(flow_run=run))


@pytest.mark.parametrize(
    ("by", "actor"),
    [
        ("nightly", "system (nightly)"),
        ("every\nhour", "system (every hour)"),
        ("CronSchedule", "system"),
        ("", "system"),
        (None, "system"),
    ],
)
def test_a_schedule_is_the_system_with_its_name_whoever_is_named(
    by: str | None, actor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started(monkeypatch, scheduled=True, by=by)
    assert reporting.created_by("") == reporting.created_by("Mallory") == actor


@pytest.mark.parametrize("claim", ["system", "System", "system (nightly)", " system\n(nightly)"])
def test_nobody_passes_for_a_schedule_by_saying_so(claim: str, monkeypatch: pytest.MonkeyPatch) -> None:
    started(monkeypatch, scheduled=False, by=None)
    assert reporting.created_by(claim).endswith(" (so they say)")
    assert reporting.created_by("systems team") == "systems team"


def test_what_the_server_knows_of_who_started_a_run_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    started(monkeypatch, scheduled=False, by="ada@example.org")
    assert reporting.created_by("Bob") == "Bob (ada@example.org)"
    assert reporting.created_by("") == "ada@example.org"


def test_a_run_of_a_deployment_that_nobody_put_a_name_to_is_unnamed(monkeypatch: pytest.MonkeyPatch) -> None:
    started(monkeypatch, scheduled=False, by=None)
    assert reporting.created_by("") == "unnamed"


class Artifacts:
    """What a Prefect server is asked to do with one progress artifact."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shares: list[float] = []
        self.warnings: list[str] = []
        self.answers = Event()
        self.answers.set()
        self.is_away = False
        monkeypatch.setattr(reporting, "create_progress_artifact", self.make)
        monkeypatch.setattr(reporting, "update_progress_artifact", self.update)
        monkeypatch.setattr(reporting, "PROGRESS_SECONDS", 0.05)
        monkeypatch.setattr(reporting, "warn", self.warnings.append)

    def make(self, progress: float, description: str) -> UUID:
        self.update(UUID(int=1), progress)
        return UUID(int=1)

    def update(self, artifact_id: UUID, progress: float) -> None:
        self.shares.append(progress)
        assert artifact_id == UUID(int=1) and self.answers.wait(60)
        if self.is_away:
            raise httpx.ConnectError("no")


@pytest.fixture
def artifacts(monkeypatch: pytest.MonkeyPatch) -> Artifacts:
    return Artifacts(monkeypatch)


@pytest.mark.parametrize("expected", [0, 10, 1_000_000])
def test_progress_ends_at_100_whatever_was_expected(artifacts: Artifacts, expected: int) -> None:
    with reporting.progress("Dumping", expected) as show:
        for done in range(20):
            show(done)
            time.sleep(0.01)
    assert artifacts.shares[-1] == 100
    assert max(artifacts.shares[:-1]) <= 99


def test_work_without_any_progress_ends_at_100_as_well(artifacts: Artifacts) -> None:
    with reporting.progress("Dumping", 10):
        pass
    assert artifacts.shares == [100]


def test_progress_of_work_that_fails_stays_as_it_was(artifacts: Artifacts) -> None:
    with pytest.raises(BadSetting), reporting.progress("Dumping", 100) as show:
        show(40)
        raise BadSetting("no")
    assert eventually(lambda: artifacts.shares == [40])


def test_progress_never_stops_the_work_when_the_server_is_away(artifacts: Artifacts) -> None:
    artifacts.is_away = True
    with reporting.progress("Dumping", 0) as show:
        for done in range(10):
            show(done)
            time.sleep(0.02)
    assert eventually(lambda: 0 < len(artifacts.shares) == len(artifacts.warnings)) and len(artifacts.shares) < 10


def test_progress_waits_for_no_server(artifacts: Artifacts) -> None:
    artifacts.answers.clear()
    began = time.monotonic()
    with reporting.progress("Dumping", 100) as show:
        for done in range(100):
            show(done)
    assert time.monotonic() - began < 30
    assert len(artifacts.shares) == 1  # while nobody answers, nobody else is asked
    artifacts.answers.set()


def test_progress_is_asked_for_again_once_the_server_answers(artifacts: Artifacts) -> None:
    artifacts.answers.clear()

    def updated_again() -> bool:
        show(50)
        return len(artifacts.shares) > 1

    with reporting.progress("Dumping", 100) as show:
        show(10)
        artifacts.answers.set()
        assert eventually(updated_again)


def test_a_table_has_a_line_for_each_row_and_the_number_of_those_left_out() -> None:
    rows = [("a", "1"), ("b", "2"), ("c", "3")]
    assert table(("name", "size"), rows, ("left", "right")) == (
        "| name | size |\n|---|---:|\n| a | 1 |\n| b | 2 |\n| c | 3 |\n"
    )
    assert table(("name", "size"), rows, most=1) == ("| name | size |\n|---|---|\n| a | 1 |\n\n… and 2 more.\n")
    assert table(("name",), []) == "| name |\n|---|\n"


def test_facts_without_a_value_are_left_out() -> None:
    assert facts({"File": "a.sql", "Warning": ""}) == "|  |  |\n|---|---|\n| File | a.sql |\n"


def test_a_completed_backup_is_a_table_with_file_place_size_rows_time_and_speed() -> None:
    text = backup_steps.summary(BACKUP)
    for shown in (
        BACKUP.filename,
        f"s3://main-bucket/{BACKUP.key}",
        "1.2 MiB",
        "1,234,567 bytes",
        "12,345",
        "| 6 |",
        "10.0 s",
        "2026-03-01 02:00:10 UTC",
    ):
        assert shown in text
    assert "Suspicious" not in text


def test_a_suspicious_backup_says_why() -> None:
    from dataclasses import replace

    text = backup_steps.summary(replace(BACKUP, suspicious="It has 2 tables, the last good one 60."))
    assert "It has 2 tables" in text and "Nothing is removed" in text


def test_retention_shows_a_reason_for_each_backup_and_every_problem() -> None:
    candidate = a_record("backup_a.sql", START)
    done = Retained(
        (Decision(candidate, True, ("the newest backup", "dated in the future")),), (), ("backup_b.sql is missing.",)
    )
    databases = Databases((), (), ("shop__before was not dropped.",))
    dry, real = (retention_page(Cleaned("shop", is_dry, done, databases)) for is_dry in (True, False))
    assert "would do" in dry and "did" in real
    for text in (dry, real):
        assert (
            "| `backup_a.sql` | stays | the newest backup; dated in the future |" in text
            and "Replaced databases" not in text
        )
        assert f"\n- {cell('backup_b.sql is missing.')}\n" in text
        assert f"\n- {cell('shop__before was not dropped.')}\n" in text
