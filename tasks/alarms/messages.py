"""The texts of the messages: Jinja templates that the Prefect server fills in, with the event and the flow run.

What they may use: https://docs.prefect.io/v3/concepts/automations#templating-notifications-and-calls-to-action. A name
that is not there is empty. Of the parameters, only the name of the plan is shown.
"""

from __future__ import annotations

from dataclasses import dataclass

from tasks.alarms.event_names import ALL_BACKUPS, TIME


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
{% if name.startswith('backup-') %}the backup{% elif name.startswith('backups-of-') %}backup-all\
{% elif name.startswith('verify-') %}the verification\
{% elif name.startswith('health-') %}the health{% elif name.startswith('data-') %}the content of the backup\
{% else %}the run {{ name }}{% endif %}"""
_ONCE = "This is reported once, and once more when it is over."
_DEPLOYMENT = "{{ flow.name }}/{{ deployment.name }}"
_ROUND = (
    f"{{% if name == '{ALL_BACKUPS}' %}}Backup of {{{{ plan }}}}{{% else %}}Health check of {{{{ plan }}}}{{% endif %}}"
)

_PROBLEM = f"""{_VALUES}Plan: {{{{ plan }}}}
What: {{% if state == 'Late' %}}No worker has begun it, and {_DUE}\
{{% else %}}{{% if state %}}{{{{ state }}}}: {{% endif %}}{_REASON}{{% endif %}}
Since: {_SINCE}{_LINK}
{_ONCE}"""
_END = f"""{_VALUES}Plan: {{{{ plan }}}}
What: It is over: {_THING} is all right again.
{_PERIOD}"""

PROBLEM = Message(
    f"""{_VALUES}Plan {{{{ plan }}}}: \
{{% if event.event == 'backup.overdue' %}}a backup is missing\
{{% elif event.event == 'health.failed' %}}something is wrong\
{{% elif state == 'Late' %}}{_THING} does not begin\
{{% elif state == 'Crashed' %}}{_THING} was killed\
{{% else %}}{_THING} failed{{% endif %}}""",
    _PROBLEM,
)
SUSPICIOUS = Message(f"{_VALUES}Plan {{{{ plan }}}}: the backup is suspicious", _PROBLEM)
END = Message(f"{_VALUES}Plan {{{{ plan }}}}: {_THING} is all right again", _END)

UNCHECKED = Message(f"{_VALUES}{_ROUND}: it does not run", _PROBLEM)
CHECKED = Message(
    f"{_VALUES}{_ROUND}: it runs again",
    f"""{_VALUES}Plan: {{{{ plan }}}}
What: It is over: {_THING} has ended, whatever its result.
{_PERIOD}""",
)

UNBEGUN = Message(
    f"{_VALUES}Plan {{{{ plan }}}}: a run of {{{{ flow.name }}}} does not begin",
    f"""{_VALUES}Plan: {{{{ plan }}}}
What: {{% if state == 'Late' %}}No worker has begun a run of {_DEPLOYMENT}, and {_DUE}\
{{% else %}}A run of {_DEPLOYMENT} ended before it had begun: {_REASON}{{% endif %}}
Since: {_SINCE}{_LINK}
This is reported once for all runs of this deployment, and once more when a run begins.""",
)
BEGUN = Message(
    f"{_VALUES}Plan {{{{ plan }}}}: runs of {{{{ flow.name }}}} begin again",
    f"""{_VALUES}Plan: {{{{ plan }}}}
What: It is over: runs of {_DEPLOYMENT} begin again.
{_PERIOD}""",
)

SINGLE = Message(
    f"{_VALUES}Plan {{{{ plan }}}}: {{{{ name }}}} failed",
    f"""{_VALUES}Plan: {{{{ plan }}}}
What: {{{{ state }}}}: {_REASON}
Since: {_NOW}{_LINK}""",
)
