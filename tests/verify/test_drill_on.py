"""A drill elsewhere: on a PostgreSQL of the worker's own, or on the server of a block, and what stays of it: nothing."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil
import psycopg2
import pytest

from deployments.quick_start.postgres import PostgresCluster
from deployments.sample import fill
from tasks.errors import AlreadyRunning, BackupDamaged, EntriesFailed, PreflightFailed, RowsDiffer, Unreachable
from tasks.postgres.dsn import parse
from tasks.postgres.server import rows
from tasks.restore import throw_away
from tasks.restore.compare import compare_run
from tasks.restore.throw_away import chosen_server, clear_dead_servers, throw_away_server
from tasks.restore.values import Place, RestoreRun
from tasks.restore.where import at
from tasks.verify.checks import run_checks
from tasks.verify.place import drill_place, is_older
from tasks.verify.subject import Subject, examine, identify, no_scratch_left
from tasks.verify.verdict import Verified, fault_of, record_verified, verified
from tests.conftest import BIN_DIRECTORIES
from tests.restore.test_loader import RAN, mallory, seized
from tests.support import ci_skip, eventually
from tests.support.every_kind import make_every_kind
from tests.support.scene import Scene, SceneFactory, now
from tests.verify.test_verify import CONTENT, row_of

assert mallory  # a fixture
OLDEST, NEWEST = min(BIN_DIRECTORIES, default=0), max(BIN_DIRECTORIES, default=0)
#: Code of an ordinary role that tries to get a shell on whatever machine loads it; MARKER is a file.
SHELL = """
CREATE FUNCTION mallory.shell(i int) RETURNS boolean LANGUAGE plpgsql AS $f$
BEGIN
    BEGIN EXECUTE 'COPY (SELECT 1) TO PROGRAM ''touch MARKER'''; EXCEPTION WHEN OTHERS THEN NULL; END;
    BEGIN EXECUTE 'CREATE TEMP TABLE out (t text); COPY out FROM PROGRAM ''touch MARKER'''; EXCEPTION WHEN OTHERS THEN NULL; END;
    BEGIN EXECUTE 'ALTER ROLE mallory SUPERUSER'; EXCEPTION WHEN OTHERS THEN NULL; END;
    RETURN current_setting('is_superuser') = 'off';
