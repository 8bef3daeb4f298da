"""The rows of the sample shop as COPY text, made from a seed alone: no clock, no chance.

Each table draws from a random generator of its own, so the rows of one do not depend on how many another has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random

from deployments.sample import texts
from deployments.sample.sizes import Sizes
from deployments.sample.texts import NULL, copy_text

MONTHS = tuple(f"2024-{month:02d}" for month in range(1, 13))

_BATCH = 500
_POOL = 4096


@dataclass(frozen=True)
class Content:
    """COPY text for the columns `columns` of `table`, in batches of at most a few hundred rows."""

    table: str
    columns: str
    batches: Iterator[str]


@dataclass(frozen=True)
class Pools:
    """Ready-made values that rows are put together from; all are escaped for COPY."""

    sentences: list[str]
    json_sentences: list[str]
    addresses: list[str]
    times: list[str]
    names: list[str]
    tags: list[str]


def pools(seed: int) -> Pools:
    """The values of a seed: some 2 MB in memory."""
    rng = Random(f"{seed}:pools")  # noqa: S311 - data to be repeated, no secret
    plain = texts.sentences(rng, _POOL)
    return Pools(
        sentences=[copy_text(text) for text in plain],
        json_sentences=[copy_text(texts.document(text)) for text in plain],
        addresses=texts.addresses(rng, _POOL),
        times=[
            f"{n // 3600 % 24:02d}:{n // 60 % 60:02d}:{n % 60:02d}.{rng.randrange(10**6):06d}+00"
            for n in sorted(rng.choices(range(86_400), k=_POOL))
        ],
        names=[f"{rng.choice(texts.FIRST_NAMES)} {rng.choice(texts.LAST_NAMES)}" for _ in range(_POOL)],
        tags=[copy_text(texts.array(rng.sample(texts.COLOURS, k=rng.randint(0, 4)))) for _ in range(256)],
    )


def contents(sizes: Sizes, seed: int) -> Iterator[Content]:
    """Every table that grows, one after the other; events come by month, straight into their partitions."""
    ready = pools(seed)

    def rng(table: str) -> Random:
        return Random(f"{seed}:{table}")  # noqa: S311 - as above

    yield Content(
        "shop.customers",
        "id, public_id, email, full_name, home, tags, preferences, credit, born, last_seen_from, notes, created_at",
        customers(rng("customers"), ready, sizes.customers),
    )
    yield Content(
        "shop.products",
        "id, category_id, sku, name, description, price, weight, attributes, colours, ratings, fits,"
        " delivery_time, thumbnail, updated_at",
        products(rng("products"), ready, sizes.products),
    )
    yield Content(
        "shop.orders",
        "id, customer_id, status, invoice_number, total, ship_to, delivered_within, note, placed_at, updated_at",
        orders(rng("orders"), ready, sizes.orders, sizes.customers),
    )
    yield Content(
        "shop.order_items",
        "order_id, line, product_id, quantity, unit_price",
        order_items(rng("order_items"), sizes),
    )
    columns = "id, occurred_at, kind, customer_id, session, source, duration, payload"
    for partition, days, ids in event_partitions(sizes.events):
        rows = events(rng(partition), ready, days, ids, sizes.customers)
        yield Content(f"shop.{partition}", columns, rows)


def event_partitions(count: int) -> Iterator[tuple[str, list[str], range]]:
    """Partition, its days and the ids of its rows: a year of months, then the default one with a fiftieth."""
    others = count // 50
    for index, month in enumerate(MONTHS):
        first, last = ((count - others) * step // len(MONTHS) for step in (index, index + 1))
        yield (
            f"events_{month.replace('-', '_')}",
            [f"{month}-{day:02d}" for day in range(1, 29)],
            range(first, last),
        )
    yield "events_other", ["1999-12-31", "2023-02-28", "2031-07-01"], range(count - others, count)


def customers(rng: Random, ready: Pools, count: int) -> Iterator[str]:
    """Rows of shop.customers with the ids 1 … count."""
    for ids in _batches(range(1, count + 1)):
        k = len(ids)
        columns = zip(
            ids,
            _hex(rng, k, 16),
            rng.choices(ready.names, k=k),
            rng.choices(ready.addresses, k=k),
            rng.choices(ready.tags, k=k),
            rng.choices(ready.json_sentences, k=k),
            rng.choices(ready.sentences, k=k),
            rng.choices(ready.sentences, k=k),
            rng.choices(range(10_000_000), k=k),
            rng.choices(ready.times, k=k),
            strict=True,
        )
        yield "".join(
            f"{i}\t{uuid}\tcustomer.{i}@example.org\t{name}\t{home}\t{tags}\t"
            f'{{"theme": {wish}, "news": {("true", "false", "null")[i % 3]}, '
            f'"limits": [{i % 7}, {i}e-2, -0.50]}}\t'
            f"{cents // 100 - 5000}.{cents % 100:02d}\t{_birthday(i)}\t"
            f"{texts.ADDRESSES[i % 6] if i % 5 else NULL}\t{first + second if i % 4 else NULL}\t"
            f"2023-{i % 12 + 1:02d}-{i % 28 + 1:02d} {time}\n"
            for i, uuid, name, home, tags, wish, first, second, cents, time in columns
        )


def products(rng: Random, ready: Pools, count: int) -> Iterator[str]:
    """Rows of shop.products with the ids 1 … count; most of each is a picture of 200 to 2,000 bytes."""
    for ids in _batches(range(1, count + 1)):
        for i in ids:
            words = " ".join(rng.choices(texts.WORDS, k=4))
            description = " ".join(rng.choices(ready.sentences, k=6)) if i % 9 else NULL
            wish, other = rng.choices(ready.json_sentences, k=2)
            weight = ("Infinity", "NaN", "-Infinity")[i % 3] if i % 40 == 0 else f"{rng.random() * 50!r}"
            picture = f"\\\\x{rng.randbytes(rng.randint(200, 2000)).hex()}" if i % 20 else (NULL, r"\\x")[i % 40 == 0]
            yield (
                f"{i}\t{i % 20 + 1}\tSKU-{i:08d}\t{words}\t{description}\t"
                f"{rng.randrange(100_000) / 100:.2f}\t{weight}\t"
                f'{{"id": {i}, "nested": {{"a": [1, {{"b": {wish}}}], "c": null}}, "text": {other}}}\t'
                f"{rng.choice(ready.tags) if i % 8 else NULL}\t{{{{{i % 6},NULL}},{{3,{i % 4}}}}}\t"
                f"{('empty', f'[{i},{i + 9})', f'[{i},)', '(,)', NULL)[i % 5]}\t"
                f"{texts.INTERVALS[i % 6]}\t{picture}\t2024-06-{i % 30 + 1:02d} {rng.choice(ready.times)}\n"
            )


def orders(rng: Random, ready: Pools, count: int, customer_count: int) -> Iterator[str]:
    """Rows of shop.orders with the ids 1 … count."""
    totals = [f"{rng.randrange(10_000_00) / 100:.2f}" if n % 50 else ("NaN", NULL)[n % 100 == 0] for n in range(_POOL)]
    middles = [
        f"{total}\t{rng.choice(ready.addresses)}\t{rng.choice(texts.INTERVALS) if n % 3 else NULL}"
        for n, total in enumerate(totals)
    ]
    for ids in _batches(range(1, count + 1)):
        k = len(ids)
        columns = zip(
            ids,
            rng.choices(range(1, customer_count + 1), k=k),
            rng.choices(middles, k=k),
            rng.choices(ready.sentences, k=k),
            rng.choices(ready.times, k=k),
            strict=True,
        )
        yield "".join(
            f"{i}\t{customer}\t{texts.STATUSES[customer % 8]}\t{99_993 + 7 * i if i % 10 else NULL}\t"
            f"{middle}\t{note if i % 3 else NULL}\t"
            f"2024-{i % 12 + 1:02d}-{i % 28 + 1:02d} {time}\t2025-01-{i % 28 + 1:02d} {time}\n"
            for i, customer, middle, note, time in columns
        )


def order_items(rng: Random, sizes: Sizes) -> Iterator[str]:
    """Rows of shop.order_items: the orders in turn get line 1, then line 2, and so on."""
    ends = [f"{rng.randint(1, 99)}\t{rng.randrange(100_000) / 100:.2f}\n" for _ in range(_POOL)]
    for numbers in _batches(range(sizes.order_items)):
        k = len(numbers)
        columns = zip(numbers, rng.choices(range(1, sizes.products + 1), k=k), rng.choices(ends, k=k), strict=True)
        yield "".join(
            f"{n % sizes.orders + 1}\t{n // sizes.orders + 1}\t{product}\t{end}" for n, product, end in columns
        )


def events(rng: Random, ready: Pools, days: list[str], ids: range, customer_count: int) -> Iterator[str]:
    """Rows of shop.events with the given ids, spread over the days."""
    lists = [f"[{', '.join(rng.choices(ready.json_sentences, k=n % 6))}]" for n in range(_POOL)]
    for batch in _batches(ids):
        k = len(batch)
        columns = zip(
            batch,
            rng.choices(ready.times, k=k),
            rng.choices(range(1, customer_count + 1), k=k),
            _hex(rng, k, 16),
            rng.choices(ready.json_sentences, k=k),
            rng.choices(lists, k=k),
            _hex(rng, k, 8),
            strict=True,
        )
        day = days[(batch.start - ids.start) * len(days) // len(ids)]
        yield "".join(
            f"{i}\t{day} {time}\t{texts.KINDS[i % 8]}\t{customer if i % 7 else NULL}\t{session}\t"
            f'{texts.ADDRESSES[i % 6]}\t{i % 977 / 8}\t{{"trace": "{trace}", '
            f'"path": "/{texts.KINDS[i % 5]}/{i}", "took": {i % 5000}, "text": {text}, "more": {more}}}\n'
            for i, time, customer, session, text, more, trace in columns
        )


def _birthday(i: int) -> str:
    if i % 11 == 0:
        return (NULL, "infinity", "0044-03-15 BC")[i // 11 % 3]
    return f"{1940 + i % 70}-{i % 12 + 1:02d}-{i % 28 + 1:02d}"


def _hex(rng: Random, count: int, width: int) -> Iterable[str]:
    """`count` texts of 2 × `width` hexadecimal digits."""
    digits = rng.randbytes(count * width).hex()
    return [digits[start : start + 2 * width] for start in range(0, len(digits), 2 * width)]


def _batches(rows: range) -> Iterator[range]:
    return (rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH))
