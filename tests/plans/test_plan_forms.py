"""A form of the Prefect UI changes what was changed in it and nothing else; a secret that was lost is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pyrage
import pytest
from prefect.blocks.core import Block
from prefect.blocks.system import Secret
from prefect_aws import AwsCredentials
from pydantic import SecretStr

from deployments.set_plan import set_plan, shown
from deployments.set_up_parts.blocks import edit_block
from tasks.errors import BackupSystemError, BadSetting
from tasks.plans.blocks import BackupPlan, BackupStorage, PostgresDatabase
from tasks.plans.find_plan import MASK, lost_secrets, lost_secrets_of_plans, masked_fields, plan_named, revealed
from tasks.plans.from_settings import plan_from_settings
from tasks.plans.plan import Plan
from tasks.plans.settings import settings_from
from tests.support.flow_fixtures import WorldFactory
from tests.support.forms import loaded, save_form
from tests.support.signing import new_key, public_of
from tests.support.world import World, plain_dump

KEY = str(pyrage.x25519.Identity.generate())
RECIPIENT = str(pyrage.x25519.Identity.from_str(KEY).to_public())
PING = "http://127.0.0.1:9/secret-of-the-ping"
SIGNING = new_key()
SAID = {
    "AGE_IDENTITY": KEY,
    "AGE_RECIPIENTS": RECIPIENT,
    "PING_URL": PING,
    "SIGNING_KEY": SIGNING,
    "TRUSTED_KEYS": public_of(new_key()),
}
#: Every block of the plan `formed`.
BLOCKS: list[tuple[type[Block], str]] = [
    (BackupPlan, "formed"),
    (PostgresDatabase, "formed-database"),
    (PostgresDatabase, "formed-catalogue"),
    (BackupStorage, "formed-storage"),
    (AwsCredentials, "formed-credentials"),
    (Secret, "formed-age-identity"),
    (Secret, "formed-ping-url"),
    (Secret, "formed-signing-key"),
]


@pytest.fixture
def world(make_world: WorldFactory) -> World:
    """A world whose plan `formed` has every block that a plan can have."""
    return make_world(mebibytes=1, settings=SAID).save_plan("formed", **SAID)


def test_a_form_that_is_saved_as_it_stands_changes_nothing(world: World) -> None:
    before = [revealed(loaded(*block)) for block in BLOCKS]
    for block in BLOCKS:
        save_form(*block)
    assert [revealed(loaded(*block)) for block in BLOCKS] == before
    assert lost_secrets_of_plans() == []
    assert plan_named("formed").ping_url == PING


def test_settings_make_the_same_plan_with_and_without_blocks(world: World) -> None:
    direct = plan_from_settings("formed", settings_from({**world.settings(), **SAID}))
    stored = plan_named("formed")
    same = {field.name for field in fields(Plan)} - {"storage", "catalogue"}
    assert {name: getattr(direct, name) for name in same} == {name: getattr(stored, name) for name in same}
    assert direct.catalogue.dsn == stored.catalogue.dsn and direct.storage.bucket == stored.storage.bucket


@pytest.mark.slow
def test_after_a_field_was_changed_in_the_form_the_plan_backs_up_and_restores(world: World) -> None:
    from flows.backup import backup
    from flows.restore import restore

    save_form(BackupPlan, "formed", retention_days=21)
    save_form(AwsCredentials, "formed-credentials", region_name="eu-west-1")
    assert plan_named("formed").policy.days == 21
    backup("formed", "tester")
    original = plain_dump(world.cluster, world.database_url)
    world.sql("DELETE FROM big")
    restore(plan="formed", requested_by="tester")
    assert plain_dump(world.cluster, world.database_url) == original


@pytest.mark.parametrize(
    ("kind", "block", "field", "break_it"),
    [
        (PostgresDatabase, "formed-database", "url", lambda it: setattr(it, "url", SecretStr(MASK))),
        (PostgresDatabase, "formed-catalogue", "url", lambda it: setattr(it, "url", SecretStr(MASK))),
        (Secret, "formed-age-identity", "value", lambda it: setattr(it, "value", SecretStr(MASK))),
        (Secret, "formed-signing-key", "value", lambda it: setattr(it, "value", SecretStr(MASK))),
        (Secret, "formed-ping-url", "value", lambda it: setattr(it, "value", SecretStr(MASK))),
        (
            AwsCredentials,
            "formed-credentials",
            "aws_secret_access_key",
            lambda it: setattr(it, "aws_secret_access_key", SecretStr(MASK)),
        ),
        (BackupPlan, "formed", "compression", None),
    ],
)
def test_a_lost_secret_is_named_with_its_block_and_field(
    world: World, kind: type[Block], block: str, field: str, break_it: Callable[[Any], None] | None
) -> None:
    if break_it is None:
        kind, field = BackupPlan, "kms_key_id"
        edit_block(loaded(kind, block), {field: MASK})
    else:
        there = loaded(kind, block)
        break_it(there)
        kind.delete(block)  # the server keeps a secret when a mask is saved over it
        there._block_document_id = None
        there.save(block)
    said = f"Block {kind.get_block_type_slug()}/{block}: the field {field} holds {MASK}, so its secret is lost"
    assert [one.startswith(said) for one in lost_secrets_of_plans()] == [True]
    with pytest.raises(BadSetting, match="so its secret is lost: enter it again") as refused:
        plan_named("formed")
    assert str(refused.value).startswith(said)


def test_blocks_that_no_plan_names_are_nobodys_business() -> None:
    def document(slug: str, name: str, **data: Any) -> dict[str, Any]:
        return {"block_type": {"slug": slug}, "name": name, "data": data}

    others = [
        document("secret", "of-somebody", value=MASK),
        document("aws-credentials", "of-somebody", aws_secret_access_key=MASK),
        document("backup-plan", "crm", database="crm", storage="store", replicas=["far"]),
        document("backup-storage", "far", bucket="b", credentials="far-keys"),
    ]
    assert lost_secrets(others) == []
    keys = document("aws-credentials", "far-keys", aws_secret_access_key=MASK)
    [line] = lost_secrets([*others, keys])
    assert line.startswith("Block aws-credentials/far-keys: the field aws_secret_access_key")


def test_a_mask_is_found_wherever_it_lies() -> None:
    data = {"a": MASK, "b": {"url": MASK, "c": "**"}, "d": ["x", MASK], "e": None, "f": 8}
    assert list(masked_fields(data)) == ["a", "b.url", "d.2"]


@pytest.mark.parametrize("field", ["database", "catalogue", "storage", "age_identity", "signing_key", "ping_url"])
def test_a_secret_that_is_entered_where_a_name_belongs_is_not_repeated(world: World, field: str) -> None:
    edit_block(loaded(BackupPlan, "formed"), {field: "postgresql://user:mArKeR@h/d"})
    with pytest.raises(BadSetting, match=r"Plan formed needs the name of a .* block") as refused:
        plan_named("formed")
    assert "mArKeR" not in str(refused.value)


def test_a_block_that_is_missing_is_named(world: World) -> None:
    edit_block(loaded(BackupPlan, "formed"), {"replicas": ["nowhere"]})
    with pytest.raises(BadSetting, match="There is no Backup Storage block 'nowhere', which plan formed names"):
        plan_named("formed")


# --- the command


def test_the_command_shows_and_changes_a_plan(world: World) -> None:
    before = shown("formed")
    assert "retention_days=7" in before and f"age_recipients={RECIPIENT}" in before
    assert not [line for line in before if KEY in line or PING in line]
    checks = "checks=SELECT count(*) > 1 FROM a, b; SELECT 'x' = any('{x,y}');"
    lines = list(set_plan("formed", ["retention_days=21", "compression=zstd", "retention_after_backup=false", checks]))
    assert lines[0] == "Plan formed was changed: retention_days is 21, it was 7."
    plan = plan_named("formed")
    assert plan.checks == ("SELECT count(*) > 1 FROM a, b", "SELECT 'x' = any('{x,y}')")
    assert (plan.policy.days, plan.codec, plan.retention_after_backup) == (21, "zstd", False)
    assert list(set_plan("formed", shown("formed"))) == ["Plan formed is so already."]
    list(set_plan("formed", before))
    assert shown("formed") == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("retention_days", "has no value"),
        ("retention_day=1", "no field 'retention_day': did you mean retention_days?"),
        ("retention_days=0", "retention_days: Input should be greater than or equal to 1"),
        ("retention_days=many", "retention_days: Input should be a valid integer"),
        ("compression=rar", "compression: Input should be 'none', 'zstd' or 'gzip'"),
        ("schedule=61 * * * *", "The schedule of plan formed is"),
        ("database=nowhere", "There is no PostgreSQL Database block 'nowhere'"),
        ("age_recipients=AGE-SECRET-KEY-1", "is a secret key"),
    ],
)
def test_the_command_refuses_what_cannot_be_used(world: World, change: str, said: str) -> None:
    before = shown("formed")
    with pytest.raises(BackupSystemError, match=said):
        list(set_plan("formed", [change]))
    assert shown("formed") == before
