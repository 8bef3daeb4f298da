"""What the retention policy promises."""

from __future__ import annotations

import time
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.backup.record_backup import collapse
from tasks.catalogue.rows import Record
from tasks.errors import BadSetting
from tasks.plans.plan import Policy
from tasks.retention.policy import decide
from tests.support.recorded import a_record

OTHER_TYPES = timedelta(days=Policy().other_days)
NOW = datetime(2026, 3, 18, 12, tzinfo=UTC)  # a Wednesday
WEEK = timedelta(days=7)
TICK = timedelta(microseconds=1)


def backup(created: datetime | str, **changes: object) -> Record:
    """A good backup of 1 GB and 100 tables; `created` may be "2026-03-18 02:00"."""
    at = created if isinstance(created, datetime) else datetime.fromisoformat(created).replace(tzinfo=UTC)
    return replace(a_record(f"backup_{at:%Y-%m-%d_%H-%M-%S_%f}.sql", at, 10**9, 100), **changes)  # type: ignore[arg-type]


def kept(backups: list[Record], policy: Policy, now: datetime = NOW) -> list[str]:
    return [f"{d.backup.created_at:%Y-%m-%d %H}" for d in decide(backups, policy, now) if d.keep]


HISTORY = [
    "2026-03-18 02:00",
    "2026-03-17 14:00",
    "2026-03-17 02:00",
    "2026-03-16 02:00",
    "2026-03-15 02:00",  # Sunday: the ISO week before
    "2026-03-11 02:00",
    "2026-03-08 02:00",
    "2026-03-01 02:00",
    "2026-02-28 02:00",
    "2026-02-01 02:00",
    "2026-01-01 02:00",  # ISO week 1 of 2026
    "2025-12-31 02:00",  # ISO week 1 of 2026, too
    "2025-12-28 02:00",
    "2025-06-30 02:00",
    "2024-12-30 02:00",  # ISO week 1 of 2025
]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (Policy(days=1), ["2026-03-18 02", "2026-03-17 14"]),
        (Policy(days=2), ["2026-03-18 02", "2026-03-17 14", "2026-03-17 02"]),
        (Policy(), ["2026-03-18 02", "2026-03-17 14", "2026-03-17 02", "2026-03-16 02", "2026-03-15 02"]),
        (Policy(days=1, keep_last=4), ["2026-03-18 02", "2026-03-17 14", "2026-03-17 02", "2026-03-16 02"]),
        (Policy(days=1, daily=3), ["2026-03-18 02", "2026-03-17 14", "2026-03-16 02"]),
        (Policy(days=1, weekly=3), ["2026-03-18 02", "2026-03-17 14", "2026-03-15 02", "2026-03-08 02"]),
        (
            Policy(days=1, weekly=8),
            [
                "2026-03-18 02",
                "2026-03-17 14",
                "2026-03-15 02",
                "2026-03-08 02",
                "2026-03-01 02",
                "2026-02-01 02",
                "2026-01-01 02",
                "2025-12-28 02",
                "2025-06-30 02",
            ],
        ),
        (
            Policy(days=1, monthly=4),
            ["2026-03-18 02", "2026-03-17 14", "2026-02-28 02", "2026-01-01 02", "2025-12-31 02"],
        ),
        (Policy(days=1, yearly=9), ["2026-03-18 02", "2026-03-17 14", "2025-12-31 02", "2024-12-30 02"]),
        (
            Policy(days=1, keep_last=3, daily=1, yearly=2),
            ["2026-03-18 02", "2026-03-17 14", "2026-03-17 02", "2025-12-31 02"],
        ),
    ],
    ids=repr,
)
def test_each_rule_keeps_what_it_says(policy: Policy, expected: list[str]) -> None:
    assert kept([backup(at) for at in HISTORY], policy) == expected


@pytest.mark.parametrize(("age", "keep"), [(WEEK - TICK, True), (WEEK, True), (WEEK + TICK, False)])
def test_a_backup_is_due_only_when_strictly_older_than_seven_times_24_hours(age: timedelta, keep: bool) -> None:
    decisions = decide([backup(NOW - TICK), backup(NOW - age)], Policy(), NOW)
    assert decisions[1].keep is keep


def test_a_change_of_the_clocks_does_not_move_the_boundary() -> None:
    berlin = ZoneInfo("Europe/Berlin")  # clocks went forward on 2026-03-29
    now = datetime(2026, 4, 1, 2, tzinfo=berlin)
    for shift, keep in ((timedelta(0), True), (TICK, False)):
        old = backup(now.astimezone(UTC) - WEEK - shift)
        in_berlin = replace(old, created_at=old.created_at.astimezone(berlin))
        assert decide([backup(now), in_berlin], Policy(), now)[1].keep is keep


