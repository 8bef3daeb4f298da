"""The swap: the live database is the old one or the new one, whole, at every moment and whatever dies."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import psycopg2
import pytest

from deployments.quick_start.postgres import PostgresCluster
from tasks.catalogue.catalogue import Catalogue
from tasks.catalogue.rows import Event
from tasks.errors import AccessRefused, BackupNotFound, BackupSystemError, CatalogueUnavailable, SwapFailed
from tasks.postgres.dsn import Dsn
from tasks.postgres.server import rows
from tasks.restore import carry as carry_module
from tasks.restore import databases, swap_sessions
from tasks.restore import swap as module
from tasks.restore.apply_properties import apply_properties
from tasks.restore.kept_databases import kept
from tasks.restore.labels import kept_name, label_of, scratch_name
from tasks.restore.put_into_place import swap_back as undo
from tasks.restore.swap import NAME, swap
from tests.conftest import DatabaseFactory
from tests.support import eventually
from tests.support.server_side import address, drop, names, properties, role, run, session, value

AT = datetime(2026, 3, 1, 2, 3, 4, tzinfo=UTC)
#: A swap takes milliseconds; the README promises this at most, and a machine that runs other tests needs room.
SECONDS = 5
CHECKOUT = Path(__file__).parents[2]
Names = Callable[..., str]


@pytest.fixture
def pair(postgres_server: PostgresCluster, fresh_database: DatabaseFactory) -> Names:
    """`pair(name, owner="") -> scratch`: a live database that says old, and a scratch like it that says new."""

    def create(name: str, owner: str = "") -> str:
        fresh_database(postgres_server, name)
        with session(postgres_server) as server:
            if owner:
                run(server, "ALTER DATABASE {d} OWNER TO {o}", d=name, o=owner)
        return _incoming(postgres_server, name, owner)

    return create


def _incoming(cluster: PostgresCluster, name: str, owner: str = "", at: datetime = AT) -> str:
    scratch = scratch_name(name, at)
    with session(cluster) as server:
        like = properties(cluster, name)
        databases.create_like(server, scratch, like)
        apply_properties(server, scratch, like)
    for database, word in ((name, "old"), (scratch, "new")):
        with session(cluster, database) as inside:
            run(inside, f"CREATE TABLE IF NOT EXISTS said AS SELECT '{word}' AS word; GRANT ALL ON said TO PUBLIC")
            if owner:
                run(inside, "ALTER TABLE said OWNER TO {o}", o=owner)
    return scratch


def _says(cluster: PostgresCluster, database: str, user: str | None = None) -> object:
    with session(cluster, database, user) as connection:
        return value(connection, "SELECT word FROM public.said")


def _comment(cluster: PostgresCluster, name: str) -> object:
    with session(cluster) as server:
        return value(
            server, "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %(n)s", n=name
        )


@pytest.mark.parametrize("name", ["shop", 'Sh\'op "x" 100% ü', "-lead {d}", "ü" * 31 + "x"])
def test_a_swap_and_its_undo_bring_each_database_back_whole(
    postgres_server: PostgresCluster, pair: Names, name: str
) -> None:
    fresh = pair(name)
    drop(postgres_server, fresh)
    with session(postgres_server) as server:
        run(server, "COMMENT ON DATABASE {d} IS 'it''s \"ours\" 100%'", d=name)
    incoming = _incoming(postgres_server, name)
    done = swap(address(postgres_server, name), name, incoming, AT, "run-1")
    assert done.kept == kept_name(name, AT) and done.seconds < SECONDS
    assert (_says(postgres_server, name), _says(postgres_server, done.kept)) == ("new", "old")
    assert _comment(postgres_server, name) == 'it\'s "ours" 100%'
    label = label_of(done.kept, str(_comment(postgres_server, done.kept)))
    assert label and (label.database, label.at, label.run_id, label.comment) == (name, AT, "run-1", 'it\'s "ours" 100%')
    assert label.replaced_by == "restore"
    with session(postgres_server) as server:
        run(server, "COMMENT ON DATABASE {d} IS NULL", d=name)
    back = undo(address(postgres_server, name), name, AT + timedelta(hours=1), "run-2")
    label = label_of(back.kept, str(_comment(postgres_server, back.kept)))
    assert label and label.replaced_by == "undo-restore"
    assert (_says(postgres_server, name), _says(postgres_server, back.kept)) == ("old", "new")
    assert _comment(postgres_server, name) == 'it\'s "ours" 100%'
    again = undo(address(postgres_server, name), name, AT + timedelta(hours=1), "run-3")
    assert _says(postgres_server, name) == "new" and _comment(postgres_server, name) is None
    assert again.kept == kept_name(name, AT + timedelta(hours=1), {back.kept})
    assert not {incoming, done.kept} & names(postgres_server)
    drop(postgres_server, name, again.kept)


def test_a_database_that_does_not_exist_is_only_named_and_never_overwritten(
    postgres_server: PostgresCluster, pair: Names
) -> None:
    incoming = pair("newcomer")
    with pytest.raises(SwapFailed, match="There is a database newcomer already"):
        swap(address(postgres_server), "newcomer", incoming, AT, "run", must_be_new=True)
    drop(postgres_server, "newcomer")
    done = swap(address(postgres_server), "newcomer", incoming, AT, "run", must_be_new=True)
    assert done.kept == "" and _says(postgres_server, "newcomer") == "new"
    assert _comment(postgres_server, "newcomer") is None
    with pytest.raises(SwapFailed, match="There is no database"):
        swap(address(postgres_server), "newcomer", incoming, AT, "run")
    drop(postgres_server, "newcomer")


def test_nothing_kept_is_one_sentence(postgres_server: PostgresCluster, pair: Names) -> None:
    incoming = pair("lonely")
    with pytest.raises(BackupNotFound, match="No database is kept that lonely could be swapped back to"):
        undo(address(postgres_server, "lonely"), "lonely", AT, "run")
    drop(postgres_server, "lonely", incoming)


def test_clients_that_connect_all_the_time_see_old_then_new_and_seconds_of_nothing_at_most(
    postgres_server: PostgresCluster, pair: Names
) -> None:
    incoming = pair("busy")
    stop = threading.Event()
    seen: list[list[tuple[float, object]]] = [[] for _ in range(3)]

    def client(number: int) -> None:
        connection = None
        while not stop.is_set():
            try:
                connection = connection or address(postgres_server, "busy").connect("client")
                seen[number].append((time.monotonic(), value(connection, "SELECT word FROM said")))
                if number == 0:  # a new connection every time
                    connection.close()
                    connection = None
            except (psycopg2.Error, BackupSystemError):
                connection = None
            time.sleep(0.005)
        if connection:
            connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    assert eventually(lambda: all(seen))
    done = swap(address(postgres_server, "busy"), "busy", incoming, AT, "run")
    assert eventually(lambda: all(answers[-1][1] == "new" for answers in seen))
    stop.set()
    for thread in threads:
        thread.join()
    for answers in seen:
        words = [word for _, word in answers]
        assert words == sorted(words, reverse=True) and set(words) == {"old", "new"}
        gaps = [b[0] - a[0] for a, b in itertools.pairwise(answers)]
        assert max(gaps) < SECONDS
    assert done.seconds < SECONDS
    drop(postgres_server, "busy", done.kept)


def test_sessions_in_both_databases_are_ended_and_others_are_not(postgres_server: PostgresCluster, pair: Names) -> None:
    incoming = pair("visited")
    with contextlib.ExitStack() as stack:
        guests = [stack.enter_context(session(postgres_server, name)) for name in ("visited", "visited", incoming)]
        bystander = stack.enter_context(session(postgres_server))
        run(guests[0], "BEGIN; LOCK TABLE said")
        done = swap(address(postgres_server, "visited"), "visited", incoming, AT, "run")
        for guest in guests:
            with pytest.raises(psycopg2.OperationalError):
                run(guest, "SELECT 1")
        assert value(bystander, "SELECT 1") == 1
    assert done.seconds < SECONDS
    drop(postgres_server, "visited", done.kept)


def test_an_open_change_of_the_database_itself_does_not_hold_the_swap_up(
    postgres_server: PostgresCluster, pair: Names
) -> None:
    incoming = pair("altered")
    with session(postgres_server, "altered") as guest:
        run(guest, "BEGIN; ALTER DATABASE altered SET work_mem = '9MB'")
        done = swap(address(postgres_server, "altered"), "altered", incoming, AT, "run")
    assert _says(postgres_server, "altered") == "new"
    drop(postgres_server, "altered", done.kept)


@pytest.fixture
def preparing_server(any_postgres: PostgresCluster, servers_directory: Path) -> Iterator[PostgresCluster]:
    """A server that takes prepared transactions."""
    cluster = PostgresCluster(servers_directory / "preparing", any_postgres.bin_directory, durable=False, owned=True)
    cluster.start()
    with session(cluster) as server:
        run(server, "ALTER SYSTEM SET max_prepared_transactions = 2")
    cluster.stop(immediate=True)
    cluster.start()
    yield cluster
    cluster.stop(immediate=True)


def test_a_prepared_transaction_is_named_and_nobody_is_ended(
    preparing_server: PostgresCluster, fresh_database: DatabaseFactory
) -> None:
    fresh_database(preparing_server, "prepared")
    incoming = _incoming(preparing_server, "prepared")
    with session(preparing_server, "prepared") as guest:
        run(guest, "BEGIN; INSERT INTO said VALUES ('x'); PREPARE TRANSACTION 'it is 4711'")
        with pytest.raises(SwapFailed, match="it is 4711"):
            swap(address(preparing_server, "prepared"), "prepared", incoming, AT, "run")
        assert _says(preparing_server, "prepared") == "old"
        assert value(guest, "SELECT 1") == 1


# --- roles other than the superuser


def test_an_owner_with_createdb_swaps_and_undoes(postgres_server: PostgresCluster, pair: Names) -> None:
    role(postgres_server, "swapper", "CREATEDB")
    incoming = pair("theirs", "swapper")
    mine = address(postgres_server, "theirs", "swapper")
    with session(postgres_server, "theirs", "swapper") as guest:
        done = swap(mine, "theirs", incoming, AT, "run")
        with pytest.raises(psycopg2.OperationalError):
            run(guest, "SELECT 1")
    assert _says(postgres_server, "theirs", "swapper") == "new"
    back = undo(mine, "theirs", AT + timedelta(hours=1), "run")
    assert _says(postgres_server, "theirs", "swapper") == "old"
    drop(postgres_server, "theirs", back.kept)
    assert done.kept not in names(postgres_server)


@pytest.mark.slow
@pytest.mark.parametrize("who", ["postgres", "stranger"])
def test_a_session_that_may_not_be_ended_is_named_and_everything_stays(
    postgres_server: PostgresCluster, pair: Names, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swap_sessions, "_PATIENCE", 0.5)
    role(postgres_server, "swapper", "CREATEDB")
    role(postgres_server, "stranger")
    incoming = pair("occupied", "swapper")
    user = None if who == "postgres" else who
    with session(postgres_server, "occupied", user) as guest, session(postgres_server, "occupied", "swapper") as own:
        with pytest.raises(SwapFailed, match=rf"may not end session {guest.info.backend_pid} of {who}"):
            swap(address(postgres_server, "occupied", "swapper"), "occupied", incoming, AT, "run")
        assert value(guest, "SELECT 1") == value(own, "SELECT 1") == 1
        if who == "stranger":
            with session(postgres_server) as server:
                run(server, "GRANT pg_signal_backend TO swapper")
            done = swap(address(postgres_server, "occupied", "swapper"), "occupied", incoming, AT, "run")
            with session(postgres_server) as server:
                run(server, "REVOKE pg_signal_backend FROM swapper")
            drop(postgres_server, done.kept)
    drop(postgres_server, "occupied", incoming)


@pytest.mark.slow
def test_a_session_that_comes_too_late_to_be_noticed_is_named_and_the_others_get_in_again(
    postgres_server: PostgresCluster, pair: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    role(postgres_server, "swapper", "CREATEDB")
    role(postgres_server, "stranger")
    incoming = pair("late", "swapper")
    monkeypatch.setattr(swap_sessions, "check", lambda *_: None)
    with session(postgres_server, "late", "stranger") as guest:
        with pytest.raises(
            SwapFailed, match=rf"being accessed.*sessions? .*{guest.info.backend_pid} of stranger \(test\)"
        ):
            swap(address(postgres_server, "late", "swapper"), "late", incoming, AT, "run")
        assert value(guest, "SELECT 1") == 1 and _says(postgres_server, "late", "swapper") == "old"
    drop(postgres_server, "late", incoming)


def test_a_database_that_takes_no_connections_never_goes_live(postgres_server: PostgresCluster, pair: Names) -> None:
    incoming = pair("sound")
    done = swap(address(postgres_server, "sound"), "sound", incoming, AT, "run")
    with session(postgres_server) as server:
        for state in ("datallowconn = false", "datallowconn = true, datconnlimit = -2"):
            rows(server, f"UPDATE pg_database SET {state} WHERE datname = %(n)s RETURNING 1", n=done.kept)
            with pytest.raises(SwapFailed, match="takes no connections"):
                undo(address(postgres_server, "sound"), "sound", AT, "run")
        assert [one.name for one in kept(server, "sound")] == [done.kept]
    assert _says(postgres_server, "sound") == "new"
    drop(postgres_server, "sound", done.kept)


def test_a_session_that_may_not_be_ended_and_goes_by_itself_is_waited_for(
    postgres_server: PostgresCluster, pair: Names
) -> None:
    role(postgres_server, "swapper", "CREATEDB")
    incoming = pair("awaited", "swapper")
    guest = address(postgres_server, "awaited").connect("monitoring")
    threading.Timer(1, guest.close).start()
    done = swap(address(postgres_server, "awaited", "swapper"), "awaited", incoming, AT, "run")
    assert done.seconds < SECONDS
    drop(postgres_server, "awaited", done.kept)


def test_a_role_without_the_privilege_is_refused_clearly(postgres_server: PostgresCluster, pair: Names) -> None:
    role(postgres_server, "mere", "")
    incoming = pair("guarded", "mere")
    with pytest.raises(AccessRefused, match="permission denied to rename database"):
        swap(address(postgres_server, "guarded", "mere"), "guarded", incoming, AT, "run")
    assert _says(postgres_server, "guarded") == "old"
    drop(postgres_server, "guarded", incoming)


def test_a_role_that_gets_into_no_other_database_is_told_so(postgres_server: PostgresCluster, pair: Names) -> None:
    role(postgres_server, "swapper", "CREATEDB")
    incoming = pair("walled", "swapper")
    with session(postgres_server) as server:
        try:
            run(server, "REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC")
            with pytest.raises(SwapFailed, match="can connect to no other database"):
                swap(address(postgres_server, "walled", "swapper"), "walled", incoming, AT, "run")
        finally:
            run(server, "GRANT CONNECT ON DATABASE postgres, template1 TO PUBLIC")
    drop(postgres_server, "walled", incoming)


# --- whatever dies

_SWAPPER = """
import os, signal, sys
from datetime import UTC, datetime
from tasks.postgres.dsn import parse
from tasks.restore.swap import swap
dsn = parse(os.environ["DATABASE"])
if os.environ.get("FREEZES"):
    from tasks.restore import swap as module
    real, renames = module.on, []
    def on(words, *names, **more):
        renames.append("RENAME" in words)
        if words.endswith("RENAME TO {n}") and sum(renames) == 2:
            os.kill(os.getpid(), signal.SIGSTOP)
        return real(words, *names, **more)
    module.on = on
