"""The automations as they are declared: which message an event leads to, and in which words."""

from __future__ import annotations

import asyncio
import fnmatch
import re
import socket
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect.events.actions import SendNotification
from prefect.events.schemas.events import ReceivedEvent as ClientEvent
from prefect.server.events.jinja_filters import all_filters
from prefect.server.events.schemas.automations import EventTrigger as ServerTrigger
from prefect.server.events.schemas.events import ReceivedEvent
from prefect.server.utilities.user_templates import register_user_template_filters, render_user_template

from tasks.alarms import event_names as names
from tasks.alarms.apply_automations import checked_notify_url, content
from tasks.alarms.automations import TYPES, declared
from tasks.alarms.run_reports import address_for, ping, remind
from tasks.alarms.watch import begin_of_problem
from tasks.errors import BadSetting
from tasks.names import TAG
from tasks.runs.audit import restore_name
from tests.support.webhook import webhook

BLOCKS = {kind: UUID(int=number) for number, kind in enumerate(TYPES)}
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
_NAME = "prefect.resource.name"
PREFIXES = (*names.KEPT, *names.ROUNDS, *names.SINGLE)
FLOWS = Path(__file__).parents[2] / "flows"


def happened(event: str, name: str, tag: str = TAG, **payload: str) -> ReceivedEvent:
    """An event of a resource of this name."""
    return ReceivedEvent(
        occurred=NOW,
        event=event,
        resource={"prefect.resource.id": "prefect.flow-run.x", _NAME: name},
        related=[{"prefect.resource.id": f"prefect.tag.{tag}", "prefect.resource.role": "tag"}],
        payload=payload,
        id=UUID(int=1),
    )


def tells(event: str, name: str, tag: str = TAG) -> list[str]:
    """The automations that expect an event of a resource of this name."""
    found = []
    for automation in declared(BLOCKS):
        trigger = ServerTrigger.model_validate(automation.trigger.model_dump(exclude={"id"}))
        fires = trigger.covers(happened(event, name, tag)) and trigger.expects(event)
        if fires and automation.name != names.MARKS_CRASHED:
            found.append(automation.name)
    return found


def sending(name: str) -> SendNotification:
    """What the automation of this name sends."""
    [action] = next(automation.actions for automation in declared(BLOCKS) if automation.name == name)
    assert isinstance(action, SendNotification)
    return action


@pytest.mark.parametrize("failure", sorted(names.FAILURES))
@pytest.mark.parametrize(
    ("name", "automation"),
    [
        ("backup-shop", names.TELLS_PROBLEM),
        ("backup-all", names.TELLS_PROBLEM),  # of a plan that is called so
        ("verify-shop", names.TELLS_PROBLEM),
        ("restore-shop-swap", names.TELLS_SINGLE),
        ("verification-shop-12", names.TELLS_SINGLE),
        ("delete-shop-latest", names.TELLS_SINGLE),
        ("wise-ocelot", names.TELLS_UNBEGUN),
    ],
)
def test_every_failure_is_told_by_one_automation(failure: str, name: str, automation: str) -> None:
    assert tells(failure, name) == [automation]
    assert tells(failure, name, tag="other") == []


def test_a_health_check_that_fails_is_told_by_what_it_found_alone() -> None:
    assert tells(names.state("Failed"), "check-health-every-plan") == []
    assert tells(names.ENDED, "check-health-every-plan") == [names.TELLS_CHECKED]
    assert tells(names.state("Crashed"), "check-health-every-plan") == [names.TELLS_UNCHECKED]
    assert tells(names.UNHEALTHY, names.health_name("shop")) == [names.TELLS_PROBLEM]
    assert tells(names.UNHEALTHY, f"reported otherwise: {names.health_name('shop')}") == []