def test_periods_are_those_of_utc_whatever_zone_the_times_are_given_in() -> None:
    east = timezone(timedelta(hours=14))
    times = ["2026-03-01 02:00", "2026-02-28 23:00", "2026-02-28 01:00", "2026-01-31 11:00"]
    backups = [backup(at) for at in times]
    elsewhere = [replace(b, created_at=b.created_at.astimezone(east)) for b in backups]
    policy = Policy(days=1, monthly=2)
    assert [d.keep for d in decide(elsewhere, policy, NOW)] == [d.keep for d in decide(backups, policy, NOW)]
    assert kept(backups, policy) == ["2026-03-01 02", "2026-02-28 23"]


def test_the_newest_the_newest_verified_and_the_newest_good_one_stay_however_old() -> None:
    backups = [
        backup("2020-05-05 02:00", suspicious="It shrank."),
        backup("2020-05-04 02:00"),
        backup("2020-05-03 02:00", verified_at=NOW),
        backup("2020-05-02 02:00", verified_at=NOW),
    ]
    decisions = decide(backups, Policy(collapse_percent=0), NOW)
    assert [(d.keep, d.reasons) for d in decisions] == [
        (True, ("the newest backup",)),
        (True, ("the newest backup that is not suspicious",)),
        (True, ("the newest verified backup",)),
        (False, ("older than 7 days, and no other rule keeps it",)),
    ]


def test_a_suspicious_newest_backup_halts_removal_and_every_decision_says_why() -> None:
    shrunk = backup("2026-03-18 02:00", suspicious="Its size shrank.")
    decisions = decide([shrunk, backup("2026-01-02 02:00"), backup("2026-01-01 02:00")], Policy(), NOW)
    assert all(d.keep for d in decisions)
    assert {d.reasons for d in decisions} == {
        (f"Removal is halted because the newest backup, {shrunk.filename}, is suspicious. Its size shrank.",)
    }


def test_a_suspicious_backup_that_is_not_the_newest_halts_nothing() -> None:
    backups = [backup(NOW), backup("2026-01-02 02:00", suspicious="It shrank."), backup("2026-01-01 02:00")]
    assert kept(backups, Policy()) == ["2026-03-18 12"]


def test_a_backup_dated_in_the_future_stays() -> None:
    ahead, also = backup(NOW + 300 * WEEK), backup(NOW + TICK)
    assert [d.reasons for d in decide([also, ahead], Policy(), NOW)][1] == ("dated in the future",)


