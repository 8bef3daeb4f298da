"""A stored file is decoded whole, or refused."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Sequence

import pyrage
import pytest

from tasks.errors import BackupDamaged
from tasks.restore.decode import decoded
from tasks.storage.encoders import ENCODERS

TEXT = os.urandom(200_000) + b"a row like every other\n" * 20_000
MIB = 1 << 20


def stored(codec: str) -> tuple[bytes, str, Sequence[str]]:
    """A stored file, its codec, and the identities that decrypt it; `age` stands for zstd and encryption."""
    encoder = ENCODERS["zstd" if codec == "age" else codec]()
    content = bytes(encoder.encode(memoryview(TEXT))) + encoder.finish()
    if codec != "age":
        return content, codec, ()
    identity = pyrage.x25519.Identity.generate()
    return pyrage.encrypt(content, [identity.to_public()]), "zstd", (str(identity),)


def read(content: bytes, codec: str, identities: Sequence[str]) -> bytes:
    chunks = (content[at : at + 9973] for at in range(0, len(content), 9973))
    with decoded(chunks, codec, identities) as plain:
        return b"".join(plain)


every_way = pytest.mark.parametrize("codec", ["zstd", "gzip", "age"])


@every_way
def test_a_whole_file_gives_the_text(codec: str) -> None:
    assert read(*stored(codec)) == TEXT


@every_way
@pytest.mark.parametrize("missing", [*range(1, 9), 1000])
def test_a_file_whose_end_was_cut_off_is_refused(codec: str, missing: int) -> None:
    """The text may be complete by then: what is missing is the end of the frame, the member or the age file."""
    content, codec, identities = stored(codec)
    with pytest.raises(BackupDamaged, match="cannot be de"):
        read(content[:-missing], codec, identities)


@every_way
def test_bytes_behind_the_end_are_refused(codec: str) -> None:
    content, codec, identities = stored(codec)
    with pytest.raises(BackupDamaged, match="cannot be de"):
        read(content + b"more", codec, identities)


def test_memory_is_bounded_when_little_stands_for_much() -> None:
    encoder = ENCODERS["zstd"]()
    pieces = [bytes(encoder.encode(memoryview(bytes(MIB)))) for _ in range(256)] + [encoder.finish()]
    tracemalloc.start()
    with decoded(filter(None, pieces), "zstd", ()) as plain:
        assert sum(len(chunk) for chunk in plain) == 256 * MIB
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 80 * MIB
