"""Which backups of many are started next, which are given up, and what is told of them at the end."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tasks.alarms.event_names import FAILED, every_backup_name
from tasks.backup_all.start_order import (
    NOT_STARTED,
    PATIENCE,
    Ended,
    Job,
    Lane,
    Limit,
    Started,
    blocked,
    checked_names,
    refusal,
    startable,
    starving,
)
from tasks.backup_all.steps import Outcome, Stored, check_all, markdown, own_failure_reported, with_outcome
from tasks.catalogue.rows import Event
from tasks.errors import BadSetting, PlansFailed

NOW = datetime(2026, 3, 1, 2, tzinfo=UTC)
HERE, THERE = Lane("backups", "default"), Lane("cloud", "urgent")


def job(plan: str, lane: Lane = HERE) -> Job:
    return Job(plan, "backup/manual", "id", lane)


def started(plan: str, lane: Lane = HERE, ago: timedelta = timedelta(), begun: bool = False) -> Started:
    return Started(job(plan, lane), f"run-{plan}", NOW - ago, begun)


def link(text: str, run_id: str) -> str:
    return f"[{text}](/{run_id})"


# --- which are started


def test_no_more_are_under_way_than_were_asked_for() -> None:
    jobs = [job(str(number)) for number in range(9)]
    assert startable(jobs, [], 5, {}) == jobs[:5]
    assert startable(jobs[5:], jobs[:3], 5, {}) == jobs[5:7]
    assert startable(jobs[5:], jobs[:5], 5, {}) == []


def test_a_full_work_pool_keeps_nobody_from_another() -> None:
    jobs = [job("a"), job("b"), job("c", THERE), job("d")]
    assert startable(jobs, [], 5, {HERE: 1}) == [jobs[0], jobs[2]]
    assert startable(jobs[1:], [jobs[0]], 5, {HERE: 1}) == [jobs[2]]


def test_every_job_is_started_once_whatever_the_limits() -> None:
    """Each round, the first of those that are under way ends."""
    for at_once in (1, 2, 5, 300):
        waiting = [job(str(number), HERE if number % 3 else THERE) for number in range(20)]
        running: list[Job] = []
        done: list[Job] = []
        while waiting or running:
            new = startable(waiting, running, at_once, {THERE: 1})
            running += new
            assert len(running) <= at_once and sum(one.lane == THERE for one in running) <= 1
            waiting = [one for one in waiting if one not in new]
            done.append(running.pop(0))
        assert len(done) == len(set(done)) == 20


# --- what was asked for


def test_a_name_counts_once_and_without_the_space_around_it() -> None:
    assert checked_names([" a", "b", "a "], 5) == ["a", "b"]
    assert checked_names([], 1) == []


@pytest.mark.parametrize(("plans", "at_once"), [([""], 5), (["a", "  "], 5), (["a"], 0), ([], -1)])
def test_what_cannot_be_meant_so_is_refused(plans: list[str], at_once: int) -> None:
    with pytest.raises(BadSetting):
        checked_names(plans, at_once)


def test_a_plan_is_only_ever_handed_to_a_deployment_that_makes_backups() -> None:
    assert refusal("a", "backup/manual", ["a"]) == refusal("a", "backup/cloud", ["a"]) == ""
    for other in (
        "restore/restore-backup",
        "backup-all/backup-all-plans",
        "delete-backup/delete-backup",
        "backup",
        "backup/",
        "",
        "/manual",
    ):
        assert "makes no backups" in refusal("a", other, ["a"]), other


def test_a_plan_that_is_not_there_is_named() -> None:
    assert "There is no plan 'b'" in refusal("b", "", ["a"])
    assert "cannot be the name of a plan" in refusal("B | c", "", ["a"])


def test_a_work_pool_that_backup_all_fills_is_told_what_it_needs() -> None:
    assert "takes 1 at once, and backup-all itself holds that place: raise the limit to 2" in blocked(HERE, Limit(1, 0))
    assert "work pool cloud, queue urgent takes 3 at once, and backup-all itself holds all" in blocked(
        THERE, Limit(3, 0)
    )


# --- which are given up


def test_a_run_that_waits_is_given_up_when_its_work_pool_does_nothing_for_long() -> None:
    late = started("a", ago=PATIENCE)
    assert starving([late], {}, NOW) == [HERE]
    assert starving([started("a", ago=PATIENCE - timedelta(seconds=1))], {}, NOW) == []


def test_a_run_that_waits_is_not_given_up_while_others_of_its_work_pool_go_on_or_have_just_ended() -> None:
    late = started("a", ago=3 * PATIENCE)
    other = started("b", ago=3 * PATIENCE, begun=True)
    assert starving([late, other], {}, NOW) == []
    assert starving([late], {HERE: NOW - timedelta(minutes=1)}, NOW) == []
    assert starving([late, started("c", THERE, PATIENCE)], {HERE: NOW}, NOW) == [THERE]


# --- what is told


OUTCOMES = [
    Outcome(Ended("good", "completed", "", "run-1", 12.4), Stored(7, "backup_x.sql", "completed", 2048)),
    Outcome(Ended("odd", "failed", "a | b\n<b>", "run-2", 3.0)),
    Outcome(Ended("kept", "failed", "A copy is missing.", "run-3", 5.0), Stored(8, "backup_y.sql", "completed", 512)),
    Outcome(Ended("gone", NOT_STARTED, "There is no plan.")),
]


def test_the_table_shows_every_plan_those_that_failed_first_and_takes_nothing_for_markup() -> None:
    text = markdown(OUTCOMES, 61, link)
    assert "**1 completed, 3 failed** · 2.5 KiB stored · 1 min 1 s" in text
    rows = text.splitlines()[-4:]
    assert [row.split(" | ")[0] for row in rows] == ["| odd", "| kept", "| gone", "| good"]
    assert rows[3] == "| good | ✓ completed | 2.0 KiB | 12 s | `backup_x.sql` | [run](/run-1) |"
    assert "<b>" not in text and all(row.count("|") == 7 for row in rows)
    assert "not started" in rows[2] and "[run]" not in rows[2]


def test_a_line_of_the_audit_says_which_run_made_which_backup() -> None:
    event = Event("backup-all", "failed", "good", "Ada", "all")
    good, bad = with_outcome(event, OUTCOMES[0]), with_outcome(replace(event, plan="gone"), OUTCOMES[3])
    assert (good.action, good.outcome, good.plan, good.backup_id, good.bytes) == (
        "backup-all",
        "completed",
        "good",
        7,
        2048,
    )
    assert (good.run_id, good.details["run"], good.error) == ("all", "run-1", None)
    assert (bad.outcome, bad.backup_id, bad.error) == ("failed", None, "There is no plan.")


def test_the_error_names_every_plan_that_failed_and_why_the_first_did() -> None:
    check_all(OUTCOMES[:1])
    with pytest.raises(PlansFailed, match=r"backup-all failed for 3 of 4 plans \(odd, kept, gone\)\. Plan odd: a"):
        check_all(OUTCOMES)
    many = [Outcome(Ended(f"p{number}", "failed", "Full.")) for number in range(200)]
    with pytest.raises(PlansFailed) as failed:
        check_all(many)
    assert "p199" in str(failed.value) and len(str(failed.value)) < 2000


@pytest.mark.parametrize(
    ("error", "sentences"),
    [
        (BadSetting("Set at_once to 1 or more."), ["Set at_once to 1 or more."]),
        (OSError("m4rker"), ["It ended with OSError."]),
        (PlansFailed("backup-all", {"shop": "it failed."}, 2), []),  # the run of shop has reported it
        (KeyboardInterrupt(), []),
    ],
)
def test_an_error_of_backup_all_itself_is_told_and_one_of_a_plan_is_not(
    error: BaseException, sentences: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[tuple[str, str, str]] = []

    def report(event: str, name: str, _: str, **payload: Any) -> None:
        reported.append((event, name, payload["sentence"]))

    monkeypatch.setattr("tasks.alarms.run_reports.report_event", report)
    with pytest.raises(type(error)), own_failure_reported():
        raise error
    assert reported == [(FAILED, every_backup_name(), sentence) for sentence in sentences]
