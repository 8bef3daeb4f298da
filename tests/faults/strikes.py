"""What each way to fail does: to the answers of the store, to PostgreSQL, to processes, disks and clocks."""

from __future__ import annotations

import contextvars
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from tests.faults.fault import Fault
from tests.faults.laboratory import Laboratory
from tests.faults.other_workers import server_with_wrong_clock, waiting_workers
from tests.faults.replica import own_bucket_has_lost_it
from tests.support import ci_skip, eventually
from tests.support.faulty_store import Request
from tests.support.servers import standby_of

HELD_SECONDS = 1.5
#: Seconds for which what goes on beside a run is waited for.
_PATIENCE = 90
#: Locks that are left on a server with few.
_FEW_LOCKS = 40
_SESSIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ~ '^({}) '"
_numbers = iter(range(1, 1 << 20))


class Strike:
    """A fault that is armed: it strikes at the first request that it is meant for. `hits` counts these."""

    def __init__(self, lab: Laboratory, fault: Fault, act: Callable[[], None] | None = None) -> None:
        self._lab, self._fault, self._act = lab, fault, act
        self._lock = threading.Lock()
        self.hits = 0
        self.states: list[Any] = []
        """How other runs ended that the fault began."""
        self.threads: list[threading.Thread] = []

    def rule(self, request: Request) -> int | str | None:
        """For the store: what becomes of a request."""
        if not self._fault.strikes(request):
            return None
        with self._lock:
            self.hits += 1
            if self._fault.times and self.hits > self._fault.times:
                return None
        if self._act is None:
            return int(self._fault.how) if self._fault.how.isdigit() else self._fault.how
        self._act()
        return None

    def beside(self, work: Callable[[], object]) -> None:
        """Something goes on beside the run; its end is waited for."""
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(work,), daemon=True)
        self.threads.append(thread)
        thread.start()

    def wait(self) -> None:
        """What goes on beside the run has ended."""
        for thread in self.threads:
            thread.join(_PATIENCE)


@contextmanager
def armed(lab: Laboratory, fault: Fault) -> Iterator[Strike]:
    """During the `with` block the fault strikes; after it, everything works again."""
    strike = Strike(lab, fault)
    context = contextvars.copy_context()
    with _surroundings(lab, fault) as begin_others:
        if fault.where == "replica":
            lab.store.rule = lambda request: own_bucket_has_lost_it(fault, request)
            lab.replica.rule = strike.rule
        else:
            if fault.where != "store":
                strike._act = _act(lab, fault, strike, context, begin_others)
            lab.store.rule = strike.rule
        try:
            yield strike
        finally:
            strike.wait()
            lab.calm()


def _act(
    lab: Laboratory, fault: Fault, strike: Strike, context: contextvars.Context, begin_others: Any
) -> Callable[[], None]:
    """What happens at the place of a fault that is not the store's own. It happens once."""
    if fault.how.startswith("also "):
        [second] = fault.others
        return lambda: strike.beside(lambda: strike.states.append(context.run(lab.run, second)))
    if fault.how.startswith("beside "):
        return lambda: [strike.beside(lambda end=end: strike.states.append(end())) for end in begin_others()] and None
    acts: dict[str, Callable[[], object]] = {
        "cut": lab.postgres.cut,
        "refused connections": lambda: (setattr(lab.postgres, "refused", 3), lab.postgres.cut()),
        "stalled": lambda: lab.postgres.stall(HELD_SECONDS),
        "50 kB a second": lambda: setattr(lab.postgres, "slow", True),
        "ended sessions": lambda: _end(lab, "backup|restore|verify|run"),
        "ended lock": lambda: _end(lab, "run"),
        "no connection left": lambda: strike.beside(lambda: _take_all_connections(lab)),
        "no lock left": lambda: strike.beside(lambda: _hold_locks_for_a_while(lab)),
        "locked table": lambda: strike.beside(lambda: _lock_a_table(lab)),
        "restart": lab.restart,
        "failover": lambda: _fail_over(lab),
        "killed store": lambda: _kill_store(lab, strike),
        "restarted store": lambda: _restart_store(lab),
        "full spool": lambda: fill_up(lab.disk),
        "full server": lambda: fill_up(lab.server_disk),
        "kill pg_dump": lambda: [process.kill() for process in lab.world.dumpers()],
        "kill psql": lambda: [process.kill() for process in lab.world.restorers()],
    }
    act = acts.get(fault.how, lambda: None)
    return lambda: act() and None


