"""Retention carried out: what goes, in which order, and what stops it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import boto3
import pytest

from deployments.quick_start.s3 import REGION, S3Server
from tasks.catalogue.catalogue import Catalogue
from tasks.catalogue.rows import Event
from tasks.errors import AccessRefused, CatalogueUnavailable, Unreachable
from tasks.names import backup_filename, manifest_key
from tasks.plans.plan import Plan, Policy
from tasks.postgres.dsn import parse
from tasks.retention.removal import Retained, retain
from tasks.storage.s3 import Storage
from tasks.storage.s3_client import make_client

NOW = datetime(2026, 3, 18, 12, tzinfo=UTC)
CONTENT = b"-- PostgreSQL database dump\n"


class Killed(BaseException):
    """The process dies here."""


class WatchedStorage(Storage):
    """A real store that notes what is deleted, and fails where the test says so."""

    deleted: list[str]
    before_delete: Callable[[str], None]
    after_delete: Callable[[str], None]

    def delete(self, key: str) -> bool:
        self.before_delete(key)
        versioned = super().delete(key)
        self.deleted.append(key)
        self.after_delete(key)
        return versioned


class WatchedCatalogue(Catalogue):
    """A real catalogue that fails where the test says so."""

    before_remove: Callable[[str], None]

    def remove(self, filename: str, status: str, event: Event) -> None:
        self.before_remove(filename)
        super().remove(filename, status, event)


def nothing(_: str) -> None:
    return


def raising(error: BaseException, at: str) -> Callable[[str], None]:
    """To be called with a key or a file name: raises when it is `at`."""

    def call(name: str) -> None:
        if name == at:
            raise error

    return call


@pytest.fixture(scope="module")
def client(s3_server: S3Server) -> object:
    session = boto3.Session(s3_server.access_key_id, s3_server.secret_access_key, region_name=REGION)
    return make_client(session, s3_server.endpoint_url)


@pytest.fixture
def house(client: object, s3_bucket: Callable[[], str], catalogue_url: str, request: pytest.FixtureRequest) -> House:
    return House(client, s3_bucket(), catalogue_url, plan=f"plan-{abs(hash(request.node.nodeid)) % 10**9}")


class House:
    """One plan with a bucket of its own, and the backups that a test puts into it."""

    def __init__(self, client: object, bucket: str, catalogue_url: str, plan: str) -> None:
        self.storage = WatchedStorage(client, bucket)
        self.storage.deleted, self.storage.before_delete, self.storage.after_delete = [], nothing, nothing
        self.catalogue = WatchedCatalogue(parse(catalogue_url))
        self.catalogue.before_remove = nothing
        self.plan = Plan(plan, parse(catalogue_url), self.catalogue, self.storage, "folder", Policy(days=7))

    def backup(self, days_old: float, plain_size: int = 1000, tables: int = 10, suspicious: str = "") -> str:
        """A completed backup, with object and manifest; its file name."""
        at = NOW - timedelta(days=days_old)
        name = backup_filename(self.plan.name, f"run-{days_old}", at)
        key = self.plan.key(name)
        self.storage.put(key, CONTENT)
        self.storage.put(manifest_key(key), b"{}")
        run_id = f"run-{days_old}"
        backup_id = self.catalogue.open(name, key, self.plan.name, run_id, "test", at, "full")
        facts = {"file_size": len(CONTENT), "plain_size": plain_size, "table_count": tables, "completed_at": at}
        facts |= {"manifest_sha256": "0" * 64, "suspicious": suspicious}
        self.catalogue.complete(backup_id, run_id, facts, {}, self.event("completed", name))
        return name

    def event(self, outcome: str, filename: str) -> Event:
        return Event("backup", outcome, self.plan.name, "test", "run", filename=filename)

    def clean_up(self, dry_run: bool = False, now: datetime = NOW, confirmed: int = 0) -> Retained:
        return retain(self.plan, "clean-up-run", "tester", now, dry_run, confirmed)

    def status(self) -> dict[str, str]:
        return {row.filename: row.status for row in self.catalogue.rows(self.plan.name)}

    def keys(self) -> set[str]:
        return {one.key for one in self.storage.objects("")}

    def keys_of(self, *names: str) -> set[str]:
        return {key for name in names for key in (self.plan.key(name), manifest_key(self.plan.key(name)))}

    def events(self) -> list[tuple[object, ...]]:
        """Outcome, file name, bytes, actor and run of what retention has noted, oldest first."""
        with self.catalogue.dsn.session("test") as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT outcome, filename, bytes, actor, run_id FROM backup_events"
                " WHERE action = 'retention' AND plan = %s ORDER BY id",
                [self.plan.name],
            )
            return list(cursor.fetchall())


# --- what goes


def test_what_is_due_goes_and_its_row_stays(house: House) -> None:
    new, week, old, older = (house.backup(days) for days in (1, 7, 7.01, 30))
    done = house.clean_up()
    assert set(done.removed) == {old, older}
    assert done.problems == ()
    assert house.keys() == house.keys_of(new, week)
    assert house.status() == {new: "completed", week: "completed", old: "expired", older: "expired"}


def test_a_row_that_names_another_backups_object_removes_nothing(house: House) -> None:
    """Whoever can write rows of the catalogue cannot let retention remove what other plans have stored."""
    house.backup(1)
    forged, victim = house.backup(9), "folder/other-plan/backup_2026-03-01_02-00-00_00000000.sql"
    house.storage.put(victim, CONTENT)
    with house.catalogue.dsn.session("test") as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE database_backups SET s3_key = %s WHERE filename = %s", [victim, forged])
    done = house.clean_up()
    assert done.removed == () and [problem for problem in done.problems if "belongs to another backup" in problem]
    stored = house.keys()
    assert victim in stored and house.keys_of(forged) <= stored
    assert house.status()[forged] == "completed" and not house.catalogue.rows(house.plan.name)[-1].removal


def test_every_removal_is_in_the_audit(house: House) -> None:
    house.backup(1)
    old = house.backup(8)
    house.clean_up()
    assert house.events() == [("expired", old, len(CONTENT), "tester", "clean-up-run")]


def test_the_object_goes_first_the_manifest_next_and_the_row_last(house: House) -> None:
    house.backup(1)
    old = house.backup(8)
    key = house.plan.key(old)
    seen: list[tuple[str, str]] = []
    house.storage.after_delete = lambda deleted: seen.append((deleted, house.status()[old]))
    house.catalogue.before_remove = lambda name: seen.append((name, house.status()[name]))
    house.clean_up()
    assert seen == [(key, "completed"), (manifest_key(key), "completed"), (old, "completed")]
    assert house.status()[old] == "expired"


def test_an_open_upload_to_the_key_of_what_goes_is_aborted(house: House) -> None:
    house.backup(1)
    old = house.backup(8)
    house.storage.begin(house.plan.key(old))
    house.clean_up()
    assert house.storage.unfinished("") == []


def test_other_plans_and_files_are_left_alone(house: House) -> None:
    house.backup(1)
    house.backup(8)
    beside = {"folder/" + house.plan.name + "-prod/backup_2020-01-01_00-00-00_00000000.sql", "folder/notes.txt"}
    for key in beside | {house.plan.prefix + "somebody's own file"}:
        house.storage.put(key, b"x")
    house.clean_up()
    assert house.keys() >= beside | {house.plan.prefix + "somebody's own file"}


def test_a_second_clean_up_finds_nothing_to_do(house: House) -> None:
    house.backup(1)
    house.backup(8)
    house.clean_up()
    house.storage.deleted.clear()
    assert house.clean_up().removed == ()
    assert house.storage.deleted == []


# --- the newest


@pytest.mark.parametrize("days_old", [0.1, 8, 4000])
def test_the_newest_never_goes_however_old_it_is(house: House, days_old: float) -> None:
    newest = house.backup(days_old)
    assert house.clean_up().removed == ()
    assert house.keys() == house.keys_of(newest)
    assert house.status() == {newest: "completed"}


def test_a_newest_that_is_missing_does_not_count(house: House) -> None:
    lost, newest, old = house.backup(8), house.backup(9), house.backup(10)
    house.storage.delete(house.plan.key(lost))
    done = house.clean_up()
    assert house.status() == {lost: "missing", newest: "completed", old: "expired"}
    assert house.keys() >= house.keys_of(newest)
    assert done.removed == (old,)
    [problem] = done.problems
    assert lost in problem and "missing" in problem


def test_a_newest_that_is_damaged_does_not_count_and_is_kept_for_a_person_to_see(house: House) -> None:
    damaged, newest, old = house.backup(8), house.backup(9), house.backup(10)
    house.storage.put(house.plan.key(damaged), CONTENT[:-1])
    done = house.clean_up()
    assert house.status() == {damaged: "completed", newest: "completed", old: "expired"}
    assert house.keys() == house.keys_of(damaged, newest)
    [problem] = done.problems
    assert damaged in problem and "damaged" in problem


def test_the_last_intact_backup_stays_when_all_newer_ones_are_lost(house: House) -> None:
    intact, lost, damaged = house.backup(30), house.backup(20), house.backup(10)
    house.storage.delete(house.plan.key(lost))
    house.storage.put(house.plan.key(damaged), b"")
    done = house.clean_up()
    assert house.keys() >= house.keys_of(intact)
    assert house.status()[intact] == "completed"
    assert done.removed == () and len(done.problems) == 2


def test_with_every_object_lost_nothing_is_left_to_decide(house: House) -> None:
    names = [house.backup(days) for days in (8, 9)]
    for name in names:
        house.storage.delete(house.plan.key(name))
    done = house.clean_up()
    assert done.removed == ()
    assert len(done.problems) >= 1


def test_a_suspicious_newest_halts_removal(house: House) -> None:
    suspicious, good, old = house.backup(1, plain_size=10, suspicious="It shrank."), house.backup(8), house.backup(9)
    done = house.clean_up()
    assert done.removed == () and done.problems == ()
    assert all(decision.keep for decision in done.decisions)
    assert any("suspicious" in reason for decision in done.decisions for reason in decision.reasons)
    assert house.keys() == house.keys_of(suspicious, good, old)
    assert set(house.status().values()) == {"completed"}


def test_unfinished_and_failed_backups_are_not_counted(house: House) -> None:
    good = house.backup(9)
    for number, days in enumerate((1, 2)):
        at = NOW - timedelta(days=days)
        name = backup_filename(house.plan.name, f"bad-{number}", at)
        backup_id = house.catalogue.open(name, house.plan.key(name), house.plan.name, f"bad-{number}", "t", at, "full")
        if number:
            house.catalogue.fail(backup_id, "It failed.", house.event("failed", name))
    assert house.clean_up().removed == ()
    assert house.status()[good] == "completed"


# --- what does not stop it


def test_a_missing_object_does_not_stop_the_others(house: House) -> None:
    house.backup(1)
    lost, old = house.backup(8), house.backup(9)
    house.storage.delete(house.plan.key(lost))
    done = house.clean_up()
    assert set(done.removed) == {lost, old} and done.problems == ()
    assert house.status()[lost] == "missing"
    assert house.status()[old] == "expired"
    assert not house.keys() & house.keys_of(lost, old)


@pytest.mark.parametrize("error", [AccessRefused("The store refused."), Unreachable("The store does not answer.")])
def test_one_that_cannot_be_deleted_does_not_stop_the_others(house: House, error: Exception) -> None:
    newest, stuck, old = house.backup(1), house.backup(8), house.backup(9)
    house.storage.before_delete = raising(error, at=house.plan.key(stuck))
    done = house.clean_up()
    assert done.removed == (old,)
    assert house.status() == {newest: "completed", stuck: "completed", old: "expired"}
    [problem] = done.problems
    assert stuck in problem and str(error).rstrip(".") in problem
    assert house.keys() == house.keys_of(newest, stuck)


def test_one_whose_row_cannot_be_written_does_not_stop_the_others(house: House) -> None:
    house.backup(1)
    stuck, old = house.backup(8), house.backup(9)
    house.catalogue.before_remove = raising(CatalogueUnavailable("The catalogue does not answer."), at=stuck)
    done = house.clean_up()
    assert done.removed == (old,)
    assert len(done.problems) == 1 and stuck in done.problems[0]


# --- a dry run


def test_a_dry_run_says_what_would_go_and_changes_nothing(house: House) -> None:
    house.backup(1)
    old, older = house.backup(8), house.backup(9)
    before = house.status(), house.keys()
    done = house.clean_up(dry_run=True)
    assert set(done.removed) == {old, older}
    assert (house.status(), house.keys()) == before
    assert house.storage.deleted == [] and house.events() == []
    assert house.clean_up().removed == done.removed


def test_a_dry_run_does_not_mark_what_is_missing(house: House) -> None:
    lost, newest, old = house.backup(8), house.backup(9), house.backup(10)
    house.storage.delete(house.plan.key(lost))
    house.storage.deleted.clear()
    done = house.clean_up(dry_run=True)
    assert done.removed == (old,) and len(done.problems) == 1
    assert house.status() == {lost: "completed", newest: "completed", old: "completed"}
    assert house.storage.deleted == [] and house.events() == []


# --- a kill between the steps


@pytest.mark.parametrize("step", ["before the object", "after the object", "after the manifest", "before the row"])
def test_a_clean_up_that_was_killed_is_finished_by_the_next(house: House, step: str) -> None:
    newest, old, older = house.backup(1), house.backup(8), house.backup(9)
    key = house.plan.key(old)
    if step == "before the object":
        house.storage.before_delete = raising(Killed(), at=key)
    elif step == "after the object":
        house.storage.after_delete = raising(Killed(), at=key)
    elif step == "after the manifest":
        house.storage.after_delete = raising(Killed(), at=manifest_key(key))
    else:
        house.catalogue.before_remove = raising(Killed(), at=old)
    with pytest.raises(Killed):
        house.clean_up()
    assert house.status()[old] == "completed"  # the row never says more than what was done
    assert house.keys() >= house.keys_of(newest)
    house.storage.before_delete = house.storage.after_delete = house.catalogue.before_remove = nothing
    done = house.clean_up()
    assert done.problems == ()
    assert house.keys() == house.keys_of(newest)
    assert house.status()[newest] == "completed"
    assert house.status()[old] == "expired"
    assert house.status()[older] == "expired"


def test_a_removal_that_was_killed_is_finished_even_if_nothing_is_due_any_more(house: House) -> None:
    house.backup(1)
    old = house.backup(8)
    house.storage.after_delete = raising(Killed(), at=house.plan.key(old))
    with pytest.raises(Killed):
        house.clean_up()
    house.storage.after_delete = nothing
    longer = replace(house.plan, policy=Policy(days=365))
    done = retain(longer, "clean-up-run", "tester", NOW)
    assert done.removed == (old,) and done.problems == ()
    assert house.status()[old] == "expired"
    assert not house.keys() & house.keys_of(old)


def test_a_completed_backup_is_removed_at_its_boundary_and_not_before(house: House) -> None:
    house.backup(0)
    week = house.backup(7)
    assert house.clean_up().removed == ()
    assert house.clean_up(now=NOW + timedelta(microseconds=1)).removed == (week,)


def test_a_row_of_another_folder_is_looked_for_where_it_was_stored(house: House) -> None:
    """The folder of a plan was changed after the backup was made."""
    house.backup(1)
    old = house.backup(8)
    stored_at = house.keys_of(old)
    moved = replace(house.plan, folder="another-folder")
    done = retain(moved, "clean-up-run", "tester", NOW)
    assert done.removed == (old,) and done.problems == ()
    assert house.status()[old] == "expired"
    assert not house.keys() & stored_at


# --- in use


def test_a_backup_that_a_live_restore_reads_stays_until_that_is_done(house: House) -> None:
    house.backup(1)
    read, old = house.backup(8), house.backup(9)
    begun = Event("restore", "started", house.plan.name, "tester", "reading-run", filename=read)
    house.catalogue.note(begun)
    with house.plan.database.session("run reading-run"):
        done = house.clean_up()
        assert done.removed == (old,) and done.problems == ()
        [kept] = [one for one in done.decisions if one.backup.filename == read]
        assert kept.keep and "still being read by restore (run reading-run" in kept.reasons[0]
    assert house.clean_up().removed == (read,)


def test_what_could_not_be_removed_and_is_then_gone_by_itself_is_expired(house: House) -> None:
    house.backup(1)
    stuck = house.backup(8)
    house.storage.before_delete = raising(AccessRefused("The store refused."), at=house.plan.key(stuck))
    assert house.clean_up().removed == ()
    assert house.status()[stuck] == "completed"
    house.storage.before_delete = nothing
    house.storage.delete(house.plan.key(stuck))
    assert house.clean_up().removed == (stuck,)
    assert house.status()[stuck] == "expired"
