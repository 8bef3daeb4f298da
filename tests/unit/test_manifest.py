"""The manifest says what docs/manifest.schema.json promises, and the schema lets nothing else pass."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from jsonschema import Draft202012Validator

from deployments.embedded.postgres import PostgresCluster
from tasks.core import manifest
from tasks.core.dump import dump
from tasks.core.dump_scanner import TableData
from tasks.core.names import backup_filename, object_key
from tasks.core.postgres import parse
from tasks.core.source import DatabaseProperties, Extension, Grant, RoleSettings, SourceFacts
from tasks.core.spool import Spool
from tasks.core.values import BackupRun, Dump, Part, StoredObject
from tests.conftest import DatabaseFactory

SCHEMA_FILE = Path(__file__).parents[2] / "docs" / "manifest.schema.json"
SCHEMA: dict[str, Any] = json.loads(SCHEMA_FILE.read_text())
VALIDATOR = Draft202012Validator(SCHEMA)
START = datetime(2026, 3, 1, 2, 0, 0, 123456, tzinfo=UTC)
BUCKET = "main-bucket"


def later(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


RUN = BackupRun(
    backup_id=1,
    plan="shop",
    run_id="0198-run",
    filename=backup_filename("shop", "0198-run", START),
    key=object_key("database-backups", "shop", backup_filename("shop", "0198-run", START)),
    created_by="Ümit",
    started_at=START,
    pg_dump="/usr/bin/pg_dump",
    pg_dump_version="18.1",
    codec="none",
    encrypted=False,
    part_size=16 << 20,
    most_parts=10_000,
    expected_size=1000,
    excluded_tables=("public.database_backups",),
    spool_directory="/tmp/spool",  # noqa: S108 (never used)
    spool_limit=2 << 30,
)
DUMP = Dump(
    plain_size=1500,
    plain_sha256="a" * 64,
    stored_size=1500,
    stored_sha256="a" * 64,
    parts=(Part(1, 1000, "b" * 64), Part(2, 500, "c" * 64)),
    tables=(TableData("public.orders", 20, 100, 900), TableData('public."odd ""name"', 0, 950, 950)),
    source=SourceFacts(
        database=DatabaseProperties(
            name="shop",
            owner="olga",
            encoding="UTF8",
            collate="C",
            ctype="C",
            locale_provider="icu",
            icu_locale="de-DE",
            icu_rules=None,
            builtin_locale=None,
            collation_version="153.1",
            tablespace="pg_default",
            connection_limit=-1,
            is_template=False,
            comment="The shop 🛒",
            grants=(Grant("PUBLIC", "CONNECT", False),),
            settings=(RoleSettings(None, ("work_mem=64MB",)), RoleSettings("olga", ("search_path=a, b",))),
            size=8_000_000,
            server_version="18.1",
            server_version_number=180001,
        ),
        extensions=(Extension("plpgsql", "1.0", "pg_catalog"),),
        roles=("olga", "reader"),
        table_count=2,
    ),
    started_at=later(1),
    finished_at=later(2.5),
)
STORED = StoredObject(RUN.key, 1500, DUMP.parts, '"etag"', later(3))


def built(**changes: Any) -> dict[str, Any]:
    """A manifest as a reader gets it, of a run with these changes."""
    made = manifest.build(replace(RUN, **changes), DUMP, STORED, BUCKET, later(4))
    read: dict[str, Any] = json.loads(manifest.to_bytes(made))
    return read


def errors(content: Any) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(content)]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside a JSON value; of a list, its first item stands for all."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield (*path, name)
            yield from places(inner, (*path, name))
    elif isinstance(value, list) and value:
        yield from places(value[0], (*path, 0))


def mutated(path: tuple[Any, ...], change: Any) -> dict[str, Any]:
    """A manifest in which the value at `path` was replaced; `change` is called with what holds it, and its name."""
    content = copy.deepcopy(built())
    holder: Any = content
    for step in path[:-1]:
        holder = holder[step]
    change(holder, path[-1])
    return content


def at(content: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        content = content[step]
    return content


ALL_PLACES = list(places(built()))
OBJECTS = [(), *(path for path in ALL_PLACES if isinstance(at(built(), path), dict)),
           *((*path, 0) for path in ALL_PLACES if isinstance(at(built(), path), list)
             and at(built(), path) and isinstance(at(built(), path)[0], dict))]  # fmt: skip
DOTTED = {"ids": lambda path: ".".join(map(str, path)) or "top"}


# --- the schema


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == Draft202012Validator.META_SCHEMA["$id"]


def schema_objects(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield schema
        for inner in schema.values():
            yield from schema_objects(inner)


def test_the_schema_describes_every_field_demands_each_and_allows_no_other() -> None:
    for schema in schema_objects(SCHEMA):
        assert schema["additionalProperties"] is False
        assert sorted(schema["required"]) == sorted(schema["properties"])
        for name, field in schema["properties"].items():
            assert len(field["description"]) > 10, name


def test_sizes_and_offsets_tell_their_unit() -> None:
    for schema in schema_objects(SCHEMA):
        for name, field in schema["properties"].items():
            if name in ("size", "part_size", "start", "end"):
                assert "bytes" in field["description"].lower(), name


# --- what is built


def test_a_manifest_fits_the_schema() -> None:
    assert errors(built()) == []


@pytest.mark.parametrize(
    ("codec", "recipients", "suffix"),
    [("none", (), ""), ("zstd", (), ".zst"), ("gzip", (), ".gz"), ("zstd", ("age1xyz",), ".zst.age")],
)
def test_every_codec_fits_the_schema(codec: str, recipients: tuple[str, ...], suffix: str) -> None:
    filename = backup_filename("shop", "0198-run", START, codec, bool(recipients))
    assert filename.endswith(f".sql{suffix}")
    content = built(codec=codec, encrypted=bool(recipients), recipients=recipients, filename=filename)
    assert errors(content) == []


def test_a_manifest_says_what_was_dumped_and_stored() -> None:
    content = built()
    assert content["format"] == manifest.FORMAT == 1
    assert content["object"]["key"] == RUN.key and content["object"]["bucket"] == BUCKET
    assert content["object"]["part_size"] == 1000
    assert sum(part["size"] for part in content["object"]["parts"]) == content["object"]["size"] == 1500
    assert content["plain"] == {"size": 1500, "sha256": "a" * 64}
    assert content["rows"] == 20 and content["table_count"] == 2
    assert content["tables"][1] == {"name": 'public."odd ""name"', "rows": 0, "start": 950, "end": 950}
    assert content["sections"] == [{"name": "all", "start": 0, "end": 1500}]
    assert content["database"]["comment"] == "The shop 🛒"
    assert content["started_at"] == "2026-03-01T02:00:00.123456+00:00"
    times = ["started_at", "dump_started_at", "dump_finished_at", "upload_finished_at", "recorded_at"]
    assert [content[name] for name in times] == sorted(content[name] for name in times)


def test_the_file_is_the_same_for_the_same_backup() -> None:
    first, second = (manifest.to_bytes(manifest.build(RUN, DUMP, STORED, BUCKET, later(4))) for _ in range(2))
    assert first == second
    assert "Ümit".encode() in first and first.endswith(b"}\n")
    assert manifest.sha256(first) == hashlib.sha256(first).hexdigest()


# --- what is refused


@pytest.mark.parametrize("path", ALL_PLACES, **DOTTED)
def test_a_manifest_that_lacks_a_field_is_refused(path: tuple[Any, ...]) -> None:
    assert errors(mutated(path, lambda holder, name: holder.pop(name)))


@pytest.mark.parametrize("path", OBJECTS, **DOTTED)
def test_a_manifest_with_an_unknown_field_is_refused(path: tuple[Any, ...]) -> None:
    assert errors(mutated((*path, "surprise"), lambda holder, name: holder.update({name: 1})))


@pytest.mark.parametrize("path", ALL_PLACES, **DOTTED)
@pytest.mark.parametrize("wrong", [{"an": "object"}, 1.5, [[]]], ids=["object", "fraction", "list"])
def test_a_field_of_the_wrong_type_is_refused(path: tuple[Any, ...], wrong: Any) -> None:
    assert errors(mutated(path, lambda holder, name: holder.update({name: wrong})))


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (("format",), 2),
        (("plan",), "No Plan"),
        (("filename",), "backup.sql"),
        (("filename",), "../backup_2026-03-01_02-00-00_9f2c41ab.sql"),
        (("started_at",), "2026-03-01T02:00:00"),
        (("started_at",), "2026-03-01T02:00:00+01:00"),
        (("recorded_at",), ""),
        (("codec",), "bzip2"),
        (("encrypted",), True),
        (("recipients",), ["age1xyz"]),
        (("rows",), -1),
        (("tool", "name"), "pg_dumpall"),
        (("object", "size"), 0),
        (("object", "sha256"), "A" * 64),
        (("object", "sha256"), "a" * 63),
        (("object", "parts"), []),
        (("object", "parts", 0, "number"), 0),
        (("object", "parts", 0, "size"), 0),
        (("plain", "size"), "1500"),
        (("sections",), []),
        (("sections", 0, "name"), "some"),
        (("tables", 0, "rows"), None),
        (("database", "grants"), "all"),
        (("database", "settings", 0, "settings"), ["no equals sign"]),
        (("database", "server_version_number"), "180001"),
        (("roles",), ["twice", "twice"]),
    ],
)
def test_a_value_that_cannot_be_is_refused(path: tuple[Any, ...], wrong: Any) -> None:
    assert errors(mutated(path, lambda holder, name: holder.__setitem__(name, wrong)))


# --- a real one


def test_the_manifest_of_a_real_dump_fits_the_schema(
    any_postgres: PostgresCluster, fresh_database: DatabaseFactory, tmp_path: Path
) -> None:
    url = fresh_database(any_postgres)
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE \"Ördér %\" AS SELECT n, 'row ' || n AS note FROM generate_series(1, 1000) n")
        cursor.execute("CREATE TABLE empty (n int); GRANT SELECT ON empty TO PUBLIC")
        cursor.execute("DO $$ BEGIN EXECUTE format('COMMENT ON DATABASE %I IS ''a shop''', current_database()); END $$")
        cursor.execute(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = ''8MB''', current_database());"
            " EXECUTE format('GRANT CONNECT ON DATABASE %I TO PUBLIC', current_database()); END $$"
        )
    connection.close()
    spool = Spool(tmp_path, part_size=4096, limit=1 << 30)
    run = replace(RUN, pg_dump=str(any_postgres.bin_directory / "pg_dump"), excluded_tables=(), part_size=4096)
    dumped = dump(run, spool, parse(url), lambda: datetime.now(UTC), lambda done: None, lambda: False)
    stored = StoredObject(run.key, dumped.stored_size, dumped.parts, "", datetime.now(UTC))
    content = json.loads(manifest.to_bytes(manifest.build(run, dumped, stored, BUCKET, datetime.now(UTC))))
    assert errors(content) == []
    assert {table["name"]: table["rows"] for table in content["tables"]} == {
        'public."Ördér %"': 1000,
        "public.empty": 0,
    }
    assert content["database"]["comment"] == "a shop"
    assert content["database"]["settings"] == [{"role": None, "settings": ["work_mem=8MB"]}]
    text = b"".join(spool.part_file(1, part).read_bytes() for part in dumped.parts)
    assert content["plain"]["sha256"] == hashlib.sha256(text).hexdigest()
    [table] = [one for one in content["tables"] if one["rows"]]
    assert text[table["start"] : table["end"]].count(b"\n") == 1000
