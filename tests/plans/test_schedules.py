"""Schedules as people write them; what summer time does to them; and which of several runs that are due works."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from deployments.set_up_parts.merging import merged
from deployments.set_up_parts.prefect_yaml import listed_deployments
from deployments.set_up_parts.remembered import Written, fingerprint
from deployments.set_up_parts.schedules import Wanted, wanted_schedules
from tasks.errors import BadSetting
from tasks.plans.schedules import Rule, dates, in_words, is_for, rule
from tasks.plans.settings import unknown
from tasks.runs.other_runs import Occurrence, is_starving, later_run, same_occurrence

WHOSE = "The schedule of plan shop"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)


def read(text: str, zone: str = "UTC") -> Rule:
    found = rule(text, zone, WHOSE)
    assert found is not None
    return found


# --- reading


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 2 * * *", "cron 0 2 * * * (UTC)"),
        ("  0  2 * * 1-5 ", "cron 0 2 * * 1-5 (UTC)"),
        ("@daily", "cron @daily (UTC)"),
        ("every 6 hours", "every 6 hours"),
        ("Every day", "every day"),
        ("every 90 minutes", "every 90 minutes"),
        ("every 2 weeks", "every 14 days"),
        ("RRULE:FREQ=DAILY;BYHOUR=2", "RRULE:FREQ=DAILY;BYHOUR=2 (UTC)"),
        ("freq=weekly;byday=SU", "freq=weekly;byday=SU (UTC)"),
        ("DTSTART:20260101T020000 RRULE:FREQ=MONTHLY", "DTSTART:20260101T020000 RRULE:FREQ=MONTHLY (UTC)"),
    ],
)
def test_a_schedule_is_a_cron_line_an_interval_or_an_rrule(text: str, said: str) -> None:
    assert in_words(read(text)) == said


@pytest.mark.parametrize("text", ["", "never", "Off", " none "])
def test_a_plan_may_want_no_schedule(text: str) -> None:
    assert rule(text, "UTC", WHOSE) is None


@pytest.mark.parametrize(
    "text",
    [
        "61 * * * *",
        "0 2 * *",
        "2:00",
        "H 2 * * *",
        "0 0 30 2 *",
        "every 0 hours",
        "every fortnight",
        "every -1 hours",
        "RRULE:",
        "RRULE:FREQ=DALY",
        "RRULE:FREQ=DAILY;BYHOUR=99",
        "RRULE:FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30",
        "x" * 5000,
    ],
)
def test_a_schedule_that_cannot_be_read_or_never_comes_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(BadSetting, match=WHOSE) as refused:
        rule(text, "UTC", WHOSE)
    assert len(str(refused.value)) < 300 and "0 2 * * *" in str(refused.value)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "CEST", "../../etc/passwd", "+02:00"])
def test_an_unknown_time_zone_is_refused(zone: str) -> None:
    with pytest.raises(BadSetting, match="time zone"):
        rule("0 2 * * *", zone, WHOSE)


# --- summer time

ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Africa/Casablanca")
TIMES = ("0 2", "30 2", "0 0", "30 1")


def changes(zone: str) -> Iterator[datetime]:
    """When the clocks of a zone are changed in 2026, by the hour."""
    there, at = ZoneInfo(zone), datetime(2026, 1, 1, tzinfo=UTC)
    while at.year < 2027:
        after = at + HOUR
        if after.astimezone(there).utcoffset() != at.astimezone(there).utcoffset():
            yield after
        at = after


def planned(schedule: Rule, change: datetime, step: timedelta) -> list[datetime]:
    """All that a server would plan that looks again and again for the next three runs, around a change of clocks."""
    found: set[datetime] = set()
    at = change - 2 * DAY
    while at < change + 2 * DAY:
        found.update(dates(schedule, at, 3))
        at += step
    return sorted(found)


@pytest.mark.parametrize("zone", ZONES)
def test_a_daily_schedule_comes_once_a_day_where_clocks_are_changed(zone: str) -> None:
    """Each run is there once, whenever the server plans it, and follows the one before after a day, give or take."""
    for change in changes(zone):
        for time in TIMES:
            runs = planned(read(f"{time} * * *", zone), change, 7 * HOUR)
            assert len(runs) >= 6
            for before, after in pairwise(runs):
                assert 22 * HOUR <= after - before <= 26 * HOUR, (zone, time, before, after)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/Santiago"])
def test_a_daily_rrule_comes_once_a_day_where_clocks_are_changed(zone: str) -> None:
    change = next(iter(changes(zone)))
    for hour in (0, 2):
        runs = planned(read(f"RRULE:FREQ=DAILY;BYHOUR={hour};BYMINUTE=30", zone), change, 23 * HOUR)
        for before, after in pairwise(runs):
            assert 22 * HOUR <= after - before <= 26 * HOUR


@pytest.mark.parametrize("text", ["every 24 hours", "every 2 days", "every 5 hours"])
@pytest.mark.parametrize("zone", ZONES[:3])
def test_an_interval_is_a_length_of_time_that_no_clock_changes(zone: str, text: str) -> None:
    schedule = read(text, zone)
    for change in changes(zone):
        runs = planned(schedule, change, 7 * HOUR)
        assert {after - before for before, after in pairwise(runs)} == {schedule.interval}  # type: ignore[union-attr]


def test_of_two_runs_that_a_change_of_clocks_has_made_of_one_the_first_works() -> None:
    """An interval that somebody gives a time zone in Prefect comes twice on days after a change."""
    done = Occurrence(NOW - HOUR, "COMPLETED", "Completed", NOW - HOUR, NOW)
    assert same_occurrence(NOW, DAY, [done]) == done
    assert same_occurrence(NOW, HOUR, [done]) is None
    assert same_occurrence(NOW, None, [done]) is None
    assert same_occurrence(NOW, DAY, [Occurrence(NOW - HOUR, "FAILED")]) is None
    assert same_occurrence(NOW, DAY, [Occurrence(NOW - DAY, "COMPLETED")]) is None


# --- catching up


def test_of_several_runs_that_are_due_only_the_newest_works() -> None:
    missed = [Occurrence(NOW - days * DAY, "SCHEDULED", "Late") for days in (3, 2, 1)]
    working = [one for one in missed if later_run(one.due, [x for x in missed if x is not one], NOW) is None]
    assert working == [missed[-1]]


@pytest.mark.parametrize(
    "other",
    [
        Occurrence(NOW + HOUR, "SCHEDULED"),
        Occurrence(NOW - 2 * DAY, "SCHEDULED", "Late"),
        Occurrence(NOW - HOUR, "FAILED"),
        Occurrence(NOW - HOUR, "CRASHED"),
        Occurrence(NOW - HOUR, "CANCELLED"),
        Occurrence(NOW - HOUR, "COMPLETED", "Skipped"),
    ],
)
def test_a_run_that_is_not_due_older_or_did_not_work_replaces_none(other: Occurrence) -> None:
    assert later_run(NOW - DAY, [other], NOW) is None


def test_where_starting_takes_longer_than_the_schedule_leaves_a_run_works_now_and_then() -> None:
    def skipped(ago: timedelta) -> Occurrence:
        return Occurrence(NOW - ago, "COMPLETED", "Skipped", NOW - ago, NOW - ago)

    worked = Occurrence(NOW - HOUR, "COMPLETED", "Completed", NOW - timedelta(minutes=20), NOW)
    assert is_starving([skipped(timedelta(minutes=minutes)) for minutes in range(1, 40)], NOW)
    assert not is_starving([skipped(timedelta(minutes=minutes)) for minutes in range(1, 20)], NOW)
    assert not is_starving([skipped(timedelta(minutes=minutes)) for minutes in range(1, 40)] + [worked], NOW)
    assert not is_starving([], NOW)


# --- what is declared


def test_a_field_follows_its_declaration_until_somebody_sets_it_in_prefect() -> None:
    written = {"a": Written(fingerprint(1), fingerprint(1))}
    assert merged({"a": 2}, {"a": 1}, written).write == ("a",)
    assert merged({"a": 1}, {"a": 9}, written).kept == ("a",)
    assert merged({"a": 2}, {"a": 9}, written).kept == ("a",)
    assert merged({"a": 2}, {"a": 9}, written, overwrite=True).write == ("a",)
    assert merged({"a": 1}, {"a": 1}, {}).same == ("a",)
    assert merged({"a": 1}, {"a": 9}, {}).kept == ("a",)


def test_what_the_server_adds_by_itself_is_no_difference() -> None:
    assert merged({"a": 1}, {"a": "one"}, {"a": Written(fingerprint(1), fingerprint("one"))}).same == ("a",)


def test_a_schedule_of_prefect_yaml_that_names_a_plan_stands_for_the_one_of_its_block() -> None:
    text = """
