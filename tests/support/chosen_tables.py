"""What the tests of chosen tables share: backups without a bucket, psql as the restore drives it, comparisons."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from deployments.quick_start.postgres import PostgresCluster
from tasks.backup.dump import PYTHON_CODECS
from tasks.backup.scanner import DumpScanner
from tasks.backup.source import database_properties, partitions
from tasks.postgres.dsn import parse
from tasks.postgres.server import rows, source_session
from tasks.restore.dump_reader import DumpReader, Piece
from tasks.restore.psql import Script
from tasks.restore.tables.table_scripts import new_database_tables, replacement
from tasks.storage.backup_values import StoredBackup
from tests.support.world import masked

LONG = "-63 bytes long with a Größe; Type: TABLE and nothing else in__it"
SCHEMA = r"""
CREATE SCHEMA shop; CREATE SCHEMA "Größe "" x";
CREATE TYPE shop.mood AS ENUM ('good', 'bad');
CREATE FUNCTION shop.tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
-- Name: customers; Type: TABLE; Schema: shop; Owner: x
RETURN NEW; END $$;
CREATE TABLE shop.customers (id serial PRIMARY KEY, name text, mood shop.mood, born date);
CREATE TABLE shop.orders (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer integer REFERENCES shop.customers,
    note text DEFAULT 'none', CONSTRAINT small CHECK (length(note) < 1000));
