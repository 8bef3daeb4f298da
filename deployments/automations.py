"""Automations as code: what the Prefect server does by itself."""

from __future__ import annotations

from datetime import timedelta

from prefect.client.schemas.objects import StateType
from prefect.events import EventTrigger, Posture
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore

_ENDS = ("Completed", "Failed", "Cancelled", "Crashed")

#: A run whose process and worker died together cannot report its end: its heartbeats stop, and this says so.
CRASH_DETECTION = AutomationCore(
    name="Backups: mark runs without heartbeat as crashed",
    description="A flow run that sent heartbeats, and then none for 90 seconds without ending, is marked Crashed.",
    trigger=EventTrigger(
        after={"prefect.flow-run.heartbeat"},
        expect={"prefect.flow-run.heartbeat", *(f"prefect.flow-run.{end}" for end in _ENDS)},
        match={"prefect.resource.id": ["prefect.flow-run.*"]},
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=90),
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

AUTOMATIONS = (CRASH_DETECTION,)
