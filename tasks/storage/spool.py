"""The spool: a directory of part files through which `dump` hands the stored file to `upload`.

    <root>/<run id>.spool.lock       locked by the run; when the lock is free, the run is dead
    <root>/<run id>.spool/stop       why the steps must stop
                    upload.jsonl     what the store has acknowledged (see tasks.backup.upload)
                    attempt-2/       the parts of the second try of the dump
                      00001-<sha256 of the part>.part
                      end            how many parts there are, once the dump is complete

All state is on disk and changes by rename, so dump and upload can each be retried alone, and neither needs the other's
thread. A visible part is complete, and its name holds its SHA-256.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tasks.errors import AlreadyRunning, BadSetting, DiskFull, Stopped
from tasks.storage.backup_values import Part

_PART = re.compile(r"(\d{5})-([0-9a-f]{64})\.part")
# A name that nothing else uses: other files in the same directory are left alone.
_LOCK = ".spool.lock"
LOCK_SECONDS = 30.0  # a clean-up holds a lock for less than a second
REMOVAL_SECONDS = 5.0  # until steps that must stop have ended
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Spool:
    """One run's spool: a path and two sizes in bytes, safe to pass to any task."""

    directory: Path
    part_size: int
    limit: int
    most_parts: int = 10_000

    # --- the dump's side

    def begin_attempt(self) -> int:
        """Starts the next try of the dump and removes the parts of earlier tries. Returns its number."""
        earlier = self.attempt()
        with self.disk_errors():
            self._attempt(earlier + 1).mkdir(mode=0o700)
        for number in range(1, earlier + 1):
            shutil.rmtree(self.directory / f"attempt-{number}", ignore_errors=True)
        return earlier + 1

    def unfinished(self, attempt: int) -> Path:
        """The file of the part that is being written."""
        return self._attempt(attempt) / "unfinished"

    def publish(self, attempt: int, part: Part) -> None:
        """Marks the unfinished part as complete: from now on the upload sees it."""
        self.unfinished(attempt).rename(self.part_file(attempt, part))

    def finish(self, attempt: int, parts: int) -> None:
        """Marks the dump as complete, with so many parts."""
        with self.disk_errors():
            write_aside(self._attempt(attempt) / "end", str(parts))

    def size_of_parts(self) -> int:
        """Bytes in every part but the last: four times more after each try with too many parts."""
        return int(self.part_size * 4 ** len(list(self.directory.glob("too-small-*"))))

    def note_too_small(self, attempt: int) -> None:
        """Notes that this try had more parts than the store allows: the next try uses larger ones."""
        (self.directory / f"too-small-{attempt}").touch()

    def wait_for_room(self, attempt: int) -> int:
        """Returns once one more part fits below the limit: the bytes that do, so that not each part lists all. Raises
        Stopped.
        """
        size = self.size_of_parts()
        while (room := max(self.limit, size) - self.waiting_bytes(attempt)) < size:
            self.check_stopped()
            time.sleep(POLL_SECONDS)
        return room

    # --- the upload's side

    def attempt(self) -> int:
        """The number of the dump's current try; 0 before the first."""
        names = [entry.name for entry in self.directory.iterdir()]
        return max((int(name[8:]) for name in names if name.startswith("attempt-")), default=0)

    def ready(self, attempt: int) -> list[Part]:
        """The parts that wait for the upload, in order; none once a newer try has begun."""
        try:
            names = sorted(entry.name for entry in self._attempt(attempt).iterdir())
        except FileNotFoundError:
            return []
        matches = ((_PART.fullmatch(name), name) for name in names)
        return [part for match, name in matches if match and (part := self._sized(attempt, match, name))]

    def part_file(self, attempt: int, part: Part) -> Path:
        """The file of a complete part."""
        return self._attempt(attempt) / f"{part.number:05d}-{part.sha256}.part"

    def discard(self, attempt: int, part: Part) -> None:
        """Removes the file of a part that the store has acknowledged."""
        self.part_file(attempt, part).unlink(missing_ok=True)

    def total(self, attempt: int) -> int | None:
        """How many parts the dump has, or None while it is not complete."""
        try:
            return int((self._attempt(attempt) / "end").read_text())
        except FileNotFoundError:
            return None

    # --- both

    def waiting_bytes(self, attempt: int) -> int:
        """Bytes in the parts that wait for the upload."""
        return sum(part.size for part in self.ready(attempt))

    def stop(self, reason: str) -> None:
        """Makes every step that uses this spool end. The first reason stays. Works on a full disk too."""
        if self.directory.is_dir() and not (self.directory / "stop").exists():
            try:
                write_aside(self.directory / "stop", reason)
            except OSError:  # an empty file needs no room
                (self.directory / "stop").touch()

    def is_stopped(self) -> bool:
        """Whether `stop` was called or the spool is gone."""
        return (self.directory / "stop").exists() or not self.directory.is_dir()

    def check_stopped(self) -> None:
        """Raises Stopped once `stop` was called or the spool is gone."""
        try:
            raise Stopped((self.directory / "stop").read_text() or "Stopped, because the disk is full.")
        except FileNotFoundError:
            if not self.directory.is_dir():
                raise Stopped("The spool of this run is gone.") from None

    @contextmanager
    def disk_errors(self) -> Iterator[None]:
        """Raises DiskFull in place of the system's error, and Stopped when the spool was removed."""
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise DiskFull(
                    f"The disk of the spool {self.directory.parent} is full: free some room, or set "
                    "SPOOL_DIRECTORY to another disk."
                ) from None
            self.check_stopped()
            raise

    def _attempt(self, attempt: int) -> Path:
        return self.directory / f"attempt-{attempt}"

    def _sized(self, attempt: int, match: re.Match[str], name: str) -> Part | None:
        try:
            size = (self._attempt(attempt) / name).stat().st_size
        except FileNotFoundError:  # uploaded since the listing
            return None
        return Part(int(match[1]), size, match[2])


