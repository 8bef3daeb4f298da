"""The step that shows the last lines of the audit."""

from __future__ import annotations

from prefect import task

from tasks.catalogue.catalogue import Catalogue
from tasks.errors import BackupSystemError
from tasks.list_events.event_log import Asked, Listed, last_events, markdown, newest
from tasks.plans.find_plan import any_plan_named, plan_names
from tasks.runs.reporting import publish, say, warn
from tasks.runs.retries import RETRIED


@task(name="list", **RETRIED)
def list_lines(asked: Asked) -> Listed:
    """The lines, also as the artifact `backup-events`. A catalogue that does not answer is left out if another does."""
    answers, problems = [], []
    for catalogue in _catalogues(asked.plan.strip()):
        try:
            catalogue.check()
            answers.append(last_events(catalogue, asked))
        except BackupSystemError as error:
            problems.append(error)
    if problems and not answers:
        raise problems[0]
    for problem in problems:
        warn(f"Lines are missing from this list: {problem}")
    listed = Listed(asked, newest(answers, asked.last))
    publish("backup-events", "The last lines of the audit", markdown(listed))
    say(f"{len(listed.lines)} lines of the audit stand in the artifact backup-events.")
    return listed


def _catalogues(plan: str) -> list[Catalogue]:
    """The catalogue of a plan; without a plan those of all plans, each once."""
    every = [any_plan_named(name).catalogue for name in ([plan] if plan else plan_names())]
    return list({(one.dsn.host, one.dsn.port, one.dsn.dbname): one for one in every}.values())
