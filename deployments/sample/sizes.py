"""How many rows of each table make a plain dump of a wanted size."""

from __future__ import annotations

from dataclasses import dataclass

#: Bytes of the dump that do not grow: definitions and small tables.
FIXED_BYTES = 50_000

#: Share of the dump, and bytes of one row in it, by table; the bytes are measured, a test holds the sum.
SHARES = {
    "customers": (0.08, 465.0),
    "products": (0.32, 2940.0),
    "orders": (0.12, 201.0),
    "order_items": (0.03, 22.0),
    "events": (0.41, 491.0),
}

#: Share of the dump, and upper limit in bytes of content, of the large object that grows.
#: A dump writes two digits for each of its bytes.
LARGE_OBJECT_SHARE = 0.04
LARGE_OBJECT_LIMIT = 16_000_000


@dataclass(frozen=True)
class Sizes:
    """Rows by table, and the bytes of the growing large object."""

    customers: int
    products: int
    orders: int
    order_items: int
    events: int
    large_object: int


def sizes_for(megabytes: int) -> Sizes:
    """Row counts whose plain dump has about `megabytes` × 1,000,000 bytes.

    Raises ValueError when `megabytes` is less than 1.
    """
    if megabytes < 1:
        raise ValueError(f"The sample database cannot have {megabytes} MB: ask for 1 or more.")
    growing = megabytes * 1_000_000 - FIXED_BYTES
    large_object = min(int(growing * LARGE_OBJECT_SHARE / 2), LARGE_OBJECT_LIMIT)
    in_tables = growing - 2 * large_object
    shares = sum(share for share, _ in SHARES.values())
    rows = {table: int(in_tables * share / shares / width) for table, (share, width) in SHARES.items()}
    return Sizes(large_object=large_object, **rows)