@contextmanager
def _surroundings(lab: Laboratory, fault: Fault) -> Iterator[Any]:
    """What a fault needs before the run begins, and what must be put right after it. For `beside`, what begins these."""
    kind, _, value = fault.how.partition(" ")
    kinds: dict[str, Callable[[], Any]] = {
        "zone": lambda: _zone(lab, value),
        "clock": lambda: _clock(lab, value),
        "server": lambda: server_with_wrong_clock(lab, fault.how),
        "beside": lambda: waiting_workers(lab, fault),
        "full": lambda: _disk_that_can_be_full(lab, fault.how),
        "failover": lambda: _with_standby(lab),
        "few": lambda: _few_locks(lab, _FEW_LOCKS),
    }
    with kinds.get(kind, nullcontext)() as given:
        yield given


# --- PostgreSQL


def _end(lab: Laboratory, names: str) -> None:
    lab.world.sql(_SESSIONS.format(names), url=lab.world.catalogue_url)


def _take_all_connections(lab: Laboratory) -> None:
    held: list[Any] = []
    with suppress(psycopg2.OperationalError):
        while True:
            held.append(psycopg2.connect(lab.world.catalogue_url))
    time.sleep(HELD_SECONDS)
    for connection in held:
        connection.close()


def _lock_a_table(lab: Laboratory) -> None:
    with suppress(psycopg2.Error), closing(psycopg2.connect(lab.world.database_url)) as connection:
        connection.cursor().execute("SET lock_timeout = 2000; LOCK TABLE shop.orders IN ACCESS EXCLUSIVE MODE")
        time.sleep(HELD_SECONDS)


@contextmanager
def _few_locks(lab: Laboratory, left: int) -> Iterator[None]:
    """All but so many locks of the server are taken, as by another client's transaction that touches thousands of tables."""
    with closing(psycopg2.connect(lab.world.catalogue_url)) as connection:
        connection.autocommit = True
        cursor, taken = connection.cursor(), 0
        with suppress(psycopg2.errors.OutOfMemory):
            while True:
                cursor.execute("SELECT pg_advisory_lock(51, %s)", [taken])
                taken += 1
        if left:
            cursor.execute("SELECT count(pg_advisory_unlock(51, i)) FROM generate_series(0, %s) i", [left - 1])
        yield


def _hold_locks_for_a_while(lab: Laboratory) -> None:
    with _few_locks(lab, 0):
        time.sleep(HELD_SECONDS)


@contextmanager
def _with_standby(lab: Laboratory) -> Iterator[None]:
    """A standby is ready to be promoted; in the end the world is on the server that was promoted."""
    primary = lab.world.cluster
    directory = primary.directory.parent / f"standby-{next(_numbers)}"
    standby = standby_of(primary, directory)
    lab.standby = lab.keeper.submit(standby.__enter__).result()
    lab.running.append(standby)
    yield
    if lab.world.cluster is primary:
        lab.keeper.submit(standby.__exit__, None, None, None).result()


def _fail_over(lab: Laboratory) -> None:
    """The standby has everything that was committed; then the primary is gone, and the standby takes its place."""
    primary, standby = lab.world.cluster, lab.standby
    assert standby is not None
    [(written,)] = lab.world.sql("SELECT pg_current_wal_lsn()", url=lab.world.catalogue_url)
    there = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
    assert eventually(lambda: lab.world.sql(there, [written], standby.url()) == [(True,)])
    lab.keeper.submit(primary.stop, True).result()
    lab.postgres.cut()
    lab.world.sql("SELECT pg_promote()", url=standby.url())
    lab.move_to(standby)


