"""SIGKILL at random moments: never a `completed` row without its object, and the next backup clears the rest.

Set KILL_SEED to repeat a failure (the seed is printed, and named in every failure), KILL_ROUNDS for more rounds.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectAlreadyExists

from deployments.quick_start.prefect_services import PrefectServer, Worker
from deployments.quick_start.processes import free_port
from deployments.quick_start.s3 import S3Server
from flows.backup import backup
from tests.support import eventually
from tests.support.faulty_store import FaultyStore, Request
from tests.support.flow_fixtures import WorldFactory
from tests.support.world import CHECKOUT, MIB, World, go, kill

ROUNDS = int(os.environ.get("KILL_ROUNDS", "3"))  # of each of three kinds
MEBIBYTES = 24
SEED = int(os.environ.get("KILL_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Random moments, the same for the same seed and test."""
    print(f"KILL_SEED={SEED}")
    return random.Random(f"{SEED} {request.node.name}")


def check_next_backup(world: World, note: str) -> None:
    """What is completed is intact; one more backup completes, and nothing unfinished is left."""
    world.check_completed_are_intact()
    state = backup(return_state=True)
    assert state.is_completed(), f"{note}: {state.message}"
    assert world.statuses()[0] == "completed", note
    world.check_completed_are_intact()
    world.check_no_debris()
    forget_completed(world)


def forget_completed(world: World) -> None:
    """Removes what is proved, so that the next round need not prove it again."""
    for key in world.objects():
        world.s3.client.delete_object(Bucket=world.bucket, Key=key)
    world.sql("DELETE FROM database_backups", url=world.catalogue_url)


@pytest.mark.slow
def test_a_flow_that_is_killed_at_any_moment_leaves_nothing_that_only_looks_like_a_backup(
    make_world: WorldFactory, chance: random.Random
) -> None:
    world = make_world(mebibytes=MEBIBYTES)
    began = time.monotonic()
    check_next_backup(world, "before the first round")
    longest = time.monotonic() - began
    found: list[str] = []
    following = world.start_backup()
    while len(found) < ROUNDS or "in_progress" not in found:
        process, following = following, world.start_backup()
        delay = chance.uniform(0, longest)
        go(process)
        if len(found) >= ROUNDS:  # none of the moments was in the middle of a run: this one is
            delay /= 10
            assert eventually(lambda: world.statuses()[:1] == ["in_progress"])
        time.sleep(delay)
        kill(process)
        found.append((world.statuses() or ["no row"])[0])
        check_next_backup(world, f"round {len(found)} of KILL_SEED={SEED}, killed after {delay:.3f} s")
    kill(following)
    print({status: found.count(status) for status in found})


@pytest.mark.slow
def test_a_pg_dump_that_is_killed_at_any_moment_is_run_again(
    make_world: WorldFactory, chance: random.Random, impatient: None, faulty_store: FaultyStore
) -> None:
    proxied = {"S3_ENDPOINT_URL": faulty_store.endpoint_url}
    world = make_world(mebibytes=MEBIBYTES, spool_limit=4 * MIB, settings=proxied)
    faulty_store.rule = lambda request: time.sleep(0.05 if request.part else 0)  # else pg_dump is soon done
    killed = 0
    for number in range(ROUNDS):
        with Killer(world, chance.uniform(0, 0.6)) as killer:
            state = backup(return_state=True)
        killed += killer.killed
        assert state.is_completed(), f"round {number} of KILL_SEED={SEED}: {state.message}"
        assert world.statuses() == ["completed"]
        world.check_completed_are_intact()
        world.check_no_debris()
        forget_completed(world)
    print(f"{killed} killed")
    assert killed > ROUNDS // 2


@pytest.mark.slow
def test_a_pg_dump_that_is_killed_again_and_again_fails_the_backup(
    make_world: WorldFactory, impatient: None, faulty_store: FaultyStore
) -> None:
    proxied = {"S3_ENDPOINT_URL": faulty_store.endpoint_url}
    world = make_world(mebibytes=MEBIBYTES, spool_limit=4 * MIB, settings=proxied)
    faulty_store.rule = lambda request: time.sleep(0.1 if request.part else 0)
    with Killer(world, 0.1, times=4) as killer:
        state = backup(return_state=True)
    assert killer.killed == 4 and state.is_failed()
    assert "ended with status -9" in (state.message or "")
    assert world.statuses() == ["failed"] and world.objects() == {}
    world.check_no_debris()


def lives(process: psutil.Process) -> bool:
    """Whether a process is neither gone nor dead; asked without taking its exit status from whoever waits for it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Killer:
    """Kills the world's pg_dump some seconds after it is first seen, so many times."""

    def __init__(self, world: World, delay: float, times: int = 1) -> None:
        self._world, self._delay, self._times = world, delay, times
        self.killed = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while self.killed < self._times and not self._ended.wait(0.02):
            for process in self._world.dumpers()[:1]:
                self._ended.wait(self._delay)
                if lives(process):
                    process.kill()
                    self.killed += 1
                    eventually(lambda gone=process: not lives(gone))
                elif self._times == 1:
                    return

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


