"""What the answers mean: pure decisions about schedules, workers, alarms, ages, versions, and how they are told."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tasks.alarms.automations import declared
from tasks.catalogue.rows import Record
from tasks.health.backups import Records, Sound, last_backup_line, verification_line
from tasks.health.lines import Line, span, summary, verdict, worst_first
from tasks.health.machine import AtHand, clock_line, signature_lines, tool_lines
from tasks.health.prefect_server import (
    ALARMS,
    Next,
    Pool,
    PrefectFacts,
    Scheduled,
    Worker,
    alarm_line,
    schedule_line,
    worker_line,
)
from tasks.postgres.tools import Tool
from tasks.restore.last_restore import UNKNOWN
from tasks.runs.at_once import Answer
from tasks.storage.signatures import checked_keys
from tests.health.conftest import nightly
from tests.support.signing import line_of, new_key, public_of

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
DAILY = Scheduled("backup/daily", False, 1, NOW + 14 * HOUR, NOW - 30 * DAY, nightly)
BEAT = timedelta(seconds=30)


def facts(*scheduled: Scheduled, pools: tuple[Pool, ...] = ()) -> PrefectFacts:
    return PrefectFacts(scheduled, pools, False, (), ())


# --- lines


def test_the_public_keys_of_the_signatures_are_shown_and_the_private_one_is_not() -> None:
    private, earlier = new_key(), public_of(new_key())
    assert signature_lines(checked_keys("")) == []
    [line] = signature_lines(checked_keys(private, [earlier]))
    assert line.text().endswith(f"{public_of(private)}, {earlier}.") and line_of(private) not in line.text()
    [line] = signature_lines(checked_keys("", [earlier]))
    assert "no new backup of this plan is signed" in line.what and earlier in line.what


def test_the_worst_comes_first_and_each_kind_stays_in_order() -> None:
    lines = [Line("a", "ok", ""), Line("b", "warning", ""), Line("c", "failed", ""), Line("d", "failed", "")]
    assert [line.check for line in worst_first(lines)] == ["c", "d", "b", "a"]
    assert summary(lines) == "4 checks: 2 failed, 1 warning, 1 ok."


def test_the_verdict_names_all_that_failed_and_nothing_else() -> None:
    failed = [Line(f"check {number}", "failed", f"Fault {number}.") for number in range(6)]
    said = verdict("shop", [Line("fine", "ok", "Good."), *failed])
    assert said.startswith("Plan shop is not healthy, 6 of 7 checks failed: check 0: Fault 0. check 1: Fault 1.")
    assert said.endswith("And: check 4, check 5.")
    assert verdict("shop", [Line("fine", "ok", "Good."), Line("so", "warning", "Hm.")]) == ""


def test_a_line_is_one_line_whatever_names_hold() -> None:
    assert "\n" not in Line("Database", "failed", "new\nline \x1b[31m").text()
    assert "\x1b" not in Line("Database", "failed", "new\nline \x1b[31m").text()


@pytest.mark.parametrize(
    ("length", "said"),
    [
        (timedelta(seconds=17), "17 s"),
        (timedelta(minutes=4, seconds=3), "4 min"),
        (5 * HOUR, "5 h 0 min"),
        (3 * DAY + 4 * HOUR, "3 d 4 h"),
        (-HOUR, "0 s"),
    ],
)
def test_lengths_of_time_are_told_in_two_units(length: timedelta, said: str) -> None:
    assert span(length) == said


# --- Prefect


@pytest.mark.parametrize(
    ("scheduled", "status", "said"),
    [
        ((DAILY,), "ok", "backup/daily runs next at 2026-03-11 02:00 UTC, in 14 h 0 min."),
        ((), "warning", "No deployment has a schedule that backs up plan shop."),
        ((replace(DAILY, is_paused=True),), "failed", "backup/daily is paused. Nothing backs up plan shop."),
        ((replace(DAILY, active=0),), "failed", "The schedule of backup/daily is switched off."),
        ((replace(DAILY, is_paused=True), replace(DAILY, name="backup/noon")), "ok", "backup/noon runs next"),
        ((replace(DAILY, next_run=None),), "warning", "the Prefect server has not scheduled the run"),
        ((replace(DAILY, next_run=None, next_due=lambda _: None),), "failed", "has no further run"),
    ],
)
def test_the_schedule(scheduled: tuple[Scheduled, ...], status: str, said: str) -> None:
    line = schedule_line("shop", facts(*scheduled), NOW)
    assert (line.status, said in line.what) == (status, True), line


@pytest.mark.parametrize(
    ("pool", "status", "said"),
    [
        (Pool("p", workers=(Worker("w", NOW - BEAT, BEAT),)), "ok", "Work pool p is served by w."),
        (Pool("p", workers=(Worker("w", NOW - 89 * timedelta(seconds=1), BEAT),)), "ok", "by w."),
        (
            Pool("p", workers=(Worker("w", NOW - 2 * HOUR, BEAT),)),
            "failed",
            "The last heartbeat of worker w of work pool p was 2 h",
        ),
        (
            Pool("p", workers=(Worker("v", NOW - DAY, BEAT), Worker("w", NOW, BEAT))),
            "ok",
            "Work pool p is served by w. Without a heartbeat for a day or more: v.",
        ),
        (Pool("p", workers=(Worker("v", NOW - 23 * HOUR, BEAT), Worker("w", NOW, BEAT))), "ok", "p is served by w."),
        (Pool("p"), "failed", "No worker serves work pool p."),
        (Pool("p", late=3), "failed", "No worker serves work pool p. 3 runs wait."),
        (Pool("p", workers=(Worker("w", NOW, BEAT),), late=2), "warning", "2 runs wait in work pool p"),
        (Pool("p", needs_worker=False), "ok", "Work pool p is served."),
        (Pool("p", "Work pool p is paused: resume it."), "failed", "Work pool p is paused"),
    ],
)
def test_the_worker(pool: Pool, status: str, said: str) -> None:
    line = worker_line(facts(DAILY, pools=(pool,)), NOW)
    assert (line.status, said in line.what) == (status, True), line


def test_the_alarms_that_are_looked_for_are_those_that_the_set_up_makes() -> None:
    assert {one.name for one in declared({})} == set(ALARMS)


def test_an_alarm_that_is_missing_or_switched_off_is_named() -> None:
    assert alarm_line(facts()).status == "ok"
    line = alarm_line(replace(facts(), missing_alarms=("one",), silenced_alarms=("two",)))
    assert line.status == "failed" and "'one'" in line.what and "'two' is switched off" in line.what


def test_a_message_that_could_not_be_sent_is_reported() -> None:
    line = alarm_line(replace(facts(), unsent=(("one", NOW - HOUR),)))
    assert (
        line.status == "failed" and "The last message of 'one' could not be sent, at 2026-03-10 11:00 UTC." in line.what
    )


# --- the last backup


def records(*newest: Record) -> Answer[Records]:
    return Answer(Records("here", newest, None, (), False, None, None, ()))


def recorded(age: timedelta) -> Record:
    at = NOW - age
    return Record(1, "backup_x.sql", "key", "shop", "run", "completed", "full", "Ada", at, file_size=1 << 20)


def every_hour(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0) + HOUR


def on_sundays(moment: datetime) -> datetime:
    return nightly(moment) + (6 - nightly(moment).weekday()) % 7 * DAY


def unscheduled(_: datetime) -> None:
    return None


@pytest.mark.parametrize(
    ("due_after", "age", "status"),
    [
        (nightly, 10 * HOUR, "ok"),
        (nightly, 10 * HOUR + timedelta(seconds=30), "ok"),  # it began half a minute before its hour, by its own clock
        (nightly, 34 * HOUR, "failed"),
        (every_hour, 2 * HOUR, "ok"),
        (every_hour, 5 * HOUR, "failed"),
        (on_sundays, 2 * DAY + 10 * HOUR, "ok"),
        (on_sundays, 9 * DAY + 10 * HOUR, "failed"),
        (unscheduled, 25 * HOUR, "ok"),
        (unscheduled, 27 * HOUR, "failed"),
    ],
)
def test_how_old_a_backup_may_be_is_what_its_schedule_says(due_after: Next, age: timedelta, status: str) -> None:
    good = recorded(age)
    line = last_backup_line(records(good), Answer(Sound(good, ())), due_after, None, NOW, 2 * HOUR)
    assert line.status == status, line


@pytest.mark.parametrize(("made", "status"), [(HOUR, "warning"), (3 * DAY, "failed")])
def test_a_first_backup_that_never_came_has_failed_once_it_was_due(made: timedelta, status: str) -> None:
    line = last_backup_line(records(), Answer(Sound(None, ())), nightly, NOW - made, NOW, 2 * HOUR)
    assert line.status == status, line


def test_the_age_counts_although_the_bucket_cannot_be_asked() -> None:
    line = last_backup_line(records(recorded(34 * HOUR)), Answer(None, "gone"), nightly, None, NOW, 2 * HOUR)
    assert line.status == "failed"


def test_a_plan_that_was_never_verified_is_given_its_first_week() -> None:
    for age, status in ((7 * DAY, "ok"), (9 * DAY, "warning")):
        told = records(recorded(HOUR)).value
        assert told is not None
        line = verification_line(Answer(replace(told, first_at=NOW - age)), True, NOW)
        assert line.status == status
        assert line.what.endswith(UNKNOWN)


# --- the machine


@pytest.mark.parametrize(
    ("version", "status", "holes"),
    [
        ((15, 19), "ok", ()),
        ((15, 18), "warning", ("CVE-2026-18408",)),
        ((18, 5), "warning", ("CVE-2026-18408",)),
        ((18, 6), "ok", ()),
    ],
)
def test_the_known_holes_of_psql(version: tuple[int, int], status: str, holes: tuple[str, ...]) -> None:
    found = AtHand((Tool("/d", version),), (Tool("/p", version),))
    line = tool_lines(Answer(found), (15, "15.18"))[1]
    assert line.status == status
    assert [hole for hole in ("CVE-2025-8714", "CVE-2026-18408") if hole in line.what] == list(holes)


def test_a_psql_that_is_older_than_restrict_has_both_holes() -> None:
    found = AtHand((Tool("/d", (15, 10)),), (Tool("/p", (15, 10)),))
    line = tool_lines(Answer(found), (15, "15.10"))[1]
    assert line.status == "warning" and "CVE-2025-8714" in line.what and "CVE-2026-18408" in line.what


def test_programs_that_are_older_than_the_server_are_failures() -> None:
    found = AtHand((Tool("/d", (15, 19)),), (Tool("/p", (15, 19)),))
    lines = tool_lines(Answer(found), (18, "18.6"))
    assert [line.status for line in lines] == ["failed", "failed"]
    assert "installed: 15.19 at /d" in lines[0].what


@pytest.mark.parametrize(("apart", "status"), [(4, "ok"), (-4, "ok"), (6, "warning"), (-6, "warning")])
def test_clocks_may_be_five_minutes_apart(apart: int, status: str) -> None:
    assert clock_line({"the store": timedelta(minutes=apart)}).status == status
