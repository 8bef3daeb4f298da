# ruff: noqa: F401, F811 - fixtures are imported
"""Retention does not believe one answer: of a store, of a clock, or of a setting that somebody has just changed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from flows.backup import backup
from flows.cleanup import cleanup
from tasks.retention import halt
from tasks.storage.s3_client import Stored
from tasks.stored_backups.find_backup import recorded_row
from tests.retention.test_removal import NOW, House, client, house
from tests.support.flow_fixtures import WorldFactory


@pytest.fixture(autouse=True)
def asked_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(halt, "ASK_AGAIN_SECONDS", 0.0)


@pytest.fixture
def week(house: House) -> list[str]:
    """A house with backups of each day, the newest first, of which two are due."""
    return [house.backup(days) for days in range(1, 10)]


def test_a_wrong_head_is_asked_again_and_costs_nothing(house: House, week: list[str]) -> None:
    answers = iter([None])
    real = house.storage.size
    house.storage.size = lambda key: next(answers, real(key))  # type: ignore[method-assign]
    done = house.clean_up()
    assert done.problems == () and set(done.removed) == set(week[-2:])
    assert "missing" not in house.status().values()


@pytest.mark.parametrize("answer", [None, 1])
def test_while_head_contradicts_list_nothing_goes_and_nothing_is_missing(
    house: House, week: list[str], answer: int | None
) -> None:
    house.storage.size = lambda key: answer  # type: ignore[method-assign]
    done = house.clean_up()
    [problem] = done.problems
    assert week[0] in problem and "contradicts itself" in problem and "Nothing is removed" in problem
    assert done.removed == () and set(house.status().values()) == {"completed"}
    assert house.keys() == house.keys_of(*week)


def test_a_list_that_lacks_the_newest_is_not_believed(house: House, week: list[str]) -> None:
    real = house.storage.objects
    stale = house.plan.key(week[0])

    def objects(prefix: str) -> Iterator[Stored]:
        return (stored for stored in real(prefix) if stored.key != stale)

    house.storage.objects = objects  # type: ignore[method-assign]
    [problem] = house.clean_up().problems
    assert week[0] in problem and "contradicts itself" in problem
    assert set(house.status().values()) == {"completed"}


@pytest.mark.parametrize("gone", [(0, 1), (3, 7), (0, 1, 2, 3, 4, 5, 6, 7, 8)])
def test_when_several_objects_are_gone_nothing_is_removed_until_somebody_has_looked(
    house: House, week: list[str], gone: tuple[int, ...]
) -> None:
    for number in gone:
        lose(house, week[number])
    before = house.keys()
    done = house.clean_up()
    [problem] = done.problems
    assert f"{len(gone)} of 9 completed backups" in problem and week[gone[0]] in problem
    assert "rebuild-catalogue" in problem
    assert done.removed == () and set(house.status().values()) == {"completed"} and house.keys() == before
    assert all(decision.keep for decision in done.decisions)


def lose(house: House, name: str) -> None:
    house.storage.delete(house.plan.key(name))


def test_one_object_that_is_gone_is_missing_and_the_others_expire(house: House, week: list[str]) -> None:
    lose(house, week[2])
    done = house.clean_up()
    [problem] = done.problems
    assert week[2] in problem and set(done.removed) == set(week[-2:])
    assert house.status()[week[2]] == "missing" and house.status()[week[0]] == "completed"


# --- more than usual


def test_no_more_than_usual_go_on_one_day_the_oldest_first(house: House, week: list[str]) -> None:
    """Somebody has changed the retention to one day, or a clock is ahead."""
    later = NOW + timedelta(days=30)
    done = house.clean_up(now=later)
    assert set(done.removed) == set(week[-3:]) and done.waiting == 5
    reasons = {decision.backup.filename: decision.reasons for decision in done.decisions if decision.keep}
    assert "confirm=8" in reasons[week[1]][0] and "confirm" not in reasons[week[0]][0]
    again = house.clean_up(now=later)
    assert again.removed == () and again.waiting == 5


def test_a_person_may_let_all_go_that_are_due(house: House, week: list[str]) -> None:
    later = NOW + timedelta(days=30)
    assert house.clean_up(now=later, confirmed=7).waiting == 5  # fewer than are due: something has changed
    assert set(house.clean_up(now=later, confirmed=5).removed) == set(week[1:6])


def test_a_plan_that_makes_many_backups_a_day_removes_as_many(house: House) -> None:
    names = [house.backup(8 + hour / 100) for hour in range(6)]
    newest = house.backup(1)
    assert set(house.clean_up().removed) == set(names)
    assert house.status()[newest] == "completed"


def test_a_dry_run_shows_the_bound_and_changes_nothing(house: House, week: list[str]) -> None:
    done = house.clean_up(dry_run=True, now=NOW + timedelta(days=30))
    assert len(done.removed) == 3 and done.waiting == 5
    assert set(house.status().values()) == {"completed"}


# --- clocks, and latest


class YearAhead(datetime):
    """The clock of a machine that is a year ahead."""

    @classmethod
    def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
        return datetime.now(UTC) + timedelta(days=365)


def test_a_clock_that_is_wrong_removes_nothing_and_makes_no_backup(
    make_world: WorldFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world()
    for _ in range(2):
        backup()
    objects = world.objects()
    monkeypatch.setattr("tasks.catalogue.catalogue.datetime", YearAhead)
    monkeypatch.setattr("tasks.runs.reporting.datetime", YearAhead)
    for flow in (backup, cleanup):
        state = flow(return_state=True)
        assert state.is_failed()
        assert "The clock of this machine is 31,5" in state.message and "set the clock that is wrong" in state.message
    assert world.objects() == objects
    assert [row.status for row in world.rows()] == ["completed", "completed"]


def test_latest_never_names_a_backup_whose_removal_has_begun(house: House, week: list[str]) -> None:
    house.catalogue.begin_removal(week[0], "deleted", "somebody")
    found = recorded_row(house.plan, "latest")
    assert found is not None and found.filename == week[1]
    for name in week[1:]:
        house.catalogue.begin_removal(name, "deleted", "somebody")
    assert recorded_row(house.plan, "latest") is None
