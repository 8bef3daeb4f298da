"""The words of the messages: Jinja templates that the Prefect server fills in, with the event and the flow run.

What they may use: https://docs.prefect.io/v3/concepts/automations#templating-notifications-and-calls-to-action. A name
that is not there is empty. No parameter but the name of the plan is shown.
"""

from __future__ import annotations

from tasks.alarms.event_names import ALL_BACKUPS

_PLAN = """\
{%- set run = flow_run -%}
{%- set given = run.parameters if run else none -%}
{%- set plan = event.payload.plan or (given.plan if given else none) or 'every plan' -%}
{%- set name = event.resource.name -%}
{%- set state = event.resource.root.get('prefect.state-name', '') -%}
"""
_TIME = "%Y-%m-%d %H:%M:%S UTC"
_LINK = "{% if run %}\nRun: {{ run.name }}, {{ run | ui_url }}{% endif %}"
#: The sentence that ended the run, without what Prefect puts before it.
_REASON = """\
{{ (event.payload.sentence or event.resource.root.get('prefect.state-message') or 'No reason was given.')
   | replace('Flow run encountered an exception: ', '') | truncate(1500) }}"""
#: What a name that is kept stands for, and what else a run is.
_THING = """\
{% if name.startswith('backup-') %}the backup{% elif name.startswith('backups-of-') %}backup-all\
{% elif name.startswith('verify-') %}the drill\
{% elif name.startswith('health-') %}the health{% elif name.startswith('data-') %}the content of the backup\
{% else %}the run {{ name }}{% endif %}"""

PROBLEM_SUBJECT = f"""{_PLAN}Plan {{{{ plan }}}}: \
{{% if event.event == 'backup.overdue' %}}a backup is missing\
{{% elif event.event == 'backup.suspicious' %}}the backup is suspicious\
{{% elif event.event == 'health.failed' %}}something is wrong\
{{% elif state == 'Late' %}}{_THING} does not begin\
{{% elif state == 'Crashed' %}}{_THING} was killed\
{{% else %}}{_THING} failed{{% endif %}}"""
PROBLEM = f"""{_PLAN}Plan: {{{{ plan }}}}
What: {{% if state == 'Late' %}}No worker has begun it, though it was due at \
{{{{ run.expected_start_time.strftime('{_TIME}') if run else 'some time ago' }}}}.\
{{% else %}}{{% if state %}}{{{{ state }}}}: {{% endif %}}{_REASON}{{% endif %}}
Since: {{{{ event.payload.since or event.occurred.strftime('{_TIME}') }}}}{_LINK}
This is told once, and once more when it is over."""

END_SUBJECT = f"{_PLAN}Plan {{{{ plan }}}}: {_THING} is all right again"
END = f"""{_PLAN}Plan: {{{{ plan }}}}
What: It is over: {_THING} is all right again.
Since: {{{{ event.occurred.strftime('{_TIME}') }}}}{_LINK}"""

_ROUND = (
    f"{{% if name == '{ALL_BACKUPS}' %}}Backup of {{{{ plan }}}}{{% else %}}Health check of {{{{ plan }}}}{{% endif %}}"
)
UNCHECKED_SUBJECT = f"{_PLAN}{_ROUND}: it does not run"
CHECKED_SUBJECT = f"{_PLAN}{_ROUND}: it runs again"

UNBEGUN_SUBJECT = f"{_PLAN}Plan {{{{ plan }}}}: a run of {{{{ flow.name }}}} does not begin"
UNBEGUN = f"""{_PLAN}Plan: {{{{ plan }}}}
What: {{% if state == 'Late' %}}No worker has begun a run of {{{{ flow.name }}}}/{{{{ deployment.name }}}}, though \
it was due at {{{{ run.expected_start_time.strftime('{_TIME}') if run else 'some time ago' }}}}.\
{{% else %}}A run of {{{{ flow.name }}}}/{{{{ deployment.name }}}} ended before it had begun: {_REASON}{{% endif %}}
Since: {{{{ event.occurred.strftime('{_TIME}') }}}}{_LINK}
This is told once for all runs of this deployment, and once more when one begins."""
BEGUN_SUBJECT = "Plan {{ flow_run.parameters.plan or 'every plan' }}: runs of {{ flow.name }} begin again"
BEGUN = f"""{_PLAN}Plan: {{{{ (run.parameters.plan if run else none) or 'every plan' }}}}
What: It is over: runs of {{{{ flow.name }}}}/{{{{ deployment.name }}}} begin again.
Since: {{{{ event.occurred.strftime('{_TIME}') }}}}{_LINK}"""

SINGLE_SUBJECT = f"{_PLAN}Plan {{{{ plan }}}}: {{{{ name }}}} failed"
SINGLE = f"""{_PLAN}Plan: {{{{ plan }}}}
What: {{{{ state }}}}: {_REASON}
Since: {{{{ event.occurred.strftime('{_TIME}') }}}}{_LINK}"""
