"""The automations that the set-up makes. By the run's name, each event belongs to one automation that sends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from uuid import UUID

from prefect.client.schemas.objects import StateType
from prefect.events import EventTrigger, Posture
from prefect.events.actions import ChangeFlowRunState, DoNothing, SendNotification
from prefect.events.schemas.automations import AutomationCore

from tasks.alarms import messages
from tasks.alarms.channel import Kind
from tasks.alarms.event_names import (
    ARMED,
    BEGIN_SERIES,
    DATA,
    DATA_SERIES,
    ENDS,
    FAILURES,
    HEALTH_SERIES,
    KEPT,
    MARKS_CRASHED,
    NOTED,
    ROUND_SERIES,
    ROUNDS,
    RUN_SERIES,
    SINGLE,
    TELLS_BEGUN,
    TELLS_CHECKED,
    TELLS_END,
    TELLS_PROBLEM,
    TELLS_SINGLE,
    TELLS_SUSPICIOUS,
    TELLS_UNBEGUN,
    TELLS_UNCHECKED,
    Series,
    names_before_begin,
    patterns,
    state,
)
from tasks.alarms.messages import Message
from tasks.names import TAG

_OURS: dict[str, str | list[str]] = {"prefect.resource.id": f"prefect.tag.{TAG}"}
#: An automation forgets what it has seen after so long: longer than a problem lasts.
_EVER = timedelta(days=3650)
_BY_NAME, _BY_DEPLOYMENT = "prefect.resource.name", "related:deployment:prefect.resource.id"
_SILENT = timedelta(seconds=90)
_BEATS = state("heartbeat")


def declared(channel: Mapping[Kind, UUID]) -> tuple[AutomationCore, ...]:
    """Every automation. They send by the notification blocks `channel`; without any, they do nothing. Pure."""
    plans, content = [prefix for prefix in KEPT if prefix != DATA], [DATA]
    rounds, unbegun = patterns(ROUNDS), names_before_begin()

    def sends(kind: Kind, name: str, description: str, trigger: EventTrigger, message: Message) -> AutomationCore:
        action = (
            SendNotification(block_document_id=channel[kind], subject=message.subject, body=message.body)
            if channel
            else DoNothing()
        )
        return AutomationCore(name=name, description=description, trigger=trigger, actions=[action])

    return (
        CRASHED,
        sends(
            "problem",
            TELLS_PROBLEM,
            "The first problem with a plan's backup, verification or health.",
            _begins(patterns(plans), RUN_SERIES | HEALTH_SERIES),
            messages.PROBLEM,
        ),
        sends(
            "suspicious",
            TELLS_SUSPICIOUS,
            "The first backup of a plan whose content is suspicious.",
            _begins(patterns(content), DATA_SERIES),
            messages.SUSPICIOUS,
        ),
        sends(
            "recovery",
            TELLS_END,
            "The end of a problem that was reported.",
            _ends(patterns(KEPT), RUN_SERIES | HEALTH_SERIES | DATA_SERIES),
            messages.END,
        ),
        sends(
            "problem",
            TELLS_UNCHECKED,
            "A health check or backup-all that crashed or did not begin.",
            _begins(rounds, ROUND_SERIES),
            messages.UNCHECKED,
        ),
        sends(
            "recovery",
            TELLS_CHECKED,
            "A health check or backup-all runs again, whatever its result.",
            _ends(rounds, ROUND_SERIES),
            messages.CHECKED,
        ),
        sends(
            "problem",
            TELLS_UNBEGUN,
            "A deployment's runs do not begin, or end before that.",
            _begins(unbegun, BEGIN_SERIES, key=_BY_DEPLOYMENT),
            messages.UNBEGUN,
        ),
        sends(
            "recovery",
            TELLS_BEGUN,
            "A deployment's runs begin again.",
            _ends(unbegun, BEGIN_SERIES, key=_BY_DEPLOYMENT),
            messages.BEGUN,
        ),
        sends(
            "problem",
            TELLS_SINGLE,
            "Each failure of a run that somebody started once, such as a restore.",
            _each(patterns(SINGLE), FAILURES),
            messages.SINGLE,
        ),
    )


def _begins(names: Sequence[str], series: Series, key: str = _BY_NAME) -> EventTrigger:
    """Fires when something is wrong for the first time, for each value of `key`."""
    return _once(names, series.wrong, after=series.right | {ARMED}, key=key)


def _ends(names: Sequence[str], series: Series, key: str = _BY_NAME) -> EventTrigger:
    """Fires when it is right again, for each value of `key`."""
    return _once(names, series.over, after=series.wrong | {NOTED}, key=key)


def _once(names: Sequence[str], expect: Iterable[str], *, after: Iterable[str], key: str) -> EventTrigger:
    """Fires for the first expected event that follows one of `after`, for each value of `key`."""
    return EventTrigger(
        match={_BY_NAME: list(names)},
        match_related=_OURS,
        after=set(after),
        expect=set(expect),
        for_each={key},
        posture=Posture.Reactive,
        threshold=1,
        within=_EVER,
    )


def _each(names: Sequence[str], expect: Iterable[str]) -> EventTrigger:
    """Fires for each expected event."""
    return EventTrigger(
        match={_BY_NAME: list(names)},
        match_related=_OURS,
        expect=set(expect),
        for_each={"prefect.resource.id"},
        posture=Posture.Reactive,
        threshold=1,
        within=timedelta(0),
    )


#: A run whose process and worker died together cannot report its end: its heartbeats stop, and this automation notices.
CRASHED = AutomationCore(
    name=MARKS_CRASHED,
    description="A flow run that sent heartbeats, and then none for 90 seconds without ending, is marked Crashed.",
    trigger=EventTrigger(
        after={_BEATS},
        expect={_BEATS, *ENDS},
        match={"prefect.resource.id": ["prefect.flow-run.*"]},
        match_related=_OURS,
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=_SILENT,
    ),
    actions=[
        ChangeFlowRunState(
            name="Crashed",
            state=StateType.CRASHED,
            message="No heartbeat for 90 seconds: its process has died.",
            force=False,
        )
    ],
)
