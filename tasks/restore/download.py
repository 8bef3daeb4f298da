"""Fetches the parts of a backup ahead of psql; a part can be read once its SHA-256 was right.

In the spool's directory:

    position            the place, in the list of wanted parts, of the next part that psql needs
    NNNNN.part          a proved part that waits for psql
    loaded              psql has had everything, and needs nothing again
    downloader          there is a download beside psql

All state is on disk, so either side may be retried alone: when psql starts over, `position` goes back to 0, and the
parts that it has read are fetched again. Where no download runs beside it, psql fetches for itself.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tasks.errors import BackupDamaged
from tasks.storage.backup_values import Part, StoredBackup
from tasks.storage.s3 import Storage
from tasks.storage.spool import POLL_SECONDS, Spool, private_file, write_aside

AT_ONCE = 3
#: At most this many parts wait for psql: short-lived files are seldom written to the disk, which psql needs too.
AHEAD = 8
TRIES = 3
_READ = 1 << 20  # bytes


@dataclass(frozen=True)
class Wanted:
    """A part that is needed, and where in the stored file it begins."""

    part: Part
    start: int


def wanted_parts(backup: StoredBackup, skipped: Sequence[tuple[int, int]]) -> tuple[Wanted, ...]:
    """The parts to fetch: all of them, or where the stored file is the plain text those not wholly skipped. Pure."""
    wanted = []
    start = 0
    for part in backup.parts:
        end = start + part.size
        if not any(low <= start and end <= high for low, high in readable_gaps(backup, skipped)):
            wanted.append(Wanted(part, start))
        start = end
    return tuple(wanted)


def readable_gaps(backup: StoredBackup, skipped: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
    """The skipped ranges that need not be fetched: none where offsets in the text are not offsets in the file."""
    return () if backup.encrypted or backup.codec != "none" else skipped


class Parts:
    """The wanted parts on their way through a spool."""

    def __init__(self, spool: Spool, storage: Storage, backup: StoredBackup, wanted: Sequence[Wanted]) -> None:
        self._spool, self._storage, self._backup, self._wanted = spool, storage, backup, wanted
        #: The hash of the whole text cannot prove some of its parts: each is then hashed once more as psql gets it.
        self.partial = len(wanted) < len(backup.parts)
        self.size = sum(needed.part.size for needed in wanted)  # bytes

    # --- the download's side

    def prefetch(self, show: Callable[[int], None]) -> int:
        """Keeps parts ready, as many as the spool may hold, until psql has had the last; returns bytes fetched.

        Raises BackupDamaged naming a part that is not what was stored, or Stopped.
        """
        (self._spool.directory / "downloader").touch()
        fetched = 0
        pool = ThreadPoolExecutor(AT_ONCE)
        under_way: dict[int, Future[int]] = {}
        try:
            while not self._is_loaded():
                self._spool.check_stopped()
                for place in self._missing(under_way):
                    under_way[place] = pool.submit(self._fetch, self._wanted[place])
                if under_way:
                    wait(under_way.values(), timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
                else:  # psql has enough for now
                    time.sleep(POLL_SECONDS)
                for place in [place for place, future in under_way.items() if future.done()]:
                    fetched += under_way.pop(place).result()
                    show(fetched)
        finally:
            # A store that does not answer must not keep a run that is cancelled from clearing up.
            pool.shutdown(wait=False, cancel_futures=True)
        return fetched

    def _missing(self, under_way: dict[int, Future[int]]) -> list[int]:
        """The places to fetch now: no more than the spool may hold, together with those that are on their way."""
        position = self._position()
        room = max(1, min(AHEAD, self._spool.limit // max(1, self._spool.part_size)))
        window = range(position, min(position + room, len(self._wanted)))
        held = self._held(window)
        missing = [place for place in window if place not in under_way and place not in held]
        read = range(position, self._position())  # by psql, since the first look
        free = min(AT_ONCE, room - len(held)) - len(under_way)
        return [place for place in missing if place not in read][: max(0, free)]

    def _held(self, window: range) -> set[int]:
        """The places in the window whose parts are there. Other parts are removed: psql has started over."""
        places = {self._file(self._wanted[place]).name: place for place in window}
        files = {path.name: path for path in self._spool.directory.glob("*.part")}
        for name in files.keys() - places.keys():
            files[name].unlink(missing_ok=True)
        return {places[name] for name in files.keys() & places.keys()}

    def _fetch(self, wanted: Wanted) -> int:
        """Stores one part in the spool once it is proved; returns its size."""
        for _ in range(TRIES):
            aside = self._spool.directory / f".{wanted.part.number}.{time.monotonic_ns()}"
            digest = hashlib.sha256()
            try:
                with self._spool.disk_errors(), private_file(aside) as file:
                    for chunk in self._chunks(wanted):
                        digest.update(chunk)
                        file.write(chunk)
                if digest.hexdigest() == wanted.part.sha256:
                    with self._spool.disk_errors():
                        aside.replace(self._file(wanted))
                    return wanted.part.size
            finally:
                aside.unlink(missing_ok=True)
        raise self.damaged(wanted)

    def _chunks(self, wanted: Wanted) -> Iterator[bytes]:
        try:
            for chunk in self._storage.read(self._backup.key, wanted.start, wanted.part.size):
                self._spool.check_stopped()
                yield chunk
        except FileNotFoundError:
            raise BackupDamaged(
                f"{self._backup.filename} is gone from bucket {self._storage.bucket}: restore another backup."
            ) from None

    # --- psql's side

    def stored_bytes(self) -> Iterator[tuple[int, bytes]]:
        """Offset and bytes of everything wanted, in order, from the beginning. Raises BackupDamaged or Stopped."""
        self._set_position(0)
        for place, wanted in enumerate(self._wanted):
            yield from self._part_bytes(wanted)
            self._set_position(place + 1)  # before the file goes: else the download would take it for missing
            self._file(wanted).unlink(missing_ok=True)

    def loaded(self) -> None:
        """psql has had everything and committed it: the download ends."""
        (self._spool.directory / "loaded").touch()

    def damaged(self, wanted: Wanted) -> BackupDamaged:
        """The error for a part that is not what its manifest says."""
        return BackupDamaged(
            f"{self._backup.filename}: part {wanted.part.number} of {len(self._backup.parts)} in bucket "
            f"{self._storage.bucket} is not what was stored (its SHA-256 differs): nothing was restored; use another "
            "backup."
        )

    def _part_bytes(self, wanted: Wanted) -> Iterator[tuple[int, bytes]]:
        at = wanted.start
        digest = hashlib.sha256()
        with self._opened(wanted) as file:
            while chunk := file.read(_READ):
                if self.partial:
                    digest.update(chunk)
                yield at, chunk
                at += len(chunk)
        if self.partial and digest.hexdigest() != wanted.part.sha256:
            raise self.damaged(wanted)

    def _opened(self, wanted: Wanted) -> IO[bytes]:
        while True:
            self._spool.check_stopped()
            with suppress(FileNotFoundError):
                return self._file(wanted).open("rb")
            if (self._spool.directory / "downloader").exists():
                time.sleep(POLL_SECONDS)
            else:
                self._fetch(wanted)

    # --- both

    def _file(self, wanted: Wanted) -> Path:
        return self._spool.directory / f"{wanted.part.number:05d}.part"

    def _is_loaded(self) -> bool:
        return (self._spool.directory / "loaded").exists()

    def _position(self) -> int:
        try:
            return int((self._spool.directory / "position").read_text())
        except FileNotFoundError:
            return 0

    def _set_position(self, place: int) -> None:
        with self._spool.disk_errors():
            write_aside(self._spool.directory / "position", str(place))
