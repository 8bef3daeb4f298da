"""Chosen tables of a backup into the live database, where those that exist are replaced; or into a new database.

Both in one transaction. Into a new database go the tables with what they need: types, functions, sequences, extensions.
In the live one, foreign keys of tables that stay, and publications, are put back afterwards. Whatever else depends on
the chosen tables is named and the restore refused, or dropped with `drop_dependents`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from psycopg2.extensions import connection as Connection

from tasks.errors import RestoreRefused
from tasks.postgres.server import rows
from tasks.restore.dump_reader import Piece
from tasks.restore.entries import LeftOut
from tasks.restore.psql import Script
from tasks.restore.tables.entry_text import Concern, has_no_part_in_tables, is_about_event_trigger
from tasks.restore.tables.patterns import TableName, chosen, meant, written_name
from tasks.restore.tables.selection import TableSelection, array_text, own, unread
from tasks.storage.backup_values import StoredBackup

LOCK_WAIT = "60s"
_NAMED_AT_MOST = 10
_SQL = Path(__file__).parents[1] / "sql"
_DEPENDENTS = (_SQL / "table_dependents.sql").read_text(encoding="ascii")
_MAKE_ROOM = (
    (_SQL / "replace_tables.sql").read_text(encoding="ascii").replace("/* dependents */", _DEPENDENTS).encode("ascii")
)
_PLAIN_PRIVILEGES = (_SQL / "plain_privileges.sql").read_bytes()
_REJOIN = (_SQL / "rejoin_tables.sql").read_bytes()
_LIVE_TABLES = """
    SELECT n.nspname AS schema, c.relname AS table, c.relkind::text AS kind, e.extname AS extension
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
      LEFT JOIN pg_extension e ON e.oid = d.refobjid
     WHERE c.relkind NOT IN ('i', 'I', 't') AND c.relpersistence <> 't'
       AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
"""
_KINDS = {"v": "view", "m": "materialised view", "S": "sequence", "c": "composite type"}


def replacement(
    connection: Connection,
    backup: StoredBackup,
    patterns: Sequence[str],
    drop_dependents: bool = False,
    left_out: LeftOut | None = None,
) -> Script:
    """The script that replaces the chosen tables in the database of `connection`; `left_out` does not come back.

    Raises BadSetting for a pattern that is wrong; RestoreRefused when something depends on the tables (unless
    `drop_dependents`), or when one of them cannot be replaced. Nothing has been changed then.
    """
    names = chosen(patterns, backup.tables, backup.parents)
    present = {TableName(row["schema"], row["table"]): row for row in rows(connection, _LIVE_TABLES)}
    wanted = meant(patterns, backup.tables, backup.parents)
    _refuse_others({name: present[name] for name in wanted if name in present})
    if not drop_dependents:
        _refuse_dependents(_dependents(connection, wanted))
    schemas = [str(row["name"]) for row in rows(connection, "SELECT nspname::text AS name FROM pg_namespace")]
    publications = [str(row["name"]) for row in rows(connection, "SELECT pubname::text AS name FROM pg_publication")]
    selection = Replacement(backup, patterns, names, schemas, publications, drop_dependents, left_out)
    before = f"SET LOCAL lock_timeout = '{LOCK_WAIT}';\n"
    return Script(before.encode(), selection, _REJOIN, unread(backup, names))


def _refuse_others(present: Mapping[TableName, Mapping[str, object]]) -> None:
    """Raises RestoreRefused for members of extensions, and for relations of these names that are no tables."""
    for name, relation in sorted(present.items()):
        if relation["extension"]:
            raise RestoreRefused(
                f"{written_name(name)} belongs to the extension {relation['extension']}, and cannot be "
                "replaced alone: restore the whole database, or choose other tables."
            )
        if kind := _KINDS.get(str(relation["kind"])):
            raise RestoreRefused(
                f"The database has a {kind} called {written_name(name)}, where the table is to be "
                "restored: rename it or drop it, then try again."
            )


def _dependents(connection: Connection, names: Iterable[TableName]) -> list[str]:
    """What depends on the tables and would be dropped with them, in the server's words."""
    written = array_text(map(written_name, sorted(names)))
    rows(connection, "SELECT set_config('restore_tables.chosen', %(names)s, false)", names=written)
    return [str(row["name"]) for row in rows(connection, _DEPENDENTS.replace("%", "%%"))]


