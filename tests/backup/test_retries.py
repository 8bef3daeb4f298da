"""What can pass is tried again, from where it broke off; locks, retention and the limit of the spool hold meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prefect.settings import PREFECT_TASKS_RUNNER_THREAD_POOL_MAX_WORKERS, temporary_settings

from flows.backup import backup
from tasks.alarms.event_names import REFUSED
from tasks.errors import AccessRefused, AlreadyRunning, BackupSystemError, CleanUpFailed, Unreachable
from tasks.names import manifest_key
from tasks.postgres.dsn import parse
from tasks.postgres.locks import exclusive
from tasks.storage.spool import Spool
from tests.support.faulty_store import FaultyStore, Request, Rule
from tests.support.flow_fixtures import WorldFactory
from tests.support.world import MIB, Heard, World, go, kill, masked, paths_below, plain_dump

LIMIT = 4 * MIB
SLOW = pytest.mark.slow


def refusing(store: FaultyStore, part: int, times: int, fate: int | str) -> Rule:
    """Fails the first `times` requests that send `part`, and passes all others."""
    seen = [0]

    def rule(request: Request) -> int | str | None:
        if request.part != part:
            return None
        with store.lock:
            seen[0] += 1
            return fate if seen[0] <= times else None

    return rule


@contextmanager
def watched(world: World) -> Iterator[list[int]]:
    """The bytes found in the spool's files, looked at again and again during the block."""
    seen, ended = [0], threading.Event()

    def look() -> None:
        while not ended.wait(0.005):
            total = 0
            for path in paths_below(world.spool):
                with suppress(FileNotFoundError):
                    total += path.stat().st_size if path.suffix == ".part" or path.name == "unfinished" else 0
            seen.append(total)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        ended.set()
        watcher.join()


def stored_text(world: World) -> bytes:
    """The newest object, which must be what pg_dump says of the database."""
    assert world.check_completed_are_intact() == 1
    _, stored, _ = world.newest()
    return masked(stored)


# --- the upload


@pytest.mark.parametrize("fate", [pytest.param(500, marks=SLOW), pytest.param(503, marks=SLOW), "drop"])
def test_an_upload_that_fails_midway_sends_only_the_rest(
    make_world: WorldFactory, faulty_store: FaultyStore, impatient: None, heard: Heard, fate: int | str
) -> None:
    world = make_world(mebibytes=8, settings={"S3_ENDPOINT_URL": faulty_store.endpoint_url})
    faulty_store.rule = refusing(faulty_store, part=4, times=4, fate=fate)  # a client tries four times
    backup()
    passed = faulty_store.parts_passed()
    assert sorted(passed) == list(range(1, max(passed) + 1)), "each part reached the store exactly once"
    assert len([one for one in faulty_store.requests if one.part == 4]) == 5
    assert sum(one.begins_upload and not one.key.endswith("write-check") for one in faulty_store.requests) == 1
    assert "Retry 1/3 will start" in heard.text
    assert stored_text(world) == plain_dump(world.cluster, world.database_url)
    world.check_no_debris()


@pytest.mark.slow
def test_an_upload_whose_acknowledgements_are_lost_ends_with_the_right_object(
    make_world: WorldFactory, faulty_store: FaultyStore, impatient: None
) -> None:
    world = make_world(settings={"S3_ENDPOINT_URL": faulty_store.endpoint_url})
    unheard = [4, 4]  # part 2, and the request that joins the parts

    def rule(request: Request) -> int | str | None:
        which = 0 if request.part == 2 else 1 if request.completes_upload else None
        with faulty_store.lock:
            if which is None or not unheard[which]:
                return None
            unheard[which] -= 1
            return "deaf"

    faulty_store.rule = rule
    backup()
    assert stored_text(world) == plain_dump(world.cluster, world.database_url)
    world.check_no_debris()


@pytest.mark.slow
def test_an_upload_that_fails_for_good_leaves_nothing_but_a_failed_row(
    make_world: WorldFactory, faulty_store: FaultyStore, impatient: None
) -> None:
    world = make_world(mebibytes=4, settings={"S3_ENDPOINT_URL": faulty_store.endpoint_url})
    faulty_store.rule = lambda request: 503 if request.part == 3 else None
    with pytest.raises(Unreachable, match="503 SlowDown"):
        backup()
    [row] = world.rows()
    assert row.status == "failed" and "503 SlowDown" in row.error
    assert world.events() == [("backup", "failed")]
    assert world.objects() == {}
    world.check_no_debris()


