"""Uploads the parts of a spool into one object while the dump still writes them.

The file `upload.jsonl` beside the parts keeps what the store has acknowledged, a line for each part, so that a second
try sends only the rest. After a new try of the dump nothing of that counts: the upload is aborted and another begun.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, field
from datetime import datetime

from tasks.errors import BadSetting, UploadMismatch, UploadUnknown
from tasks.storage.backup_stages import StoredObject
from tasks.storage.backup_values import Part
from tasks.storage.s3 import Storage
from tasks.storage.s3_client import SMALLEST_PART, asked_again
from tasks.storage.spool import POLL_SECONDS, Spool, write_aside
from tasks.stored_backups.backup_files import confirm

CONNECTIONS = 3
JOURNAL = "upload.jsonl"


@dataclass
class Journal:
    """What the store has acknowledged of the dump's try number `attempt`: parts and ETags by number."""

    attempt: int
    upload_id: str
    parts: dict[int, Part] = field(default_factory=dict)
    etags: dict[int, str] = field(default_factory=dict)

    def add(self, part: Part, etag: str) -> None:
        """One more acknowledgement."""
        self.etags[part.number] = etag
        self.parts[part.number] = part


def part_size_for(expected_size: int, most_parts: int) -> int:
    """Bytes a part, so that twice the expected size fits into `most_parts`; whole MiB, 16 MiB at least. Pure."""
    mebibytes = -(-2 * expected_size // (most_parts << 20))
    return max(SMALLEST_PART, mebibytes << 20)


class Shipper:
    """Uploads one spool to one key, several parts at once; made anew by each try of the upload."""

    def __init__(self, spool: Spool, storage: Storage, key: str) -> None:
        self._spool, self._storage, self._key = spool, storage, key
        self._journal = read_journal(spool)
        self._lock = threading.Lock()
        self._waiting: deque[Part] = deque()
        self._sending: set[int] = set()
        self._failed = False

    def ship(self, now: Callable[[], datetime], on_progress: Callable[[int], None]) -> StoredObject:
        """Uploads every part, until the dump is whole and all of it is stored and confirmed.

        `on_progress` gets the number of bytes acknowledged so far. Raises Stopped when the flow ends the work,
        UploadMismatch when the store has something else than was sent, and the storage's errors; what was
        acknowledged until then is kept for the next try.
        """
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            workers = [pool.submit(self._work) for _ in range(CONNECTIONS)]
            with self._failing():
                while not all(worker.done() for worker in workers):
                    on_progress(self._acknowledged_bytes())
                    wait(workers, timeout=1)
        for worker in workers:
            worker.result()
        return self._complete(now)

    def _work(self) -> None:
        with self._failing():
            while not self._failed and not self._all_acknowledged():
                self._spool.check_stopped()
                if not self.ship_one():
                    time.sleep(POLL_SECONDS)

    def ship_one(self) -> bool:
        """Uploads the next part that waits; False when there is none."""
        part = self._claim()
        if part:
            self._send(part)
        return bool(part)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """An error in the `with` block, whatever it is, ends the work of every connection."""
        try:
            yield
        except BaseException:
            self._failed = True
            raise

    def _claim(self) -> Part | None:
        """The next part that no connection sends yet. Raises UploadMismatch when a part is lost."""
        with self._lock:
            self._follow_the_dump()
            if self._journal is None:
                return None
            attempt = self._journal.attempt
            total = self._spool.total(attempt)  # asked first: from then on no part can come any more
            if not self._waiting:
                self._waiting.extend(self._unsent(self._journal))
            if self._waiting:
                part = self._waiting.popleft()
                self._sending.add(part.number)
                return part
            if total is not None and not self._sending and len(self._journal.etags) < total:
                raise UploadMismatch(f"A part of {self._key} vanished from the spool: back up again.")
        return None

    def _unsent(self, journal: Journal) -> Iterator[Part]:
        """The parts in the spool that no connection sends, listed anew: that takes as long as there are parts."""
        for part in self._spool.ready(journal.attempt):
            if part.number in self._sending:
                continue
            if part.number in journal.etags:  # acknowledged by a try that died before it was discarded
                self._spool.discard(journal.attempt, part)
            else:
                yield part

    def _follow_the_dump(self) -> None:
        """Begins a new journal when the dump has started again, once no part of the earlier try is on its way."""
        attempt = self._spool.attempt()
        if attempt == 0 or self._sending or (self._journal and self._journal.attempt == attempt):
            return
        if self._journal:
            self._storage.abort(self._key, self._journal.upload_id)
        self._waiting.clear()
        self._journal = Journal(attempt, self._storage.begin(self._key))
        _begin_journal(self._spool, self._journal)

    def _send(self, part: Part) -> None:
        """Sends a claimed part and keeps the acknowledgement; skips a part of an earlier try of the dump."""
        assert self._journal is not None
        attempt, upload_id = self._journal.attempt, self._journal.upload_id
        try:
            etag = self._storage.send(self._key, upload_id, part, self._spool.part_file(attempt, part))
            with self._lock:
                _note_part(self._spool, part, etag)
                self._journal.add(part, etag)
            self._spool.discard(attempt, part)
        except BadSetting as error:
            raise _explained(error, part) from None
        except FileNotFoundError:
            self._spool.check_stopped()
            if self._spool.attempt() == attempt:
                raise UploadMismatch(
                    f"Part {part.number} of {self._key} vanished from the spool: back up again."
                ) from None
        finally:
            with self._lock:
                self._sending.discard(part.number)

    def _acknowledged_bytes(self) -> int:
        return sum(part.size for part in tuple(self._journal.parts.values())) if self._journal else 0

    def _all_acknowledged(self) -> bool:
        journal = self._journal
        return journal is not None and self._spool.total(journal.attempt) == len(journal.parts)

    def _complete(self, now: Callable[[], datetime]) -> StoredObject:
        """Joins the parts, then asks the store what it has and compares."""
        assert self._journal is not None
        journal, key = self._journal, self._key
        parts = tuple(journal.parts[number] for number in sorted(journal.parts))
        expected = sum(part.size for part in parts)
        try:
            sent = {part.number: part.size for part in parts}
            if asked_again(lambda: self._storage.acknowledged(key, journal.upload_id), sent.__eq__) != sent:
                raise UploadMismatch(f"The store has other parts of {key} than were sent: back up again.")
            etag = self._storage.complete(key, journal.upload_id, journal.etags)
        except UploadUnknown:  # an earlier try completed the upload and did not get the answer
            if asked_again(lambda: self._storage.size(key), expected.__eq__) != expected:
                raise
            etag = ""
        confirm(self._storage, key, parts)
        return StoredObject(key, expected, parts, etag, now())


def _explained(error: BadSetting, part: Part) -> BadSetting:
    """The store's refusal of a part; of a later one, with what is the matter with stores that took the first ones."""
    if part.number <= CONNECTIONS:  # sent at once, so none was taken before it
        return error
    return BadSetting(
        f"{error} This was part {part.number}; if the store takes no more than some number of parts for one object "
        "(1000, say), enter that number as Most parts in the plan: parts are made larger then."
    )


def read_journal(spool: Spool) -> Journal | None:
    """What earlier tries of the upload achieved, or None."""
    try:
        first, *lines = (spool.directory / JOURNAL).read_text().split("\n")
    except FileNotFoundError:
        return None
    journal = Journal(*json.loads(first))
    for line in lines:
        with suppress(ValueError):  # a line that was cut off: its part is sent again
            *part, etag = json.loads(line)
            journal.add(Part(*part), etag)
    return journal


def _begin_journal(spool: Spool, journal: Journal) -> None:
    with spool.disk_errors():
        write_aside(spool.directory / JOURNAL, json.dumps([journal.attempt, journal.upload_id]))


def _note_part(spool: Spool, part: Part, etag: str) -> None:
    """Appends a line. The line break comes first, so that a line that was cut off stays alone."""
    with spool.disk_errors(), (spool.directory / JOURNAL).open("a") as journal:
        journal.write("\n" + json.dumps([*astuple(part), etag]))
