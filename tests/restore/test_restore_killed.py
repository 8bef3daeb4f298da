# ruff: noqa: F401, F811 - fixtures are imported
"""SIGKILL at random moments of a restore: the live database is the old one or the new one, and never anything else.

Set KILL_SEED to repeat a failure (the seed is printed, and named in every failure), RESTORE_KILL_ROUNDS for more
rounds of each kind.
"""

from __future__ import annotations

import itertools
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import psycopg2
import pytest

from deployments.sample import fill
from flows.backup import backup
from flows.restore import restore
from flows.undo_restore import undo_restore
from tasks.postgres.dsn import parse
from tests.backup.test_killed import SEED, Mortal, chance, lives, mortal
from tests.support import eventually
from tests.support.flow_fixtures import WorldFactory
from tests.support.world import World, go, kill, plain_dump

ROUNDS = int(os.environ.get("RESTORE_KILL_ROUNDS", "2"))  # of each kind, in each mode
MODES = ("swap", "new_database", "in_place")
CONNECTABLE_SECONDS = 10.0
#: Steps of a restore in a process of its own are tried again as soon as those in this process are.
IMPATIENT = (
    "import flows.restore, tasks.runs.retries",
    "for name in ('validate', 'download', 'psql', 'compare_with_backup', 'record_restore'):"
    " setattr(flows.restore, name, getattr(flows.restore, name).with_options(retry_delay_seconds=[0.1, 0.2, 0.3]))",
    "tasks.runs.retries.RETRIED['retry_delay_seconds'] = [0.1, 0.2, 0.3]",
)
#: What such a process says when it comes to the steps that matter most.
TELLING = (
    "import tasks.restore.put_into_place, tasks.restore.psql_session as psql_session, tasks.restore.stages as stages",
    "def telling(word, act): return lambda *a, **k: (print(word, flush=True), act(*a, **k))[1]",
    "tasks.restore.put_into_place.swap = telling('critical', tasks.restore.put_into_place.swap)",
    "psql_session.PsqlSession.commit = telling('commit', psql_session.PsqlSession.commit)",
    "stages.Stages.finish = telling('commit', stages.Stages.finish)",
    "stages.make_at_once = telling('builds', stages.make_at_once)",
)
#: So many sessions make indexes and keys, in turn.
JOBS = (4, 2, 1)


def several(jobs: int) -> tuple[str, ...]:
    """So many sessions make the indexes and keys of small tables too."""
    return (
        "import tasks.restore.load_in_stages as load_in_stages, tasks.restore.stages as stages",
        f"stages.LARGE_TABLE, load_in_stages.wanted_jobs = 0, lambda *_: {jobs}",
    )


pytestmark = [pytest.mark.slow, pytest.mark.thorough, pytest.mark.usefixtures("impatient")]
_numbers = itertools.count(1)


@dataclass
class Ground:
    """A world with one backup in it, restored again and again."""

    world: World
    mode: str
    new: bytes
    """What pg_dump says of the database that was backed up."""
    filename: str
    old: bytes = b""
    target: str = ""

    @property
    def live(self) -> str:
        return parse(self.world.database_url).dbname

    def parameters(self) -> dict[str, Any]:
        """What a restore is told."""
        given: dict[str, Any] = {"backup": self.filename, "mode": self.mode}
        if self.mode == "in_place":
            given["confirm"] = self.live
        return {**given, "target": self.target} if self.mode == "new_database" else given

    def begin_round(self) -> None:
        """The live database becomes another one than was backed up."""
        number = next(_numbers)
        self.target = f"{self.live}_look_{number}"
        self.world.drop("__before_")
        self.world.drop("_look_")
        self.world.sql("DELETE FROM shop.order_items WHERE quantity > 1")
        self.world.sql(f"CREATE TABLE shop.precious_{number} AS SELECT {number} AS i")
        self.old = plain_dump(self.world.cluster, self.world.database_url)
        assert self.old != self.new

    def outcome(self, note: str) -> str:
        """Whether the live one is `old` or `new` (or with new_database, whether the new one is there)."""
        connectable(self.world, note)
        live = plain_dump(self.world.cluster, self.world.database_url)
        assert live in (self.old, self.new), f"{note}: the live database is neither the old nor the new one"
        if self.mode != "new_database":
            return "old" if live == self.old else "new"
        assert live == self.old, note
        if self.target not in self.world.databases("_look_"):
            return "old"
        there = plain_dump(self.world.cluster, self.world.cluster.url(self.target))
        assert there == self.new, f"{note}: the new database is there and not whole"
        return "new"

    def check_next(self, note: str, outcome: str) -> None:
        """The next restore succeeds by itself, and nothing of the one before is left."""
        if self.mode == "new_database" and outcome == "new":
            self.target += "_next"
        state = restore(**self.parameters(), return_state=True)  # type: ignore[call-overload]
        assert state.is_completed(), f"{note}; the next one: {state.message}"
        assert self.outcome(note) == "new"
        assert self.world.events()[-1] == ("restore", "completed"), note
        self.check_nothing_left(note)

    def check_nothing_left(self, note: str) -> None:
        """No scratch, loader, spool, session or psql."""
        assert self.world.databases("%__restoring_") == [], note
        assert self.world.sql("SELECT rolname FROM pg_roles WHERE rolname LIKE 'backup_loader_%'") == [], note
        assert self.world.spools() == [], note
        assert eventually(lambda: self.world.restore_sessions() == []), f"{note}: {self.world.restore_sessions()}"
        assert eventually(lambda: self.world.restorers() == []), note


