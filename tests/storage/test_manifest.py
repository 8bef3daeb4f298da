"""The manifest says what docs/manifest.schema.json promises, and the schema lets nothing else pass."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from deployments.quick_start.postgres import PostgresCluster
from tasks.backup.dump import dump
from tasks.errors import BackupDamaged, BadSetting
from tasks.names import backup_filename, manifest_key, object_key
from tasks.postgres.dsn import parse
from tasks.storage.backup_stages import BackupRun, Dump, StoredObject
from tasks.storage.backup_values import DatabaseProperties, Extension, Part, Partition, SourceFacts, TableData
from tasks.storage.manifest_file import FORMAT
from tasks.storage.manifest_text import build_manifest, checksum, read_manifest, to_bytes, with_checksum
from tasks.storage.manifest_types import (
    Grant,
    Membership,
    ParameterGrants,
    Role,
    RoleSettings,
    ServerGlobals,
    Tablespace,
)
from tasks.storage.signatures import checked_keys
from tasks.storage.spool import Spool
from tests.conftest import DatabaseFactory
from tests.support import manifest_schema

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
        large_objects=3,
        partitions=(Partition("public.part_1", "public.whole"),),
        globals=ServerGlobals(
            roles=(Role("olga", ("INHERIT", "LOGIN"), -1, None, "owns the shop"),),
            memberships=(Membership("olga", "reader", False, True, None, ""),),
            settings=(RoleSettings("olga", ("work_mem=4MB",)),),
            tablespaces=(Tablespace("fast", "olga", "/srv/fast", ("random_page_cost=1.5",), None, None),),
            parameters=(ParameterGrants("work_mem", (Grant("olga", "ALTER SYSTEM", False),)),),
            missing=("Security labels are not kept.",),
            passwords="-----BEGIN AGE ENCRYPTED FILE-----",
            sql=("SET client_encoding = 'UTF8';",),
            database_sql=("SET client_encoding = 'UTF8';",),
        ),
    ),
    started_at=later(1),
    finished_at=later(2.5),
)
STORED = StoredObject(RUN.key, 1500, DUMP.parts, '"etag"', later(3))


def built(**changes: Any) -> dict[str, Any]:
    """A manifest as a reader gets it, of a run with these changes."""
    made = build_manifest(replace(RUN, **changes), DUMP, STORED, BUCKET, later(4))
    read: dict[str, Any] = json.loads(to_bytes(made))
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
OBJECTS = [
    (),
    *(path for path in ALL_PLACES if isinstance(at(built(), path), dict)),
    *(
        (*path, 0)
        for path in ALL_PLACES
        if isinstance(at(built(), path), list) and at(built(), path) and isinstance(at(built(), path)[0], dict)
    ),
]
DOTTED = {"ids": lambda path: ".".join(map(str, path)) or "top"}


# --- the schema


def test_the_schema_is_made_from_the_model() -> None:
    """`python -m tests.support.manifest_schema > docs/manifest.schema.json` writes it."""
    assert manifest_schema.schema() == SCHEMA


def test_the_schema_is_a_json_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == Draft202012Validator.META_SCHEMA["$id"]


def schema_objects(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield schema
        for inner in schema.values():
            yield from schema_objects(inner)


#: Fields that are true or false.
YES_OR_NO = {"is_template", "encrypted", "grantable", "has_public_schema", "admin", "inherit", "set"}
#: What not every backup has.
OPTIONAL = {"signature", "left_out", "grantor", "globals"}


def test_the_schema_describes_every_field_demands_what_every_backup_has_and_allows_no_other() -> None:
    for schema in schema_objects(SCHEMA):
        assert schema["additionalProperties"] is False
        assert {*schema["required"]} == {*schema["properties"]} - OPTIONAL
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


def test_a_signed_manifest_fits_the_schema_and_one_without_a_key_has_no_such_field() -> None:
    private = base64.b64encode(bytes.fromhex("302e020100300506032b657004220420") + bytes(32)).decode()
    content = json.loads(to_bytes(build_manifest(RUN, DUMP, STORED, BUCKET, later(4)), checked_keys(private)))
    assert len(content["signature"]) == 88 and errors(content) == []
    assert errors({**content, "signature": ""}) and errors({**content, "signature": "A" * 88})
    assert "signature" not in built()


def test_a_manifest_says_what_was_dumped_and_stored() -> None:
    content = built()
    assert content["format"] == FORMAT == 1
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
    first, second = (to_bytes(build_manifest(RUN, DUMP, STORED, BUCKET, later(4))) for _ in range(2))
    assert first == second
    assert "Ümit".encode() in first and first.endswith(b"}\n")


# --- what is refused


@pytest.mark.parametrize("path", [path for path in ALL_PLACES if path[-1] not in OPTIONAL], **DOTTED)
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
        (("checksum",), ""),
        (("large_objects",), -1),
        (("backup_id",), 0),
        (("suspicious",), None),
        (("partitions",), {}),
        (("partitions", 0, "parent"), None),
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


# --- what is read

KEY = manifest_key(RUN.key)
CONTENT = to_bytes(build_manifest(RUN, DUMP, STORED, BUCKET, later(4)))


def resealed(content: Any) -> bytes:
    """A file with a checksum that fits, whatever else is wrong with it."""
    return with_checksum(content)


def refusal(content: bytes, key: str = KEY) -> str:
    with pytest.raises(BackupDamaged) as caught:
        read_manifest(content, key)
    assert str(caught.value).startswith(f"{key} is damaged: ") and str(caught.value).endswith(".")
    return str(caught.value)


def test_what_was_written_is_read() -> None:
    read = read_manifest(CONTENT, KEY)
    assert (read.format, read.run_id, read.created_by, read.table_count) == (1, "0198-run", "Ümit", 2)
    assert read.recorded_at == later(4)
    assert (read.backup_id, read.suspicious, read.dump_seconds) == (1, "", 1.5)
    backup = read.backup
    assert (backup.plan, backup.filename, backup.bucket, backup.key) == ("shop", RUN.filename, BUCKET, RUN.key)
    assert backup.created_at == START and backup.backup_id is None and backup.warnings == ()
    assert (backup.size, backup.sha256, backup.parts) == (1500, "a" * 64, DUMP.parts)
    assert (backup.plain_size, backup.plain_sha256, backup.tables) == (1500, "a" * 64, DUMP.tables)
    assert (backup.database, backup.extensions) == (DUMP.source.database, DUMP.source.extensions)
    assert (backup.roles, backup.excluded_tables) == (("olga", "reader"), ("public.database_backups",))
    assert backup.partitions == DUMP.source.partitions and backup.parents == {"public.part_1": "public.whole"}
    assert (backup.large_objects, backup.rows, backup.pg_dump_version) == (3, 20, "18.1")


def test_a_suspicion_is_kept() -> None:
    content = to_bytes(build_manifest(RUN, DUMP, STORED, BUCKET, later(4), "It shrank by half."))
    assert errors(json.loads(content)) == []
    assert read_manifest(content, KEY).suspicious == "It shrank by half."


def test_a_newer_format_is_refused_with_what_to_do() -> None:
    with pytest.raises(BadSetting, match=r"has format 2, and this program reads format 1: update the program"):
        read_manifest(resealed({**built(), "format": 2, "brand": "new"}), KEY)


@pytest.mark.parametrize("wrong", [0, -1, None, "2", 2.0, True, [], {}, "x" * 10_000])
def test_a_format_that_never_was_is_refused(wrong: Any) -> None:
    assert "the field format is" in refusal(resealed({**built(), "format": wrong}))


def test_the_checksum_can_be_computed_by_hand() -> None:
    emptied = CONTENT.replace(json.loads(CONTENT)["checksum"].encode(), b"")
    assert hashlib.sha256(emptied).hexdigest() == json.loads(CONTENT)["checksum"] == checksum(CONTENT)


def test_no_text_in_a_manifest_can_pass_for_its_checksum() -> None:
    odd = f'"checksum": "{"d" * 64}"'
    properties = replace(DUMP.source.database, comment=odd, name=odd)
    dumped = replace(DUMP, source=replace(DUMP.source, database=properties))
    content = to_bytes(build_manifest(replace(RUN, created_by=odd), dumped, STORED, BUCKET, later(4)))
    assert read_manifest(content, KEY).backup.database.comment == odd


@settings(max_examples=400, deadline=None)
@given(at=st.integers(0, len(CONTENT) - 1), by=st.integers(1, 255))
def test_every_flipped_byte_is_noticed(at: int, by: int) -> None:
    content = bytearray(CONTENT)
    content[at] ^= by
    refusal(bytes(content))


@settings(max_examples=200, deadline=None)
@given(length=st.integers(0, len(CONTENT) - 1))
def test_every_truncation_is_noticed(length: int) -> None:
    refusal(CONTENT[:length])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)
DEEP = b"[" * 100_000
HUGE = b'{"format": ' + b"9" * 5000 + b"}"


@settings(max_examples=300, deadline=None)
@given(content=st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()))
@example(content=DEEP)
@example(content=b'{"a":' * 100_000)
@example(content=HUGE)
@example(content=b'{"format": NaN}')
@example(content=b'{"format": -Infinity}')
@example(content=b'{"format": 1, "format": 2}')
@example(content=b'{"format": 1e400}')
@example(content=b"\xef\xbb\xbf{}")
@example(content="{}".encode("utf-16"))
@example(content=b"\x00")
@example(content=b"")
def test_whatever_comes_in_is_refused_in_a_sentence(content: bytes) -> None:
    assert len(refusal(content)) < 1000


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(path=st.sampled_from(ALL_PLACES), wrong=JSON)
def test_whatever_stands_in_a_field_a_typed_manifest_or_a_sentence_comes_out(path: tuple[Any, ...], wrong: Any) -> None:
    content = mutated(path, lambda holder, name: holder.__setitem__(name, wrong))
    try:
        read = read_manifest(resealed(content), KEY)
    except (BackupDamaged, BadSetting) as error:
        assert str(error).startswith(KEY) and len(str(error)) < 1000
    else:
        json.dumps(read.backup.filename)
        repr(read).encode()


@pytest.mark.parametrize("path", [path for path in ALL_PLACES if path != ("checksum",)], **DOTTED)
@pytest.mark.parametrize(
    "wrong",
    [{"an": "object"}, 1.5, [[]], "\ud800", "a\0b", 10**30, -5, True],
    ids=["object", "fraction", "list", "surrogate", "nul", "huge", "negative", "true"],
)
def test_the_reader_names_the_field_of_a_wrong_type(path: tuple[Any, ...], wrong: Any) -> None:
    if wrong is True and path[-1] in YES_OR_NO:
        wrong = 1
    made = mutated(path, lambda holder, name: holder.__setitem__(name, wrong))
    content = json.dumps({**made, "checksum": ""}, indent=1).encode()  # ASCII: what UTF-8 cannot hold is escaped
    content = content.replace(b'"checksum": ""', b'"checksum": "%b"' % hashlib.sha256(content).hexdigest().encode())
    field = "the field " + re.sub(r"\.(\d+)", r"[\1]", ".".join(map(str, path)))
    assert (field if wrong != "\ud800" else "is no JSON that a manifest can have") in refusal(content)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({("object", "parts", 0, "size"): 999}, "object.parts[0].size"),
        ({("object", "parts", 1, "size"): 501}, "object.size"),
        ({("object", "parts", 1, "size"): 1001}, "object.parts[1].size"),
        ({("object", "parts", 1, "number"): 3}, "object.parts[1].number"),
        ({("object", "parts"): []}, "object.parts"),
        ({("object", "size"): 1501}, "object.size"),
        ({("object", "sha256"): "b" * 64}, "plain"),
        ({("object", "sha256"): "A" * 64}, "object.sha256"),
        ({("object", "key"): "elsewhere/backup.sql"}, "object.key"),
        ({("filename",): backup_filename("shop", "another", START)}, "object.key"),
        ({("filename",): "../../etc/passwd"}, "filename"),
        ({("plan",): "No Plan"}, "plan"),
        ({("codec",): "zstd"}, "codec"),
        ({("codec",): "bzip2"}, "codec"),
        ({("filename",): RUN.filename.removesuffix(".sql") + ".sql.age"}, "codec"),
        ({("codec",): "gzip", ("encrypted",): True, ("recipients",): ["age1xyz"]}, "codec"),
        ({("encrypted",): True}, "recipients"),
        ({("recipients",): ["age1xyz"]}, "recipients"),
        ({("plain", "size"): 1499}, "plain"),
        ({("sections", 0, "end"): 1400}, "sections"),
        ({("sections", 0, "start"): 1}, "sections[0]"),
        ({("sections",): []}, "sections"),
        ({("tables", 1, "start"): 900, ("tables", 1, "end"): 900}, "tables[1]"),
        ({("tables", 0, "end"): 960}, "tables[1]"),
        ({("tables", 1, "end"): 1501}, "tables[1].end"),
        ({("tables", 0, "start"): 901}, "tables[0].end"),
        ({("tables", 0, "rows"): 801}, "tables[0].rows"),
        ({("tables", 1, "rows"): 1}, "tables[1].rows"),
        ({("rows",): 21}, "rows"),
        ({("table_count",): 3}, "table_count"),
        ({("left_out",): {"tables": [], "rows": ["public.orders"], "schemas": []}}, "left_out"),
        ({("left_out",): {"tables": ["public.orders"], "rows": [], "schemas": []}}, "left_out"),
        ({("left_out",): {"tables": [], "schemas": []}}, "left_out.rows"),
        ({("roles",): ["twice", "twice"]}, "roles"),
        ({("started_at",): "2026-02-30T02:00:00+00:00"}, "started_at"),
        ({("recorded_at",): "2026-03-01T02:00:00+01:00"}, "recorded_at"),
        ({("dump_started_at",): "yesterday"}, "dump_started_at"),
        ({("database", "settings", 0, "settings"): ["=x"]}, "database.settings[0].settings[0]"),
        ({("database", "connection_limit"): -3}, "database.connection_limit"),
        ({("surprise",): 1}, "'surprise'"),
        ({("database", "surprise"): 1}, "database.'surprise'"),
    ],
)
def test_what_does_not_agree_with_itself_is_refused(changes: dict[tuple[Any, ...], Any], field: str) -> None:
    content = built()
    for path, value in changes.items():
        at(content, path[:-1])[path[-1]] = value
    said = refusal(resealed(content))
    assert re.search(rf"the field {re.escape(field)} (is|does|names|begins|ends|has|must|should|may)\b", said), said


def test_a_table_may_begin_with_the_text_and_end_with_it() -> None:
    content = built()
    content["tables"] = [{**content["tables"][0], "start": 0, "end": 1500}]
    content["table_count"] = 1
    assert read_manifest(resealed(content), KEY).tables[0].end == 1500


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_a_number_that_json_does_not_know_is_refused(constant: str) -> None:
    content = CONTENT.replace(b'"table_count": 2', f'"table_count": {constant}'.encode())
    assert content != CONTENT
    seal = checksum(content).encode()
    assert "is no JSON that a manifest can have" in refusal(
        re.sub(rb'("checksum": ")[0-9a-f]{64}', rb"\g<1>" + seal, content)
    )


def test_a_manifest_of_another_backup_is_refused() -> None:
    other = manifest_key(object_key("database-backups", "shop", backup_filename("shop", "other", START)))
    assert "the field filename is backup_" in refusal(CONTENT, other)


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
    dumped = dump(run, spool, parse(url), lambda: datetime.now(UTC), lambda done: None)
    stored = StoredObject(run.key, dumped.stored_size, dumped.parts, "", datetime.now(UTC))
    content = json.loads(to_bytes(build_manifest(run, dumped, stored, BUCKET, datetime.now(UTC))))
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
