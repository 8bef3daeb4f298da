"""A whole backup into a scratch database: in stages, and where an earlier restore left entries to do, those alone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial

from psycopg2.extensions import connection as Connection

from tasks.backup.row_readers import possible_sessions, wanted_jobs
from tasks.errors import RestoreFailed, RestoreRefused
from tasks.plans.plan import Plan
from tasks.postgres.child_processes import child, killed_when
from tasks.postgres.dsn import Dsn
from tasks.postgres.server import maintenance, rows, source_session
from tasks.restore.builds import Sizes
from tasks.restore.content import digest_of
from tasks.restore.crew import Crew, LoaderCrew, Psqls
from tasks.restore.decode import feed
from tasks.restore.download import Parts
from tasks.restore.dump_reader import DumpReader, Entry, Piece
from tasks.restore.entries import ChosenSchemas, LeftOut, entries_failed, rows_entry
from tasks.restore.hands import Turn
from tasks.restore.labels import own_comment
from tasks.restore.loader_role import Loader, loader_of
from tasks.restore.owners import raw_role
from tasks.restore.psql import (
    INDEX_MEGABYTES,
    application_name,
    bracket_key,
    notice,
    psql_arguments,
    session_settings,
)
from tasks.restore.psql_session import PsqlSession
from tasks.restore.scratch import (
    mark_unfinished,
    note_statement,
    scratch_dsn,
    session_settings_of,
    unfinished_label,
)
from tasks.restore.stages import Stages
from tasks.restore.tables.patterns import name_in
from tasks.restore.tables.selection import unread
from tasks.restore.values import LARGE, Content, Loaded, MissingEntry, RestoreRun
from tasks.storage.backup_values import raw_name
from tasks.storage.spool import Spool

NAME = "restore: load"
#: Plain tables of this dump: COPY's FREEZE does not take partitioned ones, and extensions bring rows of their own.
_FREEZABLE = """
    SELECT w.name FROM unnest(%(names)s::text[]) w (name) JOIN pg_class c ON c.oid = to_regclass(w.name)
     WHERE c.relkind = 'r' AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                                              AND d.objid = c.oid AND d.deptype = 'e')
