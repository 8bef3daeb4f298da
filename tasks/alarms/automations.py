"""The automations that the set-up makes. Each event belongs to one of those that tell something, by the run's name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from uuid import UUID

from prefect.client.schemas.objects import StateType
from prefect.events import EventTrigger, Posture
from prefect.events.actions import ChangeFlowRunState, DoNothing, SendNotification
from prefect.events.schemas.automations import AutomationCore

from tasks.alarms import event_names as alarms
from tasks.alarms import messages
from tasks.alarms.event_names import FAILURES, KEPT, ROUNDS, SINGLE, outside, patterns, state
from tasks.names import TAG

_OURS: dict[str, str | list[str]] = {"prefect.resource.id": f"prefect.tag.{TAG}"}
#: What an automation has seen, it forgets after so long: an incident does not last longer.
_EVER = timedelta(days=3650)
_BY_NAME, _BY_DEPLOYMENT = "prefect.resource.name", "related:deployment:prefect.resource.id"
_SILENT = timedelta(seconds=90)
_BEATS = state("heartbeat")


def declared(channel: UUID | None) -> tuple[AutomationCore, ...]:
    """Every automation; those that tell something do so by the notification block `channel`, or do nothing. Pure."""
    unbegun = outside((*KEPT, *ROUNDS, *SINGLE))
    not_run, runs = FAILURES - {state("Failed")} | {alarms.LATE}, {alarms.COMPLETED, state("Failed")}
    return (
        CRASHED,
        _tells(
            channel,
            alarms.TELLS_PROBLEM,
            "The first problem of a plan's backup, drill, health or content.",
            _once(patterns(KEPT), alarms.WRONG, after=alarms.RIGHT | {alarms.ARMED}),
            messages.PROBLEM_SUBJECT,
            messages.PROBLEM,
        ),
        _tells(
            channel,
            alarms.TELLS_END,
            "The end of a problem that was told.",
            _once(patterns(KEPT), alarms.RIGHT, after=alarms.WRONG | {alarms.NOTED}),
            messages.END_SUBJECT,
            messages.END,
        ),
        _tells(
            channel,
            alarms.TELLS_UNCHECKED,
            "A health check or backup-all that crashed or did not begin.",
            _once(patterns(ROUNDS), not_run, after=runs | {alarms.ARMED}),
            messages.UNCHECKED_SUBJECT,
            messages.PROBLEM,
        ),
        _tells(
            channel,
            alarms.TELLS_CHECKED,
            "A health check or backup-all runs again, whatever it finds.",
            _once(patterns(ROUNDS), runs, after=not_run),
            messages.CHECKED_SUBJECT,
            messages.END,
        ),
        _tells(
            channel,
            alarms.TELLS_UNBEGUN,
            "A deployment's runs do not begin, or end before that.",
            _once(unbegun, FAILURES | {alarms.LATE}, after={alarms.BEGUN, alarms.ARMED}, key=_BY_DEPLOYMENT),
            messages.UNBEGUN_SUBJECT,
            messages.UNBEGUN,
        ),
        _tells(
            channel,
            alarms.TELLS_BEGUN,
            "A deployment's runs begin again.",
            _once(unbegun, {alarms.BEGUN}, after=FAILURES | {alarms.LATE}, key=_BY_DEPLOYMENT),
            messages.BEGUN_SUBJECT,
            messages.BEGUN,
        ),
        _tells(
            channel,
            alarms.TELLS_SINGLE,
            "Each failure of a run that somebody asked for once, such as a restore.",
            _each(patterns(SINGLE), FAILURES),
            messages.SINGLE_SUBJECT,
            messages.SINGLE,
        ),
    )


def _once(names: Sequence[str], expect: Iterable[str], *, after: Iterable[str], key: str = _BY_NAME) -> EventTrigger:
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


def _tells(
    channel: UUID | None, name: str, description: str, trigger: EventTrigger, subject: str, body: str
) -> AutomationCore:
    told = SendNotification(block_document_id=channel, subject=subject, body=body) if channel else DoNothing()
    return AutomationCore(name=name, description=description, trigger=trigger, actions=[told])


#: A run whose process and worker died together cannot report its end: its heartbeats stop, and this says so.
CRASHED = AutomationCore(
    name=alarms.MARKS_CRASHED,
    description="A flow run that sent heartbeats, and then none for 90 seconds without ending, is marked Crashed.",
    trigger=EventTrigger(
        after={_BEATS},
        expect={_BEATS, *alarms.ENDS},
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