def test_an_upload_that_is_refused_is_not_tried_again(
    make_world: WorldFactory, faulty_store: FaultyStore, heard: Heard
) -> None:
    world = make_world(mebibytes=4, settings={"S3_ENDPOINT_URL": faulty_store.endpoint_url})
    faulty_store.rule = lambda request: 403 if request.part else None
    with pytest.raises(AccessRefused, match="check the access key"):
        backup()
    assert len({one.part for one in faulty_store.requests if one.part}) <= 3  # one for each connection
    assert "Retry" not in heard.text and "Traceback" not in heard.text
    assert world.statuses() == ["failed"]
    world.check_no_debris()


# --- the dump


def cut_once(world: World, when: int) -> Rule:
    """Ends pg_dump's session when part `when` or a later one is first sent; all of them wait for that."""
    lock, cut = threading.Lock(), [0]

    def rule(request: Request) -> None:
        with lock:
            if request.part >= when and not cut[0]:
                time.sleep(0.2)
                cut[0] = world.cut_dump()

    return rule


def test_a_dump_that_fails_midway_starts_over_and_the_upload_with_it(
    make_world: WorldFactory, faulty_store: FaultyStore, impatient: None, heard: Heard
) -> None:
    world = make_world(mebibytes=40, settings={"S3_ENDPOINT_URL": faulty_store.endpoint_url}, spool_limit=LIMIT)
    faulty_store.rule = cut_once(world, when=3)
    with watched(world) as held:
        backup()
    assert "exception: DumpFailed(" in heard.text and "Retry 1/3 will start" in heard.text
    assert sum(one.begins_upload and not one.key.endswith("write-check") for one in faulty_store.requests) == 2
    assert max(held) <= LIMIT
    assert stored_text(world) == plain_dump(world.cluster, world.database_url)
    world.check_no_debris()


@pytest.mark.slow
def test_dump_and_upload_run_side_by_side_whatever_prefect_is_set_to(
    make_world: WorldFactory, faulty_store: FaultyStore, impatient: None, heard: Heard
) -> None:
    """With one thread for both, the dump would wait for ever for room in the spool."""
    world = make_world(mebibytes=40, settings={"S3_ENDPOINT_URL": faulty_store.endpoint_url}, spool_limit=LIMIT)
    faulty_store.rule = cut_once(world, when=3)
    with temporary_settings({PREFECT_TASKS_RUNNER_THREAD_POOL_MAX_WORKERS: 1}), watched(world) as held:
        backup()
    assert "exception: DumpFailed(" in heard.text and "Retry 1/3 will start" in heard.text
    assert LIMIT - MIB <= max(held) <= LIMIT
    assert stored_text(world) == plain_dump(world.cluster, world.database_url)
    world.check_no_debris()


def test_the_spool_never_holds_more_than_its_limit_while_the_store_is_slow(
    make_world: WorldFactory, faulty_store: FaultyStore
) -> None:
    world = make_world(mebibytes=16, settings={"S3_ENDPOINT_URL": faulty_store.endpoint_url}, spool_limit=LIMIT)
    faulty_store.rule = lambda request: time.sleep(0.1 if request.part else 0)
    with watched(world) as held:
        backup()
    assert LIMIT - MIB <= max(held) <= LIMIT
    world.check_completed_are_intact()
    world.check_no_debris()


