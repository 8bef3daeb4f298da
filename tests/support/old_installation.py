"""What the version before the renaming has left on a Prefect server: `python -m tests.support.old_installation`.

Plans that hold blocks, deployments called `manual`, automations that send through one block, and what its set-up has
remembered. A program of its own, because its block `Backup Plan` has the slug of today's, and a process can
have one of them.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from prefect.blocks.core import Block
from prefect.blocks.notifications import SlackWebhook
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate, WorkPoolCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.events import EventTrigger, Posture
from prefect.events.actions import DoNothing, SendNotification
from prefect.events.schemas.automations import AutomationCore
from prefect.states import Completed, Failed, Scheduled
from prefect_aws import AwsCredentials
from prefect_aws.client_parameters import AwsClientParameters
from prefect_aws.s3 import S3Bucket
from pydantic import Field, SecretStr

TAGS = ["database-backup", "backup"]
#: Flow, name, entrypoint and parameters of every deployment of then.
DEPLOYMENTS = (
    ("backup", "daily", "flows/backup.py:backup", {"plan": "default"}),
    ("backup", "manual", "flows/backup.py:backup", {"plan": "default"}),
    ("backup-all", "manual", "flows/backup_all.py:backup_all", {"plans": [], "at_once": 5}),
    ("restore", "manual", "flows/restore.py:restore", {"backup": "latest", "plan": "default", "mode": "swap"}),
    ("undo-restore", "manual", "flows/undo_restore.py:undo_restore", {"plan": "default"}),
    ("cleanup", "manual", "flows/cleanup.py:cleanup", {"plan": "default", "dry_run": False, "remove_orphans": False}),
    ("rebuild-catalogue", "manual", "flows/rebuild_catalogue.py:rebuild_catalogue", {"plan": "default"}),
    ("download-backup", "manual", "flows/download_backup.py:download_backup", {"plan": "default"}),
    ("delete-backup", "manual", "flows/delete_backup.py:delete_backup", {"plan": "default"}),
    ("list-backups", "manual", "flows/list_backups.py:list_backups", {"plan": ""}),
    ("list-events", "manual", "flows/list_events.py:list_events", {"plan": "", "last": 100}),
    ("verify-backup", "weekly", "flows/verify_backup.py:verify_backup", {"backup": "latest", "plan": "default"}),
    ("verify-backup", "manual", "flows/verify_backup.py:verify_backup", {"backup": "latest", "plan": "default"}),
    ("check-health", "hourly", "flows/health.py:check_health", {"plan": ""}),
    ("check-health", "manual", "flows/health.py:check_health", {"plan": "default"}),
)
#: Slug, cron line and whether it is on, by deployment.
SCHEDULES = {
    "backup/daily": ("nightly", "0 2 * * *", True),
    "backup-all/manual": ("nightly-all", "0 2 * * *", False),
    "verify-backup/weekly": ("weekly-drill", "0 4 * * 0", True),
    "check-health/hourly": ("hourly-health", "30 * * * *", True),
}
#: A person has changed this.
OWN_DESCRIPTION = "Ask Ada before you restore."
PLANNED, PLANNED_FOR = "planned-by-ada", timedelta(days=30)
LATE, ENDED = "late-since-yesterday", "ended-long-ago"


def make(notify_url: str) -> None:
    """All of it, for the plan that the environment describes, and a plan `crm` that somebody has made in a form."""
    _blocks()
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="backups", type="process"))
        for deployment in DEPLOYMENTS:
            _deployment(client, *deployment)
        _automations(client, notify_url)
        _runs(client)
    _remember()


def _blocks() -> None:
    class PostgresDatabase(Block):
        """The address of a PostgreSQL database."""

        _block_type_name = "PostgreSQL Database"
        _block_type_slug = "postgres-database"

        url: SecretStr

    class BackupPlan(Block):
        """Which database is backed up, where to, and for how long its backups stay."""

        _block_type_name = "Backup Plan"
        _block_type_slug = "backup-plan"

        database: PostgresDatabase
        storage: S3Bucket
        catalogue: PostgresDatabase | None = None
        retention_days: int = 7
        compression: str = "none"
        age_recipients: list[str] = Field(default_factory=list)
        age_identity: SecretStr = SecretStr("")
        kept_database_days: int = 3
        replicas: list[str] = Field(default_factory=list)
        schedule: str = "0 2 * * *"
        schedule_timezone: str = "UTC"
        grace_minutes: int = 60
        ping_url: SecretStr = SecretStr("")
        deployment: str = "backup/manual"
        client_tools_directory: str = ""
        spool_directory: str = ""

    credentials = AwsCredentials(
        aws_access_key_id=os.environ["CLOUDFLARE_ACCESS_KEY_ID"],
        aws_secret_access_key=SecretStr(os.environ["CLOUDFLARE_SECRET_ACCESS_KEY"]),
        region_name="us-east-1",
        aws_client_parameters=AwsClientParameters(endpoint_url=os.environ["S3_ENDPOINT_URL"]),
    )
    credentials.save("default-credentials")
    bucket = S3Bucket(bucket_name=os.environ["S3_BUCKET"], bucket_folder="database-backups", credentials=credentials)
    bucket.save("default-storage")
    copies = S3Bucket(bucket_name=os.environ["S3_BUCKET"], bucket_folder="copies", credentials=credentials)
    copies.save("copies")
    database = PostgresDatabase(url=SecretStr(os.environ["DATABASE_URL"]))
    database.save("default-database")
    catalogue = PostgresDatabase(url=SecretStr(os.environ["CATALOG_URL"]))
    catalogue.save("default-catalogue")
    tools = os.environ["PG_BIN_DIRECTORY"]
    plan = BackupPlan(
        database=database,
        storage=bucket,
        catalogue=catalogue,
        client_tools_directory=tools,
        spool_directory=os.environ["SPOOL_DIRECTORY"],
    )
    plan.save("default")
    BackupPlan(
        database=database,
        storage=bucket,
        retention_days=31,
        replicas=["copies"],
        schedule="never",
        ping_url=SecretStr("https://ping.invalid/crm"),
        client_tools_directory=tools,
    ).save("crm")


def _deployment(
    client: SyncPrefectClient, flow: str, name: str, entrypoint: str, parameters: dict[str, object]
) -> None:
    schedules = []
    if found := SCHEDULES.get(f"{flow}/{name}"):
        slug, cron, active = found
        schedules = [
            DeploymentScheduleCreate(schedule=CronSchedule(cron=cron, timezone="UTC"), active=active, slug=slug)
        ]
    made = client.create_deployment(
        client.create_flow_from_name(flow),
        name,
        entrypoint=entrypoint,
        description=f"What {flow} did then.",
        tags=TAGS,
        parameters=parameters,
        work_pool_name="backups",
        schedules=schedules,
        pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": str(Path.cwd())}}],
        enforce_parameter_schema=True,
        parameter_openapi_schema={"type": "object", "properties": {}},
    )
    if flow == "restore":
        client.update_deployment(made, DeploymentUpdate(description=OWN_DESCRIPTION))


def _automations(client: SyncPrefectClient, notify_url: str) -> None:
    """Those that matter here: one that sends through the block of then, and one that somebody has switched off."""
    channel = SlackWebhook(url=SecretStr(notify_url)).save("backup-alarms")
    sends = SendNotification(block_document_id=channel, subject="A problem", body="Something is wrong.")
    for name, action in (
        ("Backups: tell of a problem", sends),
        ("Backups: tell of any other run that fails", DoNothing()),
    ):
        trigger = EventTrigger(
            match={"prefect.resource.name": ["backup-*"]},
            expect={"prefect.flow-run.Failed"},
            after={"backup.armed"},
            for_each={"prefect.resource.name"},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(days=3650),
        )
        made = client.create_automation(AutomationCore(name=name, trigger=trigger, actions=[action]))
        if isinstance(action, DoNothing):
            client.pause_automation(made)


def _runs(client: SyncPrefectClient) -> None:
    """A failed backup, which was reported then; a run that is planned, one that is late, and one that has ended."""
    backup, cleanup = (client.read_deployment_by_name(name).id for name in ("backup/manual", "cleanup/manual"))
    failed = client.create_flow_run_from_deployment(backup, name="backup-default", tags=TAGS)
    client.set_flow_run_state(failed.id, Failed(message="The disk was full."), force=True)
    now = datetime.now(UTC)
    asked = {"plan": "default", "dry_run": True, "requested_by": "Ada"}
    for name, due in (PLANNED, now + PLANNED_FOR), (LATE, now - timedelta(days=1)):
        client.create_flow_run_from_deployment(
            cleanup, name=name, parameters=asked, state=Scheduled(scheduled_time=due), tags=TAGS
        )
    ended = client.create_flow_run_from_deployment(cleanup, name=ENDED, parameters=asked, tags=TAGS)
    client.set_flow_run_state(ended.id, Completed(), force=True)


def _remember() -> None:
    """What the set-up of then has noted: the plan as `.env` described it, each deployment as it was created."""
    from deployments.set_up_parts.remembered import Memory

    memory = Memory.load()
    fields = {"retention_days": 7, "compression": "none", "kept_database_days": 3, "schedule": "0 2 * * *"}
    memory.note("plan default", fields, fields, fields)
    for flow, name, _, parameters in DEPLOYMENTS:
        was = {"description": f"What {flow} did then.", "tags": TAGS, "parameters": parameters}
        memory.note(f"deployment {flow}/{name}", was, was, was)
    for name, (slug, cron, active) in SCHEDULES.items():
        [parameters] = [each[3] for each in DEPLOYMENTS if f"{each[0]}/{each[1]}" == name]
        rule = {"cron": cron, "timezone": "UTC", "day_or": True}
        was = {"schedule": rule, "active": active, "parameters": parameters}
        memory.note(f"schedule {name} {slug}", was, was, was)
    memory.save()


if __name__ == "__main__":
    make(os.environ["NOTIFY_URL"])
