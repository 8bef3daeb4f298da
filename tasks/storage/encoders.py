"""Compression and encryption of a dump on its way into the stored file. Stock tools undo each format.

none   the plain text, as pg_dump wrote it
zstd   one Zstandard frame (RFC 8878): `zstd -d`
gzip   one gzip member (RFC 1952): `gunzip`
age    around any of these, an age file for the plan's recipients: `age -d`

A backup needs only public keys, the recipients. A restore needs a secret key, an identity: without it, the backups are
lost.
"""

from __future__ import annotations

import io
import json
import sys
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import zstandard

from tasks.errors import BackupDamaged, BadSetting, DumpFailed
from tasks.postgres.child_processes import Child, child
from tasks.storage.age_filter import identity, recipient, split_identities

ZSTD_LEVEL = 1  # close to 3 in size on dumps, twice as fast
GZIP_LEVEL = 1
_FILTER = Path(__file__).with_name("age_filter.py")
_CHUNK = 1 << 18  # bytes


class Encoder(Protocol):
    """Takes plain bytes and gives stored bytes, which may come later."""

    def encode(self, chunk: memoryview) -> bytes | memoryview:
        """The stored bytes that are ready, perhaps none."""

    def finish(self) -> bytes:
        """The remaining stored bytes."""


class Plain:
    """No compression."""

    def encode(self, chunk: memoryview) -> memoryview:
        return chunk

    def finish(self) -> bytes:
        return b""


class Compressed:
    """What a compressor of zstandard or zlib makes."""

    def __init__(self, compressor: Any) -> None:
        self._compressor = compressor

    def encode(self, chunk: memoryview) -> bytes:
        compressed: bytes = self._compressor.compress(chunk)
        return compressed

    def finish(self) -> bytes:
        rest: bytes = self._compressor.flush()
        return rest


ENCODERS: dict[str, Callable[[], Encoder]] = {
    "none": Plain,
    "zstd": lambda: Compressed(
        zstandard.ZstdCompressor(level=ZSTD_LEVEL, threads=2, write_checksum=True).compressobj()
    ),
    "gzip": lambda: Compressed(zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)),
}


def checked_recipients(texts: Sequence[str]) -> tuple[str, ...]:
    """The recipients, all usable. Raises BadSetting, which never repeats a secret key given by mistake."""
    recipients = tuple(text.strip() for text in texts if text.strip())
    for text in recipients:
        if text.upper().startswith("AGE-SECRET-KEY"):
            raise BadSetting(
                "A recipient of the encryption is a secret key: give its public key, age1…, and keep the other."
            )
        try:
            recipient(text)
        except ValueError:
            raise BadSetting(
                f"{text[:20]!r}… is no age recipient: give public keys such as age1… or ssh-ed25519 …"
            ) from None
    return recipients


def checked_identities(text: str) -> tuple[str, ...]:
    """The identities in `text` (a key file of age or ssh), all usable. Raises BadSetting, which repeats none."""
    identities = split_identities(text)
    for key in identities:
        try:
            identity(key)
        except ValueError:
            raise BadSetting(
                "The age identity of the plan cannot be read: give the secret key (AGE-SECRET-KEY-1…) or "
                "an ssh private key without pass phrase."
            ) from None
    return identities


class Filtered(io.RawIOBase):
    """A file as a child process changes it while it is read: an age file decrypted, or an archive as text."""

    def __init__(self, stored: IO[bytes], filtering: Child, failure: str = "The stored file cannot be read") -> None:
        self._stored, self._child, self._failed = stored, filtering, failure
        self._failure: BaseException | None = None
        self._feeder = threading.Thread(target=self._feed, daemon=True)
        self._feeder.start()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """The next bytes. Raises BackupDamaged when the child refuses the file: it is cut, changed, or not for us."""
        count: int = self._child.stdout.readinto(buffer)  # type: ignore[attr-defined]
        if count == 0:
            self._feeder.join()
            if self._failure is not None:
                raise self._failure
            if self._child.wait() != 0:
                why = " ".join(self._child.complaints()[-300:].split())
                raise BackupDamaged(f"{self._failed} ({why}): nothing was restored; restore another backup.")
        return count

    def _feed(self) -> None:
        try:
            while chunk := self._stored.read(_CHUNK):
                self._child.send(chunk)
            self._child.end_of_input()
        except BrokenPipeError:  # the child has ended, and its exit status says why
            return
        except BaseException as error:  # raised by the reader, in its own thread
            self._failure = error
            self._child.kill()


@contextmanager
def decrypted(stored: IO[bytes], identities: Sequence[str]) -> Iterator[IO[bytes]]:
    """`stored` decrypted, for the length of a `with` block."""
    environment = {"AGE_IDENTITIES": json.dumps(list(identities))}
    with child([sys.executable, "-I", str(_FILTER), "--decrypt"], environment, with_input=True) as decrypting:
        failure = "The stored file cannot be decrypted"
        yield io.BufferedReader(Filtered(stored, decrypting, failure), _CHUNK)  # type: ignore[arg-type]


class Age:
    """Encrypts the output of another encoder by a child process; the pipes bound how many bytes are under way."""

    def __init__(self, inner: Encoder, encrypting: Child) -> None:
        self._inner, self._child = inner, encrypting
        self._ready: deque[bytes] = deque()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def encode(self, chunk: memoryview) -> bytes:
        self._write(self._inner.encode(chunk))
        return self._take_ready()

    def finish(self) -> bytes:
        self._write(self._inner.finish())
        self._child.end_of_input()
        self._reader.join()
        if self._child.wait() != 0:
            raise DumpFailed(f"The encryption failed: {self._child.complaints()[-300:]}")
        return self._take_ready()

    def _write(self, data: bytes | memoryview) -> None:
        try:
            self._child.send(data)
        except BrokenPipeError:
            self._child.wait()
            raise DumpFailed(f"The encryption ended early: {self._child.complaints()[-300:]}") from None

    def _read(self) -> None:
        while chunk := self._child.stdout.read1(_CHUNK):  # type: ignore[attr-defined]
            self._ready.append(chunk)

    def _take_ready(self) -> bytes:
        return b"".join(self._ready.popleft() for _ in range(len(self._ready)))


@contextmanager
def encrypted(inner: Encoder, recipients: Sequence[str]) -> Iterator[Encoder]:
    """`inner` followed by encryption, for the length of a `with` block; just `inner` when there are no recipients."""
    if not recipients:
        yield inner
        return
    with child([sys.executable, "-I", str(_FILTER), *recipients], {}, with_input=True) as encrypting:
        yield Age(inner, encrypting)