def test_backup_all_is_told_of_by_what_it_could_not_start_and_by_the_runs_of_the_plans() -> None:
    assert tells(names.state("Failed"), names.ALL_BACKUPS) == []
    assert tells(names.ENDED, names.ALL_BACKUPS) == [names.TELLS_CHECKED]
    assert tells(names.state("Crashed"), names.ALL_BACKUPS) == [names.TELLS_UNCHECKED]
    assert tells(names.FAILED, names.every_backup_name()) == [names.TELLS_PROBLEM]
    assert tells(names.WELL, names.every_backup_name()) == [names.TELLS_END]
    assert {names.ALL_BACKUPS, names.every_backup_name()} <= set(names.common_names())


def test_a_run_for_the_databases_of_a_server_is_told_of_as_backup_all_is_and_each_database_that_is_gone_once() -> None:
    run, starts = names.all_backups_of("server"), names.backups_of("server")
    assert tells(names.state("Failed"), run) == [] and tells(names.state("Crashed"), run) == [names.TELLS_UNCHECKED]
    assert tells(names.FAILED, starts) == [names.TELLS_PROBLEM] and tells(names.WELL, starts) == [names.TELLS_END]
    assert {run, starts} <= set(names.names_of_plan("server"))
    assert tells(names.GONE, names.gone_name("server.shop")) == [names.TELLS_SINGLE]
    assert tells(names.state("Failed"), names.backup_name("server.~53hop_1")) == [names.TELLS_PROBLEM]
    message = sending(names.TELLS_SINGLE)
    event = happened(names.GONE, names.gone_name("server.shop"), plan="server.shop", sentence="It is gone.")
    assert rendered(message.subject, event) == "Plan server.shop: its database is gone"
    assert "What: It is gone." in rendered(message.body, event)


def test_a_run_that_was_skipped_or_cancelled_is_neither_a_problem_nor_its_end() -> None:
    for name in ("backup-shop", "restore-shop-swap", "wise-ocelot"):
        assert tells(names.state("Skipped"), name) == tells(names.state("Cancelled"), name) == []


@pytest.mark.parametrize(
    ("name", "begins", "over"),
    [
        ("backup-shop", names.TELLS_PROBLEM, names.TELLS_END),
        (names.every_backup_name(), names.TELLS_PROBLEM, names.TELLS_END),
        ("verify-shop", names.TELLS_PROBLEM, names.TELLS_END),
        ("health-shop", names.TELLS_PROBLEM, names.TELLS_END),
        ("data-shop", names.TELLS_SUSPICIOUS, names.TELLS_END),
        ("check-health-shop", names.TELLS_UNCHECKED, names.TELLS_CHECKED),
        (names.ALL_BACKUPS, names.TELLS_UNCHECKED, names.TELLS_CHECKED),
    ],
)
def test_a_problem_is_reported_once_until_it_is_over_and_its_end_once(name: str, begins: str, over: str) -> None:
    series = names.series_of(name)
    assert all(tells(event, name) == [begins] for event in series.wrong)
    assert all(tells(event, name) == [over] for event in series.over) and series.over
    check_once(begins, over, series)


def test_runs_that_do_not_begin_are_reported_once_and_their_end_once() -> None:
    check_once(names.TELLS_UNBEGUN, names.TELLS_BEGUN, names.BEGIN_SERIES)


def check_once(begins: str, over: str, series: names.Series) -> None:
    """The first automation waits for the right events after it has fired, the second for the wrong ones."""
    triggers = {automation.name: automation.trigger for automation in declared(BLOCKS)}
    problem, end = triggers[begins], triggers[over]
    assert problem.for_each == end.for_each
    assert series.wrong <= problem.expect and series.right | {names.ARMED} <= problem.after
    assert series.over <= end.expect and series.wrong | {names.NOTED} <= end.after
    assert not problem.expect & problem.after and not end.expect & end.after
    assert problem.within.days > 3000 and end.within.days > 3000


