"""A link downloads exactly the backup that was asked for, under its name, for a while; what is said beside it works."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import boto3
import httpx
import pyrage
import pytest

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.s3 import REGION, S3Server
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
from tasks.download.steps import instructions
from tasks.errors import BackupDamaged, BackupNotFound, BadSetting
from tasks.names import manifest_key
from tasks.plans.plan import Replica
from tasks.postgres.dsn import parse
from tasks.storage.backup_stages import Backup
from tasks.storage.s3 import Storage
from tasks.storage.s3_client import make_client
from tests.conftest import DatabaseFactory
from tests.support import ci_skip
from tests.support.scene import Scene, in_words, make_scene

NOW = datetime(2026, 3, 18, 12, tzinfo=UTC)
#: Made by this test, with what its plan is called in the file's suffixes and which programs open it.
KINDS = {
    ".sql": ("none", False, ()),
    ".sql.gz": ("gzip", False, ("gunzip",)),
    ".sql.zst.age": ("zstd", True, ("zstd", "age")),
}
ROLE = "download `owner` | <b>"
SceneMaker = Callable[..., Scene]


@pytest.fixture
def make(
    any_postgres: PostgresCluster,
    fresh_database: DatabaseFactory,
    s3_server: S3Server,
    s3_bucket: Callable[[], str],
    tmp_path: Path,
) -> SceneMaker:
    """`make(**plan)`: a plan for a small database, one of its tables owned by a role with an odd name."""

    def create(**plan: object) -> Scene:
        one = make_scene(
            any_postgres,
            fresh_database(any_postgres),
            fresh_database(any_postgres),
            s3_server,
            s3_bucket(),
            tmp_path / "spool",
            **plan,
        )
        one.sql(f'DO $$ BEGIN CREATE ROLE "{ROLE}"; EXCEPTION WHEN duplicate_object THEN NULL; END $$')
        one.sql("CREATE TABLE t AS SELECT i, md5(i::text) AS text FROM generate_series(1, 5000) i")
        one.sql(f'CREATE TABLE odd AS SELECT 1 AS one; ALTER TABLE odd OWNER TO "{ROLE}"')
        return one

    return create


def offered(scene: Scene, wanted: str = "latest", minutes: int = 60) -> Link:
    return link_to(scene.plan, stored_backup(scene.plan, wanted), minutes, NOW)


def fetch(url: str) -> httpx.Response:
    with httpx.Client(trust_env=False, timeout=60) as client:
        return client.get(url)


def on_moto(scene: Scene, endpoint: str, backup: Backup) -> Scene:
    """The same with its objects on moto."""
    client = make_client(boto3.Session("key", "secret", region_name=REGION), endpoint)
    client.create_bucket(Bucket=scene.plan.storage.bucket)
    storage = Storage(client, scene.plan.storage.bucket)
    for key in (backup.key, manifest_key(backup.key)):
        storage.put(key, scene.plan.storage.get(key))
    return scene.with_plan(storage=storage)


@pytest.mark.parametrize("store", ["nanio", "moto"])
def test_the_link_fetches_the_file_without_a_key_under_its_name(
    make: SceneMaker, store: str, request: pytest.FixtureRequest
) -> None:
    scene = make()
    backup = scene.back_up()
    if store == "moto":
        scene = on_moto(scene, request.getfixturevalue("moto_server"), backup)
    link = offered(scene, backup.filename)
    answer = fetch(link.url)
    assert (
        answer.status_code == 200
        and answer.headers["content-disposition"] == f'attachment; filename="{backup.filename}"'
    )
    assert hashlib.sha256(answer.content).hexdigest() == stored_backup(scene.plan, "latest").sha256
    asked = parse_qs(urlsplit(link.url).query)
    assert asked["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"] and asked["X-Amz-Expires"] == ["3600"]
    assert (link.expires_at - NOW).total_seconds() == 3600 and not link.temporary


def test_a_link_that_was_changed_or_has_expired_fetches_nothing(make: SceneMaker) -> None:
    scene = make()
    backup = scene.back_up()
    scene.back_up()
    url = scene.plan.storage.presigned(backup.key, 1, backup.filename)
    other = scene.plan.storage.presigned(backup.key, 60, backup.filename).replace(backup.key, manifest_key(backup.key))
    time.sleep(2.1)
    assert fetch(url).status_code == 403
    assert fetch(other).status_code == 403


@pytest.mark.parametrize("minutes", [1, 60, 10_080])
def test_a_link_is_valid_for_a_minute_to_seven_days(minutes: int) -> None:
    assert checked_minutes(minutes) == minutes


@pytest.mark.parametrize("minutes", [0, -1, 10_081, 10**9])
def test_no_link_is_valid_for_longer(minutes: int) -> None:
    with pytest.raises(BadSetting, match="set expires_minutes to 1 to 10080"):
        checked_minutes(minutes)


def test_temporary_credentials_are_told_of(make: SceneMaker) -> None:
    scene = make()
    scene.back_up()
    stored = stored_backup(scene.plan, "latest")
    session = boto3.Session("key", "secret", "a token", region_name=REGION)
    lent = replace(scene.plan, storage=Storage(make_client(session, "http://127.0.0.1:9"), "bucket"))
    link = link_to(lent, stored, 60, NOW)
    assert link.temporary
    assert "until the temporary credentials that signed it expire" in instructions(lent, stored, link, "olga")


def test_a_link_shows_nothing_of_itself(make: SceneMaker) -> None:
    scene = make()
    scene.back_up()
    link, stored = offered(scene), stored_backup(scene.plan, "latest")
    signature = parse_qs(urlsplit(link.url).query)["X-Amz-Signature"][0]
    shown = f"{link} {link!r} {instructions(scene.plan, stored, link, 'olga')}"
    assert signature not in shown and "X-Amz" not in shown


# --- which backup


def test_it_is_found_by_name_id_and_latest_and_without_the_catalogue(make: SceneMaker) -> None:
    scene = make()
    old, new = scene.back_up(), scene.back_up(datetime.now(UTC))
    assert stored_backup(scene.plan, "latest").filename == new.filename
    assert stored_backup(scene.plan, str(old.backup_id)).filename == old.filename
    lost = scene.without_catalogue()
    for wanted in (old.filename, "latest"):
        link = link_to(lost.plan, stored_backup(lost.plan, wanted), 5, NOW)
        assert fetch(link.url).status_code == 200
    assert "could not be asked" in stored_backup(lost.plan, old.filename).warnings[0]


def test_what_cannot_be_had_is_one_clear_sentence(make: SceneMaker) -> None:
    scene = make()
    expired, gone, damaged, last = (scene.back_up() for _ in range(4))
    scene.plan.catalogue.remove(expired.filename, "expired", Event("retention", "expired", "shop", "system", "run"))
    scene.plan.storage.delete(gone.key)
    scene.store(damaged, its_manifest=b"{}")
    refusals = {
        expired.filename: f"{expired.filename} of plan shop has the status expired .retention has removed it.: choose",
        gone.filename: f"{gone.filename} is missing from bucket .*: choose another backup.$",
        damaged.filename: "is damaged.*: choose another backup.$",
        "backup_yesterday": f"Plan shop has no backup 'backup_yesterday': give latest.*{last.filename}",
        "4711": "Plan shop has no backup '4711'",
    }
    for wanted, said in refusals.items():
        with pytest.raises((BackupNotFound, BackupDamaged)) as refused:
            stored_backup(scene.plan, wanted)
        in_words(said, refused.value)


def test_only_the_plans_own_bucket_is_linked_to(make: SceneMaker, s3_bucket: Callable[[], str]) -> None:
    scene = make()
    backup = scene.back_up()
    copies = Storage(scene.plan.storage._client, s3_bucket())
    for key in (backup.key, manifest_key(backup.key)):
        copies.put(key, scene.plan.storage.get(key))
    scene.plan.storage.delete(backup.key)
    plan = replace(scene.plan, replicas=(Replica(copies, scene.plan.folder),))
    with pytest.raises(BackupNotFound, match="choose another backup, or restore this one from a replica"):
        stored_backup(plan, backup.filename)


# --- what stands beside the link


@pytest.mark.parametrize("suffix", KINDS)
def test_the_commands_beside_the_link_bring_exactly_this_file_back(
    make: SceneMaker, suffix: str, tmp_path: Path
) -> None:
    codec, encrypted, programs = KINDS[suffix]
    if not all(shutil.which(one) for one in ("curl", "sha256sum", *programs)):
        ci_skip("curl, sha256sum, gunzip, zstd and age are needed")
    identity = pyrage.x25519.Identity.generate()
    scene = make(codec=codec, recipients=(str(identity.to_public()),) if encrypted else ())
    backup = scene.back_up()
    stored, link = stored_backup(scene.plan, "latest"), offered(scene)
    assert backup.filename.endswith(suffix)
    directory = tmp_path / "download"
    directory.mkdir()
    (directory / "backup-key.txt").write_text(f"{identity}\n")
    done = obeyed(
        scene, directory, link, [PASTE, *fetch_commands(stored), *open_commands(stored), *restore_commands(stored)]
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.count(": OK") == (2 if programs else 1)
    assert scene.dumped("restored") == scene.dumped()
    shown = instructions(scene.plan, stored, link, "olga")
    for command in (PASTE, *fetch_commands(stored), *open_commands(stored), *restore_commands(stored)):
        assert f"\n{command}\n" in shown
    assert f"| `{backup.filename}` |" in shown and f"`{stored.sha256}`" in shown and f"{stored.size:,} bytes" in shown
    assert "age --decrypt" in shown if encrypted else "age" not in shown.replace("page", "")


def obeyed(scene: Scene, directory: Path, link: Link, commands: list[str]) -> subprocess.CompletedProcess[str]:
    """The commands in one shell up to the first that fails; the link is pasted."""
    scene.sql("DROP DATABASE IF EXISTS restored", "postgres")
    cluster, server = scene.cluster, parse(scene.cluster.url())
    environment = {
        "PATH": f"{cluster.bin_directory}{os.pathsep}{os.environ['PATH']}",
        "no_proxy": "*",
        "PGHOST": server.host,
        "PGPORT": str(server.port),
        "PGUSER": "postgres",
        "PGPASSWORD": cluster.password,
    }
    return subprocess.run(
        ["sh", "-euc", "\n".join(commands)],
        cwd=directory,
        env=environment,
        text=True,
        check=False,
        input=f"{link.url}\n",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
    )


def test_a_file_that_was_changed_is_found_out_by_the_commands(make: SceneMaker, tmp_path: Path) -> None:
    scene = make()
    backup = scene.back_up()
    stored, link = stored_backup(scene.plan, "latest"), offered(scene)
    content = scene.plan.storage.get(backup.key)
    scene.plan.storage.put(backup.key, content.replace(b"5000", b"5001", 1))
    done = obeyed(scene, tmp_path, link, [PASTE, *fetch_commands(stored), "echo restored it"])
    assert done.returncode != 0 and "FAILED" in done.stdout and "restored it" not in done.stdout


def test_names_of_databases_and_roles_are_no_markup(make: SceneMaker) -> None:
    scene = make()
    scene.back_up()
    stored, link = stored_backup(scene.plan, "latest"), offered(scene)
    odd = replace(stored, database=replace(stored.database, name="a|b`c\n```<i>", collate="x\n```", encoding="UTF8"))
    shown = instructions(scene.plan, odd, link, "o|`<b>")
    assert "<i>" not in shown and "<b>" not in shown and "a|b" not in shown and "o|" not in shown
    assert shown.count("```") % 2 == 0 and "lc-collate" not in shown
    assert shlex.split(restore_commands(odd)[0])[:3] == ["createdb", "--template=template0", "--encoding=UTF8"]