def test_a_dump_of_more_parts_than_the_store_takes_starts_over_with_larger_ones(
    make_world: WorldFactory, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(mebibytes=8, most_parts=3)
    monkeypatch.setattr("tasks.backup.open_backup.part_size_for", lambda *_: MIB)
    backup()
    _, _, manifest = world.newest()
    assert [part["size"] for part in manifest["object"]["parts"]][:1] == [4 * MIB]
    assert stored_text(world) == plain_dump(world.cluster, world.database_url)
    world.check_no_debris()


# --- locks


def test_a_second_backup_of_a_plan_ends_at_once_while_one_of_another_plan_runs(make_world: WorldFactory) -> None:
    world = make_world()
    with exclusive(parse(world.catalogue_url), "backup", "default", "run 1234"):
        began = time.monotonic()
        state = backup(return_state=True)
        assert time.monotonic() - began < 30
        assert "A backup of default is under way already by run 1234 since" in (state.message or "")
        assert "wait for it to end" in (state.message or "")
        assert state.name == REFUSED, "the automations would tell of a failed backup"
        with pytest.raises(AlreadyRunning):
            state.result()
        assert world.rows() == []
    with exclusive(parse(world.catalogue_url), "backup", "another", "run 5678"):
        backup()
    assert world.statuses() == ["completed"]


def test_the_lock_of_a_killed_run_frees_itself(make_world: WorldFactory, faulty_store: FaultyStore) -> None:
    world = make_world(mebibytes=4)
    stalled = threading.Event()

    def rule(request: Request) -> str | None:
        if request.part:
            stalled.set()
            time.sleep(3)
            return "drop"
        return None

    faulty_store.rule = rule
    process = world.start_backup(f"import os; os.environ['S3_ENDPOINT_URL'] = {faulty_store.endpoint_url!r}")
    go(process)
    assert stalled.wait(60)
    with pytest.raises(AlreadyRunning):
        backup()
    kill(process)
    backup()
    assert world.statuses() == ["completed", "failed"]
    assert world.events() == [("backup", "died"), ("backup", "completed")]
    world.check_completed_are_intact()
    world.check_no_debris()


# --- retention


def age(world: World, days: int) -> None:
    """Every completed row is that much older."""
    world.sql(
        "UPDATE database_backups SET created_at = created_at - make_interval(days => %s) WHERE status = 'completed'",
        [days],
        world.catalogue_url,
    )


@pytest.mark.slow
def test_a_backup_removes_those_that_are_due(make_world: WorldFactory) -> None:
    world = make_world()
    old = backup()
    age(world, 8)
    new = backup()
    assert world.statuses() == ["completed", "expired"]
    assert set(world.objects()) == {new.key, manifest_key(new.key)}
    assert ("retention", "expired") in world.events()
    assert old.key not in world.objects()
    world.check_no_debris()


def test_a_retention_that_fails_leaves_the_backup_completed_and_says_so(
    make_world: WorldFactory, faulty_store: FaultyStore
) -> None:
    world = make_world(settings={"S3_ENDPOINT_URL": faulty_store.endpoint_url})
    old = backup()
    age(world, 8)
    faulty_store.rule = lambda request: 403 if request.method == "DELETE" and old.filename in request.key else None
    state = backup(return_state=True)
    assert state.is_failed()
    assert "cannot be deleted" in (state.message or "") and "safe" in (state.message or "")
    with pytest.raises(CleanUpFailed):
        state.result()
    assert world.statuses() == ["completed", "completed"]
    assert world.check_completed_are_intact() == 1, "the removal of the older one was begun"
    assert old.key in world.objects()
    faulty_store.rule = lambda request: None
    backup()
    assert world.statuses() == ["completed", "completed", "expired"]
    world.check_no_debris()


def test_a_collapse_marks_the_backup_suspicious_and_halts_removal(make_world: WorldFactory, heard: Heard) -> None:
    world = make_world(mebibytes=4)
    backup()
    age(world, 30)
    world.sql("DELETE FROM big WHERE id > 100")
    done = backup()
    assert "its size shrank from" in done.suspicious
    assert "suspicious" in heard.text and "nothing will be removed" in heard.text
    assert world.statuses() == ["completed", "completed"]
    assert world.rows()[0].suspicious == done.suspicious
    assert world.check_completed_are_intact() == 2


@pytest.mark.slow
def test_a_newest_backup_that_is_gone_from_the_bucket_does_not_take_the_others_along(make_world: WorldFactory) -> None:
    world = make_world()
    old = backup()
    age(world, 8)
    lost = backup_without_retention(world)
    world.s3.client.delete_object(Bucket=world.bucket, Key=lost)
    from flows.cleanup import cleanup

    with pytest.raises(BackupSystemError, match="is missing from the bucket"):
        cleanup()
    assert world.statuses() == ["missing", "completed"]
    assert old.key in world.objects()


def backup_without_retention(world: World) -> str:
    """The key of one more backup, made while everything stays because of its age."""
    world.sql("UPDATE database_backups SET created_at = created_at + interval '8 days'", url=world.catalogue_url)
    done: Any = backup()
    world.sql(
        "UPDATE database_backups SET created_at = %s WHERE filename <> %s",
        [datetime.now(UTC) - timedelta(days=8), done.filename],
        world.catalogue_url,
    )
    return str(done.key)


@pytest.mark.slow
def test_a_fault_of_the_program_itself_ends_both_steps_and_leaves_a_failed_row(
    make_world: WorldFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(mebibytes=8)
    monkeypatch.setattr(Spool, "publish", lambda *_: (_ for _ in ()).throw(KeyError("a fault of the program")))
    state = backup(return_state=True)
    assert state.is_failed()
    assert world.statuses() == ["failed"]
    world.check_no_debris()


def test_a_catalogue_that_does_not_answer_at_first_is_asked_again(
    make_world: WorldFactory, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tasks.backup.steps

    world = make_world()
    refusals = iter([True, True])
    locked = tasks.backup.steps.exclusive

    def hesitant(*arguments: Any) -> Any:
        if next(refusals, False):
            raise Unreachable("Nobody answers.")
        return locked(*arguments)

    monkeypatch.setattr(tasks.backup.steps, "exclusive", hesitant)
    backup()
    assert [row.status for row in world.rows()] == ["completed"]
