"""The automations that the set-up makes, and the messages that they send.

By the run's name, each event belongs to one automation that sends. The texts are Jinja templates that the server fills
in, with the event and the flow run. What they may use:
https://docs.prefect.io/v3/concepts/automations#templating-notifications-and-calls-to-action. A name that is not there
is empty. Of the parameters, only the name of the plan is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal
from uuid import UUID

from prefect.client.schemas.objects import StateType
from prefect.events import EventTrigger, Posture
from prefect.events.actions import ChangeFlowRunState, DoNothing, SendNotification
from prefect.events.schemas.automations import AutomationCore

from tasks.alarms.event_names import (
    ALL_BACKUPS,
    ARMED,
    BEGIN_SERIES,
    DATA,
    DATA_SERIES,
    ENDS,
    FAILURES,
    GONE,
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
    TIME,
    Series,
    names_before_begin,
    patterns,
    state,
)
from tasks.names import TAG

_OURS: dict[str, str | list[str]] = {"prefect.resource.id": f"prefect.tag.{TAG}"}
#: An automation forgets what it has seen after so long: longer than a problem lasts.
_EVER = timedelta(days=3650)
_BY_NAME, _BY_DEPLOYMENT = "prefect.resource.name", "related:deployment:prefect.resource.id"
_SILENT = timedelta(seconds=90)
_BEATS = state("heartbeat")


@dataclass(frozen=True)
class Message:
    """The templates of a message."""

    subject: str
    body: str


_VALUES = """\
{%- set run = flow_run -%}
{%- set given = run.parameters if run else none -%}
{%- set plan = event.payload.plan or (given.plan if given else none) or 'every plan' -%}
{%- set name = event.resource.name -%}
{%- set state = event.resource.root.get('prefect.state-name', '') -%}
"""
_NOW = f"{{{{ event.occurred.strftime('{TIME}') }}}}"
_SINCE = f"{{{{ event.payload.since or event.occurred.strftime('{TIME}') }}}}"
_LINK = "{% if run %}\nRun: {{ run.name }}, {{ run | ui_url }}{% endif %}"
#: Every event that ends a problem is our own, and knows when it began unless the server has forgotten that.
_PERIOD = f"Since: {{{{ event.payload.since or 'not known' }}}}\nUntil: {_NOW}{_LINK}"
_DUE = f"it was due at {{{{ run.expected_start_time.strftime('{TIME}') if run else 'some time ago' }}}}."
#: The sentence that ended the run, without what Prefect puts before it.
_REASON = """\
{{ (event.payload.sentence or event.resource.root.get('prefect.state-message') or 'No reason was given.')
   | replace('Flow run encountered an exception: ', '') | truncate(1500) }}"""
#: What a watched name stands for; otherwise the name of the run.
_THING = """\
{% if name.startswith('backup-') %}the backup{% elif name == 'backups-of-every-plan' %}backup-all\
{% elif name.startswith('backups-of-') %}the backup of its databases\
{% elif name.startswith('verify-') %}the verification\
{% elif name.startswith('health-') %}the health{% elif name.startswith('data-') %}the content of the backup\
{% else %}the run {{ name }}{% endif %}"""
_ONCE = "This is reported once, and once more when it is over."
_DEPLOYMENT = "{{ flow.name }}/{{ deployment.name }}"
_ROUND = f"{{% if name.startswith('{ALL_BACKUPS}') %}}Backup{{% else %}}Health check{{% endif %}} of {{{{ plan }}}}"

_PROBLEM = f"""{_VALUES}Plan: {{{{ plan }}}}
What: {{% if state == 'Late' %}}No worker has begun it, and {_DUE}\
{{% else %}}{{% if state %}}{{{{ state }}}}: {{% endif %}}{_REASON}{{% endif %}}
Since: {_SINCE}{_LINK}
{_ONCE}"""
_END = f"""{_VALUES}Plan: {{{{ plan }}}}
What: It is over: {_THING} is all right again.
{_PERIOD}"""

PROBLEM_MESSAGE = Message(
    f"""{_VALUES}Plan {{{{ plan }}}}: \
{{% if event.event == 'backup.overdue' %}}a backup is missing\
{{% elif event.event == 'health.failed' %}}something is wrong\
{{% elif state == 'Late' %}}{_THING} does not begin\
{{% elif state == 'Crashed' %}}{_THING} was killed\
{{% else %}}{_THING} failed{{% endif %}}""",
    _PROBLEM,
)
SUSPICIOUS_MESSAGE = Message(f"{_VALUES}Plan {{{{ plan }}}}: the backup is suspicious", _PROBLEM)
END_MESSAGE = Message(f"{_VALUES}Plan {{{{ plan }}}}: {_THING} is all right again", _END)

UNCHECKED_MESSAGE = Message(f"{_VALUES}{_ROUND}: it does not run", _PROBLEM)
CHECKED_MESSAGE = Message(
    f"{_VALUES}{_ROUND}: it runs again",
    f"""{_VALUES}Plan: {{{{ plan }}}}
