"""Random operations beside clients that write, for as long as wanted; afterwards all must agree and be as before."""

from __future__ import annotations

import gc
import os
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import psutil
import psycopg2
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker

from flows.delete_backup import delete_backup
from flows.restore import restore
from flows.undo_restore import undo_restore
from flows.verify_backup import verify_backup
from tests.faults.fault import BACKUP, CLEANUP, DELETE, IN_PLACE, NEW_DATABASE, SWAP, VERIFY
from tests.faults.laboratory import MARKER, Laboratory
from tests.faults.report import MOST_GROWTH
from tests.support import eventually
from tests.support.faulty_store import Request
from tests.support.world import paths_below

UNDO = "undo"
#: How often each operation comes, beside the others.
WEIGHTS = {BACKUP: 6, SWAP: 3, IN_PLACE: 2, NEW_DATABASE: 2, VERIFY: 2, CLEANUP: 2, DELETE: 3, UNDO: 1}
#: How many operations come before the first measurement: what is made once is there then.
WARM_UP = len(WEIGHTS)
#: Of how many requests to the store one fails.
ONE_FAILS_IN = 60
#: By how much a measure may be more than before; the others not at all.
SLACK = {"memory of this process, MB": 80, "open files": 8, "threads": 8}
#: From this number of operations on, memory is judged by how it grows at the end.
MANY = 200


