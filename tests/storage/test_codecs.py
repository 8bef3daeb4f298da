"""Every codec gives back what went in: with our own readers, and with the stock programs."""

from __future__ import annotations

import gzip
import io
import shutil
import subprocess
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tasks.names import CODEC_SUFFIXES
from tasks.plans.settings import CODECS
from tasks.storage.encoders import ENCODERS
from tests.support import ci_skip

MIB = 1 << 20
DUMP_LIKE = "".join(f"{i}\tcustomer-{i * 7919 % 1000}@example.org\t{i / 7:.4f}\\N\n" for i in range(40_000)).encode()

DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "zstd": lambda stored: zstandard.ZstdDecompressor().stream_reader(io.BytesIO(stored)).read(),
    "gzip": gzip.decompress,
}
STOCK_PROGRAMS = {"zstd": ["zstd", "-d", "-c", "-q"], "gzip": ["gzip", "-d", "-c"]}

every_codec = pytest.mark.parametrize("codec", sorted(ENCODERS))


def encoded(codec: str, chunks: list[bytes]) -> bytes:
    """The stored form of a text that comes in chunks; every chunk's buffer is used again, as the dump does."""
    encoder = ENCODERS[codec]()
    buffer = bytearray(max((len(chunk) for chunk in chunks), default=0))
    stored = io.BytesIO()
    for chunk in chunks:
        buffer[: len(chunk)] = chunk
        stored.write(encoder.encode(memoryview(buffer)[: len(chunk)]))
    stored.write(encoder.finish())
    return stored.getvalue()


def in_chunks(content: bytes, size: int) -> list[bytes]:
    return [content[start : start + size] for start in range(0, len(content), size)]


def test_every_codec_that_can_be_set_has_an_encoder_and_a_suffix() -> None:
    assert set(CODECS) == set(ENCODERS) == set(CODEC_SUFFIXES) == set(DECODERS)


@every_codec
@given(chunks=st.lists(st.binary(max_size=3000), max_size=8))
def test_what_is_encoded_is_decoded_to_the_same(codec: str, chunks: list[bytes]) -> None:
    assert DECODERS[codec](encoded(codec, chunks)) == b"".join(chunks)


@every_codec
def test_how_the_text_is_cut_changes_nothing_of_what_is_read_back(codec: str) -> None:
    for size in (997, 65_536, MIB):
        assert DECODERS[codec](encoded(codec, in_chunks(DUMP_LIKE, size))) == DUMP_LIKE


@pytest.mark.parametrize("codec", ["zstd", "gzip"])
def test_compression_makes_a_dump_smaller(codec: str) -> None:
    assert len(encoded(codec, in_chunks(DUMP_LIKE, MIB))) < len(DUMP_LIKE) * 0.5


def test_without_a_codec_the_text_is_stored_as_it_is() -> None:
    assert encoded("none", in_chunks(DUMP_LIKE, 1000)) == DUMP_LIKE


@pytest.mark.parametrize("codec", sorted(STOCK_PROGRAMS))
def test_the_stock_program_reads_it(codec: str) -> None:
    if shutil.which(STOCK_PROGRAMS[codec][0]) is None:
        ci_skip(f"the program {codec} is not installed")
    stored = encoded(codec, in_chunks(DUMP_LIKE, MIB))
    done = subprocess.run(STOCK_PROGRAMS[codec], input=stored, capture_output=True, check=True)
    assert done.stdout == DUMP_LIKE


@pytest.mark.parametrize("codec", ["zstd", "gzip"])
def test_a_changed_byte_is_noticed_on_reading(codec: str) -> None:
    stored = bytearray(encoded(codec, in_chunks(DUMP_LIKE, MIB)))
    stored[len(stored) // 2] ^= 1
    with pytest.raises((zstandard.ZstdError, zlib.error, OSError, EOFError)):
        DECODERS[codec](bytes(stored))


def test_zstd_is_one_frame_with_a_checksum() -> None:
    stored = encoded("zstd", in_chunks(DUMP_LIKE, MIB))
    assert zstandard.get_frame_parameters(stored).has_checksum
    reader = zstandard.ZstdDecompressor().decompressobj()
    assert reader.decompress(stored) == DUMP_LIKE
    assert reader.eof and reader.unused_data == b""


@every_codec
def test_memory_does_not_grow_with_the_text(codec: str) -> None:
    encoder = ENCODERS[codec]()
    chunk = memoryview(DUMP_LIKE[:MIB])
    encoder.encode(chunk)
    tracemalloc.start()
    for _ in range(20):
        encoder.encode(chunk)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4 * MIB
