"""What is adopted, and what is refused: the object is read from a real store, by the real pg_restore."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pyrage
import pytest
import zstandard

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.s3 import S3Server
from tasks.adopt.adopt_file import Adopted, adopt, checked_key
from tasks.errors import AdoptionRefused, BadSetting
from tasks.names import ADOPTED
from tasks.storage.backup_stages import BackupRun
from tasks.storage.spool import open_spool
from tests.adopt.dumps import CUSTOM, PLAIN, TAR, dump_of
from tests.support.stored_world import StoredWorld

__all__ = ["dump_of"]
KEY = "old/shop.dump"
NOW = datetime(2026, 3, 18, tzinfo=UTC)
IDENTITY, OTHER = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
Dumper = Callable[..., bytes]


@dataclass
class Desk:
    """Puts bytes into the bucket, and adopts them without a flow."""

    world: StoredWorld
    spool: Path
    tools: str
    text: bytes = b""

    def adopt(self, content: bytes, key: str = KEY) -> Adopted:
        plan = replace(self.world.plan, identities=(str(IDENTITY),), tools_directory=self.tools)
        plan.storage.put(key, content)
        run = BackupRun(
            1, plan.name, "run", "f", "k", "Ada", NOW, "", "", "none", False, 1 << 20, 100, 1, (), "", 1, ADOPTED
        )
        with open_spool(self.spool, "run", 1 << 20, 64 << 20) as parts:
            adopted = adopt(plan, run, parts, key, lambda: NOW, lambda _: None)
            self.text = b"".join(parts.part_file(1, part).read_bytes() for part in parts.ready(1))
        assert plan.storage.get(key) == content
        return adopted

    def refusal(self, content: bytes) -> str:
        with pytest.raises(AdoptionRefused) as refused:
            self.adopt(content)
        said = str(refused.value)
        assert said.startswith(f"{KEY} was not adopted, and nothing of it was stored. ") and "\n" not in said
        return said


@pytest.fixture
def desk(
    any_postgres: PostgresCluster, s3_server: S3Server, s3_bucket: Callable[[], str], catalogue_url: str, tmp_path: Path
) -> Desk:
    world = StoredWorld.make(any_postgres, s3_server, s3_bucket(), catalogue_url)
    return Desk(world, tmp_path / "spool", str(any_postgres.bin_directory))


def as_age(content: bytes, identity: pyrage.x25519.Identity = IDENTITY) -> bytes:
    return bytes(pyrage.encrypt(content, [identity.to_public()]))


def as_zstd(content: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(content)


def two(pack: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda content: pack(content[:9000]) + pack(content[9000:])


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "as it is": bytes,
    "gzip": gzip.compress,
    "several gzip members": two(gzip.compress),
    "zstd": as_zstd,
    "several zstd frames": two(as_zstd),
    "zstd with a skippable frame": lambda content: as_zstd(content) + b"\x50\x2a\x4d\x18\x03\0\0\0abc",
    "age": as_age,
    "gzip in age": lambda content: as_age(gzip.compress(content)),
}


def rows_of(adopted: Adopted) -> dict[str, int]:
    return {table.name: table.rows for table in adopted.dump.tables}


ROWS = {"shop.customers": 400, "shop.sales_2026": 100}


@pytest.mark.parametrize("form", [PLAIN, CUSTOM])
@pytest.mark.parametrize("packed", PACKED)
def test_each_compression_of_each_format_is_read_whatever_its_name_is(
    desk: Desk, dump_of: Dumper, form: str, packed: str
) -> None:
    adopted = desk.adopt(PACKED[packed](dump_of(form)), "old/no-suffix")
    source = adopted.dump.source
    assert rows_of(adopted) == ROWS
    assert (source.large_objects, source.database.encoding, source.database.owner) == (1, "UTF8", "unknown")
    assert [(one.name, one.version, one.schema) for one in source.extensions] == [("pg_trgm", "unknown", "shop")]
    assert [(one.name, one.parent) for one in source.partitions] == [("shop.sales_2026", "shop.sales")]
    assert source.roles == ("postgres",)
    assert source.database.server_version_number >= 130000


@pytest.mark.parametrize("form", [PLAIN, CUSTOM])
@pytest.mark.parametrize("packed", ["as it is", "gzip", "several gzip members", "several zstd frames", "gzip in age"])
def test_one_that_was_cut_anywhere_is_refused(desk: Desk, dump_of: Dumper, form: str, packed: str) -> None:
    whole = PACKED[packed](dump_of(form))
    anywhere = random.Random(7)
    cuts = {
        0,
        1,
        5,
        len(whole) // 2,
        len(whole) - 2,
        len(whole) - 1,
        *(anywhere.randrange(len(whole)) for _ in range(12)),
    }
    for cut in sorted(cuts):
        desk.refusal(whole[:cut])


WINDOWS = {
    "PowerShell's >": lambda text: b"\xff\xfe" + text.replace("\n", "\r\n").encode("utf-16-le"),
    "UTF-16, the other way round": lambda text: b"\xfe\xff" + text.replace("\n", "\r\n").encode("utf-16-be"),
    "UTF-16 without a mark": lambda text: text.encode("utf-16-le"),
    "UTF-8 with a mark and Windows's line ends": lambda text: b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(),
    "UTF-8 with a mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
}


@pytest.mark.parametrize("how", WINDOWS)
def test_powershells_utf16_becomes_the_text_that_pg_dump_wrote(desk: Desk, dump_of: Dumper, how: str) -> None:
    text = dump_of(PLAIN)
    written = WINDOWS[how](text.decode())
    adopted = desk.adopt(written)
    assert rows_of(adopted) == ROWS and desk.text == text
    assert any("UTF-16" in note for note in adopted.notes) == ("UTF-8" not in how)
    anywhere = random.Random(7)
    for cut in (*(anywhere.randrange(len(written)) for _ in range(12)), len(written) - 1):
        desk.refusal(written[:cut])


def test_characters_that_powershell_lost_are_refused(desk: Desk, dump_of: Dumper) -> None:
    text = dump_of(PLAIN).decode().replace("Zoë", "Zo\N{REPLACEMENT CHARACTER}")
    assert "Characters were lost" in desk.refusal(b"\xff\xfe" + text.encode("utf-16-le"))


@pytest.mark.parametrize("encoding", ["LATIN1", "WIN1252", "UTF8"])
def test_a_dump_in_another_encoding_keeps_its_bytes(desk: Desk, dump_of: Dumper, encoding: str) -> None:
    text = dump_of(PLAIN, f"--encoding={encoding}")
    adopted = desk.adopt(text)
    assert (adopted.dump.source.database.encoding, desk.text) == (encoding, text)


REFUSED: dict[str, tuple[Callable[[Dumper], bytes], str]] = {
    "nothing": (lambda dump: b"", "empty"),
    "a letter": (lambda dump: b"Dear Ada,\n" * 99, "no dump of PostgreSQL"),
    "noise": (lambda dump: random.Random(1).randbytes(99_999), "no dump of PostgreSQL"),
    "dump of MySQL": (lambda dump: b"-- MySQL dump 10.13\nCREATE TABLE `a` (b int);\n", "no dump of PostgreSQL"),
    "--create": (lambda dump: dump(PLAIN, "--create"), "without --create"),
    "--inserts": (lambda dump: dump(PLAIN, "--inserts"), "without --inserts"),
    "--clean": (lambda dump: dump(PLAIN, "--clean", "--if-exists"), "without --clean"),
    "--data-only": (lambda dump: dump(PLAIN, "--data-only"), "without --data-only"),
    "archive with --data-only": (lambda dump: dump(CUSTOM, "--data-only"), "without --data-only"),
    "archive with --inserts": (lambda dump: dump(CUSTOM, "--inserts"), "without --inserts"),
    "command for psql": (lambda dump: later(dump(PLAIN), b"\\! touch /tmp/owned\n"), "a command for psql"),
    "copied from a program": (
        lambda dump: later(dump(PLAIN), b"COPY shop.x FROM PROGRAM 'id';\n"),
        "inside a statement",
    ),
    "role": (lambda dump: later(dump(PLAIN), b"ALTER ROLE postgres SUPERUSER;\n"), "one database"),
    "do block": (lambda dump: later(dump(PLAIN), b"DO $$ BEGIN END $$;\n"), "another program made it"),
    "another's key": (lambda dump: as_age(dump(PLAIN), OTHER), "cannot be decrypted with the plan's keys"),
    "garbage after gzip": (lambda dump: gzip.compress(dump(PLAIN)) + b"garbage", "cannot be decompressed"),
    "garbage after zstd": (lambda dump: as_zstd(dump(PLAIN)) + b"garbage", "cannot be decompressed"),
    "text after the dump": (lambda dump: dump(PLAIN) + b"DROP TABLE shop.sales;\n", "not whole"),
    "two dumps": (lambda dump: dump(PLAIN) * 2, "goes on"),
    "five times packed": (lambda dump: packed_often(dump(PLAIN)), "unpack it first"),
    "bzip2": (lambda dump: b"BZh9" + bytes(99), "bzip2"),
    "zip": (lambda dump: b"PK\x03\x04" + bytes(99), "zip"),
    "toc of a directory": (lambda dump: b"PGDMP\x01\x0e\x00\x04\x08\x05" + bytes(99), "directory format"),
    "tar": (lambda dump: dump(TAR), "pg_restore -f dump.sql FILE"),
    "archive of noise": (lambda dump: dump(CUSTOM)[:40] + random.Random(1).randbytes(999), "pg_restore cannot read"),
    "old names": (lambda dump: dump(PLAIN).replace(b"COPY shop.customers", b"COPY customers"), "without its schema"),
    "PostgreSQL 8": (lambda dump: version(dump(PLAIN), b"8.4.22"), "only dumps of 9.0"),
}


def later(dump: bytes, inserted: bytes) -> bytes:
    """The dump with something in front of its first table."""
    at = dump.index(b"CREATE TABLE")
    return dump[:at] + inserted + dump[at:]


def packed_often(content: bytes) -> bytes:
    for _ in range(5):
        content = gzip.compress(content)
    return content


def version(dump: bytes, number: bytes) -> bytes:
    head, line, rest = dump.partition(b"-- Dumped from database version ")
    return head + line + number + rest[rest.index(b"\n") :]


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_a_dump_is_refused_in_one_sentence(desk: Desk, dump_of: Dumper, what: str) -> None:
    content, words = REFUSED[what]
    assert words in desk.refusal(content(dump_of))


def test_a_dump_without_rows_is_adopted_with_no_rows(desk: Desk, dump_of: Dumper) -> None:
    adopted = desk.adopt(dump_of(CUSTOM, "--schema-only"))
    assert (adopted.dump.rows, adopted.dump.tables) == (0, ())


def test_roles_are_read_from_owners_grants_policies_and_mappings(desk: Desk, dump_of: Dumper) -> None:
    entry = (
        b"--\n-- Name: sales late; Type: POLICY; Schema: shop; Owner: odd; Tablespace: fast\n--\n\n"
        b'CREATE POLICY "sales TO x" ON shop.sales FOR SELECT TO reader, "Odd ""one" USING (true);\n\n'
        b'--\n-- Name: TABLE sales; Type: ACL; Schema: shop; Owner: "x"\n--\n\n'
        b'GRANT SELECT ON TABLE shop."a TO b" TO granted WITH GRANT OPTION;\nGRANT ALL ON TABLE shop.sales TO PUBLIC;\n\n'
        b"--\n-- Name: DEFAULT PRIVILEGES FOR TABLES; Type: DEFAULT ACL; Schema: -; Owner: x\n--\n\n"
        b"ALTER DEFAULT PRIVILEGES FOR ROLE maker IN SCHEMA shop GRANT SELECT ON TABLES TO pg_monitor;\n\n"
    )
    head, line, rest = dump_of(PLAIN).partition(b"--\n-- PostgreSQL database dump complete")
    roles = desk.adopt(head + entry + line + rest).dump.source.roles
    assert {'Odd "one', "granted", "maker", "odd", "postgres", "reader"} <= {*roles}
    assert not {"PUBLIC", "pg_monitor", "b", "x USING"} & {*roles}


def test_an_object_that_is_written_over_meanwhile_is_refused(
    desk: Desk, dump_of: Dumper, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, storage = dump_of(PLAIN), desk.world.plan.storage
    read = storage.read

    def written_over(key: str, start: int, size: int) -> object:
        yield from read(key, start, size)
        storage.put(key, content + b"\n")

    monkeypatch.setattr(storage, "read", written_over)
    with pytest.raises(AdoptionRefused, match="written over while it was read"):
        desk.adopt(content)


def test_a_backup_of_this_system_is_not_adopted(desk: Desk) -> None:
    name = desk.world.back_up().filename
    plan = desk.world.plan
    for key in (plan.key(name), f"elsewhere/{name}", f"{plan.key(name)}.manifest.json", f"{plan.prefix}old.sql"):
        with pytest.raises(BadSetting, match="rebuild-catalogue"):
            checked_key(plan, key)
    assert checked_key(plan, f" s3://{plan.storage.bucket}/old/x.sql") == "old/x.sql"
    with pytest.raises(BadSetting, match="No key"):
        checked_key(plan, " ")


def test_a_missing_object_is_named(desk: Desk) -> None:
    run = BackupRun(1, "p", "run", "f", "k", "Ada", NOW, "", "", "none", False, 1, 1, 1, (), "", 1, ADOPTED)
    with open_spool(desk.spool, "run", 1, 1) as parts, pytest.raises(BadSetting, match=r"no object old/gone\.sql"):
        adopt(desk.world.plan, run, parts, "old/gone.sql", lambda: NOW, lambda _: None)
