"""Compares what was restored with the backup, by content: the scratch database is dumped again.

While psql is fed, each entry of the backup's proved text is hashed, and so are the rows of each table. Afterwards
pg_dump writes the scratch database, and every entry and every table must have the same hash. COPY writes a fresh table
in the order in which it was filled, so equal rows give equal bytes. A sum over the lines decides where few rows went
into a table that is not frozen, and where pg_dump loads partitions by way of their table. Columns of a table that
inherits may come back in another order: they are compared by their names.

pg_dump shows neither the content of materialised views nor the settings of the database: these are asked for.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from typing import Literal

from psycopg2 import sql
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from tasks.backup.dump import pg_dump_arguments
from tasks.backup.dump_errors import dump_error
from tasks.backup.source import database_properties
from tasks.errors import BackupDamaged, ContentDiffers, DumpFailed
from tasks.plans.plan import Plan
from tasks.postgres.child_processes import child
from tasks.postgres.server import rows, source_session
from tasks.postgres.tools import installed
from tasks.restore.dump_reader import NO_ENTRY, DumpReader, Piece
from tasks.restore.entries import entry_name
from tasks.restore.owners import on_any_server, without_owner
from tasks.restore.scratch import harmless, scratch_dsn, session_settings_of
from tasks.restore.tables.entry_text import copied_table, split_trailing
from tasks.restore.values import LARGE, PRIVILEGES, Content, RestoreRun
from tasks.storage.backup_values import StoredBackup, raw_name
from tasks.storage.manifest_types import RoleSettings

NAME = "restore: compares content"
#: What was compared: every entry and every row; rows and sequences; only numbers of rows.
Compared = Literal["all", "rows", "nothing"]
_CHUNK = 1 << 20  # bytes
_TAIL = 4096  # bytes: what pg_dump writes behind an entry for those that follow is shorter
_NAMED_AT_MOST = 30
_LINE_END = b"\n"
#: Rows of more bytes went into a new table by a transaction of their own, which appends them. See `Stages`.
_FEW = 2 * LARGE
_TABLES = ("TABLE", "FOREIGN TABLE")
_KEPT = (*_TABLES, "BLOB METADATA")  # until all of it is there
#: A table that inherits: its restored columns may come in another order, as pg_dump has always done it.
_HEIR = re.compile(
    rb'^CREATE (?:UNLOGGED |FOREIGN )?TABLE (?P<table>(?:"[^"]*+"|[^"() \n]++)+) \((?s:.*?)^\)\nINHERITS \(',
    re.MULTILINE,
)
_COLUMNS = re.compile(rb' \((?P<columns>(?:"[^"]*+"|[^"()]++)*)\) FROM stdin;\n\Z')
_COLUMN = re.compile(rb'(?:"[^"]*+"|[^", ])++')


class ContentDigest:
    """Hashes the pieces of a dump."""

    def __init__(self, through_parents: Collection[bytes] = (), any_owner: bool = False) -> None:
        """`through_parents` are partitioned tables that hold rows of their partitions, as COPY writes their names.
        With `any_owner`, owners are no part of the content, and grants, which name them, are none either."""
        self._through_parents, self._any_owner = through_parents, any_owner
        self._found: dict[str, Counter[str]] = {}
        self._sums: Counter[str] = Counter()
        self._entry = NO_ENTRY
        self._text, self._start = hashlib.sha256(), bytearray()
        self._has_begun = False
        self._heirs: set[bytes] = set()
        self._table = b""  # whose rows are read
        self._rows: _Rows | None = None

    def take(self, piece: Piece) -> None:
        """Adds a piece, in the dump's order."""
        if piece.entry != self._entry:
            self._end_entry()
            self._entry = piece.entry
        if not piece.rows:
            self._start += piece.data
            if len(self._start) > 2 * _TAIL and self._rows is None and self._entry.kind not in _KEPT:
                self._hash(bytes(self._start[:-_TAIL]))
                del self._start[:-_TAIL]
            return
        if self._rows is None:
            self._begin_rows()
        assert self._rows is not None
        self._rows.add(piece.data)

    def content(self) -> Content:
        """The digests, once the last piece was taken."""
        self._end_entry()
        return {**self._found, **{name: Counter([f"{total:x}"]) for name, total in self._sums.items()}}

    def _begin_rows(self) -> None:
        order: list[int] = []
        self._table = copied_table(bytes(self._start))
        if self._table in self._heirs:
            head, order = in_order_of_names(bytes(self._start))
            self._start = bytearray(head)
        self._rows = _Lines(order) if order or self._table in self._through_parents else _Rows()

    def _end_entry(self) -> None:
        entry, rows_of = self._entry, self._rows
        if entry.number:
            body, _ = split_trailing(bytes(self._start))
            body = body.removesuffix(b"--\n")  # which begins the next entry's comment, where there is one
            if self._any_owner:
                body = without_owner(body)
            if entry.kind in _TABLES and (heir := _HEIR.search(body)):
                self._heirs.add(heir["table"])
                body = b"\n".join(sorted(line.rstrip(b",") for line in body.split(b"\n")))
            self._hash(body)
            if not self._any_owner or entry.kind not in PRIVILEGES:
                self._note(entry_name(entry), self._text.hexdigest())
        if isinstance(rows_of, _Lines) and self._table in self._through_parents:
            self._sums[f"rows of {self._table.decode('utf-8', 'replace')}"] += rows_of.total
        elif rows_of is not None:
            self._note(f"rows of {entry_name(entry)}", rows_of.digest())
        self._text, self._start, self._rows = hashlib.sha256(), bytearray(), None
        self._has_begun = False

    def _hash(self, text: bytes) -> None:
        self._text.update(text if self._has_begun else on_any_server(self._entry.kind, text, self._any_owner))
        self._has_begun = True

    def _note(self, name: str, digest: str) -> None:
        self._found.setdefault(name, Counter())[digest] += 1


