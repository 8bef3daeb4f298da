"""Everything that exists can be changed: each setting of `.env`, and each field of a plan."""

from __future__ import annotations

from typing import Any

import pyrage
import pytest
from prefect.blocks.system import Secret
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import DeploymentSchedule
from pydantic import SecretStr

from deployments.quick_start.postgres import PostgresCluster
from tasks.errors import BadSetting
from tasks.plans.blocks import BackupPlan, PostgresDatabase
from tasks.plans.find_plan import MASK, plan_named, revealed, stored_block
from tasks.plans.from_settings import described
from tasks.plans.settings import DEFAULTS, settings_from
from tasks.postgres.dsn import parse
from tests.conftest import DatabaseFactory
from tests.deployments.conftest import SetUp
from tests.support.forms import loaded, save_form
from tests.support.signing import line_of, new_key, public_of
from tests.support.world import World

pytestmark = pytest.mark.slow
KEY = str(pyrage.x25519.Identity.generate())
RECIPIENT = str(pyrage.x25519.Identity.from_str(KEY).to_public())
SIGNING = new_key()
PUBLIC = public_of(SIGNING)
#: Another value of each setting, with what must be said beside it.
CHANGED: dict[str, dict[str, str]] = {
    "DATABASE_URL": {},  # another database, made by the test
    "CATALOG_URL": {},
    "S3_ENDPOINT_URL": {"S3_ENDPOINT_URL": "http://127.0.0.1:9"},
    "S3_BUCKET": {"S3_BUCKET": "another-bucket"},
    "S3_FOLDER": {"S3_FOLDER": "another/folder"},
    "S3_REGION": {"S3_REGION": "eu-west-1"},
    "CLOUDFLARE_ACCESS_KEY_ID": {"CLOUDFLARE_ACCESS_KEY_ID": "another-id"},
    "CLOUDFLARE_SECRET_ACCESS_KEY": {"CLOUDFLARE_SECRET_ACCESS_KEY": "another-secret"},
    "AWS_ACCESS_KEY_ID": {
        "CLOUDFLARE_ACCESS_KEY_ID": "",
        "CLOUDFLARE_SECRET_ACCESS_KEY": "",
        "AWS_ACCESS_KEY_ID": "aws-id",
        "AWS_SECRET_ACCESS_KEY": "aws-secret",
    },
    "AWS_SECRET_ACCESS_KEY": {
        "CLOUDFLARE_ACCESS_KEY_ID": "",
        "CLOUDFLARE_SECRET_ACCESS_KEY": "",
        "AWS_ACCESS_KEY_ID": "aws-id",
        "AWS_SECRET_ACCESS_KEY": "another-secret",
    },
    "RETENTION_DAYS": {"RETENTION_DAYS": "21"},
    "COMPRESSION": {"COMPRESSION": "zstd"},
    "AGE_RECIPIENTS": {"AGE_RECIPIENTS": RECIPIENT},
    "AGE_IDENTITY": {"AGE_IDENTITY": KEY},
    "SIGNING_KEY": {"SIGNING_KEY": SIGNING},
    "TRUSTED_KEYS": {"TRUSTED_KEYS": PUBLIC},
    "KEPT_DATABASE_DAYS": {"KEPT_DATABASE_DAYS": "5"},
    "AFTER_RESTORE": {"AFTER_RESTORE": "UPDATE t SET email = ''; DELETE FROM jobs"},
    "CHECKS": {"CHECKS": "SELECT count(*) > 1, true FROM t; true"},
    "DRILL_ON": {"DRILL_ON": "worker"},
    "PG_BIN_DIRECTORY": {"PG_BIN_DIRECTORY": "/usr/lib/postgresql/15/bin"},
    "SPOOL_DIRECTORY": {"SPOOL_DIRECTORY": "/srv/another-spool"},
    "SCHEDULE": {"SCHEDULE": "every 6 hours"},
    "SCHEDULE_TIMEZONE": {"SCHEDULE_TIMEZONE": "Europe/Berlin"},
    "GRACE_MINUTES": {"GRACE_MINUTES": "90"},
    "METRICS_DIRECTORY": {"METRICS_DIRECTORY": "/srv/another-collector"},
    "NOTIFY_URL": {"NOTIFY_URL": "jsons://127.0.0.1:9/another"},
    "PING_URL": {"PING_URL": "http://127.0.0.1:9/another"},
}
#: Another value of each field of a plan, as a form sends it.
EDITED: dict[str, Any] = {
    "database": "another-database",
    "storage": "another-storage",
    "catalogue": "another-catalogue",
    "retention_days": 22,
    "keep_last": 1,
    "keep_daily": 2,
    "keep_weekly": 3,
    "keep_monthly": 4,
    "keep_yearly": 5,
    "collapse_percent": 60,
    "retention_after_backup": False,
    "compression": "gzip",
    "age_recipients": [RECIPIENT],
    "age_identity": "another-key",
    "signing_key": "another-signing-key",
    "trusted_keys": [PUBLIC],
    "kept_database_days": 6,
    "after_restore": ["DO $$ BEGIN NULL; NULL; END $$", "DELETE FROM t"],
    "checks": ["SELECT a, b FROM t", "true"],
    "drill_on": "another-database",
    "server_side_encryption": "aws:kms",
    "kms_key_id": "another-kms-key",
    "storage_class": "STANDARD_IA",
    "price_per_gib": 0.023,
    "object_lock_mode": "governance",
    "object_lock_days": 30,
    "replicas": ["another-storage"],
    "restore_only": True,
    "schedule": "every 2 hours",
    "schedule_timezone": "Asia/Tokyo",
    "grace_minutes": 91,
    "metrics_directory": "/srv/collector-of-the-form",
    "ping_url": "another-ping",
    "deployment": "backup/daily",
    "client_tools_directory": "/opt/tools",
    "spool_directory": "/srv/spool-of-the-form",
    "spool_limit_mib": 64,
    "jobs": 3,
    "only_schemas": ["shop", "tenant_*"],
    "exclude_tables": ["shop.cache_*"],
    "exclude_rows": ["log", "shop.log"],
    "databases": ["shop_*", "!shop_test"],
    "most_parts": 1000,
}