"""


def load_in_stages(
    plan: Plan,
    run: RestoreRun,
    parts: Parts,
    spool: Spool,
    show: Callable[[int], None],
    missing: Sequence[MissingEntry] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Loaded:
    """Every entry of the dump is in the scratch database, but those that are left out by name.

    `missing` are the entries to restore when an earlier restore has done the others. `show` gets the bytes of SQL read
    so far. Raises EntriesFailed when entries failed: the scratch is then labelled with them. RestoreFailed when another
    try may help, BackupDamaged, RestoreRefused for a name in `without` that no entry has, or Stopped.
    """
    began, target = time.monotonic(), scratch_dsn(plan, run)
    left_out = left_out_of(run)
    with source_session(target, NAME) as connection:
        settings, _ = session_settings_of(connection, run.backup)
        jobs = _sessions(plan, run, connection, say) if missing is None else 1
    reader = DumpReader(run.ground.server_version)
    with _crew_of(run, target, spool, reader, settings, jobs) as (crew, loader):
        remaining, sizes = _Remaining(run, missing, loader), Sizes(run.backup.tables)
        stages = Stages(crew, left_out, lambda: _freezable(target, run), remaining, sizes)
        try:
            size, content = _fed(plan, run, parts, stages, reader, show)
            stages.finish()
            parts.loaded()
        except (RestoreFailed, RestoreRefused):
            spool.check_stopped()
            raise
        finally:
            crew.end()
        if loader:
            loader.remove()
    if stages.failed or left_out.unused or left_out.unused_schemas:
        with maintenance(target).session(NAME) as server:
            missing = sorted([*((entry.number, entry.name) for entry in stages.failed), *left_out.entries])
            mark_unfinished(server, run, missing, datetime.now(UTC))
        raise entries_failed(run.backup.filename, target.place, stages.failed, left_out.unused, left_out.unused_schemas)
    late = [f"{name} was restored by an earlier run, and stays." for name in left_out.too_late]
    warnings = (*dict.fromkeys(crew.warnings), *late)
    return Loaded(size, time.monotonic() - began, (), warnings, left_out.names, content)


def left_out_of(run: RestoreRun) -> LeftOut:
    """What of the dump is left out."""
    return LeftOut(run.request.without, run.ground.foreign_superusers, run.request.kinds_left_out, schemas_of(run))


def schemas_of(run: RestoreRun) -> ChosenSchemas:
    """The schemas that are restored."""
    return ChosenSchemas(run.request.schemas, [extension.schema for extension in run.backup.extensions])


def _fed(
    plan: Plan, run: RestoreRun, parts: Parts, stages: Stages, reader: DumpReader, show: Callable[[int], None]
) -> tuple[int, Content | None]:
    """Bytes of the text that went into `stages`, and its digests where the content is compared."""
    digest = digest_of(run.backup, bool(run.new_owner)) if run.request.compare == "content" else None

    def take(piece: Piece) -> None:
        if digest:
            digest.take(piece)
        stages.take(piece)

    size = feed(take, run.backup, parts, plan.identities, unread_rows(run), reader, show)
    return size, digest.content() if digest else None


def _sessions(plan: Plan, run: RestoreRun, connection: Connection, say: Callable[[str], None]) -> int:
    """How many sessions make indexes and keys; `say` gets the number, and why it is less than the plan wants."""
    jobs, said = possible_sessions(connection, wanted_jobs(plan.jobs, run.backup.plain_size), "make indexes and keys")
    for sentence in said or (f"{jobs} sessions make indexes and keys of large tables.",) * (jobs > 1):
        say(sentence)
    return jobs


@contextmanager
def _crew_of(
    run: RestoreRun, dsn: Dsn, spool: Spool, reader: DumpReader, settings: bytes, jobs: int
) -> Iterator[tuple[Crew, Loader | None]]:
    """So many psqls of the plan's role; where that is a superuser, so many of the loader and one of its own."""
    settings = notice(run.ground.server_version) + settings
    if jobs > 1:
        settings += b"SET maintenance_work_mem = '%dMB';\n" % (INDEX_MEGABYTES // jobs)
    owner = raw_role(run.new_owner, run.backup.database.encoding)
    start = partial(_started, run, dsn, dsn, spool, reader)
    if not run.ground.is_superuser:
        yield Crew([Psqls(start, settings) for _ in range(jobs)], owner), None
        return
    own = Psqls(start, settings)
    with loader_of(dsn) as loader:
        start = partial(_started_as_loader, run, loader, dsn, spool, reader)
        loaders = [Psqls(start, settings) for _ in range(jobs)]
        yield LoaderCrew(loader, loaders, own, run.place.kind == "worker", owner), loader


def unread_rows(run: RestoreRun) -> tuple[tuple[int, int], ...]:
    """The ranges of the plain text that need not be read: rows not chosen, or loaded by an earlier restore."""
    if run.request.compare == "content" and not run.tables:  # all of the text is hashed
        return ()
    if run.missing is not None:
        names = {name for _, name in run.missing}
        parents = set(run.backup.parents.values())  # rows of their partitions, whose entries bear other names
        needed = [table.name for table in run.backup.tables if table.name in parents or rows_entry(table.name) in names]
        return unread(run.backup, needed)
    if run.request.schemas:
        chosen, parents = schemas_of(run), set(run.backup.parents.values())
        names = {table.name for table in run.backup.tables if chosen.has(name_in(table.name).schema)}
        return unread(run.backup, names | parents)
    return unread(run.backup, run.chosen) if run.tables else ()


class _Remaining:
    """The entries that an earlier restore has left to do; each that is done leaves the label in its own transaction."""

    def __init__(self, run: RestoreRun, missing: Sequence[MissingEntry] | None, loader: Loader | None) -> None:
        self._run, self._loader = run, loader
        self._missing = None if missing is None else dict(missing)
        self._comment = own_comment(run.ground.like.name, run.ground.like.comment)

    def __contains__(self, entry: Entry) -> bool:
        return self._missing is None or entry.number in self._missing

    @property
    def is_all(self) -> bool:
        """Whether nothing was done before."""
        return self._missing is None

    def note(self, entry: Entry, turn: Turn) -> bytes:
        """The statement that notes the entry as done; nothing where no earlier restore counts."""
        if self._missing is None:
            return b""
        left = [(number, name) for number, name in self._missing.items() if number != entry.number]
        label = unfinished_label(self._run, left, datetime.now(UTC), self._comment)
        by = self._loader.name if self._loader and turn == "loader" else ""
        return note_statement(self._run, label, by)

    def done(self, entry: Entry) -> None:
        """The entry has been committed."""
        if self._missing is not None:
            self._missing.pop(entry.number, None)


def _started(
    run: RestoreRun, address: Dsn, own: Dsn, spool: Spool, reader: DumpReader, stack: ExitStack
) -> PsqlSession:
    """A psql in the scratch database, which ends with the stack; `own` is the address of the plan's role."""
    target = address.with_options(session_settings(run.mode, run.ground.server_version))
    arguments = psql_arguments(run.ground.psql.path, target.conninfo())
    psql = stack.enter_context(
        child(arguments, target.child_environment(application_name(run.run_id)), with_input=True)
    )
    stack.enter_context(killed_when(psql, spool.is_stopped))
    return PsqlSession(psql, own, run.backup.filename, str, lambda: reader.reads_as, bracket_key(run))


def _started_as_loader(
    run: RestoreRun, loader: Loader, own: Dsn, spool: Spool, reader: DumpReader, stack: ExitStack
) -> PsqlSession:
    """The same as the loader. Raises RestoreRefused when that cannot connect."""
    with loader.may_connect() as address:
        session = _started(run, address, own, spool, reader, stack)
        try:
            session.ask("here", "1")
        except BrokenPipeError:
            raise session.failure() from None
    return session


def _freezable(dsn: Dsn, run: RestoreRun) -> list[bytes]:
    """The large tables whose rows COPY can freeze, as it writes their names."""
    times = Counter(table.name for table in run.backup.tables)
    large = [table.name for table in run.backup.tables if table.end - table.start > LARGE and times[table.name] == 1]
    with source_session(dsn, NAME) as connection:
        found = rows(connection, _FREEZABLE, names=large)
    return [raw_name(row["name"]).encode("utf-8", "surrogateescape") for row in found]
