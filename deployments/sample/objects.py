"""The large objects of the sample shop: known content under fixed numbers, so that two fills dump alike."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from psycopg2.extensions import cursor as Cursor

HANDBOOK, EVERY_BYTE, EMPTY, SCAN = OIDS = (4_200_001, 4_200_002, 4_200_003, 4_200_004)

HANDBOOK_TEXT = "Grüß Gott! 🎁\nCOPY handbook FROM stdin;\n\\.\n" * 50

_CHUNK = 1 << 16


def large_objects(scan_bytes: int, seed: int) -> Iterator[tuple[int, str, Iterator[bytes]]]:
    """Number, name and content, in chunks, of each large object; the last one has `scan_bytes` bytes."""
    yield HANDBOOK, "handbook.txt", iter([HANDBOOK_TEXT.encode()])
    yield EVERY_BYTE, "every byte", iter([bytes(range(256))])
    yield EMPTY, "empty", iter([])
    rng = Random(f"{seed}:scan")  # noqa: S311 - data to be repeated, no secret
    yield (
        SCAN,
        'scan "d\'été".tiff',
        (rng.randbytes(min(_CHUNK, scan_bytes - at)) for at in range(0, scan_bytes, _CHUNK)),
    )


def store(cursor: Cursor, scan_bytes: int, seed: int) -> None:
    """Write every large object, name it in shop.documents, and let shop_reader read the first."""
    for number, name, chunks in large_objects(scan_bytes, seed):
        cursor.execute("SELECT lo_create(%s)", (number,))
        written = 0
        for chunk in chunks:
            cursor.execute("SELECT lo_put(%s, %s, %s)", (number, written, chunk))
            written += len(chunk)
        cursor.execute("INSERT INTO shop.documents VALUES (%s, %s, %s)", (name, number, f"Large object {number}"))
    cursor.execute(f"COMMENT ON LARGE OBJECT {HANDBOOK} IS 'The reader''s \"handbook\"'")
    cursor.execute(f"GRANT SELECT ON LARGE OBJECT {HANDBOOK} TO shop_reader")