@contextmanager
def open_spool(root: Path, run_id: str, part_size: int, limit: int, most_parts: int = 10_000) -> Iterator[Spool]:
    """A spool for the length of a `with` block, readable by its owner alone; its directory is removed afterwards.

    The end of the block stops every step that still uses the spool. Raises BadSetting when the directory cannot be
    used, AlreadyRunning when another process uses the spool.
    """
    directory, lock_file = root / f"{run_id}.spool", root / f"{run_id}{_LOCK}"
    try:
        own_directory(root)
        lock = _locked(lock_file)
        _remove(directory)  # of a process that died, since its lock was free
        directory.mkdir(mode=0o700)
    except OSError as error:
        raise BadSetting(
            f"The spool {directory} cannot be made ({error.strerror}): set SPOOL_DIRECTORY to a "
            "directory that this user can write to."
        ) from None
    spool = Spool(directory, part_size, limit, most_parts)
    try:
        yield spool
    finally:
        with suppress(OSError):  # a spool that was removed has stopped as well
            spool.stop("The run has ended.")
        _remove(directory)
        if not directory.exists():  # otherwise the next clean-up finds it by its lock
            lock_file.unlink(missing_ok=True)
        os.close(lock)


def _remove(directory: Path) -> None:
    """Removes the directory, even while a transfer that must stop still writes a file into it."""
    give_up = time.monotonic() + REMOVAL_SECONDS
    shutil.rmtree(directory, ignore_errors=True)
    while directory.exists() and time.monotonic() < give_up:
        time.sleep(POLL_SECONDS)
        shutil.rmtree(directory, ignore_errors=True)


def own_directory(root: Path) -> None:
    """Makes the directory, for this user alone, unless it is there.

    Raises BadSetting for one in which another user could read or exchange the dump, OSError when it cannot be made.
    """
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_ours(root):
        raise BadSetting(
            f"The spool's directory {root}, or the link of that name, belongs to another user, or everybody may write "
            "to it: set SPOOL_DIRECTORY to one of your own (chmod 700)."
        )


def _is_ours(root: Path) -> bool:
    """Whether nobody but this user and root made the directory, and a link to it, and can write to it."""
    there = root.stat()
    everybody_writes = there.st_uid == os.getuid() and there.st_mode & stat.S_IWOTH and not there.st_mode & stat.S_ISVTX
    return {there.st_uid, root.lstat().st_uid} <= {os.getuid(), 0} and not everybody_writes


def private_file(path: Path) -> IO[bytes]:
    """A new file for writing that its owner alone can read, whatever the umask; never what a link leads to."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    return os.fdopen(os.open(path, flags, 0o600), "wb", buffering=0)


def clear_dead_spools(root: Path, dry_run: bool = False) -> list[str]:
    """Removes every spool of this machine whose run is dead (its lock is free); returns the run ids.

    With `dry_run` nothing is removed. The next clean-up tries again what cannot be removed now.
    """
    cleared: list[str] = []
    if not (root.is_dir() and _is_ours(root)):
        return cleared
    for lock_file in sorted(root.glob(f"*{_LOCK}")):
        try:
            file = lock_file.open("r+")
        except (FileNotFoundError, PermissionError):  # removed by another run since the listing, or another user's
            continue
        with file:
            if _try_lock(file.fileno()) and _is_named(lock_file, file.fileno()) and (dry_run or _cleared(lock_file)):
                cleared.append(lock_file.name.removesuffix(_LOCK))
    return cleared


def _cleared(lock_file: Path) -> bool:
    directory = lock_file.with_suffix("")
    _remove(directory)
    if directory.exists():
        return False
    lock_file.unlink(missing_ok=True)
    return True


def write_aside(path: Path, text: str) -> None:
    """Writes a file so that others see it complete or not at all."""
    aside = path.with_name(f".{path.name}.{time.monotonic_ns()}")
    try:
        aside.write_text(text)
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise


def _locked(path: Path) -> int:
    """A descriptor that holds the lock of the file `path`, which a clean-up may remove and this makes again.

    Raises AlreadyRunning when another process keeps the lock: the same run, started twice.
    """
    give_up = time.monotonic() + LOCK_SECONDS
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        if _try_lock(descriptor) and _is_named(path, descriptor):
            return descriptor
        os.close(descriptor)
        if time.monotonic() > give_up:
            raise AlreadyRunning(f"Another process uses the spool of this run ({path}): wait for it to end, or end it.")
        time.sleep(POLL_SECONDS)


def _is_named(path: Path, descriptor: int) -> bool:
    """Whether `path` still names the file that was opened."""
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False


def _try_lock(descriptor: int) -> bool:
    """Takes the lock unless another open file has it. The kernel frees the lock when its holder dies."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True
