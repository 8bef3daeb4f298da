"""What a store does is asked once, and kept with the catalogue for each endpoint, bucket and folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.s3 import REGION, S3Server
from tasks.backup.open_backup import open_backup
from tasks.catalogue.catalogue import Catalogue
from tasks.health.bucket import store_line
from tasks.plans.plan import Plan, Policy
from tasks.postgres.dsn import parse
from tasks.runs.at_once import Answer
from tasks.storage.backup_stages import BackupRun
from tasks.storage.probe import FEW_PARTS, MOST_PARTS, StoreFacts
from tasks.storage.s3 import Storage
from tasks.storage.s3_client import make_client
from tasks.stored_backups.store_facts import KEPT_FOR, Kept, kept_facts, known_facts
from tests.support.faulty_store import FaultyStore

PREFIX = "folder/plan/"


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[FaultyStore]:
    with FaultyStore(s3_server.endpoint_url) as store:
        yield store


@pytest.fixture
def catalogue(catalogue_url: str) -> Catalogue:
    return Catalogue(parse(catalogue_url))


@pytest.fixture
def new_storage(proxy: FaultyStore, s3_server: S3Server) -> Callable[[str], Storage]:
    def make(bucket: str, endpoint: str = "") -> Storage:
        session = boto3.Session(s3_server.access_key_id, s3_server.secret_access_key, region_name=REGION)
        return Storage(make_client(session, endpoint or proxy.endpoint_url), bucket)

    return make


def now() -> datetime:
    return datetime.now(UTC)


def test_a_store_is_asked_once_for_a_week_and_anew_for_another_bucket_folder_or_address(
    catalogue: Catalogue,
    proxy: FaultyStore,
    s3_server: S3Server,
    s3_bucket: Callable[[], str],
    new_storage: Callable[..., Storage],
) -> None:
    bucket = s3_bucket()
    first = known_facts(catalogue, "plan", new_storage(bucket), PREFIX, "run", now())
    asked = len(proxy.requests)
    assert asked > 0
    later = new_storage(bucket)
    assert known_facts(catalogue, "plan", later, PREFIX, "run", now()) == first
    assert later.proofs(PREFIX) == first.proofs and len(proxy.requests) == asked, "nothing was asked again"
    kept = kept_facts(catalogue, later, PREFIX, now())
    assert kept and kept.facts == first and now() - kept.at < timedelta(minutes=5)
    assert kept_facts(catalogue, later, PREFIX, now() + KEPT_FOR + timedelta(hours=1)) is None
    assert kept_facts(catalogue, later, "another/plan/", now()) is None
    assert kept_facts(catalogue, new_storage(s3_bucket()), PREFIX, now()) is None
    assert kept_facts(catalogue, new_storage(bucket, s3_server.endpoint_url), PREFIX, now()) is None


def test_a_backup_makes_its_parts_as_large_as_a_store_with_few_parts_needs_and_the_next_one_asks_nothing(
    catalogue: Catalogue,
    proxy: FaultyStore,
    any_postgres: PostgresCluster,
    s3_bucket: Callable[[], str],
    new_storage: Callable[..., Storage],
    tmp_path: Path,
) -> None:
    proxy.rule = lambda request: 400 if request.any_part > FEW_PARTS else None
    bucket = s3_bucket()

    def opened(run_id: str) -> BackupRun:
        plan = Plan("few", parse(any_postgres.url()), catalogue, new_storage(bucket), "folder", Policy())
        directories = {"tools_directory": str(any_postgres.bin_directory), "spool_directory": tmp_path}
        return open_backup(replace(plan, **directories), run_id, "tester", now(), str)  # type: ignore[arg-type]

    assert opened("first").most_parts == FEW_PARTS
    asked = [request for request in proxy.requests if request.any_part]
    assert opened("second").most_parts == FEW_PARTS
    assert [request for request in proxy.requests if request.any_part] == asked


def test_the_health_check_shows_what_is_known_in_one_line() -> None:
    facts = StoreFacts(True, True, MOST_PARTS, "Enabled", "COMPLIANCE 30 days", 0)
    at = datetime(2026, 3, 1, tzinfo=UTC)
    line = store_line("shop", Answer(Kept(facts, at)))
    assert (line.check, line.status) == ("Store of shop", "ok")
    assert line.what == (
        "Parts are proved by Content-MD5 and ETag, 10,000 are allowed; versions are kept; Object Lock is "
        "COMPLIANCE 30 days. Found out on 2026-03-01."
    )
    line = store_line("shop", Answer(Kept(replace(facts, expiry_days=30), at)))
    assert line.status == "warning" and "removes objects after 30 days, the newest backup too" in line.what
    assert "the next backup finds out" in store_line("shop", Answer(None)).what
