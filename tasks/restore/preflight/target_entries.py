"""Whether the server takes the entries of a backup that not every server takes: problems and warnings, by name.

An entry that is left out by name stands in nobody's way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from psycopg2.extensions import connection as Connection

from tasks.errors import named
from tasks.postgres.server import rows
from tasks.restore.entries import is_named
from tasks.restore.preflight.roles import Me
from tasks.restore.preflight.target_server import is_hosted
from tasks.storage.backup_values import Hindrance, StoredBackup

_UNLOGGED_PARTITIONS_REFUSED_SINCE = 180000
_LEAVE_OUT = "or leave them out by name in without."
#: Which of these collations the database of the session lacks.
_NO_COLLATION = """
    SELECT name FROM unnest(%(names)s::text[]) name
     WHERE NOT EXISTS (SELECT FROM pg_collation c
                        WHERE c.collname = name AND c.collnamespace = 'pg_catalog'::regnamespace
                          AND c.collencoding IN (-1, pg_char_to_encoding(%(encoding)s)))
"""
_DISTANT = """
    SELECT rolname AS name FROM pg_roles
     WHERE rolname = ANY (%(names)s::text[]) AND NOT rolsuper AND NOT pg_has_role(oid, %(privilege)s)
"""
_VERSIONS = "SELECT name, default_version FROM pg_available_extensions WHERE name = ANY (%(names)s::name[])"


@dataclass(frozen=True)
class Target:
    """Where the entries are to be restored to."""

    server: Connection
    """A session in the database itself where that stays (in_place), else in another one of the server."""
    me: Me
    database: str
    encoding: str
    extensions: Mapping[str, str]
    """Name and version of the extensions that the database has and keeps."""
    is_new: bool
    """Whether psql fills a new database, whatever becomes of it then."""


@dataclass(frozen=True)
class Findings:
    """Sentences: what stands in the way, and what may."""

    problems: Sequence[str] = ()
    warnings: Sequence[str] = ()


def entry_findings(target: Target, backup: StoredBackup, without: Sequence[str]) -> Findings:
    """What this server does not take, or this role cannot make, of what is not left out by `without`."""
    left = [remaining for h in backup.conditions.hindrances if (remaining := _without(h, without)).entries]
    of = {kind: [hindrance for hindrance in left if hindrance.kind == kind] for kind in _FINDINGS}
    each = [find(target, backup, of[kind]) for kind, find in _FINDINGS.items() if of[kind]]
    return Findings([p for found in each for p in found.problems], [w for found in each for w in found.warnings])


def entries_no_drill_loads(backup: StoredBackup) -> tuple[str, ...]:
    """The entries that no scratch database can hold: for one database of a server, or in need of what is left out."""
    kinds = ("pg_cron", "left_out", "disabled_triggers")
    return tuple(_entries([h for h in backup.conditions.hindrances if h.kind in kinds]))


def _without(hindrance: Hindrance, without: Sequence[str]) -> Hindrance:
    return replace(hindrance, entries=tuple(entry for entry in hindrance.entries if not is_named(entry, without)))


def _entries(hindrances: Sequence[Hindrance]) -> list[str]:
    return list(dict.fromkeys(entry for hindrance in hindrances for entry in hindrance.entries))


def _superuser(target: Target, _: StoredBackup, hindrances: Sequence[Hindrance]) -> Findings:
    if target.me.is_superuser:
        return Findings()
    refused = f"Role {target.me.name} is no superuser and cannot create "
    if is_hosted(target.server):
        advice = "if the provider does not allow it, leave them out by name in without."
        return Findings(warnings=named(refused, _entries(hindrances), advice))
    return Findings(named(refused, _entries(hindrances), f"restore as a superuser, {_LEAVE_OUT}"))


def _default_privileges(target: Target, _: StoredBackup, hindrances: Sequence[Hindrance]) -> Findings:
    """Those of superusers are left out by the restore itself."""
    privilege = "USAGE" if target.server.server_version >= 160000 else "MEMBER"
    roles = {h.needs for h in hindrances}
    distant = {row["name"] for row in rows(target.server, _DISTANT, names=list(roles), privilege=privilege)}
    return Findings(
        [
            sentence
            for hindrance in hindrances
            if hindrance.needs in distant
            for sentence in named(
                f"Role {target.me.name} is no member of role {hindrance.needs} and cannot set ",
                hindrance.entries,
                f"grant it the role, or restore as a superuser, {_LEAVE_OUT}",
            )
        ]
    )


def _pg_cron(target: Target, _: StoredBackup, hindrances: Sequence[Hindrance]) -> Findings:
    if "pg_cron" in target.extensions:
        return Findings()
    [row] = rows(target.server, "SELECT current_setting('cron.database_name', true) AS place")
    if not target.is_new and row["place"] == target.database:
        return Findings()
    listed = ", ".join(_entries(hindrances))  # all of them: whoever leaves them out needs each name
    where = f"in the database {row['place']} alone" if row["place"] else "in one database alone, and not on this server"
    return Findings(
        [
            f"pg_cron works {where}, so no new database can hold {listed}: restore with the mode in_place, or leave "
            "all of them out by name in without, run CREATE EXTENSION pg_cron afterwards, and schedule the jobs again."
        ]
    )


def _timescaledb(_: Target, __: StoredBackup, hindrances: Sequence[Hindrance]) -> Findings:
    return Findings(
        named(
            "TimescaleDB has to prepare a database before its rows are loaded, which a restore does not do: ",
            _entries(hindrances),
            "download the backup, and run psql between timescaledb_pre_restore() and timescaledb_post_restore() "
            "(docs/restore.md).",
        )
    )


def _collations(target: Target, _: StoredBackup, hindrances: Sequence[Hindrance]) -> Findings:
    names = [hindrance.needs for hindrance in hindrances]
    lacking = {row["name"] for row in rows(target.server, _NO_COLLATION, names=names, encoding=target.encoding)}
    return Findings(
        [
            sentence
            for hindrance in hindrances
            if hindrance.needs in lacking
            for sentence in named(
                f'The server does not have the collation "{hindrance.needs}" of ',
                hindrance.entries,
                "install that locale on its machine and run pg_import_system_collations('pg_catalog') in template0 and "
                f"in postgres, or restore to a server that has it, {_LEAVE_OUT}",
            )
        ]
    )


def _unlogged_partitions(target: Target, _: StoredBackup, hindrances: Sequence[Hindrance]) -> Findings:
    if target.server.server_version < _UNLOGGED_PARTITIONS_REFUSED_SINCE:
        return Findings()
    advice = f"restore to version 17 or older, {_LEAVE_OUT} The partitions come back as tables of their own then."
    return Findings(named("PostgreSQL 18 refuses an unlogged partitioned table, and so ", _entries(hindrances), advice))


def _disabled_triggers(_: Target, __: StoredBackup, hindrances: Sequence[Hindrance]) -> Findings:
    listed = ", ".join(_entries(hindrances))  # all of them: whoever leaves them out needs each name
    tables = ", ".join(hindrance.needs for hindrance in hindrances)
    return Findings(
        [
            f"No database can hold {listed}, whose names are numbers of the backed-up one: leave them out in without, "
            f"and run ALTER TABLE … DISABLE TRIGGER ALL for {tables} in the restored database if that is still wanted."
        ]
    )


def _disabled_keys(_: Target, __: StoredBackup, hindrances: Sequence[Hindrance]) -> Findings:
    beginning = "Triggers of foreign keys were switched off, and will be on, in the tables of "
    advice = "where rows have nothing to refer to, the restore names the key: leave it out in without."
    return Findings(warnings=named(beginning, _entries(hindrances), advice))


def _extension_grants(target: Target, backup: StoredBackup, hindrances: Sequence[Hindrance]) -> Findings:
    """A warning: whether another version has the same functions is not known before it is installed."""
    names = [hindrance.needs for hindrance in hindrances]
    there = {row["name"]: row["default_version"] for row in rows(target.server, _VERSIONS, names=names)}
    there.update(target.extensions)
    was = {extension.name: extension.version for extension in backup.extensions}
    other = [h for h in hindrances if there.get(h.needs) not in (None, was.get(h.needs))]
    beginning = "The server has another version of an extension, which may not have the function of "
    return Findings(warnings=named(beginning, _entries(other), "the restore names it then: leave it out in without."))


def _search_paths(_: Target, __: StoredBackup, hindrances: Sequence[Hindrance]) -> Findings:
    beginning = "Functions without a fixed search_path, which name others without their schema, are called by "
    advice = "what the server refuses of it is named then, and can be left out by name in without."
    return Findings(warnings=named(beginning, _entries(hindrances), advice))


def _other_tables(_: Target, __: StoredBackup, hindrances: Sequence[Hindrance]) -> Findings:
    beginning = "Functions that read other tables, whose rows may come later, check the rows of "
    advice = "what the server refuses of it is named then; restore to a new database without it, and correct the check."
    return Findings(warnings=named(beginning, _entries(hindrances), advice))


def _left_out(_: Target, __: StoredBackup, hindrances: Sequence[Hindrance]) -> Findings:
    listed = ", ".join(_entries(hindrances))  # all of them: whoever leaves them out needs each name
    needs = ", ".join(dict.fromkeys(hindrance.needs for hindrance in hindrances))
    return Findings(
        [f"The backup was made without {needs} or its rows, which these need: {listed}: leave them out in without."]
    )


_FINDINGS = {
    "superuser": _superuser,
    "default_privileges": _default_privileges,
    "pg_cron": _pg_cron,
    "timescaledb": _timescaledb,
    "collation": _collations,
    "unlogged_partitions": _unlogged_partitions,
    "disabled_triggers": _disabled_triggers,
    "disabled_keys": _disabled_keys,
    "extension_grants": _extension_grants,
    "search_path": _search_paths,
    "other_tables": _other_tables,
    "left_out": _left_out,
}
