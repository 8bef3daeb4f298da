"""The database of every kind is a fair object of comparison: stock pg_dump and psql bring all of it back."""

from __future__ import annotations

from deployments.quick_start.postgres import PostgresCluster
from tasks.restore.dump_reader import DumpReader
from tests.conftest import DatabaseFactory
from tests.support.every_kind import make_every_kind, make_every_kind_as_owner
from tests.support.original import own, restore_with_psql
from tests.support.world import plain_dump

#: What pg_dump writes of kinds that only a superuser can make, and those that a database's owner can.
OF_SUPERUSER = (
    "SUBSCRIPTION, EVENT TRIGGER, ACCESS METHOD, PROCEDURAL LANGUAGE, TRANSFORM, OPERATOR CLASS, OPERATOR FAMILY, "
    "TEXT SEARCH PARSER, TEXT SEARCH TEMPLATE, FOREIGN DATA WRAPPER, SERVER, USER MAPPING, FOREIGN TABLE, SHELL TYPE, "
    "PUBLICATION TABLES IN SCHEMA"
)
OF_OWNER = (
    "SCHEMA, EXTENSION, TABLE, TABLE DATA, TABLE ATTACH, INDEX, INDEX ATTACH, CONSTRAINT, FK CONSTRAINT, CHECK CONSTRAINT, "
    "DEFAULT, VIEW, MATERIALIZED VIEW, MATERIALIZED VIEW DATA, SEQUENCE, SEQUENCE SET, SEQUENCE OWNED BY, TYPE, DOMAIN, "
    "FUNCTION, PROCEDURE, AGGREGATE, OPERATOR, CAST, COLLATION, CONVERSION, TEXT SEARCH DICTIONARY, "
    "TEXT SEARCH CONFIGURATION, STATISTICS, TRIGGER, RULE, POLICY, ROW SECURITY, PUBLICATION, PUBLICATION TABLE, BLOB, "
    "BLOBS, ACL, DEFAULT ACL, COMMENT"
)


def kinds_in(dump: bytes, major: int) -> set[str]:
    """pg_dump's words for the entries of a dump."""
    reader = DumpReader(major * 10000)
    return {piece.entry.kind for piece in [*reader.feed(dump), *reader.finish()]}


def wanted(kinds: str, major: int) -> set[str]:
    """The kinds that a dump of this version has: 17 and later put large objects' data and definitions otherwise."""
    renamed = {"BLOB": "BLOB METADATA"} if major >= 17 else {}
    return {renamed.get(kind, kind) for kind in kinds.split(", ")}


def test_stock_pg_dump_and_psql_bring_every_kind_of_object_back(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory
) -> None:
    url = fresh_database(postgres_server)
    make_every_kind(url, postgres_server)
    dump = plain_dump(postgres_server, url)
    copy = fresh_database(postgres_server)
    restore_with_psql(postgres_server, copy, dump)
    assert plain_dump(postgres_server, copy) == dump
    major = postgres_server.major
    assert wanted(f"{OF_OWNER}, {OF_SUPERUSER}", major) - kinds_in(dump, major) == set()


def test_an_owner_without_superuser_brings_back_every_kind_that_it_can_make(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory
) -> None:
    url = make_every_kind_as_owner(fresh_database(postgres_server), postgres_server)
    dump = plain_dump(postgres_server, url)
    copy = own(postgres_server, fresh_database(postgres_server))
    restore_with_psql(postgres_server, copy, dump)
    assert plain_dump(postgres_server, copy) == dump
    assert wanted(OF_OWNER, postgres_server.major) - kinds_in(dump, postgres_server.major) == set()