@pytest.mark.parametrize(
    ("days", "age", "reason"),
    [
        (1, timedelta(0), "not older than 1 day"),
        (1, timedelta(hours=12), "not older than 1 day"),
        (2, timedelta(hours=36), "not older than 2 days"),
        (1, timedelta(hours=36), "older than 1 day, and no other rule keeps it"),
    ],
)
def test_the_reason_names_the_span_of_the_plan(days: int, age: timedelta, reason: str) -> None:
    decisions = decide([backup(NOW + TICK), backup(NOW - age)], Policy(days=days), NOW)
    assert decisions[1].reasons == (reason,)


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/Los_Angeles"])
def test_the_zone_of_the_worker_changes_nothing(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backups = [backup(at) for at in HISTORY]
    policies = [Policy(days=1, daily=3), Policy(days=1, weekly=8), Policy(days=1, monthly=4), Policy(days=1, yearly=9)]
    expected = [decide(backups, policy, NOW) for policy in policies]
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert [decide(backups, policy, NOW) for policy in policies] == expected
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_backup_of_another_type_stays_three_days_and_stands_for_nothing() -> None:
    other = {"backup_type": "pre_restore", "verified_at": NOW}
    backups = [
        backup(NOW - OTHER_TYPES, **other),
        backup(NOW - OTHER_TYPES - TICK, **other),
        backup("2026-01-01 02:00"),
    ]
    decisions = decide(backups, Policy(days=30, keep_last=9, daily=9, yearly=9), NOW)
    assert [d.keep for d in decisions] == [True, False, True]
    assert decisions[1].reasons == ("older than 3 days, as pre_restore backups may be, and no other rule keeps it",)
    assert "the newest backup" in decisions[2].reasons


def test_a_suspicious_backup_of_another_type_halts_nothing() -> None:
    safety = backup(NOW, backup_type="pre_restore", suspicious="It shrank.")
    assert [d.keep for d in decide([safety, backup(NOW - TICK), backup(NOW - 2 * WEEK)], Policy(), NOW)] == [
        True,
        True,
        False,
    ]


def test_no_backups_need_no_decision() -> None:
    assert decide([], Policy(), NOW) == ()


def test_backups_of_one_moment_come_in_the_order_of_their_names() -> None:
    twins = [backup(NOW, filename=name) for name in ("b", "a", "c")]
    assert [d.backup.filename for d in decide(twins, Policy(), NOW)] == ["a", "b", "c"]


def test_a_time_without_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        decide([], Policy(), NOW.replace(tzinfo=None))
    with pytest.raises(ValueError, match="no time zone"):
        decide([backup(NOW), backup(NOW.replace(tzinfo=None))], Policy(), NOW)


@pytest.mark.parametrize("bad", [{"days": 0}, {"days": -1}, {"days": 10**9}, {"collapse_percent": 100}])
def test_a_policy_that_makes_no_sense_is_refused_with_its_field(bad: dict[str, int]) -> None:
    with pytest.raises(BadSetting, match=next(iter(bad))):
        Policy(**bad)


@pytest.mark.parametrize("name", [f.name for f in fields(Policy)])
def test_a_negative_count_is_refused_with_its_field(name: str) -> None:
    with pytest.raises(BadSetting, match=name):
        Policy(**{name: -1})


@pytest.mark.parametrize(
    ("size", "tables", "percent", "sentence"),
    [
        (10**9, 100, 50, ""),
        (5 * 10**8, 50, 50, ""),
        (5 * 10**8 - 1, 50, 50, "Compared with old, its size shrank from 953.7 MiB to 476.8 MiB."),
        (10**9, 49, 50, "Compared with old, its number of tables shrank from 100 to 49."),
        (
            693,
            0,
            50,
            "Compared with old, its size shrank from 953.7 MiB to 693 B and its number of tables shrank from 100 to 0.",
        ),
        (693, 0, 0, ""),
        (10**12, 1000, 50, ""),
    ],
)
def test_a_collapse_is_a_loss_of_more_than_the_given_share(size: int, tables: int, percent: int, sentence: str) -> None:
    assert collapse(size, tables, backup(NOW, filename="old"), percent) == sentence


def test_a_first_backup_cannot_have_collapsed() -> None:
    assert collapse(0, 0, None, 50) == ""


moments = st.one_of(
    st.integers(-10, 900 * 24).map(lambda hours: NOW - timedelta(hours=hours)),
    st.sampled_from([NOW - WEEK, NOW - WEEK - TICK, NOW - OTHER_TYPES, NOW - OTHER_TYPES - TICK]),
)
candidates = st.lists(
    st.builds(
        a_record,
        st.text("abc", min_size=1, max_size=9),
        moments,
        st.integers(0, 10**12),
        st.integers(0, 1000),
        st.sampled_from([None, NOW]),
        st.sampled_from(["", "It shrank."]),
        st.sampled_from(["full", "full", "full", "pre_restore"]),
    ),
    max_size=30,
    unique_by=lambda c: c.filename,
)
counts = st.integers(0, 5)
policies = st.builds(Policy, st.integers(1, 40), counts, counts, counts, counts, counts, st.sampled_from([0, 50]))


@given(candidates, policies)
def test_the_newest_and_the_newest_verified_backup_are_never_removed(backups: list[Record], policy: Policy) -> None:
    full = [d for d in decide(backups, policy, NOW) if d.backup.backup_type == "full"]
    for group in (
        full,
        [d for d in full if d.backup.verified_at],
        [d for d in full if not d.backup.suspicious],
    ):
        assert all(d.keep for d in group[:1])


@given(candidates, policies, st.sampled_from([f.name for f in fields(Policy)][:-1]), st.integers(1, 5))
def test_adding_to_a_rule_only_ever_keeps_more(backups: list[Record], policy: Policy, rule: str, more: int) -> None:
    wider = replace(policy, **{rule: getattr(policy, rule) + more})
    before, after = ({d.backup for d in decide(backups, p, NOW) if d.keep} for p in (policy, wider))
    assert before <= after


@given(st.data(), candidates, policies)
def test_the_answer_does_not_depend_on_the_order_of_the_backups(
    data: st.DataObject, backups: list[Record], policy: Policy
) -> None:
    assert decide(data.draw(st.permutations(backups)), policy, NOW) == decide(backups, policy, NOW)


@given(candidates, policies)
def test_deciding_again_after_removal_removes_nothing_more(backups: list[Record], policy: Policy) -> None:
    left = [d.backup for d in decide(backups, policy, NOW) if d.keep]
    assert all(d.keep for d in decide(left, policy, NOW))


@given(candidates, policies)
def test_every_backup_gets_one_decision_with_a_reason_newest_first(backups: list[Record], policy: Policy) -> None:
    decisions = decide(backups, policy, NOW)
    assert sorted(d.backup.filename for d in decisions) == sorted(b.filename for b in backups)
    assert all(d.reasons and all(d.reasons) for d in decisions)
    times = [d.backup.created_at for d in decisions]
    assert times == sorted(times, reverse=True)


@given(candidates, policies)
def test_while_removal_is_halted_nothing_is_removed(backups: list[Record], policy: Policy) -> None:
    collapsed = backup(NOW + timedelta(days=1), suspicious="It shrank.")
    decisions = decide([*backups, collapsed], replace(policy, collapse_percent=50), NOW)
    assert all(d.keep and "halted" in d.reasons[0] for d in decisions)