def connectable(world: World, note: str) -> None:
    """Returns once the live database takes connections, which is soon."""
    give_up = time.monotonic() + CONNECTABLE_SECONDS
    while True:
        try:
            assert world.sql("SELECT 1") == [(1,)]
            return
        except psycopg2.OperationalError as error:
            assert time.monotonic() < give_up, f"{note}: {error}"
            time.sleep(0.05)


@pytest.fixture
def many_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small backups have several parts too."""
    monkeypatch.setattr("tasks.backup.open_backup.part_size_for", lambda *_: 1 << 17)


@pytest.fixture(params=MODES)
def ground(request: pytest.FixtureRequest, make_world: WorldFactory, many_parts: None) -> Iterator[Ground]:
    """The sample shop, backed up."""
    world = make_world(mebibytes=0)
    fill(world.database_url, 1)
    new = plain_dump(world.cluster, world.database_url)
    yield Ground(world, request.param, new, backup().filename)
    tidy(world)


def tidy(world: World) -> None:
    """Other tests share the server."""
    for sign in ("__before_", "_look_"):
        world.drop(sign)


def check_truth(
    ground: Ground, outcome: str, events: list[tuple[str, str]], note: str, action: str = "restore"
) -> None:
    """What the audit says of a run is so."""
    told = [said for what, said in events if what == action and said != "started"]
    assert told in ([], ["completed"], ["failed"]), f"{note}: {events}"
    assert told != ["completed"] or outcome == "new", f"{note}: completed, and the old one is live"
    assert told != ["failed"] or outcome == "old", f"{note}: failed, and the new one is live"


def new_events(ground: Ground, before: int) -> list[tuple[str, str]]:
    """The lines of the audit after the first `before`, once the catalogue answers."""
    return ground.world.events()[before:]


# --- the flow


def test_a_flow_that_is_killed_at_any_moment_leaves_the_old_or_the_new_database(
    ground: Ground,
    chance: random.Random,
) -> None:
    longest = undisturbed_seconds(ground)
    found: Counter[str] = Counter()
    for number in range(ROUNDS):
        ground.begin_round()
        known = len(ground.world.events())
        jobs = JOBS[number % len(JOBS)]
        process = ground.world.start_restore(*IMPATIENT, *TELLING, *several(jobs), **ground.parameters())
        words = ("critical", "commit", "builds") if jobs > 1 and ground.mode != "in_place" else ("critical", "commit")
        told = kill_at_some_moment(process, chance, longest, number, words)
        note = f"round {number} of KILL_SEED={SEED} with {jobs} sessions, killed {told}"
        outcome = ground.outcome(note)
        check_truth(ground, outcome, new_events(ground, known), note)
        found[outcome] += 1
        ground.check_next(note, outcome)
    print(ground.mode, dict(found))
    assert ROUNDS < 10 or len(found) == 2, found


def undisturbed_seconds(ground: Ground) -> float:
    """How long a restore takes in a process of its own, from `go` to its end."""
    ground.begin_round()
    process = ground.world.start_restore(*IMPATIENT, **ground.parameters())
    go(process)
    began = time.monotonic()
    assert process.stdout is not None
    said = process.stdout.read()
    assert "ended COMPLETED" in said, said
    kill(process)
    return time.monotonic() - began


def kill_at_some_moment(
    process: Any,
    chance: random.Random,
    longest: float,
    number: int,
    words: tuple[str, ...] = ("critical", "commit"),
) -> str:
    """Kills a waiting process: every other time close to what makes the new database the live one."""
    go(process)
    if number % 2 == 0:
        delay = chance.uniform(0, longest)
        time.sleep(delay)
        kill(process)
        return f"after {delay:.3f} of {longest:.3f} s"
    word = chance.choice(words)
    while (line := process.stdout.readline()) not in (f"{word}\n", "") and not line.startswith("ended"):
        pass
    delay = chance.uniform(0, 0.25)
    time.sleep(delay)
    kill(process)
    return f"{delay:.3f} s after {line.strip()}"


def test_an_undo_that_is_killed_at_any_moment_leaves_the_one_or_the_other_database(
    make_world: WorldFactory,
    chance: random.Random,
) -> None:
    world = make_world(mebibytes=0)
    fill(world.database_url, 1)
    ground = Ground(world, "swap", plain_dump(world.cluster, world.database_url), backup().filename)
    found: Counter[str] = Counter()
    for number in range(ROUNDS):
        ground.begin_round()
        replaced = ground.old
        restore(**ground.parameters())
        known = len(world.events())
        process = world.start_undo(*TELLING)
        told = kill_at_some_moment(process, chance, 1.5, number)
        note = f"round {number} of KILL_SEED={SEED}, killed {told}"
        connectable(world, note)
        live = plain_dump(world.cluster, world.database_url)
        assert live in (replaced, ground.new), note
        outcome = "new" if live == replaced else "old"
        check_truth(ground, outcome, new_events(ground, known), note, "undo-restore")
        found[outcome] += 1
        if outcome == "old":
            undo_restore()
            assert plain_dump(world.cluster, world.database_url) == replaced, note
        ground.check_next(note, outcome)
    print("undo", dict(found))
    tidy(world)


# --- psql, and the server's processes


class Assassin:
    """During a `with` block, kills one of `victim()` the given seconds after there are any; None spares them all.

    Then `killed` tells who it was, `seconds` from when to when there were any.
    """

    def __init__(self, victim: Callable[[], list[psutil.Process]], delay: float | None) -> None:
        self._victim, self._delay = victim, delay
        self.seconds = 0.0
        self.killed: str | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._ended.wait(0.01):
            if self._look():
                break
        first = time.monotonic()
        while self._delay is None and not self._ended.wait(0.01):
            self.seconds = time.monotonic() - first if self._look() else self.seconds
        self._ended.wait(self._delay)
        while not self.killed and not self._ended.wait(0.005):
            for process in self._look()[:1]:
                if lives(process):
                    self.killed = f"{process.name()} {process.pid}"
                    process.kill()

    def _look(self) -> list[psutil.Process]:
        try:
            return self._victim()
        except psycopg2.Error:
            return []

    def __enter__(self) -> Assassin:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def backends(world: World) -> list[psutil.Process]:
    """The server's processes that work for a restore, the lock's holder too."""
    found = world.sql(
        "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'restore%%'", url=world.catalogue_url
    )
    return [psutil.Process(pid) for (pid,) in found if psutil.pid_exists(pid)]


def check_rounds_with_assassin(
    ground: Ground,
    chance: random.Random,
    victim: Callable[[], list[psutil.Process]],
) -> None:
    """Rounds in each of which one process dies; a restore that says it is completed is, one that failed is not."""
    longest = 0.0
    found: Counter[str] = Counter()
    for number in range(-1, ROUNDS):
        ground.begin_round()
        known = len(ground.world.events())
        delay = chance.uniform(0, longest) if number >= 0 else None
        with Assassin(victim, delay) as assassin:
            state = restore(**ground.parameters(), return_state=True)  # type: ignore[call-overload]
        if number < 0:
            longest = assassin.seconds
        note = f"round {number} of KILL_SEED={SEED}, {assassin.killed} killed after {delay} s: {state.message}"
        outcome = ground.outcome(note)
        assert (outcome == "new") == state.is_completed(), note
        check_truth(ground, outcome, new_events(ground, known), note)
        found[f"{outcome} {'after a kill' if assassin.killed else ''}"] += 1
        ground.check_next(note, outcome)
    print(ground.mode, dict(found))
    assert ROUNDS < 10 or sum(count for name, count in found.items() if "kill" in name) > ROUNDS // 4


def test_a_psql_that_is_killed_at_any_moment_costs_a_retry_or_the_run_but_never_the_truth(
    ground: Ground,
    chance: random.Random,
) -> None:
    check_rounds_with_assassin(ground, chance, ground.world.restorers)


def test_a_server_process_that_is_killed_at_any_moment_costs_a_retry_or_the_run_but_never_the_truth(
    ground: Ground,
    chance: random.Random,
) -> None:
    check_rounds_with_assassin(ground, chance, lambda: backends(ground.world))


# --- the store


def test_an_s3_server_that_is_killed_at_any_moment_costs_a_retry_or_the_run_but_never_the_truth(
    make_world: WorldFactory,
    mortal: Mortal,
    chance: random.Random,
    many_parts: None,
) -> None:
    world = make_world(mebibytes=0, s3=mortal.server)
    fill(world.database_url, 1)
    ground = Ground(world, "swap", plain_dump(world.cluster, world.database_url), backup().filename)
    for mode in MODES:
        ground.mode, longest, found = mode, 0.0, Counter[str]()
        for number in range(-1, ROUNDS):
            ground.begin_round()
            known = len(world.events())
            delay, pause = chance.uniform(0, longest), chance.choice([0.0, 1.0, 3.0])
            began = time.monotonic()
            if number < 0:
                state = restore(**ground.parameters(), return_state=True)  # type: ignore[call-overload]
                longest = time.monotonic() - began
            else:
                with mortal.killed(delay, pause):
                    state = restore(**ground.parameters(), return_state=True)  # type: ignore[call-overload]
            note = f"round {number} of KILL_SEED={SEED}, S3 killed after {delay:.3f} s for {pause} s: {state.message}"
            outcome = ground.outcome(note)
            assert (outcome == "new") == state.is_completed(), note
            check_truth(ground, outcome, new_events(ground, known), note)
            found[outcome] += 1
            ground.check_next(note, outcome)
        print(mode, dict(found))
    tidy(world)