def test_messages_have_the_type_that_chats_colour() -> None:
    kinds = {
        automation.name: next(kind for kind, block in BLOCKS.items() if block == action.block_document_id)
        for automation in declared(BLOCKS)
        for action in automation.actions
        if isinstance(action, SendNotification)
    }
    ends = {names.TELLS_END, names.TELLS_CHECKED, names.TELLS_BEGUN}
    assert {name for name, kind in kinds.items() if kind == "recovery"} == ends
    assert {name for name, kind in kinds.items() if kind == "suspicious"} == {names.TELLS_SUSPICIOUS}
    assert kinds.keys() == set(names.ALARMS) - {names.MARKS_CRASHED}
    assert TYPES == {"problem": "failure", "recovery": "success", "suspicious": "warning"}


# --- since when


def rendered(template: str, event: ReceivedEvent) -> str:
    """What the server makes of a template."""
    register_user_template_filters(all_filters)
    return asyncio.run(render_user_template(template, {"event": event, "flow_run": None}))


def test_a_recovery_says_since_when_it_was_wrong_and_when_it_ended() -> None:
    since = "2026-02-28 02:00:13 UTC"
    for automation, event, name in (
        (names.TELLS_END, names.WELL, "backup-shop"),
        (names.TELLS_END, names.SOUND, "data-shop"),
        (names.TELLS_CHECKED, names.ENDED, "check-health-every-plan"),
        (names.TELLS_BEGUN, names.BEGUN, "a run that has begun"),
    ):
        assert tells(event, name) == [automation]
        text = rendered(sending(automation).body, happened(event, name, since=since))
        assert f"Since: {since}\nUntil: 2026-03-01 12:00:00 UTC" in text
        assert "Since: not known\nUntil: 2026" in rendered(sending(automation).body, happened(event, name))


def test_a_problem_that_is_reported_late_says_when_it_began() -> None:
    since = "2026-02-28 02:00:13 UTC"
    body = sending(names.TELLS_PROBLEM).body
    assert f"Since: {since}" in rendered(body, happened(names.FAILED, "backup-shop", since=since))
    assert "Since: 2026-03-01 12:00:00 UTC" in rendered(body, happened(names.state("Failed"), "backup-shop"))


def test_a_problem_begins_with_the_first_wrong_event_after_the_last_right_one() -> None:
    """An event that says since when keeps the begin, though the server forgets older events."""

    def event(name: str, hours_ago: int, since: str = "") -> ClientEvent:
        at = NOW - timedelta(hours=hours_ago)
        resource = {"prefect.resource.id": "x", _NAME: "backup-shop"}
        return ClientEvent(
            id=UUID(int=1),
            occurred=at,
            received=at,
            event=name,
            resource=resource,
            payload={"since": since} if since else {},
            follows=None,
        )

    crashed = names.state("Crashed")
    for events, begin in (
        ([], ""),
        ([event(names.WELL, 1), event(crashed, 2)], ""),
        ([event(crashed, 1), event(names.FAILED, 2), event(names.WELL, 3), event(crashed, 4)], "2026-03-01 10:00:00"),
        ([event(crashed, 1), event(names.FAILED, 2, "2026-02-20 02:00:00 UTC")], "2026-02-20 02:00:00"),
        ([event(names.OVERDUE, 1, "2026-03-01 10:30:00 UTC"), event(names.COMPLETED, 3)], "2026-03-01 10:30:00"),
    ):
        assert begin_of_problem(events, names.RUN_SERIES) == (f"{begin} UTC" if begin else "")


@given(
    st.one_of(
        st.text("abcdehklorstuvy-1", max_size=12),
        st.sampled_from(PREFIXES).flatmap(lambda prefix: st.integers(0, len(prefix)).map(lambda size: prefix[:size])),
        st.sampled_from(PREFIXES).map(lambda prefix: f"{prefix}x"),
    )
)
def test_the_names_outside_of_all_prefixes_are_known_by_globs(name: str) -> None:
    begins = any(name.startswith(prefix) for prefix in PREFIXES)
    found = any(fnmatch.fnmatchcase(name, glob) for glob in names.outside(PREFIXES))
    assert found == (not begins and name != "")


