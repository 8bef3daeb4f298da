"""The storage class in which backups are stored, and objects that a rule of the bucket has moved to an archive."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from prefect.blocks.core import Block
from prefect_aws import AwsCredentials
from prefect_aws.client_parameters import AwsClientParameters
from pydantic import SecretStr, ValidationError

from deployments.quick_start.s3 import REGION
from tasks.errors import BadSetting
from tasks.plans.blocks import BackupPlan, BackupStorage, PostgresDatabase
from tasks.plans.plan import Plan
from tasks.storage.s3 import Storage
from tasks.storage.s3_client import make_client
from tests.support.recording_s3 import RecordingS3, recording_s3


@pytest.fixture
def recording() -> Iterator[RecordingS3]:
    with recording_s3() as store:
        yield store


def plan_at(endpoint_url: str, **fields: Any) -> Plan:
    """A plan with a replica, whose blocks lead to this store."""
    blocks: dict[str, Block] = {
        "database": PostgresDatabase(url=SecretStr("postgresql://somebody@127.0.0.1/shop")),
        "own": BackupStorage(bucket="bucket", credentials="key"),
        "copies": BackupStorage(bucket="bucket", folder="copies", credentials="key"),
        "key": AwsCredentials(
            aws_access_key_id="AKIATEST",
            aws_secret_access_key=SecretStr("secret"),
            aws_client_parameters=AwsClientParameters(endpoint_url=endpoint_url),
        ),
    }
    plan = BackupPlan(database="database", storage="own", catalogue="", replicas=["copies"], **fields)
    return plan.resolved("shop", lambda _, name: blocks[name])


@pytest.mark.parametrize("wanted", ["", "STANDARD_IA"])
def test_backups_and_their_copies_are_stored_in_the_class_of_the_plan_and_manifests_in_none(
    recording: RecordingS3, wanted: str
) -> None:
    plan = plan_at(recording.endpoint_url, storage_class=wanted)
    for storage in (plan.storage, plan.replicas[0].storage):
        storage.begin("a")
        storage.put("a.manifest.json", b"{}")
    classes = [request.headers.get("x-amz-storage-class", "") for request in recording.requests]
    assert classes == [wanted, "", wanted, ""]


@pytest.mark.parametrize("archive", ["GLACIER", "DEEP_ARCHIVE", "standard"])
def test_a_class_from_which_nothing_can_be_read_at_once_is_no_choice(archive: str) -> None:
    with pytest.raises(ValidationError, match="storage_class"):
        BackupPlan(database="database", storage_class=archive)


def test_a_store_without_that_class_is_told_before_anything_is_sent(recording: RecordingS3) -> None:
    recording.refusal = (400, "InvalidStorageClass")
    with pytest.raises(BadSetting, match="has no such storage class; correct Storage class in the plan"):
        plan_at(recording.endpoint_url, storage_class="GLACIER_IR").storage.check_writable("folder/shop/")


def test_what_a_rule_has_moved_to_an_archive_is_said_with_what_to_do(moto_server: str, tmp_path: Path) -> None:
    client = make_client(boto3.Session("key", "secret", region_name=REGION), moto_server)
    client.create_bucket(Bucket="archived")
    client.put_object(Bucket="archived", Key="backup", Body=b"rows", StorageClass="GLACIER")
    with pytest.raises(BadSetting, match=r"lies in an archive, .* fetch it from there"):
        Storage(client, "archived").get("backup")