@pytest.fixture(scope="module")
def other_url(any_postgres: PostgresCluster, fresh_database: DatabaseFactory) -> str:
    return fresh_database(any_postgres)


def nightly(client: SyncPrefectClient) -> DeploymentSchedule:
    return next(one for one in client.read_deployment_by_name("backup/daily").schedules if one.slug == "nightly")


def test_every_setting_and_every_field_has_a_case() -> None:
    assert set(CHANGED) == set(DEFAULTS)
    assert set(EDITED) == set(BackupPlan.model_fields)


@pytest.mark.parametrize("name", CHANGED)
def test_a_setting_that_is_changed_is_followed(
    client: SyncPrefectClient, run: SetUp, world: World, other_url: str, name: str
) -> None:
    run()
    changed = CHANGED[name] or {name: other_url}
    lines = run(**changed)
    assert lines, "nothing was changed"
    said = described("default", settings_from({**world.settings(), **changed}))
    for (kind, block), wanted in said.blocks.items():
        assert revealed(loaded(kind, block)) == revealed(wanted)
    plan = loaded(BackupPlan, "default")
    assert {field: getattr(plan, field) for field in said.fields} == said.fields
    if name in ("NOTIFY_URL", "SCHEDULE", "SCHEDULE_TIMEZONE"):
        assert run(check=True, **changed) == []
    if name == "SCHEDULE":
        assert nightly(client).schedule.interval.total_seconds() == 6 * 3600  # type: ignore[union-attr]
    if name in ("DATABASE_URL", "CATALOG_URL"):
        assert [line for line in lines if "from now on" in line and other_url.rpartition("/")[2] in line]
    secrets = (world.cluster.password, "another-secret", KEY, line_of(SIGNING))
    assert not [line for line in lines for secret in secrets if secret in line]


