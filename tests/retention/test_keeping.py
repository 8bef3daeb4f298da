"""A backup that a person keeps is removed by nothing until it is let go, and counts for retention as before."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import boto3
import pytest

from deployments.quick_start.s3 import REGION, S3Server
from tasks.admin_page.gather import read
from tasks.catalogue.rows import Record
from tasks.errors import AlreadyRunning, BackupNotFound, BadSetting, DeletionRefused
from tasks.plans.plan import Policy
from tasks.postgres.locks import removal_lock
from tasks.rebuild_catalogue.rebuild import compare, write
from tasks.retention.keep import KeptBackup, keep_backup
from tasks.retention.policy import decide
from tasks.retention.removal import retain
from tasks.storage.s3_client import make_client
from tests.retention.test_deleting import NOW, Shelf
from tests.support.recorded import a_record

KEPT = {"kept": {"reason": "for the auditors", "by": "Ada", "at": "2026-03-18T12:00:00+00:00"}}


@pytest.fixture
def shelf(s3_server: S3Server, s3_bucket: Callable[[], str], catalogue_url: str) -> Shelf:
    session = boto3.Session(s3_server.access_key_id, s3_server.secret_access_key, region_name=REGION)
    return Shelf(make_client(session, s3_server.endpoint_url), s3_bucket, catalogue_url)


def keep(shelf: Shelf, backup: str, let_go: bool = False, reason: str = "for the auditors", **more: Any) -> KeptBackup:
    return keep_backup(shelf.plan, backup, reason, let_go, "run-k", "Ada", NOW, **more)


def row_of(shelf: Shelf, name: str) -> Record:
    return shelf.catalogue.named([name])[name]


def events(shelf: Shelf) -> list[tuple[object, ...]]:
    with shelf.catalogue.cursor() as cursor:
        cursor.execute(
            "SELECT action, outcome, actor, filename, details->'kept'->>'reason' AS reason FROM backup_events"
            " WHERE plan = %s AND action = 'keep-backup' ORDER BY id",
            [shelf.plan.name],
        )
        return [tuple(row.values()) for row in cursor.fetchall()]


def test_retention_removes_it_only_after_it_was_let_go(shelf: Shelf) -> None:
    old, other, new = shelf.backup(40), shelf.backup(30), shelf.backup(1)
    done = keep(shelf, old)
    assert (done.filename, done.is_kept) == (old, True)
    assert retain(shelf.plan, "run-r", "system", NOW).removed == (other,)
    assert shelf.status() == {old: "completed", other: "expired", new: "completed"} and shelf.is_whole(old)
    keep(shelf, old, let_go=True)
    assert retain(shelf.plan, "run-s", "system", NOW).removed == (old,)
    assert shelf.is_gone(old)


def test_it_cannot_be_deleted_before_it_was_let_go_whatever_is_confirmed(shelf: Shelf) -> None:
    old, _ = shelf.backup(2), shelf.backup(1)
    keep(shelf, old)
    with pytest.raises(DeletionRefused, match=r"by Ada since 2026-03-18 \(for the auditors\): let it go first"):
        shelf.delete(old, confirm=old)
    assert shelf.is_whole(old) and shelf.intent(old) is None
    keep(shelf, old, let_go=True)
    assert shelf.delete(old).filename == old


def test_the_audit_has_a_line_for_each_change_and_none_where_nothing_changes(shelf: Shelf) -> None:
    name = shelf.backup(1)
    assert "not kept by anybody" in keep(shelf, name, let_go=True).message
    keep(shelf, "latest")
    keep(shelf, shelf.id_of(name), reason="for\n ever")
    keep(shelf, name, let_go=True)
    line = ("keep-backup", "kept", "Ada", name)
    assert events(shelf) == [
        (*line, "for the auditors"),
        (*line, "for ever"),
        ("keep-backup", "let go", *line[2:], None),
    ]
    assert "kept" not in row_of(shelf, name).metadata


def test_what_is_not_there_cannot_be_kept(shelf: Shelf) -> None:
    gone, _ = shelf.backup(3, status="deleted"), shelf.backup(1)
    for wanted in (gone, "backup_2001-01-01_00-00-00_00000000.sql", "2147483647", ""):
        with pytest.raises(BackupNotFound):
            keep(shelf, wanted)
    with pytest.raises(BadSetting, match="301 characters"):
        keep(shelf, "latest", reason="x" * 301)
    assert events(shelf) == []


def test_a_backup_whose_removal_has_begun_is_not_promised_to_stay(shelf: Shelf) -> None:
    old, _ = shelf.backup(2), shelf.backup(1)
    shelf.catalogue.begin_removal(old, "deleted", "olga")
    with pytest.raises(BadSetting, match="has begun"):
        keep(shelf, old)
    assert shelf.intent(old) == "deleted"


def test_nothing_is_promised_while_somebody_removes_backups(shelf: Shelf) -> None:
    old, _ = shelf.backup(2), shelf.backup(1)
    with removal_lock(shelf.catalogue.dsn, shelf.plan.name, "run other"), pytest.raises(AlreadyRunning):
        keep(shelf, old, patience=0.1)
    assert row_of(shelf, old).kept == ""


def test_a_catalogue_that_lost_its_rows_still_keeps_it_by_the_audit(shelf: Shelf) -> None:
    old, let_go, new = shelf.backup(40), shelf.backup(30), shelf.backup(1)
    keep(shelf, old)
    keep(shelf, let_go)
    keep(shelf, let_go, let_go=True)
    with shelf.catalogue.cursor() as cursor:
        cursor.execute("DELETE FROM database_backups WHERE plan = %s", [shelf.plan.name])
    write(shelf.plan, compare(shelf.plan, ["*"]).changes, "run-b", "Ada")
    with shelf.catalogue.cursor() as cursor:  # the manifests of these tests all have one time
        for name, days in ((old, 40), (let_go, 30), (new, 1)):
            at = NOW - timedelta(days=days)
            cursor.execute("UPDATE database_backups SET created_at = %s WHERE filename = %s", [at, name])
    assert row_of(shelf, old).metadata.items() >= KEPT.items()
    assert retain(shelf.plan, "run-r", "system", NOW).removed == (let_go,)
    assert shelf.is_whole(old) and shelf.is_whole(new)


def test_a_row_that_is_repaired_still_keeps_it(shelf: Shelf) -> None:
    old, _ = shelf.backup(2), shelf.backup(1)
    keep(shelf, old)
    with shelf.catalogue.cursor() as cursor:
        cursor.execute("UPDATE database_backups SET plain_size = 1 WHERE filename = %s", [old])
    assert old in write(shelf.plan, compare(shelf.plan).changes, "run-b", "Ada")
    assert row_of(shelf, old).kept


def test_the_admin_page_reads_why(shelf: Shelf) -> None:
    old, new, plain = shelf.backup(3), shelf.backup(2), shelf.backup(1)
    keep(shelf, old)
    keep(shelf, new, reason="")
    lines = read(shelf.catalogue, [shelf.plan.name], [], 10, NOW).plans[shelf.plan.name].lines
    assert {line.filename: line.kept for line in lines} == {old: "for the auditors", new: "", plain: None}


def test_it_counts_for_the_other_rules_as_before() -> None:
    """What is kept takes its place among the last few; nothing else goes or stays for it."""
    backups = [a_record(f"backup_{day}.sql", NOW - timedelta(days=day), 10**9, 100) for day in range(10, 15)]
    backups[1] = Record(**{**vars(backups[1]), "metadata": KEPT})
    backups[4] = Record(**{**vars(backups[4]), "metadata": KEPT})
    decisions = decide(backups, Policy(days=1, keep_last=2), NOW)
    assert [decision.keep for decision in decisions] == [True, True, False, False, True]
    assert decisions[4].reasons == ("kept for ever by Ada since 2026-03-18 (for the auditors)",)