What: It is over: {_THING} has ended, whatever its result.
{_PERIOD}""",
)

UNBEGUN_MESSAGE = Message(
    f"{_VALUES}Plan {{{{ plan }}}}: a run of {{{{ flow.name }}}} does not begin",
    f"""{_VALUES}Plan: {{{{ plan }}}}
What: {{% if state == 'Late' %}}No worker has begun a run of {_DEPLOYMENT}, and {_DUE}\
{{% else %}}A run of {_DEPLOYMENT} ended before it had begun: {_REASON}{{% endif %}}
Since: {_SINCE}{_LINK}
This is reported once for all runs of this deployment, and once more when a run begins.""",
)
BEGUN_MESSAGE = Message(
    f"{_VALUES}Plan {{{{ plan }}}}: runs of {{{{ flow.name }}}} begin again",
    f"""{_VALUES}Plan: {{{{ plan }}}}
What: It is over: runs of {_DEPLOYMENT} begin again.
{_PERIOD}""",
)

SINGLE_MESSAGE = Message(
    f"{_VALUES}Plan {{{{ plan }}}}: {{% if state %}}{{{{ name }}}} failed{{% else %}}its database is gone{{% endif %}}",
    f"""{_VALUES}Plan: {{{{ plan }}}}
What: {{% if state %}}{{{{ state }}}}: {{% endif %}}{_REASON}
Since: {_NOW}{_LINK}""",
)


Kind = Literal["problem", "recovery", "suspicious"]


#: Apprise's types of messages.
TYPES: dict[Kind, Literal["failure", "success", "warning"]] = {
    "problem": "failure",
    "recovery": "success",
    "suspicious": "warning",
}


def block_name(kind: Kind) -> str:
    return f"backup-alarms-{kind}"


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
            PROBLEM_MESSAGE,
        ),
        sends(
            "suspicious",
            TELLS_SUSPICIOUS,
            "The first backup of a plan whose content is suspicious.",
            _begins(patterns(content), DATA_SERIES),
            SUSPICIOUS_MESSAGE,
        ),
        sends(
            "recovery",
            TELLS_END,
            "The end of a problem that was reported.",
            _ends(patterns(KEPT), RUN_SERIES | HEALTH_SERIES | DATA_SERIES),
            END_MESSAGE,
        ),
        sends(
            "problem",
            TELLS_UNCHECKED,
            "A health check or backup-all that crashed or did not begin.",
            _begins(rounds, ROUND_SERIES),
            UNCHECKED_MESSAGE,
        ),
        sends(
            "recovery",
            TELLS_CHECKED,
            "A health check or backup-all runs again, whatever its result.",
            _ends(rounds, ROUND_SERIES),
            CHECKED_MESSAGE,
        ),
        sends(
            "problem",
            TELLS_UNBEGUN,
            "A deployment's runs do not begin, or end before that.",
            _begins(unbegun, BEGIN_SERIES, key=_BY_DEPLOYMENT),
            UNBEGUN_MESSAGE,
        ),
        sends(
            "recovery",
            TELLS_BEGUN,
            "A deployment's runs begin again.",
            _ends(unbegun, BEGIN_SERIES, key=_BY_DEPLOYMENT),
            BEGUN_MESSAGE,
        ),
        sends(
            "problem",
            TELLS_SINGLE,
            "Each failure of a run that somebody started once, such as a restore; each database that is gone.",
            _each(patterns(SINGLE), FAILURES | {GONE}),
            SINGLE_MESSAGE,
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
