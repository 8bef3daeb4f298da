"""Names of any kind that PostgreSQL allows: the backup completes, counts right, and restores to the same database."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import psycopg2
import pytest
from psycopg2 import sql

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.s3 import S3Server
from tasks.backup import dump
from tasks.backup import open_backup as opening
from tasks.backup import record_backup as recording
from tasks.backup.upload import Shipper
from tasks.catalogue.catalogue import Catalogue
from tasks.errors import BackupSystemError, BadSetting
from tasks.names import manifest_key
from tasks.plans.plan import Plan, Policy
from tasks.postgres.dsn import parse
from tasks.storage.backup_stages import Backup
from tasks.storage.s3 import Storage
from tasks.storage.s3_client import make_client
from tasks.storage.spool import open_spool
from tests.conftest import DatabaseFactory
from tests.support.flow_fixtures import WorldFactory
from tests.support.world import masked, plain_dump

ODD_NAMES = (
    "two words",
    " blank around ",
    "quo'te",
    'dou"ble',
    '"',
    "back\\slash",
    "\\.",
    "per%cent %s %(x)s %20",
    "$HOME ${x} $$ $tag$",
    "ümläut",
    "💾",
    "-dash",
    "--dbname=template1",
    "new\nline",
    "carriage\rreturn",
    "tab\tbed",
    "; DROP TABLE x; --",
    "/* open",
    'x" FROM stdin;\n\\.\nCOPY "y',
    "a.b",
    "@host:5432/other?x=1#y",
    "postgresql://h/d",
    "dbname=other host=h",
    "select",
    "UPPER",
    "x" * 63,
    "ü" * 31 + "x",
    "💾" * 15 + "xyz",
)
MOMENT = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)


def _slow_but(kept: tuple[str, ...], texts: tuple[str, ...]) -> list[Any]:
    """Parameters of which all but `kept` are marked slow."""
    return [pytest.param(text, id=ascii(text), marks=() if text in kept else pytest.mark.slow) for text in texts]


class Bench:
    """A cluster and a bucket, and backups between them without Prefect."""

    def __init__(self, cluster: PostgresCluster, s3: S3Server, bucket: str, catalogue_url: str, spool: Path) -> None:
        self.cluster, self.s3, self.bucket, self.spool = cluster, s3, bucket, spool
        self.catalogue = Catalogue(parse(catalogue_url))
        session = boto3.Session(s3.access_key_id, s3.secret_access_key, region_name="us-east-1")
        self.storage = Storage(make_client(session, s3.endpoint_url), bucket)

    def plan(self, database_url: str, **more: Any) -> Plan:
        """A plan named `odd`."""
        settled = Plan(
            "odd",
            parse(database_url),
            self.catalogue,
            self.storage,
            "database-backups",
            Policy(),
            tools_directory=str(self.cluster.bin_directory),
            spool_directory=self.spool,
        )
        return replace(settled, **more)

    def back_up(self, plan: Plan) -> tuple[Backup, bytes, dict[str, Any]]:
        """The completed backup, what was stored, and its manifest."""
        run = opening.open_backup(plan, str(uuid.uuid4()), "tester", datetime.now(UTC), print)
        with open_spool(Path(run.spool_directory), run.run_id, run.part_size, run.spool_limit) as parts:
            dumped = dump.dump(run, parts, plan.database, lambda: MOMENT, lambda done: None)
            stored = Shipper(parts, plan.storage, run.key).ship(lambda: MOMENT, lambda done: None)
            backup = recording.record(plan, run, dumped, stored, MOMENT)
        return backup, self.get(backup.key), json.loads(self.get(manifest_key(backup.key)))

    def get(self, key: str) -> bytes:
        return self.s3.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def restore(self, text: bytes, url: str) -> None:
        """As a person would: `psql -1 -f`."""
        dsn = parse(url)
        words = [str(self.cluster.bin_directory / "psql"), "-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-f", "-"]
        done = subprocess.run(
            [*words, "-d", dsn.conninfo()], input=text, env=dsn.child_environment("restore"), capture_output=True
        )
        assert done.returncode == 0, done.stderr.decode()


@pytest.fixture
def bench(
    postgres_server: PostgresCluster,
    s3_server: S3Server,
    s3_bucket: Callable[[], str],
    fresh_database: DatabaseFactory,
    tmp_path: Path,
) -> Bench:
    catalogue_url = fresh_database(postgres_server)
    Catalogue(parse(catalogue_url)).prepare()
    return Bench(postgres_server, s3_server, s3_bucket(), catalogue_url, tmp_path / "spool")


def _run(url: str, *statements: str | sql.Composable) -> list[tuple[Any, ...]]:
    with contextlib.closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []


def _sql(template: str, **names: str) -> sql.Composable:
    literals = {key: sql.Literal(name) if key.isupper() else sql.Identifier(name) for key, name in names.items()}
    return sql.SQL(template).format(**literals)


def _make_role(url: str, name: str, password: str) -> None:
    if _run(url, _sql("SELECT 1 FROM pg_roles WHERE rolname = {N}", N=name)):
        _run(url, _sql("REASSIGN OWNED BY {r} TO postgres", r=name), _sql("DROP OWNED BY {r}", r=name))
    _run(url, _sql("DROP ROLE IF EXISTS {r}", r=name), _sql("CREATE ROLE {r} LOGIN PASSWORD {P}", r=name, P=password))


def _counts(url: str) -> dict[str, int]:
    """Rows by table, asked table by table."""
    listed = (
        "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
    )
    return {name: _run(url, f"SELECT count(*) FROM {name}")[0][0] for (name,) in _run(url, listed)}


def _check_round_trip(bench: Bench, url: str, text: bytes, manifest: dict[str, Any], copy_url: str) -> None:
    """The manifest counts right and points at the rows; `psql -1` makes the same database of the text."""
    counts = _counts(url)
    assert {table["name"]: table["rows"] for table in manifest["tables"]} == counts
    assert hashlib.sha256(text).hexdigest() == manifest["plain"]["sha256"]
    for table in manifest["tables"]:
        piece = text[table["start"] : table["end"]]
        assert piece.count(b"\n") == table["rows"]
        assert text[table["end"] :].startswith(b"\\.\n")
    bench.restore(text, copy_url)
    assert _counts(copy_url) == counts
    assert plain_dump(bench.cluster, copy_url) == plain_dump(bench.cluster, url)


@pytest.mark.parametrize("name", _slow_but(("quo'te", "--dbname=template1", "per%cent %s %(x)s %20"), ODD_NAMES))
def test_database_role_and_password_may_have_any_name(bench: Bench, fresh_database: DatabaseFactory, name: str) -> None:
    cluster = bench.cluster
    try:
        superuser_url = fresh_database(cluster, name)
    except psycopg2.Error:
        superuser_url = fresh_database(cluster)  # newer servers take no line end in a database's name
    dbname = parse(superuser_url).dbname
    try:
        _make_role(cluster.url(), name, f"pass {name}")
    except psycopg2.Error:
        pytest.skip("this server takes no such name for a role")
    _run(
        cluster.url(),
        _sql("ALTER DATABASE {d} OWNER TO {r}", d=dbname, r=name),
        _sql("ALTER DATABASE {d} SET search_path = {s}, public", d=dbname, s=name),
        _sql("COMMENT ON DATABASE {d} IS {C}", d=dbname, C=name),
    )
    url = cluster.url(dbname, name, f"pass {name}")
    _run(
        url,
        _sql("CREATE SCHEMA {s}", s=name),
        _sql("CREATE TABLE {s}.{s} ({s} text)", s=name),
        _sql("INSERT INTO {s}.{s} VALUES ({V}), ('x')", s=name, V=name),
    )
    try:
        backup, text, manifest = bench.back_up(bench.plan(url))
        assert (backup.rows, backup.tables) == (2, 1)
        assert (manifest["database"]["name"], manifest["database"]["owner"]) == (dbname, name)
        assert name in manifest["roles"]
        copy_url = fresh_database(cluster)
        _check_round_trip(bench, superuser_url, text, manifest, copy_url)
        _run(cluster.url(), _sql("DROP DATABASE {d} WITH (FORCE)", d=parse(copy_url).dbname))
    finally:
        _run(cluster.url(), _sql("DROP DATABASE {d} WITH (FORCE)", d=dbname), _sql("DROP ROLE {r}", r=name))


@pytest.mark.slow
def test_everything_in_a_database_may_have_any_name(bench: Bench, fresh_database: DatabaseFactory) -> None:
    url, copy_url = fresh_database(bench.cluster), fresh_database(bench.cluster)
    roles = [
        f"role {name}".encode()[:60].decode(errors="ignore")
        for name in ODD_NAMES[:16]
        if "\n" not in name and "\r" not in name
    ]
    for role in roles:
        _make_role(bench.cluster.url(), role, "x")
    for number, name in enumerate(ODD_NAMES):
        short = name.encode()[:50].decode(errors="ignore")
        role = roles[number % len(roles)]
        names = {
            "s": name,
            "t": name,
            "c": name,
            "e": f"{short} type",
            "v": f"{short} view",
            "f": f"{short} fn",
            "i": f"{short} index",
            "d": f"{short} table",
            "q": f"{short} seq",
            "r": role,
            "N": name,
        }
        _run(
            url,
            _sql("CREATE SCHEMA {s}", **names),
            _sql("CREATE TYPE {s}.{e} AS ENUM ({N}, 'other')", **names),
            _sql(
                "CREATE TABLE {s}.{t} (id serial PRIMARY KEY, {c} text DEFAULT {N}, {e} {s}.{e} DEFAULT {N})", **names
            ),
            _sql("INSERT INTO {s}.{t} ({c}) VALUES ({N}), (NULL), ('\\.'), (E'a\\n\\\\.\\nb')", **names),
            _sql("CREATE TABLE {s}.{d} ({c} int) PARTITION BY LIST ({c})", **names),
            _sql("CREATE TABLE public.{d} PARTITION OF {s}.{d} DEFAULT", **names),
            _sql("INSERT INTO {s}.{d} SELECT generate_series(1, 3)", **names),
            _sql("CREATE VIEW {s}.{v} AS SELECT {c} FROM {s}.{t} WHERE {c} <> {N}", **names),
            _sql("CREATE INDEX {i} ON {s}.{t} ({c})", **names),
            _sql("CREATE SEQUENCE {s}.{q} START 7", **names),
            _sql(
                "CREATE FUNCTION {s}.{f}() RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT {c} FROM {s}.{t} AS {t}; END",
                **names,
            ),
            _sql("COMMENT ON COLUMN {s}.{t}.{c} IS {N}", **names),
            _sql("GRANT SELECT ON {s}.{t} TO {r}", **names),
            _sql("ALTER TABLE {s}.{t} OWNER TO {r}", **names),
        )
    backup, text, manifest = bench.back_up(bench.plan(url))
    assert backup.rows == 7 * len(ODD_NAMES)
    assert set(roles) <= set(manifest["roles"])
    _check_round_trip(bench, url, text, manifest, copy_url)
    for database in (url, copy_url):
        _run(bench.cluster.url(), _sql("DROP DATABASE {d} WITH (FORCE)", d=parse(database).dbname))
    for role in roles:
        _run(bench.cluster.url(), _sql("DROP ROLE {r}", r=role))


@pytest.mark.parametrize("encoding", _slow_but(("LATIN1",), ("LATIN1", "WIN1252", "EUC_JP", "SQL_ASCII")))
def test_names_in_a_database_of_another_encoding_are_told_right(bench: Bench, encoding: str) -> None:
    name, table = f"odd_{encoding.lower()}", "日本" if encoding == "EUC_JP" else "ümläut ß"
    for database in (name, f"{name}_copy"):
        _run(
            bench.cluster.url(),
            f"DROP DATABASE IF EXISTS {database}",
            f"CREATE DATABASE {database} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'",
        )
    url, copy_url = bench.cluster.url(name), bench.cluster.url(f"{name}_copy")
    with contextlib.closing(psycopg2.connect(url, client_encoding="UTF8")) as connection, connection.cursor() as cursor:
        cursor.execute(_sql("CREATE TABLE {t} ({t} text)", t=table))
        cursor.execute(_sql("INSERT INTO {t} VALUES ({T})", t=table, T=table))
        connection.commit()
    _, text, manifest = bench.back_up(bench.plan(url))
    assert [(one["name"], one["rows"]) for one in manifest["tables"]] == [(f'public."{table}"', 1)]
    assert manifest["database"]["encoding"] == encoding
    bench.restore(text, copy_url)
    assert plain_dump(bench.cluster, copy_url) == plain_dump(bench.cluster, url)


def test_bytes_that_are_no_text_in_any_encoding_do_not_stop_a_backup(bench: Bench) -> None:
    _run(
        bench.cluster.url(),
        "DROP DATABASE IF EXISTS odd_bytes",
        "DROP DATABASE IF EXISTS odd_bytes_copy",
        "CREATE DATABASE odd_bytes TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'",
        "CREATE DATABASE odd_bytes_copy TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'",
    )
    url = bench.cluster.url("odd_bytes")
    with contextlib.closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(b'CREATE TABLE "m\xfcller" (i int)')
        cursor.execute(b'INSERT INTO "m\xfcller" VALUES (1), (2)')
        connection.commit()
    _, text, manifest = bench.back_up(bench.plan(url))
    assert [one["rows"] for one in manifest["tables"]] == [2]
    bench.restore(text, bench.cluster.url("odd_bytes_copy"))
    assert plain_dump(bench.cluster, bench.cluster.url("odd_bytes_copy")) == plain_dump(bench.cluster, url)


# --- the store

FOLDERS = (
    "two words",
    "ümläut/💾",
    "100% sure",
    "plus+and&?#=",
    "quo'te",
    'dou"ble',
    "back\\slash",
    "-dash",
    "~tilde",
    "semi;colon",
    "x" * 200,
)


@pytest.mark.parametrize("folder", _slow_but(("ümläut/💾",), FOLDERS))
def test_a_folder_of_the_bucket_may_have_any_name(bench: Bench, fresh_database: DatabaseFactory, folder: str) -> None:
    url = fresh_database(bench.cluster)
    plan = bench.plan(url, folder=folder)
    backup, text, _ = bench.back_up(plan)
    assert backup.key.startswith(f"{folder}/odd/backup_")
    assert b"PostgreSQL database dump complete" in text
    assert {one.key for one in plan.storage.objects(plan.prefix)} == {backup.key, manifest_key(backup.key)}
    opened = plan.storage.begin(plan.key("x"))
    assert plan.storage.unfinished(plan.prefix) == [(plan.key("x"), opened)]
    plan.storage.abort(plan.key("x"), opened)
    assert plan.storage.unfinished(plan.prefix) == []
    plan.storage.delete(backup.key)
    assert plan.storage.size(backup.key) is None


@pytest.mark.parametrize(
    "bucket", _slow_but(("two words",), ("two words", "ümlaut", "a/b", "", "new\nline", "x" * 300))
)
def test_a_bucket_that_no_store_can_have_is_refused_in_one_sentence_and_never_retried(
    bench: Bench, fresh_database: DatabaseFactory, bucket: str
) -> None:
    storage = Storage(bench.storage._client, bucket)
    with pytest.raises(BackupSystemError, match="bucket") as refused:
        bench.back_up(bench.plan(fresh_database(bench.cluster), storage=storage))
    assert type(refused.value).__name__ == "PreflightFailed"
    assert "\n" not in str(refused.value)


# --- through Prefect


@pytest.mark.parametrize("plan", _slow_but(("x" * 63,), ("a", "7", "shop-eu-1", "x" * 63)))
def test_a_plan_with_any_valid_name_is_set_up_and_backs_up(make_world: WorldFactory, plan: str) -> None:
    from flows.backup import backup

    world = make_world(mebibytes=0).save_plan(plan)
    world.sql("CREATE TABLE t AS SELECT 1 AS i")
    done = backup(plan, "Änne 💾\x7f")
    assert done.key == f"database-backups/{plan}/{done.filename}"
    assert world.statuses() == ["completed"]
    assert world.rows()[0].created_by == "Änne 💾"


@pytest.mark.parametrize(
    "plan", ["Upper", "two words", "under_score", "../x", "ü", "", "x" * 64, "new\nline"], ids=ascii
)
def test_a_plan_with_any_other_name_is_refused_in_one_sentence(prefect_api: Any, plan: str) -> None:
    from tasks.plans.find_plan import plan_named

    with pytest.raises(BadSetting, match="use lower-case letters, digits and single dashes") as refused:
        plan_named(plan)
    assert "\n" not in str(refused.value)


def test_a_whole_flow_with_odd_names_everywhere(make_world: WorldFactory, fresh_database: DatabaseFactory) -> None:
    from flows.backup import backup

    odd = "ü 'q\" %s \\ $x 💾 -"
    world = make_world(mebibytes=0)
    url = fresh_database(world.cluster, odd)
    _make_role(world.cluster.url(), odd, f"--{odd}@:/")
    _run(url, _sql("ALTER DATABASE {d} OWNER TO {d}", d=odd))
    world = replace(world, database_url=world.cluster.url(odd, odd, f"--{odd}@:/")).save_plan("odd-world")
    world.sql(_sql("CREATE SCHEMA {n}", n=odd))
    world.sql(_sql("CREATE TABLE {n}.{n} AS SELECT i AS {n} FROM generate_series(1, 5) i", n=odd))
    done = backup(world.plan, odd)
    row, text, manifest = world.newest()
    assert (row.status, row.created_by, row.row_count, row.metadata["database"]) == (
        "completed",
        odd,
        5,
        odd,
    )
    quoted = '"' + odd.replace('"', '""') + '"'
    assert [(one["name"], one["rows"]) for one in manifest["tables"]] == [(f"{quoted}.{quoted}", 5)]
    assert masked(text) == plain_dump(world.cluster, world.database_url)
    assert done.rows == 5
    world.check_no_debris()
    _run(world.cluster.url(), _sql("DROP DATABASE {d} WITH (FORCE)", d=odd), _sql("DROP ROLE {d}", d=odd))
