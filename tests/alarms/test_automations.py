"""The automations as they are declared: which message an event leads to, and in which words."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect.server.events.schemas.automations import EventTrigger as ServerTrigger
from prefect.server.events.schemas.events import ReceivedEvent
from prefect.types._datetime import now

from tasks.alarms import event_names as alarms
from tasks.alarms.apply_automations import content
from tasks.alarms.automations import declared
from tasks.alarms.channel import checked_notify_url
from tasks.alarms.ping_url import address_for, ping
from tasks.alarms.tell import remind
from tasks.errors import BadSetting
from tasks.names import TAG
from tests.support.webhook import webhook

BLOCK = UUID(int=7)
_NAME = "prefect.resource.name"
PREFIXES = (*alarms.KEPT, *alarms.ROUNDS, *alarms.SINGLE)
FLOWS = Path(__file__).parents[2] / "flows"


def tells(event: str, name: str, tag: str = TAG) -> list[str]:
    """The automations that expect an event of a resource of this name."""
    happened = ReceivedEvent(
        occurred=now("UTC"),
        event=event,
        resource={"prefect.resource.id": "prefect.flow-run.x", "prefect.resource.name": name},
        related=[{"prefect.resource.id": f"prefect.tag.{tag}", "prefect.resource.role": "tag"}],
        id=UUID(int=1),
    )
    found = []
    for one in declared(BLOCK):
        trigger = ServerTrigger.model_validate(one.trigger.model_dump(exclude={"id"}))
        if trigger.covers(happened) and trigger.expects(event) and one.name != alarms.MARKS_CRASHED:
            found.append(one.name)
    return found


@pytest.mark.parametrize("failure", sorted(alarms.FAILURES))
@pytest.mark.parametrize(
    ("name", "automation"),
    [
        ("backup-shop", alarms.TELLS_PROBLEM),
        ("backup-all", alarms.TELLS_PROBLEM),  # of a plan that is called so
        ("verify-shop", alarms.TELLS_PROBLEM),
        ("restore-shop-swap", alarms.TELLS_SINGLE),
        ("drill-shop-12", alarms.TELLS_SINGLE),
        ("delete-shop-latest", alarms.TELLS_SINGLE),
        ("wise-ocelot", alarms.TELLS_UNBEGUN),
    ],
)
def test_every_failure_is_told_by_one_automation(failure: str, name: str, automation: str) -> None:
    assert tells(failure, name) == [automation]
    assert tells(failure, name, tag="other") == []


def test_a_health_check_that_fails_is_told_by_what_it_found_alone() -> None:
    assert tells(alarms.state("Failed"), "check-health-every-plan") == [alarms.TELLS_CHECKED]
    assert tells(alarms.state("Crashed"), "check-health-every-plan") == [alarms.TELLS_UNCHECKED]
    assert tells(alarms.UNHEALTHY, alarms.health_name("shop")) == [alarms.TELLS_PROBLEM]
    assert tells(alarms.UNHEALTHY, f"told otherwise: {alarms.health_name('shop')}") == []


def test_backup_all_is_told_of_by_what_it_could_not_start_and_by_the_runs_of_the_plans() -> None:
    assert tells(alarms.state("Failed"), alarms.ALL_BACKUPS) == [alarms.TELLS_CHECKED]
    assert tells(alarms.state("Crashed"), alarms.ALL_BACKUPS) == [alarms.TELLS_UNCHECKED]
    assert tells(alarms.FAILED, alarms.every_backup_name()) == [alarms.TELLS_PROBLEM]
    assert tells(alarms.WELL, alarms.every_backup_name()) == [alarms.TELLS_END]
    assert {alarms.ALL_BACKUPS, alarms.every_backup_name()} <= set(alarms.common_names())


def test_a_run_that_was_skipped_or_cancelled_is_neither_a_problem_nor_its_end() -> None:
    for name in ("backup-shop", "restore-shop-swap", "wise-ocelot"):
        assert tells(alarms.state("Skipped"), name) == tells(alarms.state("Cancelled"), name) == []


def test_an_alarm_fires_once_until_things_are_right_again() -> None:
    by_name = {one.name: one.trigger for one in declared(BLOCK)}
    for told, over in (
        (alarms.TELLS_PROBLEM, alarms.TELLS_END),
        (alarms.TELLS_UNCHECKED, alarms.TELLS_CHECKED),
        (alarms.TELLS_UNBEGUN, alarms.TELLS_BEGUN),
    ):
        problem, end = by_name[told], by_name[over]
        assert problem.for_each == end.for_each and problem.match == end.match
        assert problem.expect <= end.after and end.expect <= problem.after
        assert not problem.expect & problem.after and not end.expect & end.after
        assert alarms.ARMED in problem.after and problem.within.days > 3000


@given(
    st.one_of(
        st.text("abcdehklorstuvy-1", max_size=12),
        st.sampled_from(PREFIXES).flatmap(lambda prefix: st.integers(0, len(prefix)).map(lambda size: prefix[:size])),
        st.sampled_from(PREFIXES).map(lambda prefix: f"{prefix}x"),
    )
)
def test_the_names_outside_of_all_prefixes_are_known_by_globs(name: str) -> None:
    begins = any(name.startswith(prefix) for prefix in PREFIXES)
    found = any(fnmatch.fnmatchcase(name, glob) for glob in alarms.outside(PREFIXES))
    assert found == (not begins and name != "")


def test_every_flow_names_its_runs_in_a_way_that_alarms_know() -> None:
    for file in sorted(FLOWS.glob("[a-z]*.py")):
        text = file.read_text(encoding="utf-8").replace("=ALL_BACKUPS", f'="{alarms.ALL_BACKUPS}"')
        named = re.search(r'flow_run_name=(?:f?"|named_by_plan\(")([a-z-]+)', text)
        name = f"{named[1]}-" if named else alarms.drill_name("x", "latest")
        assert named or "drill_name(" in text, file
        assert any(name.startswith(prefix) for prefix in PREFIXES), file


def test_drills_of_the_newest_backup_are_one_series_and_of_a_certain_one_are_not() -> None:
    assert alarms.drill_name("shop", "latest") == "verify-shop" in alarms.names_of_plan("shop")
    assert alarms.drill_name("shop", "12").startswith("drill-")


def test_no_alarm_shows_more_than_the_name_of_a_plan_of_the_parameters() -> None:
    for one in declared(BLOCK):
        for action in one.actions:
            text = str(action.model_dump())
            assert set(re.findall(r"parameters\.(\w+)", text)) <= {"plan"}


def test_an_automation_that_the_server_gives_back_has_the_same_content() -> None:
    for one in declared(BLOCK):
        shuffled: dict[str, Any] = one.model_dump(mode="json")
        shuffled["trigger"]["expect"] = list(reversed(shuffled["trigger"]["expect"]))
        back = type(one).model_validate({**shuffled, "enabled": False})
        assert content(back) == content(one)
    assert content(declared(None)[1]) != content(declared(BLOCK)[1])


def test_an_address_that_apprise_does_not_know_is_refused_without_repeating_it() -> None:
    assert checked_notify_url("json://127.0.0.1:9/x") == "json://127.0.0.1:9/x"
    with pytest.raises(BadSetting) as refused:
        checked_notify_url("https://user:m4rker@example.org/hook")
    assert "m4rker" not in str(refused.value) and "jsons://" in str(refused.value)


@pytest.mark.parametrize("name", [alarms.backup_name("shop"), alarms.drill_name("shop", "latest")])
def test_how_the_newest_run_ended_is_said_again_under_its_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In case that a busy server has lost the event of its state: one that was told already fires nothing."""
    said: list[tuple[str, str]] = []
    monkeypatch.setattr("tasks.alarms.tell.emit_event", lambda **e: said.append((e["event"], e["resource"][_NAME])))
    for stands in ("failed", "well", "unknown"):
        remind("shop", name, stands)
    assert said == [(alarms.FAILED, name), (alarms.WELL, name)]
    assert [tells(event, name) for event, _ in said] == [[alarms.TELLS_PROBLEM], [alarms.TELLS_END]]


# --- the service outside


@pytest.mark.parametrize(
    ("kind", "address"),
    [
        ("start", "https://hc.example/a-b/start?create=1"),
        ("success", "https://hc.example/a-b?create=1"),
        ("fail", "https://hc.example/a-b/fail?create=1"),
    ],
)
def test_the_kind_of_a_call_stands_at_the_end_of_its_path(kind: Any, address: str) -> None:
    assert address_for("https://hc.example/a-b?create=1", kind) == address


def test_a_call_that_cannot_be_made_is_a_sentence_without_the_address() -> None:
    for url in ("ftp://m4rker.example/x", "m4rker", "http://127.0.0.1:9/m4rker", "http://[m4rker"):
        problem = ping(url, "start")
        assert problem and "m4rker" not in problem
    with webhook(answer=404) as service:
        assert ping(service.url, "fail", "why") == "it answered 404."
        assert {(method, path, body) for method, path, body in service.calls} == {("POST", "/alarms/fail", "why")}
    with webhook() as service:
        assert ping(service.url, "success") == ""
        assert service.calls == [("GET", "/alarms", "")]
