"""The command `backups`. Reading takes no Prefect, and so less than two seconds; see `flow_commands` for what runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Literal

import httpx
from cyclopts import App, Parameter

from deployments.command_line import records
from deployments.command_line.flow_commands import add_flow_commands
from deployments.command_line.globals_command import server_globals
from deployments.command_line.output import print_json
from deployments.command_line.plan_commands import plan
from tasks.errors import BackupSystemError
from tasks.list_events.event_log import Asked, Listed, plain
from tasks.runs.arguments import WholeNumber, new_app, run_app

_HELP = """Back up, restore and look after PostgreSQL databases.

What only reads asks the catalogue. Everything else starts the deployment of the same flow, which a worker runs, and
waits for its end: exit status 0 when the run was completed, 1 when it was not, 2 when the options cannot be used. With
--here it runs in this process instead, without a worker and, if need be, without a Prefect server."""
Json = Annotated[bool, Parameter(negative=(), help="Print JSON.", show_default=False)]
Quiet = Annotated[bool, Parameter(negative=(), help="Print the names alone.", show_default=False)]


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status of `backups`: 0, or 1 or 2 after one sentence on standard error, 130 when it was interrupted."""
    try:
        status = run_app(command(), arguments)
        sys.stdout.flush()
    except BackupSystemError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except httpx.HTTPError as error:
        sys.stderr.write(f"The Prefect server does not answer ({type(error).__name__}): try again.\n")
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def command() -> App:
    """The command line."""
    app = new_app("backups", _HELP)
    app.command(list_, name="list")
    app.command(events)
    app.command(plans)
    app.command(plan)
    app.command(server_globals, name="globals")
    add_flow_commands(app)

    @app.command
    def completion(shell: Literal["bash", "zsh", "fish"], /) -> int:
        """Print what completes this command in a shell: source <(backups completion bash).

        Args:
            shell: The shell.
        """
        sys.stdout.write(app.generate_completion(shell=shell))
        return 0

    return app


def list_(*, plan: str = "", last: WholeNumber = 50, json: Json = False, quiet: Quiet = False) -> int:
    """List the newest backups.

    Args:
        plan: Only those of this backup plan.
        last: How many.
    """
    listed = records.list_backups(plan.strip(), last)
    if json:
        print_json(listed)
    elif quiet:
        sys.stdout.writelines(f"{backup.filename}\n" for backup in listed.backups)
    else:
        sys.stdout.write(records.backups_text(listed))
    return _told(listed.problems)


def events(
    *,
    plan: str = "",
    action: str = "",
    outcome: str = "",
    actor: str = "",
    backup: str = "",
    last: WholeNumber = 100,
    json: Json = False,
) -> int:
    """List the last lines of the audit: what was done, by whom, with what outcome.

    Args:
        plan: Only lines of this backup plan.
        action: Only this action, such as backup, restore, retention or delete-backup.
        outcome: Only this outcome, such as completed, failed or refused.
        actor: Only lines whose actor has this text in the name.
        backup: Only lines of the backup with this file name or id.
        last: How many.
    """
    asked = Asked(plan, action, outcome, actor, backup, last)
    found, lines = records.list_events(asked)
    if json:
        print_json(found)
    else:
        sys.stdout.write(plain(Listed(asked, tuple(lines))))
    return _told(found.problems)


def plans(*, json: Json = False, quiet: Quiet = False) -> int:
    """List the backup plans, with where their databases and records are."""
    listed = records.list_plans()
    if json:
        print_json(listed)
    elif quiet:
        sys.stdout.writelines(f"{plan.name}\n" for plan in listed.plans)
    else:
        sys.stdout.write(records.plans_text(listed))
    return 0


def _told(problems: Sequence[str]) -> int:
    sys.stderr.writelines(f"{problem}\n" for problem in problems)
    return 1 if problems else 0
