"""What is smaller and quicker in the laboratory than in life, the same in this process and in those that it starts."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from typing import Any

import boto3
import pytest
from botocore.config import Config

import flows.backup
from tasks.plans.from_settings import plan_from_settings
from tasks.plans.plan import Plan, Replica
from tasks.storage.s3 import Storage
from tasks.storage.s3_client import make_client
from tests.faults.fault import PART
from tests.support.flow_fixtures import client_loses_patience, lose_patience

#: How long a client waits for an answer of the store here, in place of a minute.
READ_SECONDS = 3
#: The address and the bucket of the plan's replica; an empty one: the plan has none.
REPLICA_URL, REPLICA_BUCKET = "LABORATORY_REPLICA", "laboratory-replica"


def make_small(patch: pytest.MonkeyPatch) -> None:
    """Parts are small, clients and steps lose patience, and the plan has the laboratory's replica."""
    lose_patience(patch)
    client_loses_patience(patch)
    for step in ("replicate", "apply_retention"):
        quick = getattr(flows.backup, step).with_options(retry_delay_seconds=[0.1, 0.2, 0.3])
        patch.setattr(f"flows.backup.{step}", quick)
    patch.setattr("tasks.backup.open_backup.part_size_for", lambda *_: PART)
    patch.setattr("tasks.storage.s3_client.Config", _quick_config)
    patch.setattr("tasks.postgres.dsn.CONNECT_SECONDS", READ_SECONDS, raising=False)
    patch.setattr("tasks.plans.find_plan.plan_from_settings", _small_plan)
    if "FAKETIME" in os.environ:  # libfaketime finds what time.sleep asks for invalid
        patch.setattr("time.sleep", lambda seconds: threading.Event().wait(seconds) and None)


def use_replica(url: str) -> None:
    """From now on the plan has the replica at this address; none when it is empty."""
    os.environ[REPLICA_URL] = url


def _quick_config(*given: Any, **named: Any) -> Config:
    return Config(*given, **{**named, "read_timeout": READ_SECONDS})


def _small_plan(*given: Any) -> Plan:
    return replace(plan_from_settings(*given), spool_limit=2 * PART, replicas=_replicas())


def _replicas() -> tuple[Replica, ...]:
    url = os.environ.get(REPLICA_URL)
    if not url:
        return ()
    keys = [os.environ[f"CLOUDFLARE_{name}"] for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")]
    session = boto3.Session(*keys, region_name="us-east-1")
    return (Replica(Storage(make_client(session, url), REPLICA_BUCKET), "copies"),)