END $f$;
CREATE TABLE mallory.shells (i int CHECK (mallory.shell(i) OR session_user = 'postgres'));
CREATE FUNCTION mallory.shell_of(i int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT mallory.shell(i)::int';
CREATE MATERIALIZED VIEW mallory.shell_seen AS SELECT mallory.shell_of(1) AS n WITH NO DATA;
"""


@contextmanager
def drilled(scene: Scene, major: int = 0) -> Iterator[tuple[Subject, RestoreRun, Scene]]:
    """A drill that has passed its preflight, and the scene at its place."""
    subject = identify(scene.plan, "latest", str(uuid.uuid4()), "tester", now(), major)
    with drill_place(scene.plan, subject) as place:
        run, there = examine(scene.plan, subject, lambda _: None, place), at(scene.plan, place)
        scene = scene.with_plan(database=there.database, tools_directory=there.tools_directory)
        if place.kind == "worker":
            yield subject, run, scene
        else:
            with no_scratch_left(scene.plan, run, pytest.fail):
                yield subject, run, scene


def drill(scene: Scene, major: int = 0) -> tuple[Subject, Verified]:
    """A whole drill without its record."""
    with drilled(scene, major) as (subject, run, there):
        loaded = there.load(run)
        compared = compare_run(there.plan, run, loaded)
        checked = run_checks(there.plan, run)
    return subject, verified(run, loaded, compared, checked, now())


def nothing_left(directory: Path) -> bool:
    """No file, no server, no guard of a drill."""
    working = [one for one in psutil.process_iter(["cmdline"]) if str(directory) in " ".join(one.info["cmdline"] or [])]
    return (not directory.exists() or list(directory.iterdir()) == []) and not working


one_server = pytest.mark.parametrize("postgres_server", [OLDEST], indirect=True, ids=lambda major: f"pg{major}")


# --- on the worker


def test_a_drill_on_the_worker_proves_the_same_and_the_live_server_sees_none_of_it(scene: SceneFactory) -> None:
    shop = scene(drill_on="worker", checks=("SELECT count(*) = 4000 FROM numbers",))
    shop.sql(CONTENT)
    shop.sql(f'ALTER DATABASE "{shop.name}" SET DateStyle = german')
    backup = shop.back_up()
    unreachable = shop.with_plan(database=parse("postgresql://nobody@192.0.2.1/shop"))
    subject, done = drill(unreachable)
    assert done.by_content and done.checks == 1 and done.where == "a server of the worker's own"
    assert done.place == "worker" and done.rows == 5500 and done.large_objects == 1
    assert record_verified(shop.plan.catalogue, subject, done)
    row = row_of(shop, backup)
    assert row.verified_at == done.at and row.metadata["verification"]["drilled_on"] == "worker"
    assert nothing_left(shop.plan.spool_directory)


def test_every_kind_of_object_comes_back_on_the_worker_and_no_role_is_a_superuser(scene: SceneFactory) -> None:
    one = scene(drill_on="worker")
    make_every_kind(one.url, one.cluster)
    one.back_up()
    with drilled(one) as (_, run, there):
        loaded = there.load(run)
        assert compare_run(there.plan, run, loaded).by_content
        with there.plan.database.session("test") as session:
            superusers = rows(session, "SELECT rolname FROM pg_roles WHERE rolsuper")
            logins = rows(session, "SELECT rolname FROM pg_roles WHERE rolcanlogin")
    assert [row["rolname"] for row in superusers] == [there.plan.database.user] == [row["rolname"] for row in logins]
    assert there.plan.database.user not in run.backup.roles
    assert nothing_left(one.plan.spool_directory)


@one_server
def test_the_server_has_no_tcp_no_secret_and_is_closed_to_others(
    scene: SceneFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "Marker-4711")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "Marker-4711")
    monkeypatch.setenv("PGPASSWORD", "Marker-4711")
    shop = scene(drill_on="worker")
    shop.back_up()
    with drilled(shop) as (_, run, there):
        directory = Path(run.place.directory)
        assert directory.stat().st_mode & 0o777 == 0o700
        assert Path(there.plan.database.host).stat().st_mode & 0o777 == 0o700
        server = psutil.Process(int((directory / "data" / "postmaster.pid").read_text().split()[0]))
        guard = server.parent()
        assert guard is not None and "guard.py" in " ".join(guard.cmdline())
        for process in (server, guard):
            assert "Marker" not in "".join(process.environ().values())
            assert not [name for name in process.environ() if name.startswith(("AWS_", "PG", "PREFECT_"))]
        assert [one for one in server.net_connections() if one.status == psutil.CONN_LISTEN] == []
    assert eventually(lambda: not server.is_running())


@pytest.mark.usefixtures("mallory")
def test_code_in_a_backup_gets_nothing_on_the_worker(
    scene: SceneFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(throw_away._SETTINGS, "log_min_messages", "log")  # so that what the code got can be read
    tmp_path.chmod(0o777)
    marker = tmp_path / "marker"
    one = seized(scene).with_plan(drill_on="worker")
    shell = SHELL.replace("MARKER", str(marker))
    with psycopg2.connect(one.cluster.url(one.name, "mallory", "mallory")) as session:
        session.cursor().execute(shell)
        session.cursor().execute("INSERT INTO mallory.shells VALUES (1)")
        session.cursor().execute("REFRESH MATERIALIZED VIEW mallory.shell_seen")
    session.close()
    marker.unlink(missing_ok=True)
    one.back_up()
    with drilled(one) as (_, run, there):
        loaded = there.load(run)
        assert compare_run(there.plan, run, loaded).by_content
        with there.plan.database.session("test") as session:
            [row] = rows(session, "SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'")
        log = (Path(run.place.directory) / "log").read_text()
    assert not marker.exists()
    assert not row["rolsuper"]
    marks = [line.partition("seize:")[2] for line in log.splitlines() if "LOG:  seize:" in line]
    assert {mark.split()[0] for mark in marks} >= RAN, "some code did not run: the test proves nothing"
    assert not [mark for mark in marks if "got <>" not in mark]


@one_server
def test_a_worker_without_a_fitting_postgresql_says_what_to_install_or_drills_on_the_server(
    scene: SceneFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = scene(drill_on="worker")
    shop.sql(CONTENT)
    shop.back_up()
    monkeypatch.setattr(throw_away, "installed", lambda *_: [])
    with pytest.raises(
        PreflightFailed, match=r"no PostgreSQL \d+ or newer .*installed: none.*install postgresql-"
    ) as no:
        drill(shop)
    assert fault_of(no.value) == "environment" and "\n" not in str(no.value)
    _, done = drill(shop.with_plan(drill_on=""))
    assert done.place == "server" and done.by_content
    assert done.why.startswith("not on the worker: This worker has no PostgreSQL")


@one_server
def test_an_extension_that_the_worker_lacks_sends_the_drill_to_the_server(
    scene: SceneFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = scene()
    shop.sql(CONTENT + "CREATE EXTENSION pgcrypto")
    backup = shop.back_up()
    _, done = drill(shop)
    assert done.place == "worker" and done.why == "the worker has PostgreSQL and all that the backup needs"

    def newer(manifest: dict[str, list[dict[str, str]]]) -> None:
        next(one for one in manifest["extensions"] if one["name"] == "pgcrypto")["version"] = "9.9"

    shop.rewrite(backup, newer)
    _, done = drill(shop)
    assert done.place == "server" and "older version of the extension pgcrypto" in done.why

    def gone(manifest: dict[str, list[dict[str, str]]]) -> None:
        next(one for one in manifest["extensions"] if one["name"] == "pgcrypto")["name"] = "no_such"

    shop.rewrite(backup, gone)
    with pytest.raises(PreflightFailed, match=r"does not have the extension no_such 9\.9"):
        drill(shop.with_plan(drill_on="worker"))


@one_server
def test_a_locale_that_the_worker_lacks_is_named(scene: SceneFactory) -> None:
    shop = scene(drill_on="worker")
    backup = shop.back_up()
    shop.rewrite(backup, lambda manifest: manifest["database"].update(collate="xx_XX", ctype="xx_XX"))
    with pytest.raises(PreflightFailed, match=r"does not know the locale xx_XX .*install it on the server's machine"):
        drill(shop)
    assert nothing_left(shop.plan.spool_directory)


@one_server
def test_a_tablespace_that_the_worker_lacks_is_made(scene: SceneFactory) -> None:
    shop = scene(drill_on="worker")
    with closing(psycopg2.connect(shop.cluster.url(), options="-c allow_in_place_tablespaces=on")) as session:
        session.autocommit = True
        with suppress(psycopg2.errors.DuplicateObject):
            session.cursor().execute("CREATE TABLESPACE \"a 'quick' disk\" LOCATION ''")
    shop.sql("CREATE TABLE t (i int PRIMARY KEY USING INDEX TABLESPACE \"a 'quick' disk\"); INSERT INTO t VALUES (1)")
    shop.sql("CREATE TABLE far (i int) TABLESPACE \"a 'quick' disk\"; INSERT INTO far VALUES (2)")
    shop.back_up()
    _, done = drill(shop)
    assert done.by_content and done.rows == 2


@one_server
def test_a_second_drill_of_the_plan_on_this_worker_is_refused(scene: SceneFactory) -> None:
    shop = scene(drill_on="worker")
    shop.back_up()
    postgres = chosen_server("", OLDEST)
    with (
        throw_away_server(shop.plan.spool_directory, "shop", postgres, {}),
        pytest.raises(AlreadyRunning, match="is being verified on this worker already"),
        throw_away_server(shop.plan.spool_directory, "shop", postgres, {}, patience=0.2),
    ):
        pass
    assert nothing_left(shop.plan.spool_directory)


def test_a_path_that_is_too_long_for_a_socket_is_no_hindrance(tmp_path: Path) -> None:
    root = tmp_path / ("deep-" * 20) / ("deeper-" * 10)
    root.mkdir(parents=True, mode=0o700)
    with throw_away_server(root, "shop", chosen_server("", OLDEST), {}) as server:
        sockets = Path(throw_away.address(server.directory).host)
        assert sockets.stat().st_mode & 0o777 == 0o700
    assert nothing_left(root) and not sockets.exists()


def test_what_a_killed_drill_and_its_guard_leave_is_cleared_by_the_next(tmp_path: Path) -> None:
    """Here the guard dies too, and the server with it; what stays is the directory, and a session at work."""
    code = (
        "import sys, time; from pathlib import Path; from tasks.restore import throw_away as t\n"
        f"with t.throw_away_server(Path({str(tmp_path)!r}), 'shop', t.chosen_server('', {OLDEST}), {{}}) as server:\n"
        "    print(server.directory, flush=True); time.sleep(600)"
    )
    for guard_too in (False, True):
        run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert run.stdout is not None
        directory = Path(run.stdout.readline().strip())
        session = throw_away.address(directory).connect("test")
        server = psutil.Process(int((directory / "data" / "postmaster.pid").read_text().split()[0]))
        if guard_too:
            guard = server.parent()
            assert guard is not None and "guard.py" in " ".join(guard.cmdline())
            guard.kill()
        run.kill()
        run.wait()
        run.stdout.close()
        assert eventually(lambda: not server.is_running() or server.status() == "zombie", 60)
        session.close()
        if guard_too:
            assert eventually(lambda: clear_dead_servers(tmp_path, dry_run=True) != [])
            assert directory.exists()
            [sentence] = clear_dead_servers(tmp_path)
            assert "a dead drill of plan shop" in sentence
        assert eventually(lambda: nothing_left(tmp_path), 60), list(tmp_path.iterdir())


# --- a rehearsal of an upgrade


def two_versions() -> None:
    if OLDEST == NEWEST:
        ci_skip("a rehearsal needs two major versions of PostgreSQL")


@one_server
def test_a_rehearsal_restores_into_a_newer_version_and_compares_every_row(scene: SceneFactory) -> None:
    two_versions()
    one = scene(drill_on="server")
    fill(one.url, 1)
    backup = one.back_up()
    subject, done = drill(one, major=NEWEST)
    words = f"a server of the worker's own (restored on PostgreSQL {NEWEST}, made on {OLDEST})"
    assert done.where == words and done.server_version // 10_000 == NEWEST
    assert done.rows_by_content and not done.by_content
    assert [one for one in done.warnings if "definitions were not compared" in one]
    assert record_verified(one.plan.catalogue, subject, done)
    assert row_of(one, backup).metadata["verification"]["where"] == words
    assert nothing_left(one.plan.spool_directory)


@one_server
def test_what_fails_in_a_newer_version_is_no_fault_of_the_backup(scene: SceneFactory) -> None:
    two_versions()
    shop = scene()
    shop.sql("CREATE UNLOGGED TABLE parted (i int) PARTITION BY LIST (i); CREATE TABLE t AS SELECT 1 AS i")
    shop.back_up()
    drill(shop.with_plan(drill_on="worker"))
    with pytest.raises((PreflightFailed, EntriesFailed)):  # PostgreSQL 18 refuses it
        drill(shop, major=NEWEST)
    newer, same = Place("worker", major=NEWEST, made_on=OLDEST), Place("worker", major=OLDEST, made_on=OLDEST)
    failed = EntriesFailed("which", "", [("TABLE public.t", "42P01", "")])
    assert (fault_of(failed, newer), fault_of(failed, same)) == ("environment", "database")
    assert (fault_of(RowsDiffer(""), newer), fault_of(RowsDiffer(""), same)) == ("environment", "backup")
    assert fault_of(BackupDamaged(""), newer) == "backup"
    assert nothing_left(shop.plan.spool_directory)


@one_server
def test_a_major_version_that_is_not_there_or_is_older_is_refused_in_one_sentence(scene: SceneFactory) -> None:
    shop = scene()
    shop.back_up()
    with pytest.raises(PreflightFailed, match=rf"no PostgreSQL 99 to restore into .*{OLDEST}\."):
        drill(shop, major=99)
    with pytest.raises(PreflightFailed, match=f"comes from PostgreSQL {OLDEST}: give that major version or a newer"):
        drill(shop, major=OLDEST - 1)


# --- on the server of a block


def test_a_drill_on_the_server_of_a_block_makes_what_it_needs_there_and_cleans_up(
    scene: SceneFactory, tmp_path: Path
) -> None:
    shop = scene()
    make_every_kind(shop.url, shop.cluster)
    shop.back_up()
    major = shop.cluster.major
    other = PostgresCluster(tmp_path / "other", BIN_DIRECTORIES[major], durable=False, owned=True)
    other.start()
    try:
        there = shop.with_plan(drill_on="spare", drill_database=parse(other.url()))
        unreachable = there.with_plan(database=parse("postgresql://nobody@192.0.2.1/shop"))
        before = state_of(other)
        _, done = drill(unreachable)
        assert done.place == "block" and done.by_content and done.why == "the plan names the block spare"
        assert state_of(other) == before
    finally:
        other.stop(immediate=True)
    with pytest.raises(Unreachable) as failure:
        drill(unreachable)
    assert fault_of(failure.value) == "environment" and "\n" not in str(failure.value)


def state_of(cluster: PostgresCluster) -> tuple[list[str], list[str]]:
    with parse(cluster.url()).session("test") as session:
        databases = rows(session, "SELECT datname AS name FROM pg_database ORDER BY 1")
        roles = rows(session, "SELECT rolname AS name FROM pg_roles ORDER BY 1")
    return [row["name"] for row in databases], [row["name"] for row in roles]


@pytest.mark.parametrize(
    ("version", "than", "older"),
    [("1.9", "1.10", True), ("1.10", "1.9", False), ("1.0", "1.0", False), ("3.3.2", "3.3", False), ("x", "y", True)],
)
def test_versions_of_extensions_are_compared_by_their_numbers(version: str, than: str, older: bool) -> None:
    assert is_older(version, than) is older