def _refuse_dependents(dependents: Sequence[str]) -> None:
    if dependents:
        more = f" and {len(dependents) - _NAMED_AT_MOST} more" if len(dependents) > _NAMED_AT_MOST else ""
        raise RestoreRefused(
            f"These depend on the chosen tables: {', '.join(dependents[:_NAMED_AT_MOST])}{more}; choose them as well "
            "if they are tables, drop them, or let the restore drop them (drop_dependents)."
        )


class Replacement(TableSelection):
    """For the live database: the chosen tables and all that is theirs; nothing else.

    `has_schemas` and `has_publications` are those that the database has already.
    """

    def __init__(
        self,
        backup: StoredBackup,
        patterns: Sequence[str],
        chosen: Collection[str],
        has_schemas: Collection[str],
        has_publications: Collection[str],
        drop_dependents: bool,
        left_out: LeftOut | None = None,
    ) -> None:
        super().__init__(backup, patterns, chosen, left_out)
        self._has_schemas, self._has_publications = has_schemas, has_publications
        self._drop_dependents = drop_dependents
        self._held: list[tuple[Concern | None, Piece]] = []
        self._late: list[Piece] = []
        self._sequences: set[TableName] = set()

    def definition(self, concern: Concern, body: Piece) -> Iterable[Piece]:
        if concern.table or concern.other or concern.schema:
            self._held.append((concern, body))
        return ()

    def settings(self, text: bytes) -> Iterable[Piece]:
        if self.is_resolved:
            return (own(text),)
        self._held.append((None, own(text)))
        return ()

    def resolved(self) -> Iterable[Piece]:
        held, self._held = self._held, []
        concerns = [concern for concern, _ in held if concern]
        for concern in concerns:
            if concern.kind.startswith("SEQUENCE") and concern.table in self.wanted and concern.other:
                self._sequences.add(concern.other)
        attached = [concern for concern in concerns if concern.kind == "TABLE ATTACH" and concern.other in self.wanted]
        staying = {concern.table for concern in attached if concern.table}
        yield self.setting("chosen", sorted(self.wanted))
        yield self.setting("parents", sorted(staying - self.wanted))
        yield own(b"SET LOCAL restore_tables.drop_dependents = %b;\n" % (b"on" if self._drop_dependents else b"off"))
        yield own(_MAKE_ROOM)
        for concern_or_none, body in held:
            yield from self.later(concern_or_none, body) if concern_or_none else (body,)
        yield own(_PLAIN_PRIVILEGES)

    def later(self, concern: Concern, body: Piece) -> Iterable[Piece]:
        if not self.is_theirs(concern):
            return ()
        if self._is_late(concern):
            self._late.append(body)
            return ()
        return (body,)

    def finish(self) -> Iterable[Piece]:
        return [*super().finish(), *self._late]

    def is_theirs(self, concern: Concern) -> bool:
        if concern.schema:
            in_use = any(concern.schema == name.schema for name in self.wanted)
            return in_use and self._shown(TableName(concern.schema, "")).schema not in self._has_schemas
        if concern.kind == "TABLE ATTACH":
            return concern.other in self.wanted
        if concern.kind == "INDEX ATTACH":
            return self.owns(concern.other) and self.owns(concern.other2)
        if concern.kind == "PUBLICATION TABLE":
            return concern.table in self.wanted and concern.label in self._has_publications
        if concern.table:
            return concern.table in self.wanted
        if concern.kind == "SEQUENCE SET":
            return concern.other in self._sequences or concern.other2 in self._sequences
        return concern.other in self._sequences or self.owns(concern.other)

    def _is_late(self, concern: Concern) -> bool:
        """Whether it waits for the end, when partitions have all rows and indexes, and can be attached.

        Attached earlier, they would get the parent's indexes beside their own, and foreign keys would miss rows.
        """
        if concern.kind == "TABLE ATTACH":
            return concern.table not in self.wanted
        return concern.kind == "FK CONSTRAINT" or concern.only_state or concern.other_kind in ("CONSTRAINT", "TRIGGER")