# --- the store's process


def _kill_store(lab: Laboratory, strike: Strike) -> None:
    """The store is away for a while."""
    _end_store(lab)
    strike.beside(lambda: (time.sleep(HELD_SECONDS), lab.keeper.submit(lab.world.s3.start).result()))


def _end_store(lab: Laboratory) -> None:
    process = lab.world.s3.service.process
    assert process is not None
    process.kill()
    process.wait(10)


def _restart_store(lab: Laboratory) -> None:
    """The store is killed, and answers again before the request that killed it is passed on."""
    _end_store(lab)
    lab.keeper.submit(lab.world.s3.start).result()


# --- disks


def fill_up(disk: Path | None) -> None:
    """No byte is free on a disk any more."""
    assert disk is not None
    with (disk / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError, match="No space"):
        while True:
            filler.write(b"\0" * 4096)


@contextmanager
def _disk_that_can_be_full(lab: Laboratory, which: str) -> Iterator[None]:
    if lab.disk is None:
        ci_skip("a small disk can be mounted by root alone")
    with _live_on_small_disk(lab) if which == "full server" else nullcontext(lab.disk) as disk:
        try:
            yield
        finally:
            (disk / "filler").unlink(missing_ok=True)


@contextmanager
def _live_on_small_disk(lab: Laboratory) -> Iterator[Path]:
    """The live database is in a tablespace of its own, and so is what replaces it."""
    place = lab.server_disk / "tablespace"
    place.mkdir(mode=0o700, exist_ok=True)
    status = lab.world.cluster.data_directory.stat()
    os.chown(place, status.st_uid, status.st_gid)
    lab.world.sql(f"CREATE TABLESPACE small LOCATION '{place}'", url=lab.world.catalogue_url)
    _move_live(lab, "small")
    try:
        yield lab.server_disk
    finally:
        (lab.server_disk / "filler").unlink(missing_ok=True)
        for sign in ("__before_", "__restoring_", "__verifying_"):
            lab.world.drop(sign)
        _move_live(lab, "pg_default")
        lab.world.sql("DROP TABLESPACE small", url=lab.world.catalogue_url)


def _move_live(lab: Laboratory, tablespace: str) -> None:
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
    lab.world.sql(end, [lab.live], lab.world.catalogue_url)
    lab.world.sql(f"ALTER DATABASE {lab.live} SET TABLESPACE {tablespace}", url=lab.world.catalogue_url)


# --- clocks


@contextmanager
def _zone(lab: Laboratory, zone: str) -> Iterator[None]:
    """This machine and the database are in another zone, with another style of dates."""
    before = os.environ.get("TZ")
    changes = [f"ALTER DATABASE {name} {{}}" for name in (lab.live, "catalogue")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", zone)
        patch.setenv("PGTZ", zone)
        time.tzset()
        for setting in (f"SET TimeZone = '{zone}'", "SET DateStyle = 'SQL, DMY'", "SET IntervalStyle = 'iso_8601'"):
            for change in changes:
                lab.world.sql(change.format(setting), url=lab.world.catalogue_url)
        try:
            yield
        finally:
            for name in ("TimeZone", "DateStyle", "IntervalStyle"):
                for change in changes:
                    lab.world.sql(change.format(f"RESET {name}"), url=lab.world.catalogue_url)
    assert os.environ.get("TZ") == before
    time.tzset()


@contextmanager
def _clock(lab: Laboratory, words: str) -> Iterator[None]:
    """The clock of this machine is wrong: what this system reads of it is later or earlier."""
    number, unit, direction = words.split()
    apart = timedelta(**{{"h": "hours", "days": "days"}[unit]: int(number) * (1 if direction == "ahead" else -1)})

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + apart

    with pytest.MonkeyPatch.context() as patch:
        for name, module in list(sys.modules.items()):
            if name.startswith("tasks.") and getattr(module, "datetime", None) is datetime:
                patch.setattr(module, "datetime", Wrong)
        yield
