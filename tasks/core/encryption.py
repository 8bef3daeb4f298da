"""Client-side encryption: the stored file is an age file for the plan's recipients; stock `age -d` undoes it.

Only public keys are needed to back up. Who loses the secret key loses the backups.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tasks.core.age_filter import recipient
from tasks.core.children import Child, child
from tasks.core.codecs import Encoder
from tasks.core.errors import BadSetting, DumpFailed

_FILTER = Path(__file__).with_name("age_filter.py")
_CHUNK = 1 << 18  # bytes


def checked_recipients(texts: Sequence[str]) -> tuple[str, ...]:
    """The recipients, each one usable. Raises BadSetting; a secret key given by mistake is not repeated."""
    found = tuple(text.strip() for text in texts if text.strip())
    for text in found:
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
    return found


class Age:
    """What another encoder makes, encrypted by a child process; at most a pipe's worth of bytes is on its way."""

    def __init__(self, inner: Encoder, encrypting: Child) -> None:
        self._inner, self._child = inner, encrypting
        self._ready: deque[bytes] = deque()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def encode(self, chunk: memoryview) -> bytes:
        self._write(self._inner.encode(chunk))
        return self._taken()

    def finish(self) -> bytes:
        self._write(self._inner.finish())
        self._child.end_of_input()
        self._reader.join()
        if self._child.wait() != 0:
            raise DumpFailed(f"The encryption failed: {self._child.complaints()[-300:]}")
        return self._taken()

    def _write(self, data: bytes | memoryview) -> None:
        try:
            self._child.send(data)
        except BrokenPipeError:
            self._child.wait()
            raise DumpFailed(f"The encryption ended early: {self._child.complaints()[-300:]}") from None

    def _read(self) -> None:
        while chunk := self._child.stdout.read1(_CHUNK):  # type: ignore[attr-defined]
            self._ready.append(chunk)

    def _taken(self) -> bytes:
        return b"".join(self._ready.popleft() for _ in range(len(self._ready)))


@contextmanager
def encrypted(inner: Encoder, recipients: Sequence[str]) -> Iterator[Encoder]:
    """`inner` with encryption behind it, for the length of a `with` block; without recipients just `inner`."""
    if not recipients:
        yield inner
        return
    with child([sys.executable, "-I", str(_FILTER), *recipients], {}, with_input=True) as encrypting:
        yield Age(inner, encrypting)