def test_every_flow_names_its_runs_in_a_way_that_alarms_know() -> None:
    for file in sorted(FLOWS.glob("[a-z]*.py")):
        text = file.read_text(encoding="utf-8").replace("=ALL_BACKUPS", f'="{names.ALL_BACKUPS}"')
        text = text.replace("flow_run_name=restore_name", f'flow_run_name="{restore_name()}"')
        named = re.search(r'flow_run_name=(?:f?"|named_by_plan\(")([a-z-]+)', text)
        name = f"{named[1]}-" if named else names.verify_name("x", "latest")
        assert named or "verify_name(" in text or "else backup_name(plan)" in text, file
        assert any(name.startswith(prefix) for prefix in PREFIXES), file


def test_drills_of_the_newest_backup_are_one_series_and_of_a_certain_one_are_not() -> None:
    assert names.verify_name("shop", "latest") == "verify-shop" in names.names_of_plan("shop")
    assert names.verify_name("shop", "12").startswith("verification-")


def test_no_alarm_shows_more_than_the_name_of_a_plan_of_the_parameters() -> None:
    for one in declared(BLOCKS):
        for action in one.actions:
            text = str(action.model_dump())
            assert set(re.findall(r"parameters\.(\w+)", text)) <= {"plan"}


def test_an_automation_that_the_server_gives_back_has_the_same_content() -> None:
    for one in declared(BLOCKS):
        shuffled: dict[str, Any] = one.model_dump(mode="json")
        shuffled["trigger"]["expect"] = list(reversed(shuffled["trigger"]["expect"]))
        back = type(one).model_validate({**shuffled, "enabled": False})
        assert content(back) == content(one)
    assert content(declared({})[1]) != content(declared(BLOCKS)[1])


def test_an_address_that_apprise_does_not_know_is_refused_without_repeating_it() -> None:
    assert checked_notify_url("json://127.0.0.1:9/x") == "json://127.0.0.1:9/x"
    with pytest.raises(BadSetting) as refused:
        checked_notify_url("https://user:m4rker@example.org/hook")
    assert "m4rker" not in str(refused.value) and "jsons://" in str(refused.value)


@pytest.mark.parametrize("name", [names.backup_name("shop"), names.verify_name("shop")])
def test_how_the_newest_run_ended_is_repeated_under_its_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In case a busy server has lost the event of its state; what was reported already sends nothing."""
    emitted: list[tuple[str, str, str]] = []
    monkeypatch.setattr("tasks.alarms.run_reports.wrong_since", lambda name, plan: "2026-03-01 10:00:00 UTC")
    monkeypatch.setattr(
        "tasks.alarms.run_reports.emit_event",
        lambda **e: emitted.append((e["event"], e["resource"][_NAME], e["payload"]["since"])),
    )
    for stands in ("failed", "well", "unknown"):
        remind("shop", name, stands)
    since = "2026-03-01 10:00:00 UTC"
    assert emitted == [(names.FAILED, name, since), (names.WELL, name, since)]
    assert [tells(event, name) for event, _, _ in emitted] == [[names.TELLS_PROBLEM], [names.TELLS_END]]


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


def test_a_service_whose_answer_never_ends_holds_no_backup_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """httpx waits so long for each byte, and never ends while bytes come."""
    monkeypatch.setattr("tasks.alarms.run_reports.PING_SECONDS", 1.0)
    ended = threading.Event()

    def drip(listener: socket.socket) -> None:
        with listener.accept()[0] as client, suppress(OSError):
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while not ended.wait(0.2):
                client.sendall(b".")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        for _ in range(2):
            threading.Thread(target=drip, args=(listener,), daemon=True).start()
        began = time.monotonic()
        problem = ping(f"http://127.0.0.1:{listener.getsockname()[1]}/m4rker", "start")
        ended.set()
    assert problem == "it did not answer within 1 s."
    assert time.monotonic() - began < 15, "3 seconds, with room for a slow machine"