@dataclass
class Soak:
    """One run. What is random about it comes from the seed."""

    lab: Laboratory
    seed: int
    done: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)
    before: dict[str, int] = field(default_factory=dict)
    after: dict[str, int] = field(default_factory=dict)
    memory: list[int] = field(default_factory=list)
    """Of this process after each operation, in kB."""

    def run(self, minutes: float) -> None:
        """Runs operations for this number of minutes, then compares."""
        chance = random.Random(self.seed)
        self.lab.begin(BACKUP)
        for operation in WEIGHTS:
            self._operate(operation, chance)
        self.before = self._measures()
        give_up = time.monotonic() + 60 * minutes
        with self._writers(), self._store_that_fails(chance):
            while time.monotonic() < give_up:
                [operation] = chance.choices(list(WEIGHTS), list(WEIGHTS.values()))
                self._operate(operation, chance)
        self._compare()
        self.after = self._measures()
        self.differences += [
            f"{name}: {self.before[name]} before, {value} after"
            for name, value in self.after.items()
            if value > self.before[name] + SLACK.get(name, 0)
        ]
        if len(self.memory) >= MANY and growth(self.memory) > MOST_GROWTH:
            self.differences.append(f"memory still grows by {growth(self.memory):.0f} kB with each operation")

    def _operate(self, operation: str, chance: random.Random) -> None:
        names = [row.filename for row in self.lab.world.rows() if row.status == "completed"]
        chosen, live = chance.choice(names), self.lab.live
        calls: dict[str, Any] = {
            SWAP: lambda: restore(chosen, return_state=True),
            IN_PLACE: lambda: restore(chosen, mode="in_place", confirm=live, return_state=True),
            NEW_DATABASE: lambda: restore(chosen, mode="new_database", target=f"{live}_look_s", return_state=True),
            VERIFY: lambda: verify_backup(chosen, return_state=True),
            DELETE: lambda: delete_backup(chosen, return_state=True),
            UNDO: lambda: undo_restore(return_state=True),
        }
        if operation == DELETE and (len(names) < 4 or chosen in (names[0], self.lab.base)):
            return
        for sign in ("_look_", "__before_") if len(self.lab.world.databases()) > 8 else ("_look_",):
            self.lab.world.drop(sign)
        state = calls.get(operation, lambda: self.lab.run(operation))()
        self.done[operation] += 1
        self._forget_what_tests_keep()
        self.memory.append(psutil.Process().memory_info().rss >> 10)
        message = str(state.message)
        if not state.is_completed() and not state.is_failed():
            self.differences.append(f"{operation} ended as {state.type.value}: {message}")
        if "Flow run encountered an exception" in message or MARKER in message:
            self.differences.append(f"{operation} said: {message}")

    def _forget_what_tests_keep(self) -> None:
        for kept in (self.lab.store.requests, self.lab.store.passed, self.lab.heard.lines):
            kept.clear()

    # --- beside the operations

    @contextmanager
    def _writers(self) -> Iterator[None]:
        """Two clients that write to the live database all the time, whatever becomes of their connections."""
        ended = threading.Event()

        def write(number: int) -> None:
            while not ended.wait(0.05):
                with suppress(psycopg2.Error):
                    self._write(f"writer {number}")

        writers = [threading.Thread(target=write, args=(number,)) for number in range(2)]
        for writer in writers:
            writer.start()
        try:
            yield
        finally:
            ended.set()
            for writer in writers:
                writer.join()

    def _write(self, text: str) -> None:
        """A row more, also after a restore of a backup that has no such table."""
        table = "CREATE TABLE IF NOT EXISTS shop.written (at timestamptz, text text)"
        self.lab.world.sql(f"{table}; INSERT INTO shop.written VALUES (now(), %s)", [text])

    @contextmanager
    def _store_that_fails(self, chance: random.Random) -> Iterator[None]:
        """Now and then a request fails in a way that passes."""
        lock = threading.Lock()

        def rule(_: Request) -> int | str | None:
            with lock:
                return (
                    chance.choice((503, "drop", "deaf", "late", "short"))
                    if not chance.randrange(ONE_FAILS_IN)
                    else None
                )

        self.lab.store.rule = rule
        try:
            yield
        finally:
            self.lab.calm()

    # --- afterwards

    def _compare(self) -> None:
        """Catalogue, bucket and databases agree, and what is backed up now comes back as it is."""
        lab = self.lab
        lab.world.drop("_look_")
        if lab.debris():
            lab.run(CLEANUP)
        self.differences += lab.debris()
        try:
            lab.world.check_completed_are_intact()
        except Exception as error:
            self.differences.append(f"a completed row has no intact object: {type(error).__name__} {error}")
        made = lab.run(BACKUP).result()
        now = lab.dump()
        self._write("after the backup")
        state = restore(made.filename, return_state=True)
        if not state.is_completed() or lab.dump() != now:
            self.differences.append(f"the last backup did not come back as it was: {state.message}")
        lab.world.drop("__before_")
        names = lab.world.databases()
        if names != [lab.live]:
            self.differences.append(f"databases are left: {names}")

    def _measures(self) -> dict[str, int]:
        """What must not grow, of this process, the server and the machine."""
        for service in (APILogWorker, EventsWorker):
            service.drain_all(timeout=10, at_exit=False)
        gc.collect()
        process, lab = psutil.Process(), self.lab
        eventually(lambda: self._connections() == 0, 10)
        return {
            "memory of this process, MB": process.memory_info().rss >> 20,
            "open files": process.num_fds(),
            "threads": process.num_threads(),
            "programs of PostgreSQL at work": len([*lab.world.dumpers(), *lab.world.restorers()]),
            "connections to the server": self._connections(),
            "processes below this one": len(process.children(recursive=True)),
            "spools": len(lab.world.spools()),
            "temporary files": sum(1 for _ in paths_below(Path(tempfile.gettempdir()))),
            "roles of the server": self._count("pg_roles"),
            "databases of the server": self._count("pg_database"),
        }

    def _connections(self) -> int:
        return self._count("pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()")

    def _count(self, what: str) -> int:
        [(number,)] = self.lab.world.sql(f"SELECT count(*) FROM {what}", url=self.lab.world.catalogue_url)
        return int(number)


def growth(memory: Sequence[int]) -> float:
    """By how much memory grows with each operation at the end: its mean in the last quarter against the third. Pure."""
    quarter = len(memory) // 4
    return (fmean(memory[-quarter:]) - fmean(memory[-2 * quarter : -quarter])) / quarter


def minutes_wanted() -> float:
    """How long the soak is to last: half a minute in CI."""
    return float(os.environ.get("SOAK_MINUTES") or 0.5)
