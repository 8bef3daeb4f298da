"""The Prefect task that makes a download link: the link as an artifact, and another with the commands for the file."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from prefect import task
from prefect.artifacts import create_link_artifact
from prefect.client.orchestration import get_client

from tasks.catalogue.rows import Event
from tasks.download.offer import (
    PASTE,
    Link,
    checked_minutes,
    fetch_commands,
    link_to,
    open_commands,
    restore_commands,
    stored_backup,
)
from tasks.errors import Unreachable
from tasks.names import artifact_key
from tasks.plans.find_plan import plan_named
from tasks.plans.plan import Plan
from tasks.prefect_client import NO_ANSWER
from tasks.runs.audit import audit
from tasks.runs.markdown import cell, facts, human_bytes
from tasks.runs.reporting import created_by, current_run_id, now, publish, say, warn
from tasks.runs.retries import RETRIED
from tasks.storage.attention import left_out_in_words
from tasks.storage.backup_values import StoredBackup

ACTION = "download-backup"
_NO_LINK = "#"


@dataclass(frozen=True)
class Offer:
    """A backup that can be downloaded; only the artifact with the key `artifact` holds the link itself."""

    filename: str
    size: int
    sha256: str
    expires_at: datetime
    artifact: str


@task(name="offer", **RETRIED)
def offer_download(backup: str, plan: str, expires_minutes: int, requested_by: str) -> Offer:
    """Publishes a link to the backup as an artifact. No log, result or record holds the link."""
    chosen, actor = plan_named(plan), created_by(requested_by)
    checked_minutes(expires_minutes)
    return _offer(chosen, stored_backup(chosen, backup), expires_minutes, actor)


def _offer(plan: Plan, stored: StoredBackup, minutes: int, actor: str) -> Offer:
    link = link_to(plan, stored, minutes, now())
    noted = {"expires_minutes": minutes, "expires_at": f"{link.expires_at:%Y-%m-%d %H:%M:%S} UTC"}
    run_id, size = current_run_id(), stored.size

    def note(outcome: str) -> None:
        audit(
            plan.catalogue,
            Event(
                ACTION, outcome, plan.name, actor, run_id, stored.backup_id, stored.filename, bytes=size, details=noted
            ),
        )

    note("started")  # before anyone can use the link
    problem = _publish_link(plan.name, stored.filename, link)
    if problem:
        raise Unreachable(problem)
    publish(
        f"after-download-{plan.name}", f"What to do with {stored.filename}", instructions(plan, stored, link, actor)
    )
    note("completed")
    for warning in stored.warnings:
        warn(warning)
    say(
        f"{stored.filename} ({human_bytes(size)}) can be downloaded until {link.expires_at:%Y-%m-%d %H:%M:%S} UTC: the "
        f"link is in the artifact {link_key(plan.name)}. It was made for {actor}."
    )
    return Offer(stored.filename, size, stored.sha256, link.expires_at, link_key(plan.name))


def link_key(plan: str) -> str:
    """The artifact that holds the newest link to a backup of `plan`."""
    return artifact_key(f"download-{plan}")


def _publish_link(plan: str, filename: str, link: Link) -> str:
    """The reason, a sentence, if the link was not published. The server's own text may repeat the link: not shown."""
    until = f"{link.expires_at:%Y-%m-%d %H:%M:%S} UTC"
    try:
        artifact = create_link_artifact(
            key=link_key(plan),
            link=_NO_LINK,
            link_text="The link has not been made",
            description=f"Valid until {until}. Whoever has this link has the backup.",
        )
        _fill(artifact, f"[Download {filename}]({link.url})")
    except NO_ANSWER as error:
        return f"The Prefect server did not take the link to {filename} ({type(error).__name__}): run this again."
    return ""


def _fill(artifact: object, content: str) -> None:
    """Writes the link into its artifact. Prefect's events repeat the first content of an artifact, but not a change."""
    with get_client(sync_client=True) as client:
        client.request("PATCH", "/artifacts/{id}", path_params={"id": artifact}, json={"data": content})


def instructions(plan: Plan, stored: StoredBackup, link: Link, actor: str) -> str:
    """What the file is, and the commands for this very file, as markdown; without the link. Pure."""
    until = f"{link.expires_at:%Y-%m-%d %H:%M:%S} UTC"
    if link.temporary:
        until += ", or until the temporary credentials that signed it expire, whichever is earlier"
    values = {
        "File": f"`{stored.filename}`",
        "Size": f"{human_bytes(stored.size)} ({stored.size:,} bytes)",
        "SHA-256": f"`{stored.sha256}`",
        "Parts": f"{len(stored.parts):,}; the manifest beside the file has the SHA-256 of each",
        "SQL text": f"{human_bytes(stored.plain_size)}, SHA-256 `{stored.plain_sha256}`",
        "Database": f"{cell(stored.database.name)}, {stored.rows:,} rows, "
        f"PostgreSQL {cell(stored.database.server_version)}",
        **({"Left out": cell(left_out_in_words(stored.left_out))} if stored.left_out else {}),
        "Backed up": f"{stored.created_at:%Y-%m-%d %H:%M:%S} UTC",
        "Link": f"in the artifact `{link_key(plan.name)}`, until {until}; it leads to {cell(link.host)}",
        "Made for": cell(actor),
    }
    notes = "".join(f"\n- {cell(warning)}" for warning in stored.warnings)
    return f"# Download of {stored.filename}\n\n{facts(values)}{notes}\n{_commands(stored)}"


def _commands(stored: StoredBackup) -> str:
    """The commands, in the order in which they are run."""
    opening = "Decrypt with the secret key, decompress, and prove" if stored.encrypted else "Decompress, and prove"
    roles = ", ".join(map(cell, stored.roles)) or "none"
    steps = [
        ("Click the link, or copy it and run this in an empty directory; then paste it", [PASTE]),
        ("Fetch the file, and prove it", fetch_commands(stored)),
        (f"{opening} the SQL text", open_commands(stored)),
        (f"Restore it into a new database; these roles must be there: {roles}", restore_commands(stored)),
    ]
    text = "\n".join(f"{title}:\n\n```sh\n{chr(10).join(lines)}\n```\n" for title, lines in steps if lines)
    return (
        f"\n## By hand\n\n{text}\nEvery `sha256sum` must say `OK`: do not restore a file that it does not. The page "
        "docs/restore.md of this project has each step in full, with roles, locale and the comparison of rows.\n"
    )