deployments:
  - name: daily
    entrypoint: flows/backup.py:backup
    work_pool: {name: backups}
    schedules:
      - {slug: nightly, cron: "0 2 * * *"}
      - {slug: crm, cron: "0 4 * * *", parameters: {plan: crm}}
"""
    rules = {"default": None, "crm": read("0 5 * * *"), "shop": read("every 6 hours")}
    found = wanted_schedules(listed_deployments(text), rules)["backup/daily"]
    assert set(found) == {"crm", "plan-shop"}
    assert found["plan-shop"] == Wanted(rules["shop"], True, {"plan": "shop"})  # type: ignore[arg-type]


# --- prefect.yaml and names of settings

GOOD = """
deployments:
  - name: daily
    entrypoint: flows/backup.py:backup
    work_pool: {name: backups}
    schedules: [{slug: a, cron: "0 2 * * *"}]
"""


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("entrypoint:", "entrypiont:", "'entrypiont' is unknown: did you mean entrypoint?"),
        ("schedules:", "shedules:", "'shedules' is unknown: did you mean schedules?"),
        ("cron:", "corn:", "'corn' is unknown: did you mean cron?"),
        ("{name: backups}", "{name: backups, job_variable: {}}", "did you mean job_variables?"),
        ("deployments:", "triggers: []\ndeployments:", "the set-up does not follow it"),
        ("{slug: a, ", "{", "give it a slug"),
        ("{name: backups}", "{}", "lacks name"),
        ("deployments:", "deployments: [", "no YAML"),
        ("deployments:", "deployment:", "lists no deployments"),
    ],
)
def test_a_misspelt_key_of_prefect_yaml_is_refused(right: str, wrong: str, said: str) -> None:
    assert len(listed_deployments(GOOD)) == 1
    with pytest.raises(BadSetting) as refused:
        listed_deployments(GOOD.replace(right, wrong))
    assert said in str(refused.value)


@pytest.mark.parametrize("anchor", ["", ", anchor_date: 2024-02-01T00:00:00+00:00", ", anchor_date: 2024-02-01"])
def test_an_interval_of_prefect_yaml_is_a_number_of_seconds(anchor: str) -> None:
    text = GOOD.replace('cron: "0 2 * * *"', f"interval: 3600{anchor}")
    found = wanted_schedules(listed_deployments(text), {})["backup/daily"]["a"].rule
    assert found.interval == HOUR  # type: ignore[union-attr]
    for wrong in ("-1", "abc", "1e40"):
        with pytest.raises(BadSetting, match="interval: "):
            listed_deployments(text.replace("3600", wrong))


def test_prefect_yaml_as_it_is_can_be_read() -> None:
    assert listed_deployments() and wanted_schedules(listed_deployments(), {})


@pytest.mark.parametrize("cron", ["0 2 * * * * * *", "sixty", "every 6 hours"])
def test_an_invalid_cron_line_of_prefect_yaml_is_refused(cron: str) -> None:
    with pytest.raises(BadSetting, match="The schedule a of backup/daily"):
        wanted_schedules(listed_deployments(GOOD.replace("0 2 * * *", cron)), {})


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("S3_BUCKETT", "S3_BUCKET"),
        ("RETENTION_DAY", "RETENTION_DAYS"),
        ("DATABASE_URI", "DATABASE_URL"),
        ("SCHEDULE_TIME_ZONE", "SCHEDULE_TIMEZONE"),
        ("s3_bucket", "S3_BUCKET"),
        ("NOTIFY_URLS", "NOTIFY_URL"),
        ("CLOUDFLARE_ACCES_KEY_ID", "CLOUDFLARE_ACCESS_KEY_ID"),
        ("CATALOGUE_URL", "CATALOG_URL"),
    ],
)
def test_a_misspelt_setting_is_named_with_what_was_meant(name: str, meant: str) -> None:
    [problem] = unknown([name], [name])
    assert problem == f"{name}, which is no setting: did you mean {meant}?"


def test_names_of_other_programs_are_left_alone() -> None:
    others = [
        "PATH",
        "AWS_SESSION_TOKEN",
        "AWS_PROFILE",
        "AWS_DEFAULT_REGION",
        "CLOUDFLARE_API_TOKEN",
        "PGPASSWORD",
        "CLOUDFLARE_ACCOUNT_ID",
        "POSTGRES_PASSWORD",
        "PREFECT_API_URL",
        "DATABASE_HOST",
        "PG_COLOR",
    ]
    assert unknown(others, others) == []
    assert unknown(["DATABASE_URI"], ["DATABASE_URI", "DATABASE_URL"]) == []


@pytest.mark.parametrize(
    ("flow", "parameters", "plans"),
    [
        ("backup", {"plan": "wiki"}, ["wiki"]),
        ("backup", {}, ["default"]),
        ("backup", {"plan": "gone"}, []),
        ("verify-backup", {"plan": ""}, ["default", "wiki"]),
        ("backup-all", {}, ["default", "wiki"]),
        ("backup-all", {"plans": []}, ["default", "wiki"]),
        ("backup-all", {"plans": ["wiki"]}, ["wiki"]),
        ("backup-all", {"plans": "nonsense"}, []),
    ],
)
def test_a_run_is_for_the_plans_that_its_parameters_name(flow: str, parameters: Any, plans: list[str]) -> None:
    assert [plan for plan in ("default", "wiki") if is_for(flow, parameters, plan)] == plans
