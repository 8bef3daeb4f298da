"""Opens an adoption, and makes a dump of an object in the plan's bucket, which is read once and never changed.

object → layers → text as pg_dump wrote it → the reader that every restore uses → encoder → parts, as in a backup

What that reader refuses is refused here, so whatever is adopted can be given to psql as any backup is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tasks.adopt.dump_facts import DumpFacts
from tasks.adopt.layers import begin_of, opened
from tasks.adopt.plain_sql import plain_sql
from tasks.adopt.refusals import unwritten, versions_of, without_definitions, without_schema
from tasks.backup.dump import PYTHON_CODECS, PartWriter, TextSink
from tasks.backup.open_backup import begin_run
from tasks.backup.preflight import spool_problems
from tasks.errors import AdoptionRefused, BackupDamaged, BadSetting, DumpFailed, Problems, ToolMissing
from tasks.names import ADOPTED, MANIFEST_SUFFIX, is_backup_filename
from tasks.plans.plan import Plan
from tasks.postgres.tools import installed
from tasks.restore.dump_reader import DumpReader
from tasks.storage.backup_stages import BackupRun, Dump
from tasks.storage.encoders import ENCODERS, encrypted
from tasks.storage.s3 import Storage
from tasks.storage.s3_client import SMALLEST_PART
from tasks.storage.spool import Spool, clear_dead_spools
from tasks.stored_backups.store_facts import known_facts

_RANGE = 64 << 20  # bytes that are asked for at once
#: No line is left out for an older server: the text stays as it is.
_NEWEST = 10**6


@dataclass(frozen=True)
class Adopted:
    """A dump that was read to its end and is whole, with what is known of the object that it was read from."""

    dump: Dump
    pg_dump_version: str
    key: str
    size: int
    sha256: str
    notes: tuple[str, ...]

    @property
    def origin(self) -> dict[str, Any]:
        """What the catalogue keeps of the object."""
        return {"key": self.key, "size": self.size, "sha256": self.sha256, "notes": list(self.notes)}


@dataclass(frozen=True)
class _Version:
    """What the store says of an object before it is read, and after."""

    size: int
    etag: str


def checked_key(plan: Plan, key: str) -> str:
    """The key of an object that can be adopted, by its name. Raises BadSetting for what is a backup already. Pure."""
    key = key.strip().removeprefix(f"s3://{plan.storage.bucket}/").lstrip("/")
    if not key:
        raise BadSetting("No key was given: name the object in the plan's bucket that is to be adopted.")
    name = key.rpartition("/")[2].removesuffix(MANIFEST_SUFFIX)
    if is_backup_filename(name) or key.startswith(plan.prefix):
        raise BadSetting(
            f"{key[:200]} is, by its name, a backup of this system: restore it as it is; where the catalogue does not "
            "know it, run rebuild-catalogue first. Give a dump that this system did not make another key."
        )
    return key


def open_adoption(
    plan: Plan, key: str, run_id: str, created_by: str, at: datetime, say: Callable[[str], None]
) -> BackupRun:
    """A backup whose row is `in_progress`, after a look for what could stand in the way. The database is not asked.

    Raises, before there is a row, BadSetting, or PreflightFailed with every problem, or Unreachable.
    """
    for dead in clear_dead_spools(plan.spool_directory):
        say(f"The spool of the dead run {dead} was removed.")
    key = checked_key(plan, key)
    size = _version(plan.storage, key).size
    problems = Problems()
    with problems:
        plan.catalogue.check()
        plan.catalogue.check_clock()
    with problems:
        plan.storage.check_writable(plan.prefix)
    problems.add(spool_problems(plan.spool_directory, min(plan.spool_limit, size + SMALLEST_PART)))
    problems.raise_any(f"{key} cannot be adopted")
    store = known_facts(plan.catalogue, plan.name, plan.storage, plan.prefix, run_id, at)
    return begin_run(
        plan,
        run_id,
        created_by,
        at,
        ADOPTED,
        most_parts=store.most_parts,
        expected_size=size,
        pg_dump="",
        pg_dump_version="",
        excluded_tables=(),
    )


def adopt(
    plan: Plan, run: BackupRun, spool: Spool, key: str, now: Callable[[], datetime], on_progress: Callable[[int], None]
) -> Adopted:
    """A whole dump, cut into parts in the spool. `on_progress` gets the number of stored bytes so far.

    Raises AdoptionRefused, which names the object and says why; DumpFailed when another try with larger parts helps;
    DiskFull, Stopped, and what the store raises.
    """
    key = checked_key(plan, key)
    try:
        return _adopted(plan, run, spool, key, now, on_progress)
    except AdoptionRefused as error:
        raise AdoptionRefused(f"{key} was not adopted, and nothing of it was stored. {error}") from None


def _adopted(
    plan: Plan, run: BackupRun, spool: Spool, key: str, now: Callable[[], datetime], on_progress: Callable[[int], None]
) -> Adopted:
    started_at, before, digest = now(), _version(plan.storage, key), hashlib.sha256()
    attempt = spool.begin_attempt()
    writer = PartWriter(spool, attempt)
    stored = _stored_bytes(plan.storage, key, before.size, digest.update, spool)
    with (
        encrypted(ENCODERS[run.codec](), run.recipients) as encoder,
        opened(stored, plan.identities, lambda: _pg_restore(plan), spool.is_stopped) as packed,
    ):
        sink = TextSink(encoder, writer, on_progress)
        text, notes = plain_sql(packed)
        head, text = begin_of(text)
        server_version, pg_dump_version = versions_of(head)
        reading = _Reading(sink)
        for chunk in text:
            reading.take(chunk)
        reading.finish()
        for _ in stored:  # what pg_restore did not need: the object has to be whole
            pass
        sink.finish()
    if _version(plan.storage, key) != before:
        raise AdoptionRefused("It was written over while it was read: try again when nobody writes it.")
    source = reading.facts.facts(server_version, reading.encoding, sink.plain_size)
    codec = PYTHON_CODECS.get(reading.encoding, "utf-8")
    tables = tuple(table.named_in(codec) for table in reading.tables)
    parts = writer.close()
    spool.finish(attempt, len(parts))
    dump = sink.result(tables, parts, source, started_at, now())
    return Adopted(dump, pg_dump_version, key, before.size, digest.hexdigest(), notes)


class _Reading:
    """Gives the text to the reader that every restore uses, and stores what it has accepted."""

    def __init__(self, sink: TextSink) -> None:
        self.facts, self._sink, self._reader = DumpFacts(), sink, DumpReader(_NEWEST)
        self.encoding = "UTF8"

    def take(self, chunk: bytes) -> None:
        """The next text. Raises AdoptionRefused for what pg_dump does not write."""
        try:
            pieces = self._reader.feed(chunk)
        except (BackupDamaged, DumpFailed) as error:
            raise unwritten(error, self._reader.refused) from None
        self.encoding = self._reader.reads_as.split()[1]
        for piece in pieces:
            self.facts.take(piece, self.encoding)
        self._sink.take(memoryview(chunk))

    def finish(self) -> None:
        """The text has ended. Raises AdoptionRefused when it is not whole, or no psql could load it by itself."""
        try:
            pieces = self._reader.finish()
        except (BackupDamaged, DumpFailed) as error:
            raise unwritten(error, self._reader.refused) from None
        for piece in pieces:
            self.facts.take(piece, self.encoding)
        if self.facts.is_content_alone:
            raise without_definitions()
        for table in self._reader.tables:
            if "." not in table.name:
                raise without_schema(table.name)

    @property
    def tables(self) -> Any:
        """The tables whose rows the text holds, in its order."""
        return self._reader.tables


def _version(storage: Storage, key: str) -> _Version:
    size = storage.size(key)
    if size is None:
        raise BadSetting(
            f"Bucket {storage.bucket} has no object {key[:200]}: give the key of the dump as the store lists it."
        )
    return _Version(size, str(storage.ask("head_object", Key=key).get("ETag", "")))


def _stored_bytes(
    storage: Storage, key: str, size: int, note: Callable[[bytes], None], spool: Spool
) -> Iterator[bytes]:
    for start in range(0, size, _RANGE):
        for chunk in storage.read(key, start, min(_RANGE, size - start)):
            spool.check_stopped()
            note(chunk)
            yield chunk


def _pg_restore(plan: Plan) -> str:
    """The newest pg_restore of the worker: it reads what every older pg_dump has written."""
    tools = installed("pg_restore", plan.tools_directory)
    if not tools:
        raise ToolMissing("An archive of pg_dump needs pg_restore on the worker: install postgresql-client.")
    return max(tools, key=lambda tool: tool.version).path
