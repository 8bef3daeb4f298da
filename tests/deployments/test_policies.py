"""The policies of deployments/policies, as a service that enforces them understands them (moto's IAM)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws
from moto.core import set_initial_no_auth_action_count

from tasks.errors import AccessRefused, BackupSystemError
from tasks.storage.backup_values import Part
from tasks.storage.probe import lock_of, probe
from tasks.storage.s3 import Storage
from tasks.storage.s3_client import make_client
from tasks.stored_backups.backup_files import confirm, remove_object

POLICIES = {
    file.stem: json.loads(file.read_text())
    for file in sorted((Path(__file__).parents[2] / "deployments" / "policies").glob("*.json"))
}
BUCKET, PREFIX, REGION = "main-bucket", "database-backups/default/", "eu-central-1"
BODY = b"a part" * 1000
PART = Part(1, len(BODY), hashlib.sha256(BODY).hexdigest())
KEY = f"{PREFIX}backup_2026-03-01_02-00-00_9f2c41ab.sql"


@dataclass(frozen=True)
class Account:
    """An account with the bucket, in it one backup, and users who have one policy each."""

    as_root: Storage

    def user(self, policy: str) -> Storage:
        iam = boto3.client("iam", region_name=REGION)
        iam.create_user(UserName=policy)
        iam.put_user_policy(UserName=policy, PolicyName=policy, PolicyDocument=json.dumps(POLICIES[policy]))
        made = iam.create_access_key(UserName=policy)["AccessKey"]
        session = boto3.Session(made["AccessKeyId"], made["SecretAccessKey"], region_name=REGION)
        return Storage(make_client(session), BUCKET)


@pytest.fixture
def account() -> Iterator[Account]:
    with mock_aws():
        client = make_client(boto3.Session("root", "root", region_name=REGION))
        client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        root = Storage(client, BUCKET)
        root.put(KEY, BODY)
        yield Account(root)


def enforced(act: Callable[[], Any]) -> Any:
    """What `act` does while IAM is asked about every request."""
    return set_initial_no_auth_action_count(0)(act)()


def refused(act: Callable[[], Any]) -> bool:
    try:
        enforced(act)
    except AccessRefused:
        return True
    except BackupSystemError:
        return False
    return False


def back_up(storage: Storage, file: Path) -> str:
    """Every request that a backup makes, from the preflight to the clearing of what is not there."""
    key = f"{PREFIX}backup_2026-03-02_02-00-00_9f2c41ab.sql"
    file.write_bytes(BODY)
    storage.check_writable(PREFIX)
    storage.unfinished(PREFIX)
    upload = storage.begin(key)
    etag = storage.send(key, upload, PART, file)
    storage.acknowledged(key, upload)
    storage.complete(key, upload, {1: etag})
    confirm(storage, key, [PART])
    storage.put(f"{key}.manifest.json", b"{}")
    storage.abort(key, storage.begin(key))
    remove_object(storage, f"{PREFIX}backup_2026-03-03_02-00-00_9f2c41ab.sql")
    return key


@pytest.mark.parametrize("policy", ["s3-everything", "s3-writer", "s3-locked-writer"])
def test_who_writes_can_make_a_backup_and_clear_away_a_run_that_stored_nothing(
    account: Account, policy: str, tmp_path: Path
) -> None:
    user = account.user(policy)
    key = enforced(lambda: back_up(user, tmp_path / "part"))
    assert account.as_root.get(key) == BODY


@pytest.mark.parametrize(
    ("policy", "reads", "writes", "removes"),
    [
        ("s3-everything", True, True, True),
        ("s3-writer", True, True, False),
        ("s3-locked-writer", True, True, False),
        ("s3-version-pruner", True, False, True),
        ("s3-pruner", True, False, True),
        ("s3-reader", True, False, False),
    ],
)
def test_each_policy_lets_do_what_its_name_says_and_no_more(
    account: Account, policy: str, reads: bool, writes: bool, removes: bool
) -> None:
    user = account.user(policy)
    assert refused(lambda: user.get(KEY)) is not reads
    assert refused(lambda: list(user.objects(PREFIX))) is not reads
    assert refused(lambda: user.put(f"{PREFIX}other", b"")) is not writes
    assert refused(lambda: user.check_writable(PREFIX)) is not writes
    assert refused(lambda: user.delete(KEY)) is not removes
    assert (account.as_root.size(KEY) is None) is removes


@pytest.mark.parametrize("policy", [name for name in POLICIES if name.startswith("s3-")])
def test_no_policy_opens_what_lies_outside_the_folder_of_the_backups(account: Account, policy: str) -> None:
    user = account.user(policy)
    account.as_root.put("payroll.csv", b"secret")
    assert refused(lambda: user.get("payroll.csv"))
    assert refused(lambda: user.put("payroll.csv", b""))
    assert refused(lambda: user.delete("payroll.csv"))


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_allows_nothing_by_a_wildcard_of_actions(name: str) -> None:
    policy = POLICIES[name]
    assert policy["Version"] == "2012-10-17"
    for statement in policy["Statement"]:
        assert statement.keys() <= {"Sid", "Effect", "Action", "Resource", "Condition"}
        assert statement["Effect"] in ("Allow", "Deny")
        assert not [action for action in statement["Action"] if "*" in action]


# --- the recipe for Object Lock


def test_with_object_lock_the_writer_makes_locked_backups_and_the_pruner_frees_them_after_the_lock(
    account: Account, tmp_path: Path
) -> None:
    root = account.as_root
    root.delete(KEY)
    root.ask("delete_bucket")
    where = {"LocationConstraint": REGION}
    root.ask("create_bucket", ObjectLockEnabledForBucket=True, CreateBucketConfiguration=where)
    rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 30}}
    root.ask("put_object_lock_configuration", ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule})
    writer, pruner = account.user("s3-locked-writer"), account.user("s3-version-pruner")
    assert enforced(lambda: probe(writer, PREFIX)).object_lock == "GOVERNANCE 30 days"
    key = enforced(lambda: back_up(writer, tmp_path / "part"))
    locked = f"{key}.manifest.json"  # moto locks no object that came in parts
    [version] = enforced(lambda: list(pruner.versions(locked)))
    assert enforced(lambda: lock_of(pruner, locked, version.id)).startswith("until 20")
    assert enforced(lambda: pruner.delete(locked)), "a delete marker, which hides it"
    for user in (writer, pruner):
        assert refused(lambda user=user: user.delete_version(locked, version.id))  # type: ignore[misc]
    past = datetime.now(UTC) - timedelta(days=1)
    retention = {"Mode": "GOVERNANCE", "RetainUntilDate": past}
    root.ask("put_object_retention", Key=locked, VersionId=version.id, Retention=retention)
    assert refused(lambda: writer.delete_version(locked, version.id))
    enforced(lambda: pruner.delete_version(locked, version.id))
    assert [one.is_marker for one in root.versions(locked)] == [True]


@pytest.mark.parametrize("policy", ["s3-locked-writer", "s3-version-pruner"])
def test_nobody_of_the_recipe_may_end_a_lock(policy: str) -> None:
    [denied] = [one for one in POLICIES[policy]["Statement"] if one["Effect"] == "Deny"]
    assert {"s3:BypassGovernanceRetention", "s3:PutBucketObjectLockConfiguration"} <= set(denied["Action"])