_KEEP_ONLY = (Path(__file__).parents[1] / "sql" / "keep_only_tables.sql").read_bytes()


def new_database_tables(backup: StoredBackup, patterns: Sequence[str], left_out: LeftOut | None = None) -> Script:
    """The script that fills an empty database with the chosen tables alone.

    Foreign keys stay where both ends are chosen, views where all that they read is. Large objects and
    subscriptions are left out, and what `left_out` names. Raises BadSetting for a pattern that is wrong.
    """
    names = chosen(patterns, backup.tables, backup.parents)
    return Script(selection=OnlyChosen(backup, patterns, names, left_out), skipped=unread(backup, names))


class OnlyChosen(TableSelection):
    """For a new database: every definition, the rows of the chosen tables; then everything else is dropped."""

    def __init__(
        self, backup: StoredBackup, patterns: Sequence[str], chosen: Collection[str], left_out: LeftOut | None = None
    ) -> None:
        super().__init__(backup, patterns, chosen, left_out)
        self._attached: list[tuple[Concern, Piece]] = []
        self._loose: set[tuple[TableName | None, str]] = set()
        self._views: list[TableName] = []
        self._event_triggers: list[Piece] = []

    def definition(self, concern: Concern, body: Piece) -> Iterable[Piece]:
        if has_no_part_in_tables(concern.kind, body.data):
            return ()
        if concern.kind == "TABLE ATTACH":
            self._attached.append((concern, body))
            return ()
        return (body,)

    def resolved(self) -> Iterable[Piece]:
        return [body for concern, body in self._attached if self._is_attached(concern.other)]

    def later(self, concern: Concern, body: Piece) -> Iterable[Piece]:
        if is_about_event_trigger(concern.kind, body.data):
            self._event_triggers.append(body)
        elif concern.kind == "MATERIALIZED VIEW DATA" and concern.other:
            self._views += [concern.other] if body.data else []
        elif not has_no_part_in_tables(concern.kind, body.data) and self._fits(concern):
            return (body,)
        return ()

    def finish(self) -> Iterable[Piece]:
        held = [*super().finish(), self.setting("chosen", sorted(self.wanted)), self.setting("views", self._views)]
        return [*held, own(_KEEP_ONLY), *self._event_triggers]

    def is_theirs(self, concern: Concern) -> bool:
        if concern.other_kind in ("INDEX", "STATISTICS"):
            return self.owns(concern.other)
        return concern.table is None or concern.table in self.wanted

    def _fits(self, concern: Concern) -> bool:
        if concern.kind == "TABLE DATA":
            return concern.table in self.wanted
        if concern.only_state:
            return self._is_attached(concern.table)
        if concern.kind == "INDEX ATTACH":
            return self.owns(concern.other) == self.owns(concern.other2)
        if concern.kind == "FK CONSTRAINT" and not {concern.table, concern.other} <= self.wanted:
            self._loose.add((concern.table, concern.label))
            return False
        return concern.other_kind != "CONSTRAINT" or (concern.table, concern.label) not in self._loose

    def _is_attached(self, partition: TableName | None) -> bool:
        """Whether it stays a partition: both it and its partitioned table are chosen, or neither is."""
        return partition in self.parents and (self.parents[partition] in self.wanted) == (partition in self.wanted)
