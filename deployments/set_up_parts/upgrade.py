"""Brings over what an older version of this project has set up: blocks within blocks, and names of deployments.

Every function does nothing where nothing is left of an older version.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from prefect.blocks.notifications import SlackWebhook
from prefect.blocks.system import Secret
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.states import Scheduled
from prefect_aws.s3 import S3Bucket
from pydantic import SecretStr

from deployments.set_up_parts.deployments import Deployments
from deployments.set_up_parts.merging import SetUp
from tasks.errors import BadSetting
from tasks.plans.blocks import BackupPlan, BackupStorage
from tasks.plans.find_plan import block_documents, stored_block
from tasks.prefect_client import pages, refused, run_filter

#: The deployments that had another name once.
RENAMED = {
    "backup-all/manual": "backup-all/backup-all-plans",
    "restore/manual": "restore/restore-backup",
    "undo-restore/manual": "undo-restore/undo-last-restore",
    "cleanup/manual": "cleanup/clean-up-now",
    "rebuild-catalogue/manual": "rebuild-catalogue/rebuild-catalogue",
    "download-backup/manual": "download-backup/download-backup",
    "delete-backup/manual": "delete-backup/delete-backup",
    "list-backups/manual": "list-backups/refresh-admin-page",
    "list-events/manual": "list-events/list-events",
    "verify-backup/weekly": "verify-backup/verify-weekly",
    "verify-backup/manual": "verify-backup/verify-backup",
    "check-health/hourly": "check-health/hourly-check",
    "check-health/manual": "check-health/check-now",
}
#: The block that sent every alarm, of whatever type.
OLD_CHANNEL = "backup-alarms"
#: What a copy of a deployment has of the old one; the set-up then applies prefect.yaml to it.
_COPIED = (
    "entrypoint",
    "description",
    "tags",
    "parameters",
    "work_pool_name",
    "work_queue_name",
    "job_variables",
    "paused",
    "pull_steps",
    "enforce_parameter_schema",
    "parameter_openapi_schema",
)


# --- blocks


def name_blocks(*, check: bool) -> Iterator[str]:
    """Plans that hold blocks, and secrets, name them instead; yields a line for each such plan.

    Raises BadSetting when a plan, other than `default`, has lost the blocks that it held.
    """
    for document in block_documents([BackupPlan], secrets=True):
        name, data = str(document["name"]), document["data"]
        if not any(isinstance(data.get(field), dict) for field in ("database", "storage", "catalogue")):
            continue
        if not check:
            _name_blocks(name, document)
        yield f"Plan {name} {'holds blocks, and is to name' if check else 'now names'} its blocks by their names."


def _name_blocks(plan: str, document: Mapping[str, Any]) -> None:
    held = {field: _referred(document, field) or f"{plan}-{field}" for field in ("database", "storage", "catalogue")}
    fields = {**document["data"], **held}
    for storage in (fields["storage"], *fields.get("replicas", ())):
        _make_storage(storage)
    for field in ("age_identity", "ping_url"):
        if fields.get(field):
            secret: Secret[str] = Secret(value=SecretStr(fields[field]))
            fields[field] = f"{plan}-{field.replace('_', '-')}"
            secret.save(fields[field], overwrite=True)
    if not document["data"].get("catalogue"):
        fields["catalogue"] = ""
    known = {field: value for field, value in fields.items() if field in BackupPlan.model_fields}
    BackupPlan(**known).save(plan, overwrite=True)


def _make_storage(name: str) -> None:
    """A Backup Storage block that says what the S3 Bucket block of this name says."""
    found = next((one for one in block_documents([S3Bucket]) if one["name"] == name), None)
    if found is None or stored_block(BackupStorage, name) is not None:
        return
    credentials = _referred(found, "credentials")
    if not credentials:
        raise BadSetting(f"Block s3-bucket/{name} has lost its credentials: choose them again in the Prefect UI (V1).")
    bucket, folder = found["data"]["bucket_name"], found["data"].get("bucket_folder") or ""
    BackupStorage(bucket=bucket, folder=folder, credentials=credentials).save(name)


def _referred(document: Mapping[str, Any], field: str) -> str:
    """The name of the block that a field of another refers to; empty when it refers to none."""
    referred = (document.get("block_document_references") or {}).get(field) or {}
    return str((referred.get("block_document") or {}).get("name") or "")


def remove_old_channel(*, check: bool) -> Iterator[str]:
    """The one block through which every alarm was sent is gone; yields a line when it was there."""
    if stored_block(SlackWebhook, OLD_CHANNEL) is None:
        return
    if not check:
        SlackWebhook.delete(OLD_CHANNEL)
    yield f"Block slack-webhook/{OLD_CHANNEL} {'is to be' if check else 'was'} removed: no automation uses it."


# --- deployments


def rename_deployments(client: SyncPrefectClient, there: Deployments, run: SetUp) -> Iterator[str]:
    """Deployments have their new names, also in `there`, with what somebody has set; yields a line for each.

    Runs that have ended stay as they are. Runs that somebody has planned, or that are late, are planned anew.
    """
    for old, new in RENAMED.items():
        found = there.pop(old, None)
        if found is None:
            continue
        copy = there.setdefault(new, found)
        if not run.check:
            with refused(f"to rename the deployment {old}"):
                if copy is found:
                    copy = there[new] = _copy(client, found, new.partition("/")[2])
                _plan_again(client, found, copy)
                client.delete_deployment(found.id)
        run.memory.rename(f"deployment {old}", f"deployment {new}")
        run.memory.rename(f"schedule {old} ", f"schedule {new} ")
        yield f"Deployment {old} {'is to be' if run.check else 'was'} renamed to {new}."


def _copy(client: SyncPrefectClient, old: DeploymentResponse, name: str) -> DeploymentResponse:
    schedules = [
        DeploymentScheduleCreate(schedule=one.schedule, active=one.active, parameters=one.parameters, slug=one.slug)
        for one in old.schedules
    ]
    limit = old.global_concurrency_limit
    same = {field: getattr(old, field) for field in _COPIED}
    made = client.create_deployment(
        old.flow_id, name, schedules=schedules, concurrency_limit=limit.limit if limit else None, **same
    )
    return client.read_deployment(made)


def _plan_again(client: SyncPrefectClient, old: DeploymentResponse, new: DeploymentResponse) -> None:
    """Runs of the old deployment that have not begun, apart from those that the new one's schedules make."""
    waiting = run_filter(deployment_id={"any_": [old.id]}, state={"type": {"any_": ["SCHEDULED"]}})
    for run in pages(client.read_flow_runs, flow_run_filter=waiting):
        due = run.next_scheduled_start_time or run.expected_start_time or datetime.now(UTC)
        if not run.auto_scheduled or due < datetime.now(UTC):
            client.create_flow_run_from_deployment(
                new.id, parameters=run.parameters, name=run.name, state=Scheduled(scheduled_time=due)
            )