CREATE TABLE shop.items (id integer PRIMARY KEY, part_of integer);
ALTER TABLE shop.items ADD CONSTRAINT "of; order" FOREIGN KEY (part_of) REFERENCES shop.orders ON DELETE CASCADE;
COMMENT ON CONSTRAINT "of; order" ON shop.items IS 'it''s';
ALTER TABLE shop.items ADD CONSTRAINT loose FOREIGN KEY (id) REFERENCES shop.orders NOT VALID;
CREATE INDEX "by note" ON shop.orders (lower(note)); COMMENT ON INDEX shop."by note" IS E'x\n-- Name: y; Type: TABLE; Schema: z; Owner: o\n';
CREATE STATISTICS shop.together ON (extract(year FROM born)), id FROM shop.customers;
COMMENT ON STATISTICS shop.together IS 'FROM shop.orders;';
CREATE TRIGGER "told ON shop.items" BEFORE UPDATE OF note ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.tell();
ALTER TABLE shop.orders DISABLE TRIGGER "told ON shop.items"; COMMENT ON TRIGGER "told ON shop.items" ON shop.orders IS 't';
CREATE RULE "ruled ON INSERT TO shop.items" AS ON DELETE TO shop.orders WHERE OLD.id < 0 DO INSTEAD NOTHING;
CREATE POLICY "p ON shop.items" ON shop.orders USING (id > 0); ALTER TABLE shop.orders ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON shop.orders TO PUBLIC; GRANT UPDATE (note, customer) ON shop.orders TO PUBLIC;
GRANT USAGE ON SEQUENCE shop.customers_id_seq TO PUBLIC;
COMMENT ON COLUMN shop.orders.note IS E'\n\n--\n-- Name: a; Type: TABLE DATA; Schema: b; Owner: c\n--\n';
"""
ROWS = r"""
INSERT INTO shop.customers (name, mood) SELECT 'c' || i, 'good' FROM generate_series(1, 50) i;
INSERT INTO shop.orders (customer, note) SELECT i, E'\n-- Name: x; Type: TABLE; Schema: public; Owner: y\n\\.\n;' FROM generate_series(1, 50) i;
INSERT INTO shop.items SELECT i, i FROM generate_series(1, 50) i;
"""
ODD = f"""
CREATE TABLE a (id integer PRIMARY KEY); CREATE TABLE "a b" (id integer PRIMARY KEY);
ALTER TABLE a ADD CONSTRAINT b UNIQUE (id); ALTER TABLE "a b" ADD CONSTRAINT c CHECK (id > 0) NOT VALID;
CREATE TABLE "a b c" (id integer); COMMENT ON CONSTRAINT b ON a IS 'of a'; ALTER TABLE a CLUSTER ON b;
CREATE SEQUENCE "odd ""sequence""; \\ 'x'" OWNED BY a.id; CREATE SEQUENCE a_seq OWNED BY "a b".id;
SELECT setval('"odd ""sequence""; \\ ''x''"', 77);
ALTER TABLE "a b" ALTER id SET DEFAULT nextval('a_seq');
INSERT INTO a VALUES (1); INSERT INTO "a b" VALUES (1), (2); INSERT INTO "a b c" VALUES (3);
CREATE SCHEMA "other"; CREATE TABLE other.a (id integer, t text); INSERT INTO other.a VALUES (9, 'x');
CREATE TABLE "Größe" (id serial); CREATE TABLE "select" (id integer);
CREATE TABLE "{LONG}" (id serial PRIMARY KEY, t text); INSERT INTO "{LONG}" (t) VALUES ('x');
CREATE TABLE "; DROP"".""x" (id integer); CREATE TABLE "line
break; Type: TABLE" (id integer);
"""


class Backup:
    """A dump of a database, and what its manifest would say."""

    def __init__(self, cluster: PostgresCluster, url: str) -> None:
        self.cluster, self.url = cluster, url
        self.text = pg_dump(cluster, url)
        scanner = DumpScanner()
        scanner.feed(self.text)
        with source_session(parse(url), "test") as connection:
            database, family = database_properties(connection), partitions(connection)
        self.stored = StoredBackup(
            plan="p",
            filename="f",
            bucket="b",
            key="k",
            backup_id=None,
            backup_type="full",
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
            size=len(self.text),
            sha256="",
            parts=(),
            codec="none",
            encrypted=False,
            recipients=(),
            plain_size=len(self.text),
            plain_sha256="",
            tables=tuple(table.named_in(PYTHON_CODECS[database.encoding]) for table in scanner.finish()),
            large_objects=0,
            partitions=family,
            database=database,
            extensions=(),
            roles=(),
            excluded_tables=(),
            pg_dump_version="",
        )

    def replace(self, url: str, *patterns: str, drop_dependents: bool = False) -> str:
        """Restores the tables into a live database. Returns what psql complained of; nothing when it went well."""
        with source_session(parse(url), "test") as connection:
            script = replacement(connection, self.stored, patterns, drop_dependents)
        return self.run(url, script)

    def fill(self, url: str, *patterns: str) -> str:
        """Restores the tables into an empty database."""
        return self.run(url, new_database_tables(self.stored, patterns))

    def run(self, url: str, script: Script, chunk: int = 4000) -> str:
        """Feeds psql as a restore does, without the skipped ranges."""
        return psql(self.cluster, url, b"".join(self.statements(script, chunk)))

    def statements(self, script: Script, chunk: int = 4000) -> list[bytes]:
        """All that psql gets."""
        text, at = b"", 0
        for start, end in script.skipped:
            text, at = text + self.text[at:start], end
        text += self.text[at:]
        reader, sent = DumpReader(self.cluster.major * 10000), [b"BEGIN;\n", script.before]
        for start in range(0, len(text), chunk):
            for piece in reader.feed(text[start : start + chunk]):
                sent += texts(script.selection.take(piece))
        for piece in reader.finish():
            sent += texts(script.selection.take(piece))
        return [
            *sent,
            *texts(script.selection.finish()),
            b"SET client_encoding = 'UTF8';\n",
            script.after,
            b"COMMIT;\n",
        ]


def texts(pieces: Iterable[Piece]) -> list[bytes]:
    """What of the pieces psql gets."""
    return [piece.data for piece in pieces]


def psql(cluster: PostgresCluster, url: str, script: bytes | str) -> str:
    """Runs a script; returns what psql complained of."""
    program = str(cluster.bin_directory / "psql")
    arguments = [program, "-XqAt", "--set=ON_ERROR_STOP=1", f"--dbname={url}"]
    text = script.encode() if isinstance(script, str) else script
    done = subprocess.run(arguments, input=text, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    return done.stderr.decode(errors="replace") if done.returncode else ""


def pg_dump(cluster: PostgresCluster, url: str, *options: str) -> bytes:
    """What pg_dump says of a database, with random keys masked."""
    program = str(cluster.bin_directory / "pg_dump")
    done = subprocess.run([program, f"--dbname={url}", *options], capture_output=True, check=True)
    return masked(done.stdout)


def table_dump(cluster: PostgresCluster, url: str, *tables: str) -> bytes:
    """What pg_dump says of tables alone; TOC order of foreign keys and the like left as it is."""
    return pg_dump(cluster, url, *(f"--table={table}" for table in tables))


def tables_in(url: str) -> set[str]:
    """The tables of a database."""
    query = (
        "SELECT format('%%I.%%I', nspname, relname) AS name FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
        " WHERE relkind IN ('r', 'p', 'f') AND nspname !~ '^pg_' AND nspname <> 'information_schema'"
    )
    with source_session(parse(url), "test") as connection:
        return {row["name"] for row in rows(connection, query)}


def values(url: str, query: str) -> list[Sequence[object]]:
    """The rows that a query answers."""
    with source_session(parse(url), "test") as connection:
        return [tuple(row.values()) for row in rows(connection, query.replace("%", "%%"))]