class _Rows:
    """The bytes of rows, in order. Of few rows, the lines in any order.

    Where a table is not frozen as it is filled, COPY puts a short row into a gap that a long one has left before.
    """

    def __init__(self) -> None:
        self._few, self._hash = b"", hashlib.sha256()
        self._are_many = False

    def add(self, data: bytes) -> None:
        if not self._are_many:
            self._few += data
            self._are_many = len(self._few) > _FEW
            data = self._few if self._are_many else b""
        self._hash.update(data)

    def digest(self) -> str:
        return self._hash.hexdigest() if self._are_many else f"{_sum_of(self._few.split(_LINE_END)):x}"


class _Lines(_Rows):
    """The lines of rows, in any order, with their values in the given order."""

    def __init__(self, order: Sequence[int] = ()) -> None:
        super().__init__()
        self.total, self._order, self._rest = 0, order, b""

    def add(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(_LINE_END)
        self.total += _sum_of(map(self._in_order, lines))

    def digest(self) -> str:
        return f"{self.total:x}"

    def _in_order(self, line: bytes) -> bytes:
        values = line.split(b"\t") if self._order else []
        return b"\t".join(values[at] for at in self._order) if len(values) == len(self._order) > 0 else line


def _sum_of(lines: Iterable[bytes]) -> int:
    return sum(int.from_bytes(hashlib.blake2b(line, digest_size=16).digest()) for line in lines)


def in_order_of_names(head: bytes) -> tuple[bytes, list[int]]:
    """A COPY statement with its columns in the order of their names, and where each of them was. Pure."""
    match = _COLUMNS.search(head)
    if match is None:
        return head, []
    columns = _COLUMN.findall(match["columns"])
    order = sorted(range(len(columns)), key=columns.__getitem__)
    listed = b", ".join(columns[at] for at in order)
    return head[: match.start("columns")] + listed + head[match.end("columns") :], order


def digest_of(backup: StoredBackup, any_owner: bool = False) -> ContentDigest:
    """What hashes the text of this backup, or of a database that was restored from it; see ContentDigest."""
    parents = set(backup.parents.values())
    through = {raw_name(table.name) for table in backup.tables if table.name in parents}
    return ContentDigest({name.encode("utf-8", "surrogateescape") for name in through}, any_owner)


def compare_content(plan: Plan, run: RestoreRun, content: Content, left_out: Collection[str]) -> tuple[Compared, str]:
    """The scratch database holds what the backup holds. Returns what was compared, and a sentence for what was not.

    Raises ContentDiffers, which names what differs.
    """
    pg_dump, how, note = _dumper(plan, run)
    differences: list[str] = []
    if pg_dump:
        restored = _dumped_again(plan, run, pg_dump)
        if how == "rows":
            content, restored = rows_of_both(content, restored)
        differences += content_differences(content, restored, left_out)
    with source_session(scratch_dsn(plan, run), NAME) as connection:
        differences += _setting_differences(connection, run)
        _under_conditions(connection, run)
        differences += _view_differences(connection)
    if differences:
        more = f"; and {len(differences) - _NAMED_AT_MOST} more" if len(differences) > _NAMED_AT_MOST else ""
        raise ContentDiffers(
            f"{run.scratch} was restored from {run.backup.filename} without an error, and differs from it: "
            f"{'; '.join(differences[:_NAMED_AT_MOST])}{more}. Something in the database changes what is loaded, such "
            "as a trigger, or somebody else wrote to it."
        )
    return how, note


def _dumper(plan: Plan, run: RestoreRun) -> tuple[str, Compared, str]:
    """The pg_dump that dumps the scratch database, what can be compared then, and a sentence for what cannot."""
    version, major = run.backup.pg_dump_version, run.backup.database.server_version_number // 10_000
    there, at_hand = run.ground.server_version // 10_000, installed("pg_dump", plan.tools_directory)
    same = [tool for tool in at_hand if tool.version_text == version]
    if same and there == major:
        return same[0].path, "all", ""
    wrote = f"pg_dump {version} wrote the backup from PostgreSQL {major}"
    fitting = sorted((tool for tool in at_hand if tool.major >= there), key=lambda tool: tool.major)
    if not fitting:
        return (
            "",
            "nothing",
            f"The content was not compared with the backup, only numbers of rows: {wrote}, and here is another pg_dump "
            "or server.",
        )
    return (
        fitting[0].path,
        "rows",
        f"The definitions were not compared with the backup, only every row and every sequence: {wrote}, and pg_dump "
        f"{fitting[0].version_text} writes those of PostgreSQL {there} in its own way.",
    )


def rows_of_both(backup: Content, restored: Content) -> tuple[Content, Content]:
    """What has the same text whichever versions write it, as far as both have it: rows and sequences. Pure.

    The rows of some partitions stand under another name in another version; these are counted all the same.
    """
    both = [name for name in backup if name.startswith(("rows of ", "SEQUENCE SET ")) and name in restored]
    return {name: backup[name] for name in both}, {name: restored[name] for name in both}


def content_differences(backup: Content, restored: Content, left_out: Collection[str]) -> list[str]:
    """What differs, each by its name. Pure."""
    expected = {name: digests for name, digests in backup.items() if name.removeprefix("rows of ") not in left_out}
    differences = []
    for name in {**expected, **restored}:
        if expected.get(name) != restored.get(name):
            how = "is missing" if name not in restored else "was not backed up" if name not in expected else "differs"
            differences.append(f"{name} {how}")
    return differences


def _dumped_again(plan: Plan, run: RestoreRun, pg_dump: str) -> Content:
    dsn, backup = scratch_dsn(plan, run), run.backup
    digest, reader = digest_of(backup, bool(run.new_owner)), DumpReader(run.ground.server_version)
    conninfo = dsn.conninfo(mostly_reads=True)
    not_dumped = (*backup.excluded_tables, *backup.left_out.tables)
    without_rows = (*backup.left_out.rows, *backup.conditions.rows_left_out)
    encoding = backup.database.encoding
    schemas = backup.left_out.schemas
    arguments = pg_dump_arguments(pg_dump, conninfo, "", encoding, not_dumped, without_rows, schemas)
    with child(arguments, dsn.child_environment(NAME)) as process:
        try:
            for chunk in iter(partial(process.stdout.read, _CHUNK), b""):
                for piece in reader.feed(chunk):
                    digest.take(piece)
            if status := process.wait():
                raise dump_error(dsn, status, process.complaints())
            for piece in reader.finish():
                digest.take(piece)
        except BackupDamaged as error:
            raise DumpFailed(f"The dump of {run.scratch} is not as pg_dump writes one: {error}") from None
    return digest.content()


def _setting_differences(connection: Connection, run: RestoreRun) -> Iterator[str]:
    """Settings of the scratch that are not those of the backup; what this role may not set is no difference."""
    wanted, found = _by_name(run.backup.database.settings), _by_name(database_properties(connection).settings)
    for whose, value in found.items():
        if wanted.get(whose) != value:
            yield f"setting {whose[1]}{f' of role {whose[0]}' if whose[0] else ''} differs"
    for whose in wanted.keys() - found.keys() if run.ground.is_superuser else ():
        yield f"setting {whose[1]}{f' of role {whose[0]}' if whose[0] else ''} is missing"


def _by_name(settings: Collection[RoleSettings]) -> dict[tuple[str | None, str], str]:
    pairs = ((own.role, setting.partition("=")) for own in settings for setting in harmless(own.settings))
    return {(role, name): value for role, (name, _, value) in pairs}


def _under_conditions(connection: Connection, run: RestoreRun) -> None:
    """Gives the session what psql's had when it filled the views: psycopg2 has set a style of dates of its own."""
    settings, _ = session_settings_of(connection, run.backup)
    with connection.cursor() as cursor:
        cursor.execute(b"RESET DateStyle;\n" + settings)


def _view_differences(connection: Connection) -> Iterator[str]:
    """Materialised views that do not hold what their definition gives, where that gives the same twice.

    REFRESH runs the definition with the rights of the view's owner alone; it is rolled back.
    """
    query = """
        SELECT n.nspname AS schema, c.relname AS name
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind = 'm' AND c.relispopulated AND pg_has_role(c.relowner, 'USAGE')
    """
    for view in rows(connection, query):
        name = sql.Identifier(view["schema"], view["name"])
        with connection.cursor() as cursor:
            found, first, second = _sum(cursor, name), _refreshed(cursor, name), _refreshed(cursor, name)
        if first == second != found:
            yield f"rows of MATERIALIZED VIEW {view['schema']}.{view['name']} differ from what its definition gives"


def _refreshed(cursor: Cursor, view: sql.Identifier) -> tuple[int, ...]:
    """The sum of what the view would hold now."""
    cursor.execute("BEGIN")
    try:
        cursor.execute(sql.SQL("REFRESH MATERIALIZED VIEW {}").format(view))
        return _sum(cursor, view)
    finally:
        if not cursor.connection.closed:
            cursor.execute("ROLLBACK")


def _sum(cursor: Cursor, view: sql.Identifier) -> tuple[int, ...]:
    """The number of rows, and a sum of their hashes. A cast of the row to text could be the view's owner's own."""
    row = "textin(record_out(r))"
    cursor.execute(sql.SQL(f"SELECT count(*), sum(hashtextextended({row}, 0)::numeric) FROM {{}} r").format(view))
    return tuple(cursor.fetchone() or ())
