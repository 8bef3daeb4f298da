"""However an address is written, backup, restore and undo work on one database of one server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.s3 import S3Server
from tasks.backup.open_backup import survey
from tasks.errors import BadSetting, PreflightFailed
from tasks.postgres.dsn import parse
from tasks.postgres.locks import restore_lock
from tests.conftest import BIN_DIRECTORIES, DatabaseFactory
from tests.restore.test_odd_databases import check_every_mode
from tests.support import eventually
from tests.support.flow_fixtures import WorldFactory
from tests.support.scene import Scene, SceneFactory, make_scene
from tests.support.servers import in_turn, pair_of
from tests.support.world import Heard

FILL = "CREATE TABLE t (id integer PRIMARY KEY); INSERT INTO t VALUES (1)"


@pytest.fixture
def named_elsewhere(
    postgres_server: PostgresCluster,
    fresh_database: DatabaseFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str], tuple[str, str]]:
    """`named_elsewhere(how) -> (url, name)`: an address that does not say which database it is of, and its name."""

    def make(how: str) -> tuple[str, str]:
        name = parse(fresh_database(postgres_server)).dbname
        given = {"user": "postgres", "password": postgres_server.password, "dbname": name}
        if how == "environment":
            for parameter, variable in (("user", "PGUSER"), ("password", "PGPASSWORD"), ("dbname", "PGDATABASE")):
                monkeypatch.setenv(variable, given[parameter])
            return f"postgresql://127.0.0.1:{postgres_server.port}", name
        lines = [
            f"{key}={value}" for key, value in {**given, "host": "127.0.0.1", "port": postgres_server.port}.items()
        ]
        (tmp_path / "services").write_text("\n".join(["[prod]", *lines]) + "\n")
        monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
        return "service=prod", name

    return make


@pytest.mark.slow
@pytest.mark.parametrize("how", ["environment", "service"])
def test_a_database_that_the_address_does_not_name_is_backed_up_and_restored_in_every_mode(
    named_elsewhere: Callable[[str], tuple[str, str]], scene: SceneFactory, how: str
) -> None:
    url, name = named_elsewhere(how)
    one = scene(url)
    assert one.name == name
    untouched = one.dumped_whole("postgres")
    one.sql(FILL)
    check_every_mode(one, lambda: one.sql("INSERT INTO t VALUES (2); CREATE TABLE later ()"), f"new of {name}")
    assert one.dumped_whole("postgres") == untouched


@pytest.mark.parametrize("how", ["environment", "service"])
def test_flows_lock_and_restore_the_database_that_they_backed_up(
    named_elsewhere: Callable[[str], tuple[str, str]],
    postgres_server: PostgresCluster,
    make_world: WorldFactory,
    heard: Heard,
    how: str,
) -> None:
    from flows.backup import backup
    from flows.cleanup import cleanup
    from flows.restore import restore
    from flows.undo_restore import undo_restore
    from flows.verify_backup import verify_backup

    world = make_world(postgres_server, mebibytes=0)
    url, name = named_elsewhere(how)
    world = make_world(postgres_server, mebibytes=0, settings={"DATABASE_URL": url})
    place = postgres_server.url(name)
    world.sql(FILL, url=place)
    with restore_lock(parse(place), "a restore"):
        refused = backup(return_state=True)
    assert f"Database {name} cannot be backed up now" in str(refused.message)
    with restore_lock(parse(postgres_server.url()), "a restore of another database"):
        backup()
    assert f"backing up 127.0.0.1:{postgres_server.port}/{name} as role postgres" in heard.text
    verify_backup()
    world.sql("INSERT INTO t VALUES (2)", url=place)
    done = restore()
    assert done.database == name and world.sql("SELECT id FROM t", url=place) == [(1,)]
    assert undo_restore().database == name and len(world.sql("SELECT id FROM t", url=place)) == 2
    assert restore(mode="in_place", confirm=name).database == name
    assert world.sql("SELECT id FROM t", url=place) == [(1,)]
    cleanup()
    kept = world.sql(
        "SELECT datname FROM pg_database WHERE datname LIKE '%%\\_\\_before\\_%%'", url=postgres_server.url()
    )
    assert [one for (one,) in kept if one.startswith(f"{name}__")] and not [
        one for (one,) in kept if "postgres__" in one
    ]


@pytest.fixture(scope="module", params=list(BIN_DIRECTORIES), ids=lambda major: f"pg{major}")
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[PostgresCluster, PostgresCluster]]:
    with pair_of(BIN_DIRECTORIES[request.param], tmp_path_factory.mktemp("pair")) as pair:
        yield pair


@pytest.fixture
def pair_scene(
    pair: tuple[PostgresCluster, PostgresCluster],
    fresh_database: DatabaseFactory,
    s3_server: S3Server,
    s3_bucket: Callable[[], str],
    tmp_path: Path,
) -> Callable[..., Scene]:
    """`pair_scene(*servers, **options) -> Scene`: a plan for a database of the pair, at a list of hosts."""
    primary, standby = pair

    def make(*servers: PostgresCluster, **options: str) -> Scene:
        name = parse(fresh_database(primary)).dbname
        with closing(psycopg2.connect(primary.url(name))) as connection, connection.cursor() as cursor:
            cursor.execute(FILL)
            connection.commit()
        catalogue = fresh_database(primary)
        assert eventually(lambda: caught_up(primary, standby))
        places = ",".join(f"127.0.0.1:{server.port}" for server in servers)
        asked = "&".join(f"{option}={value}" for option, value in options.items())
        url = f"postgresql://postgres:{primary.password}@{places}/{name}?{asked}"
        return make_scene(primary, url, catalogue, s3_server, s3_bucket(), tmp_path / "spool")

    return make


def ask(server: PostgresCluster, query: str) -> Any:
    with closing(psycopg2.connect(server.url())) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchone()[0]


def caught_up(primary: PostgresCluster, standby: PostgresCluster) -> bool:
    written = ask(primary, "SELECT pg_current_wal_lsn()")
    return bool(ask(standby, f"SELECT pg_last_wal_replay_lsn() >= '{written}'"))


def test_a_lagging_standby_first_in_the_list_is_never_asked(
    pair: tuple[PostgresCluster, PostgresCluster], pair_scene: Callable[..., Scene]
) -> None:
    primary, standby = pair
    one = pair_scene(standby, primary, target_session_attrs="read-write")
    ask(standby, "SELECT pg_wal_replay_pause()")
    try:
        check_every_mode(one, lambda: one.sql("INSERT INTO t VALUES (2)"), f"new of {one.name}")
    finally:
        ask(standby, "SELECT pg_wal_replay_resume()")


def test_backups_of_servers_in_random_order_work_every_time(
    pair: tuple[PostgresCluster, PostgresCluster], pair_scene: Callable[..., Scene]
) -> None:
    met = set()
    one = pair_scene(*pair, load_balance_hosts="random")
    for _ in range(8):
        again = make_again(one, pair)
        met.add(again.plan.database.port)
        assert again.back_up().rows == 1
    assert met == {server.port for server in pair}


def make_again(one: Scene, pair: tuple[PostgresCluster, PostgresCluster]) -> Scene:
    """The same plan in another run, which asks anew which server answers."""
    places = ",".join(f"127.0.0.1:{server.port}" for server in pair)
    url = f"postgresql://postgres:{pair[0].password}@{places}/{one.name}?load_balance_hosts=random"
    return one.with_plan(database=parse(url).pinned())


def test_two_servers_behind_one_port_are_refused_before_there_is_a_row(
    pair: tuple[PostgresCluster, PostgresCluster], pair_scene: Callable[..., Scene]
) -> None:
    """Whichever answers first: nothing but the address of one of them can be right every time."""
    one = pair_scene(pair[0])
    for servers in (pair, pair[::-1]):
        with in_turn(*(server.port for server in servers)) as port:
            behind = parse(f"postgresql://postgres:{pair[0].password}@127.0.0.1:{port}/{one.name}")
            with pytest.raises((PreflightFailed, BadSetting), match=f"Two servers answer at 127.0.0.1:{port}/"):
                survey(one.with_plan(database=behind).plan)
    assert one.plan.catalogue.rows("shop") == []
