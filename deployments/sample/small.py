"""The small tables of the sample shop: the same few rows in every size."""

from __future__ import annotations

from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import Json

from deployments.sample.texts import AWKWARD, WORDS

FIXED_TIME = "2024-02-29 12:34:56.789+00"


def insert(cursor: Cursor) -> None:
    """Insert the rows of every table whose size does not change."""
    cursor.executemany(
        "INSERT INTO shop.categories VALUES (%s, %s, %s)",
        [(i, i // 3 or None, WORDS[i].title()) for i in range(1, 21)],
    )
    cursor.executemany(
        "INSERT INTO shop.delivery_slots VALUES (int4range(%s, %s), %s)",
        [(i * 10, i * 10 + 10, text) for i, text in enumerate(AWKWARD)],
    )
    for _ in range(3):
        cursor.execute("INSERT INTO shop.pulse DEFAULT VALUES")
    cursor.executemany(
        'INSERT INTO public."Währungs ""Kurse"" 🪙" VALUES (%s, %s, %s)',
        [
            ("EUR → USD", "1.0834", "plain"),
            ("€ → £", "0.85020000000000000000", None),
            ("∞", "Infinity", "\\."),
        ],
    )
    cursor.executemany(
        "INSERT INTO shop.audit_log (relation, action, old_row, changed_by, changed_at)"
        " VALUES ('shop.products', 'UPDATE', %s, 'someone else', %s)",
        [(Json({"name": text, "n": n}), FIXED_TIME) for n, text in enumerate(AWKWARD)],
    )