class Mortal:
    """An S3 server that is killed and started again without hurting others.

    One thread that outlives them all starts its processes: they die with the thread that started them.
    """

    def __init__(self, server: S3Server) -> None:
        self.server = server
        self._keeper = ThreadPoolExecutor(1)
        self._keeper.submit(server.start).result()

    @contextmanager
    def killed(self, delay: float, pause: float) -> Iterator[None]:
        """Killed `delay` seconds after the block's beginning, started again `pause` seconds later, same port."""
        done = self._keeper.submit(self._kill, delay, pause)
        try:
            yield
        finally:
            done.result()

    def _kill(self, delay: float, pause: float) -> None:
        time.sleep(delay)
        process, endpoint = self.server.service.process, self.server.endpoint_url
        assert process is not None
        process.kill()
        port = int(endpoint.rsplit(":", 1)[1])
        # A dead process keeps its port until the last of its threads is gone.
        assert eventually(lambda: not self.server.is_running and free_port(port) == port)
        time.sleep(pause)
        self.server.start()
        assert self.server.endpoint_url == endpoint

    def stop(self) -> None:
        """Neither server nor thread is left."""
        self.server.stop()
        self._keeper.shutdown()


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Mortal]:
    """An S3 server of this test's own."""
    directory = tmp_path / "own-s3"
    directory.mkdir(mode=0o700)
    # Below the ports that the system lends to clients: nobody takes it while the server is dead.
    port = next(port for port in range(20_000 + os.getpid() % 8_000, 32_000) if free_port(port) == port)
    (directory / "port").write_text(str(port))
    mortal = Mortal(S3Server(directory, owned=True))
    yield mortal
    mortal.stop()


@pytest.mark.slow
def test_an_s3_server_that_is_killed_at_any_moment_costs_a_retry_or_the_run_but_never_the_truth(
    make_world: WorldFactory, chance: random.Random, impatient: None, mortal: Mortal
) -> None:
    world = make_world(mebibytes=MEBIBYTES, s3=mortal.server)
    began = time.monotonic()
    check_next_backup(world, "before the first round")
    longest = time.monotonic() - began
    found = []
    for number in range(ROUNDS):
        delay, pause = chance.uniform(0, longest), chance.choice([0.0, 1.0, 4.0])
        note = f"round {number} of KILL_SEED={SEED}, killed after {delay:.3f} s for {pause} s"
        with mortal.killed(delay, pause):
            state = backup(return_state=True)
        found.append(state.type.value)
        assert state.is_completed() or state.is_failed(), note
        assert (world.statuses() or ["none"])[0] != "in_progress" or state.is_failed(), note
        if state.is_completed():
            assert world.statuses()[0] == "completed", note
        check_next_backup(world, note)
    print({state: found.count(state) for state in found})


# --- under a worker


@pytest.fixture
def worker(prefect_server: PrefectServer, prefect_api: PrefectServer) -> Iterator[Worker]:
    """A process worker that takes runs from the pool `killed`."""
    with get_client(sync_client=True) as client:
        with suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name="killed", type="process"))
    worker = Worker(prefect_server, CHECKOUT, pool="killed", name="of the tests", owned=True)
    yield worker
    worker.stop()


@pytest.mark.slow
def test_a_run_of_a_worker_whose_process_is_killed_ends_as_crashed(
    make_world: WorldFactory, worker: Worker, faulty_store: FaultyStore
) -> None:
    world = make_world(mebibytes=8, settings={"S3_ENDPOINT_URL": faulty_store.endpoint_url})
    stalled = threading.Event()

    def rule(request: Request) -> None:
        if request.part == 1:
            stalled.set()
            time.sleep(20)

    faulty_store.rule = rule
    worker.start()
    run = deployed_run()
    assert stalled.wait(90)
    [dumper_or_flow] = flow_processes(worker, run)
    dumper_or_flow.kill()
    assert eventually(lambda: state_of(run) in ("CRASHED", "FAILED"), 90), state_of(run)
    faulty_store.rule = lambda request: None
    assert world.statuses() == ["in_progress"]
    backup()
    assert world.statuses() == ["completed", "failed"]
    world.check_completed_are_intact()
    world.check_no_debris()


def deployed_run() -> FlowRun:
    """A run of the flow `backup` that the worker is to take."""
    source: Any = backup.from_source(source=str(CHECKOUT), entrypoint="flows/backup.py:backup")
    deployment = source.deploy(name="killed", work_pool_name="killed", build=False, push=False, print_next_steps=False)
    with get_client(sync_client=True) as client:
        return client.create_flow_run_from_deployment(deployment)


def flow_processes(worker: Worker, run: FlowRun) -> list[Any]:
    """The process in which a worker executes a run."""
    process = worker.service.process
    assert process is not None
    return [
        child
        for child in process.children(recursive=True)
        if any("prefect.engine" in word or "flow-run" in word for word in child.cmdline())
        and child.environ().get("PREFECT__FLOW_RUN_ID") == str(run.id)
    ][-1:]


def state_of(run: FlowRun) -> str:
    """The type of the run's state as the server has it now."""
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run.id).state
    return state.type.value if state else ""
