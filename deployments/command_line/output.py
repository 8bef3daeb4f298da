"""What `--json` prints, as classes: `docs/backups.schema.json` is made of them. Times are UTC, sizes are bytes."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class _Output(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Backup(_Output):
    """One row of the catalogue."""

    plan: str
    id: int
    filename: str
    status: str = Field(description="in_progress, completed, failed, expired, deleted, missing or unproved.")
    type: str = Field(description="full, or pre_restore for a safety backup.")
    size: int | None = Field(description="Bytes of the stored file; null while there is none.")
    plain_size: int | None = Field(description="Bytes of the SQL text, before compression.")
    tables: int | None
    rows: int | None
    created_by: str
    created_at: datetime
    completed_at: datetime | None
    seconds: float | None = Field(description="From its start to its record.")
    verified_at: datetime | None = Field(description="When a restore of it was last proved; null if never.")
    kept: str = Field(description="Who keeps it for ever since when, and why; empty if nobody does.")
    suspicious: str = Field(description="What shrank against the last good backup; empty if nothing did.")
    left_out: str = Field(description="What the plan left out of it, in words; empty if nothing.")
    error: str = Field(description="Why it failed; empty if it did not.")


class Backups(_Output):
    """What `backups list --json` prints."""

    backups: list[Backup] = Field(description="Newest first.")
    problems: list[str] = Field(description="A sentence for each catalogue or plan that could not be read.")


class AuditLine(_Output):
    """One line of the audit."""

    at: datetime
    action: str
    outcome: str
    plan: str
    backup_id: int | None
    filename: str | None
    actor: str
    run_id: str
    seconds: float | None
    bytes: int | None
    error: str | None
    details: dict[str, Any]


class Events(_Output):
    """What `backups events --json` prints."""

    events: list[AuditLine] = Field(description="Newest first.")
    problems: list[str] = Field(description="A sentence for each catalogue or plan that could not be read.")


class PlanPlace(_Output):
    """A plan, without its secrets."""

    name: str
    database: str = Field(description="Server and name of the database that it backs up; empty when it is not known.")
    catalogue: str = Field(description="Server and name of the database with its records.")
    problem: str = Field(description="Why these are not known; empty when they are.")


class Plans(_Output):
    """What `backups plans --json` prints."""

    plans: list[PlanPlace]


class PlanFields(_Output):
    """What `backups plan show NAME --json` prints."""

    name: str
    fields: dict[str, Any] = Field(description="The fields of the block Backup Plan; no field is secret.")


class Run(_Output):
    """What a command prints with `--json` that starts a run."""

    id: str
    name: str
    deployment: str
    state: str = Field(description="COMPLETED, FAILED, CRASHED or CANCELLED.")
    message: str = Field(description="Why it failed, in a sentence; empty if it did not.")
    seconds: float
    link: str = Field(description="Of `download` with `--print-link`, the link: a secret. Else empty.")


#: The command that prints each.
OUTPUTS: dict[str, type[_Output]] = {
    "list": Backups,
    "events": Events,
    "plans": Plans,
    "plan show": PlanFields,
    "run": Run,
}


def print_json(value: _Output) -> None:
    """On standard output, as one document."""
    sys.stdout.write(value.model_dump_json(indent=2) + "\n")