def test_a_secret_that_env_does_not_hold_any_more_is_gone_from_prefect(run: SetUp) -> None:
    run(AGE_IDENTITY=KEY, PING_URL="http://127.0.0.1:9/x")
    assert stored_block(Secret, "default-age-identity") is not None
    lines = run()
    assert "Plan default was changed: age_identity follows AGE_IDENTITY in .env." in lines
    assert stored_block(Secret, "default-age-identity") is None and stored_block(Secret, "default-ping-url") is None


def test_the_password_of_the_database_is_changed(run: SetUp, world: World) -> None:
    run()
    world.sql("CREATE ROLE changing LOGIN SUPERUSER PASSWORD 'first'")
    address = world.database_url.partition("@")[2]
    run(DATABASE_URL=f"postgresql://changing:first@{address}")
    world.sql("ALTER ROLE changing PASSWORD 'second'")
    [line] = run(DATABASE_URL=f"postgresql://changing:second@{address}")
    assert line == "Block postgres-database/default-database was changed."
    assert plan_named("default").database.parameters["password"] == "second"


def test_the_address_of_alarms_is_added_changed_and_taken_away(run: SetUp) -> None:
    run(NOTIFY_URL="jsons://127.0.0.1:9/first")
    assert run(NOTIFY_URL="jsons://127.0.0.1:9/second")
    assert run(NOTIFY_URL="jsons://127.0.0.1:9/second", check=True) == []
    assert run()
    assert run(check=True) == []


def test_every_field_that_is_changed_in_the_form_stays_when_the_set_up_runs_again(
    client: SyncPrefectClient, run: SetUp
) -> None:
    run()
    before = revealed(loaded(BackupPlan, "default"))
    assert not {field for field, value in EDITED.items() if before[field] == value}
    save_form(BackupPlan, "default", **{**EDITED, "restore_only": False})
    lines = run()
    assert revealed(loaded(BackupPlan, "default")) == {**EDITED, "restore_only": False}
    assert [
        line for line in lines if line.startswith("Schedule nightly of backup/daily was changed: schedule is every")
    ]
    save_form(BackupPlan, "default", **EDITED)
    assert run() == ["Schedule nightly of backup/daily was removed: no plan wants it."]
    assert revealed(loaded(BackupPlan, "default")) == EDITED
    save_form(BackupPlan, "default", **before)
    run()
    assert run(check=True) == []


def lose(name: str) -> None:
    """The block of a database holds the mask in place of its address."""
    if stored_block(PostgresDatabase, name) is not None:
        PostgresDatabase.delete(name)  # the server keeps a secret when a mask is saved over it
    PostgresDatabase(url=SecretStr(MASK)).save(name)


def test_a_lost_secret_is_entered_again_from_env(run: SetUp, world: World) -> None:
    run()
    lose("default-database")
    what = "Block postgres-database/default-database"
    held = f"its field url held {MASK} in place of a secret."
    assert f"{what} differs: {held}" in run(check=True)
    assert run() == [f"{what} was changed: {held}"]
    assert plan_named("default").database == parse(world.database_url)


def test_a_lost_secret_that_env_does_not_hold_is_refused(run: SetUp) -> None:
    run()
    lose("lost-database")
    BackupPlan(database="lost-database").save("lost")
    said = f"Block postgres-database/lost-database: the field url holds {MASK}, so its secret is lost"
    try:
        assert [line for line in run(check=True) if line.startswith(said)]
        with pytest.raises(BadSetting, match="postgres-database/lost-database: the field url holds"):
            run()
    finally:
        BackupPlan.delete("lost")
    run()


def test_settings_that_make_no_plan_are_refused_before_anything_is_written(run: SetUp) -> None:
    run()
    before = revealed(loaded(BackupPlan, "default"))
    with pytest.raises(BadSetting, match="is no age recipient"):
        run(AGE_RECIPIENTS="age1nothing", RETENTION_DAYS="99")
    for check in (True, False):
        with pytest.raises(
            BadSetting, match="The signing key of the plan cannot be read: it must be a private Ed25519"
        ):
            run(SIGNING_KEY=PUBLIC, RETENTION_DAYS="99", check=check)
    assert revealed(loaded(BackupPlan, "default")) == before
