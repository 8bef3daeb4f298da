"""docs/upgrade.md: the set-up brings over what the version left in which every deployment was called "manual"."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from prefect.blocks.system import Secret
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.events.actions import SendNotification

from deployments.set_up_parts.prefect_yaml import listed_deployments
from tasks.alarms.automations import TYPES, block_name
from tasks.alarms.event_names import ALARMS, TELLS_PROBLEM, TELLS_SINGLE
from tasks.plans.blocks import BackupPlan, BackupStorage
from tasks.plans.find_plan import plan_named
from tests.deployments.conftest import SetUp, emit_failure
from tests.support import eventually
from tests.support.old_installation import ENDED, LATE, OWN_DESCRIPTION, PLANNED, PLANNED_FOR, SCHEDULES
from tests.support.webhook import Webhook, webhook
from tests.support.world import CHECKOUT, World

pytestmark = [pytest.mark.slow, pytest.mark.thorough]


def python(world: World, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=CHECKOUT,
        env={**world.environment, **world.settings(), **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def runs_named(client: SyncPrefectClient, name: str) -> list[FlowRun]:
    return client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[name])))


@pytest.fixture(scope="module")
def alarms() -> Iterator[Webhook]:
    with webhook() as listening:
        yield listening


@pytest.fixture(scope="module")
def old(world: World, alarms: Webhook) -> World:
    """The installation of then."""
    made = python(world, "tests.support.old_installation", NOTIFY_URL=alarms.notify_url)
    assert made.returncode == 0, made.stderr
    return world


def test_a_check_names_the_plans_that_hold_blocks_and_changes_nothing(
    client: SyncPrefectClient, run: SetUp, old: World
) -> None:
    assert run(check=True) == [
        f"Plan {name} holds blocks, and is to name its blocks by their names." for name in ("crm", "default")
    ]
    assert client.read_deployment_by_name("restore/manual").description == OWN_DESCRIPTION
    assert client.read_block_document_by_name("backup-alarms", "slack-webhook")


def test_the_set_up_brings_everything_over_and_says_so_once(
    client: SyncPrefectClient, run: SetUp, old: World, alarms: Webhook
) -> None:
    lines = run(NOTIFY_URL=alarms.notify_url)
    assert {"Plan crm now names its blocks by their names.", "Plan default now names its blocks by their names."} <= {
        *lines
    }
    assert "Deployment restore/manual was renamed to restore/restore-backup." in lines
    assert "Deployment check-health/hourly was renamed to check-health/hourly-check." in lines
    assert "Block slack-webhook/backup-alarms was removed: no automation uses it." in lines
    assert len(lines) == len(set(lines)) and not [line for line in lines if "is missing" in line]
    # Only what somebody has set is said again.
    description, switched_off = run(NOTIFY_URL=alarms.notify_url)
    assert description.startswith("Deployment restore/restore-backup: description was changed in Prefect, and stays")
    assert switched_off.startswith(f"Automation {TELLS_SINGLE!r} is switched off, and stays so")
    assert {description, switched_off} < set(lines)


def test_the_plans_name_blocks_that_say_what_the_old_blocks_said(client: SyncPrefectClient, old: World) -> None:
    default, crm = (BackupPlan.load(name) for name in ("default", "crm"))
    assert (default.database, default.storage, default.catalogue) == (  # type: ignore[union-attr]
        "default-database",
        "default-storage",
        "default-catalogue",
    )
    assert (crm.catalogue, crm.retention_days, crm.schedule) == ("", 31, "never")  # type: ignore[union-attr]
    assert (crm.replicas, crm.ping_url) == (["copies"], "crm-ping-url")  # type: ignore[union-attr]
    assert Secret.load("crm-ping-url").get() == "https://ping.invalid/crm"  # type: ignore[union-attr]
    copies = BackupStorage.load("copies")
    assert (copies.bucket, copies.folder) == (old.bucket, "copies")  # type: ignore[union-attr]
    assert (plan_named("crm").policy.days, plan_named("default").storage.bucket) == (31, old.bucket)


def test_the_deployments_are_those_of_today_with_what_somebody_has_set(client: SyncPrefectClient, old: World) -> None:
    flows = {each.id: each.name for each in client.read_flows()}
    there = {f"{flows[each.flow_id]}/{each.name}": each for each in client.read_deployments()}
    listed = {each.full_name: each for each in listed_deployments()}
    assert there.keys() == listed.keys()
    assert {each.entrypoint for each in there.values()} == {each.entrypoint for each in listed.values()}
    assert OWN_DESCRIPTION in str(there["restore/restore-backup"].description)
    assert "What restore did then." not in str(there)
    schedules = [(one.slug, one.active) for each in there.values() for one in each.schedules]
    assert sorted(schedules) == sorted((slug, active) for slug, _, active in SCHEDULES.values())


def test_the_automations_send_through_the_blocks_of_today(client: SyncPrefectClient, old: World) -> None:
    automations = {each.name: each for each in client.read_automations()}
    assert automations.keys() == set(ALARMS)
    assert [name for name, each in automations.items() if not each.enabled] == [TELLS_SINGLE]
    [action] = automations[TELLS_PROBLEM].actions
    channel = client.read_block_document_by_name(block_name("problem"), "slack-webhook")
    assert isinstance(action, SendNotification) and action.block_document_id == channel.id
    channels = client.read_block_documents_by_type("slack-webhook")
    assert {each.name for each in channels} == {block_name(kind) for kind in TYPES}


def test_no_run_is_lost_and_one_that_was_planned_runs_under_the_new_name(client: SyncPrefectClient, old: World) -> None:
    deployment = client.read_deployment_by_name("cleanup/clean-up-now").id
    [ended] = runs_named(client, ENDED)
    assert ended.state is not None and ended.state.is_completed()
    [planned], [late] = runs_named(client, PLANNED), runs_named(client, LATE)
    for each in (planned, late):
        assert each.deployment_id == deployment and each.state is not None
        assert each.state.type == StateType.SCHEDULED
        assert {"dry_run": True, "requested_by": "Ada"}.items() <= each.parameters.items()
    assert planned.next_scheduled_start_time is not None
    off = planned.next_scheduled_start_time - (datetime.now(UTC) + PLANNED_FOR)
    assert timedelta(minutes=-10) < off <= timedelta()
    done = python(old, "prefect", "flow-run", "execute", str(late.id))
    state = client.read_flow_run(late.id).state
    assert state is not None and state.is_completed(), f"{state}\n{done.stdout}{done.stderr}"


def test_a_backup_works_and_the_failure_that_was_reported_then_is_not_reported_again(
    client: SyncPrefectClient, old: World, alarms: Webhook
) -> None:
    emit_failure(client)  # as the health check repeats it
    done = python(old, "flows.backup")
    assert done.returncode == 0, done.stderr
    assert old.statuses() == ["completed"]
    assert old.check_completed_are_intact() == 1
    assert eventually(lambda: "success" in alarms.types, 90), alarms.messages
    told = [title for title, _ in alarms.messages if "cleanup" not in title]  # of which a run is late
    assert len(told) == 1 and "backup" in told[0], told
