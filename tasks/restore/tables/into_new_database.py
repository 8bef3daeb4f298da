"""Chosen tables of a backup into a new database, with what they need: types, functions, sequences, extensions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from tasks.restore.psql import Script
from tasks.restore.tables.entry_text import Concern, has_no_part_in_tables, is_about_event_trigger
from tasks.restore.tables.patterns import TableName, chosen
from tasks.restore.tables.selection import TableSelection, unread
from tasks.storage.backup_values import StoredBackup

_KEEP_ONLY = (Path(__file__).parents[1] / "sql" / "keep_only_tables.sql").read_bytes()


def new_database_tables(backup: StoredBackup, patterns: Sequence[str]) -> Script:
    """The script that fills an empty database with the chosen tables alone.

    Foreign keys stay where both ends are chosen, views where all that they read is. Large objects and
    subscriptions are left out.
    Raises BadSetting for a pattern that is wrong.
    """
    names = chosen(patterns, backup.tables, backup.parents)
    return Script(selection=OnlyChosen(backup, patterns, names), skipped=unread(backup, names))


class OnlyChosen(TableSelection):
    """For a new database: every definition, the rows of the chosen tables; then everything else is dropped."""

    def __init__(self, backup: StoredBackup, patterns: Sequence[str], chosen: Collection[str]) -> None:
        super().__init__(backup, patterns, chosen)
        self._attached: list[tuple[Concern, bytes]] = []
        self._left_out: set[tuple[TableName | None, str]] = set()
        self._views: list[TableName] = []
        self._event_triggers: list[bytes] = []

    def definition(self, concern: Concern, body: bytes) -> Iterable[bytes]:
        if has_no_part_in_tables(concern.kind, body):
            return ()
        if concern.kind == "TABLE ATTACH":
            self._attached.append((concern, body))
            return ()
        return (body,)

    def resolved(self) -> Iterable[bytes]:
        return [body for concern, body in self._attached if self._is_attached(concern.other)]

    def later(self, concern: Concern, body: bytes) -> Iterable[bytes]:
        if is_about_event_trigger(concern.kind, body):
            self._event_triggers.append(body)
        elif concern.kind == "MATERIALIZED VIEW DATA" and concern.other:
            self._views.append(concern.other)
        elif not has_no_part_in_tables(concern.kind, body) and self._fits(concern):
            return (body,)
        return ()

    def finish(self) -> Iterable[bytes]:
        held = [*super().finish(), self.setting("chosen", sorted(self.wanted)), self.setting("views", self._views)]
        return [*held, _KEEP_ONLY, *self._event_triggers]

    def _fits(self, concern: Concern) -> bool:
        if concern.kind == "TABLE DATA":
            return concern.table in self.wanted
        if concern.only_state:
            return self._is_attached(concern.table)
        if concern.kind == "INDEX ATTACH":
            return self.owns(concern.other) == self.owns(concern.other2)
        if concern.kind == "FK CONSTRAINT" and not {concern.table, concern.other} <= self.wanted:
            self._left_out.add((concern.table, concern.label))
            return False
        return concern.other_kind != "CONSTRAINT" or (concern.table, concern.label) not in self._left_out

    def _is_attached(self, partition: TableName | None) -> bool:
        """Whether it stays a partition: both it and its partitioned table are chosen, or neither is."""
        return partition in self.parents and (self.parents[partition] in self.wanted) == (partition in self.wanted)