print("ready", flush=True)
sys.stdin.readline()
swap(dsn, dsn.dbname, os.environ["INCOMING"], datetime(2026, 3, 1, tzinfo=UTC), "the dead one")
print("done", flush=True)
"""


def _swapper(cluster: PostgresCluster, name: str, incoming: str, **more: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "DATABASE": cluster.url(name), "INCOMING": incoming, **more}
    child = subprocess.Popen(
        [sys.executable, "-c", _SWAPPER],
        cwd=CHECKOUT,
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout and child.stdout.readline() == "ready\n"
    return child


@pytest.mark.slow
def test_a_swap_killed_at_any_moment_leaves_the_old_or_the_new_database_and_the_next_one_succeeds(
    postgres_server: PostgresCluster, pair: Names
) -> None:
    chance, outcomes = random.Random(4711), []
    for number in range(15):
        incoming = pair("mortal")
        child = _swapper(postgres_server, "mortal", incoming)
        with contextlib.ExitStack() as stack:
            for _ in range(number % 3):
                stack.enter_context(session(postgres_server, "mortal"))
            assert child.stdin
            child.stdin.write("\n")
            child.stdin.flush()
            time.sleep(chance.uniform(0, 0.25))
            child.kill()
            child.communicate()
        began = time.monotonic()
        says = _says(postgres_server, "mortal")
        assert time.monotonic() - began < 6, "nobody waits, with room for a slow machine"
        existing = names(postgres_server)
        kept_now = kept_name("mortal", datetime(2026, 3, 1, tzinfo=UTC))
        assert (says, incoming in existing, kept_now in existing) in (("old", True, False), ("new", False, True))
        outcomes.append(says)
        with session(postgres_server) as server:
            databases.drop_scratches(server, "mortal")
        again = swap(address(postgres_server, "mortal"), "mortal", _incoming(postgres_server, "mortal"), AT, "next")
        assert _says(postgres_server, again.kept) == says
        drop(postgres_server, again.kept, kept_now)
    assert set(outcomes) <= {"old", "new"} and len(outcomes) == 15
    drop(postgres_server, "mortal")


def test_a_process_that_is_frozen_between_the_renames_keeps_new_connections_waiting_for_seconds_at_most(
    postgres_server: PostgresCluster, pair: Names
) -> None:
    incoming = pair("chilled")
    child = _swapper(postgres_server, "chilled", incoming, FREEZES="yes")
    assert child.stdin
    child.stdin.write("\n")
    child.stdin.flush()
    try:
        assert eventually(lambda: psutil.Process(child.pid).status() == psutil.STATUS_STOPPED)
        began = time.monotonic()
        assert _says(postgres_server, "chilled") == "old"
        assert time.monotonic() - began < 6, "3 seconds, with room for a slow machine"
    finally:
        child.send_signal(signal.SIGCONT)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 1 and "tasks.errors.Unreachable: The connection to" in said, said
    assert kept_name("chilled", datetime(2026, 3, 1, tzinfo=UTC)) not in names(postgres_server)
    kept_now = swap(address(postgres_server, "chilled"), "chilled", incoming, AT, "next").kept
    assert _says(postgres_server, "chilled") == "new" and _says(postgres_server, kept_now) == "old"
    drop(postgres_server, "chilled", kept_now)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_commit_without_an_answer_is_told_by_what_the_server_says(
    postgres_server: PostgresCluster, pair: Names, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    from tasks.restore import swap as module

    incoming = pair("unsure")
    real = module._execute

    def broken(connection: psycopg2.extensions.connection, *statements: str) -> None:
        if statements == ("COMMIT",):
            if when == "after":
                real(connection, "COMMIT")
            connection.close()
            raise psycopg2.OperationalError("the wire broke")
        real(connection, *statements)

    monkeypatch.setattr(module, "_execute", broken)
    with contextlib.nullcontext() if when == "after" else pytest.raises(BackupSystemError, match="broke"):
        swap(address(postgres_server, "unsure"), "unsure", incoming, AT, "run")
    assert _says(postgres_server, "unsure") == {"before": "old", "after": "new"}[when]
    drop(postgres_server, "unsure", incoming, kept_name("unsure", AT))


def test_a_server_that_does_not_answer_is_said_to_leave_the_outcome_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_OUTCOME_PATIENCE", 0.3)
    with pytest.raises(BackupSystemError, match="either the old database or the restored one, whole in both cases"):
        module.is_done(Dsn({"host": "127.0.0.1", "port": "1", "user": "u", "dbname": "d"}), 1, NAME, 1, "shop")


def test_a_backend_of_the_swap_that_is_ended_leaves_everything_as_it_was(
    postgres_server: PostgresCluster, pair: Names
) -> None:
    incoming = pair("cut off")
    role(postgres_server, "swapper", "CREATEDB")
    with session(postgres_server, "cut off") as guest, session(postgres_server) as server:
        run(server, "ALTER DATABASE {a} OWNER TO swapper; ALTER DATABASE {b} OWNER TO swapper", a="cut off", b=incoming)
        del guest
        stop = threading.Event()

        def end() -> None:
            while not stop.is_set():
                rows(
                    server,
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %(n)s"
                    " AND query LIKE 'ALTER DATABASE%%' AND state = 'active'",
                    n=NAME,
                )
                time.sleep(0.001)

        ender = threading.Thread(target=end)
        ender.start()
        try:
            with pytest.raises(BackupSystemError):
                swap(address(postgres_server, "cut off"), "cut off", incoming, AT, "run")
        finally:
            stop.set()
            ender.join()
    assert _says(postgres_server, "cut off") == "old"
    assert kept_name("cut off", AT) not in names(postgres_server)
    drop(postgres_server, "cut off", incoming)


# --- the catalogue comes along


def _event(number: int) -> Event:
    return Event("note", "completed", "p", "ann", f"line {number}")


def _lines(dsn: Dsn) -> list[str]:
    with dsn.session("test") as connection:
        return [row["run_id"] for row in rows(connection, "SELECT run_id FROM backup_events ORDER BY id")]


@pytest.mark.parametrize("user", [None, "swapper"])
def test_the_catalogue_never_rolls_back_and_no_line_written_meanwhile_is_lost(
    postgres_server: PostgresCluster, pair: Names, user: str | None
) -> None:
    role(postgres_server, "swapper", "CREATEDB")
    role(postgres_server, "reader", "")
    with session(postgres_server) as server:
        run(server, "GRANT pg_signal_backend TO swapper")
    incoming = pair("with lines", "swapper")
    dsn = address(postgres_server, "with lines", user)
    with session(postgres_server, "with lines", user) as inside:
        run(inside, "CREATE SCHEMA {s}", s='Cat "a" 100%')
        run(
            inside,
            "ALTER ROLE {r} IN DATABASE {d} SET search_path = {s}",
            r=user or "postgres",
            d="with lines",
            s='Cat "a" 100%',
        )
    with session(postgres_server) as server:
        run(
            server,
            "ALTER ROLE {r} IN DATABASE {d} SET search_path = {s}",
            r=user or "postgres",
            d=incoming,
            s='Cat "a" 100%',
        )
    catalogue = Catalogue(dsn)
    catalogue.prepare()
    catalogue.open("backup_x.sql", "k", "p", "r", "ann", AT, "full")
    with dsn.session("test") as inside:
        run(inside, "GRANT USAGE ON SCHEMA {s} TO reader", s='Cat "a" 100%')
        run(inside, "GRANT SELECT ON database_backups TO reader; GRANT USAGE ON backup_events_id_seq TO reader")
        carry = catalogue.own_tables_in(inside)
    assert len(carry) == 4
    stop, written = threading.Event(), []

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            with contextlib.suppress(CatalogueUnavailable, BackupSystemError):
                catalogue.note(_event(number))
                written.append(f"line {number}")
            time.sleep(0.003)

    writers = [threading.Thread(target=write)]
    for writer in writers:
        writer.start()
    assert eventually(lambda: bool(written))
    try:
        done = swap(dsn, "with lines", incoming, AT, "run", carry)
        assert eventually(lambda: _lines(dsn)[-3:] == written[-3:] or len(_lines(dsn)) > 20)
        time.sleep(0.2)
        assert _says(postgres_server, "with lines") == "new"
        before_undo = len(written)
        back = undo(dsn, "with lines", AT + timedelta(hours=1), "run", carry)
        assert eventually(lambda: len(written) > before_undo)
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert _says(postgres_server, "with lines") == "old" and done.seconds < SECONDS and back.seconds < SECONDS
    lines = _lines(dsn)
    assert set(written) <= set(lines) and len(lines) == len(set(lines)) <= len(written) + 3
    assert [row.filename for row in catalogue.rows("p")] == ["backup_x.sql"]
    with dsn.session("test") as inside:
        assert value(
            inside,
            "SELECT has_table_privilege('reader', 'database_backups', 'SELECT')"
            " AND has_sequence_privilege('reader', 'backup_events_id_seq', 'USAGE')",
        )
        with pytest.raises(psycopg2.errors.RaiseException, match="append-only"):
            run(inside, "DELETE FROM backup_events")
        ids = [row["id"] for row in rows(inside, "SELECT id FROM backup_events ORDER BY id")]
    catalogue.note(_event(-1))
    with dsn.session("test") as inside:
        assert value(inside, "SELECT max(id) FROM backup_events") == ids[-1] + 1 or ids[-1] < 10**6
    assert catalogue.open("backup_y.sql", "k", "p", "r", "ann", AT, "full") == 2
    drop(postgres_server, "with lines", back.kept)
    with session(postgres_server) as server:
        run(server, "REVOKE pg_signal_backend FROM swapper")


def test_a_catalogue_that_cannot_be_locked_stops_the_swap_and_says_so(
    postgres_server: PostgresCluster, pair: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    role(postgres_server, "swapper", "CREATEDB")
    incoming = pair("foreign lines", "swapper")
    catalogue = Catalogue(address(postgres_server, "foreign lines"))
    catalogue.prepare()
    with session(postgres_server, "foreign lines") as inside:
        carry = catalogue.own_tables_in(inside)
    with pytest.raises(SwapFailed, match=r"permission denied for table .*let role swapper own them"):
        swap(address(postgres_server, "foreign lines", "swapper"), "foreign lines", incoming, AT, "run", carry)
    monkeypatch.setattr(carry_module, "_SETTINGS", (*carry_module._SETTINGS, "SET lock_timeout = '300ms'"))
    with session(postgres_server, "foreign lines") as guest:
        run(guest, "BEGIN; LOCK TABLE backup_events IN ROW EXCLUSIVE MODE")
        with pytest.raises(SwapFailed, match="lock timeout"):
            swap(address(postgres_server, "foreign lines"), "foreign lines", incoming, AT, "run", carry)
        assert value(guest, "SELECT 1") == 1
    assert _says(postgres_server, "foreign lines") == "old"
    with session(postgres_server) as server:
        assert kept(server, "foreign lines") == []
    drop(postgres_server, "foreign lines", incoming)
