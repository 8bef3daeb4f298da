"""Patterns for the names of tables mean what psql and pg_dump take them for."""

from __future__ import annotations

import pytest

from tasks.errors import BadSetting
from tasks.restore.tables.patterns import chosen
from tasks.storage.backup_values import TableData


def tables(*names: str) -> list[TableData]:
    return [TableData(name, 1, 10 * at, 10 * at + 5) for at, name in enumerate(names)]


NAMES = tables(
    "public.orders", 'public."Orders"', "shop.orders", "shop.order_items", 'shop."a ""b"".c"', 's."*"', "s.ab"
)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("orders", ["public.orders", "shop.orders"]),
        ("ORDERS", ["public.orders", "shop.orders"]),
        ('"Orders"', ['public."Orders"']),
        ("shop.orders", ["shop.orders"]),
        ("SHOP.Order*", ["shop.orders", "shop.order_items"]),
        ("s?op.orders", ["shop.orders"]),
        ('shop."a ""b"".c"', ['shop."a ""b"".c"']),
        ('"a ""b"".c"', ['shop."a ""b"".c"']),
        ('s."*"', ['s."*"']),
        ('"s".a?', ["s.ab"]),
        ('pub"lic".orders', ["public.orders"]),
        ("*.orders", ["public.orders", "shop.orders"]),
        (" shop.orders ", ["shop.orders"]),
    ],
)
def test_a_pattern_names_tables_as_psql_would(pattern: str, found: list[str]) -> None:
    assert list(chosen([pattern], NAMES)) == found


def test_several_patterns_name_each_table_once_in_the_order_of_the_dump() -> None:
    assert chosen(["shop.*", "orders"], NAMES) == (
        "public.orders",
        "shop.orders",
        "shop.order_items",
        'shop."a ""b"".c"',
    )


@pytest.mark.parametrize("pattern", ["", "  ", ".", "a.", ".a", "a.b.c", '"', 'a"b', '""', '"".a', "a\0"])
def test_a_pattern_that_can_name_no_table_is_refused_in_one_sentence(pattern: str) -> None:
    with pytest.raises(BadSetting) as refused:
        chosen([pattern], NAMES)
    assert str(refused.value).count(". ") == 0


def test_a_pattern_that_names_nothing_is_answered_by_the_nearest_names() -> None:
    with pytest.raises(BadSetting, match=r"no table 'shop.order': the nearest names are shop.orders"):
        chosen(["shop.order"], NAMES)
    with pytest.raises(BadSetting, match=r'no table \'Orders_\'.*public."Orders"'):
        chosen(["Orders_"], NAMES)
    with pytest.raises(BadSetting, match="it holds 7 others"):
        chosen(["zzzzzzzzz"], NAMES)


def test_a_partitioned_table_stands_for_its_partitions_at_every_depth() -> None:
    parents = {"s.p1": "s.p", "s.p2": "s.p", "s.p2a": "s.p2"}
    assert chosen(["p"], tables("s.p1", "s.q", "s.p2a"), parents) == ("s.p1", "s.p2a")
    with pytest.raises(BadSetting, match=r"nearest names are s\.p1"):
        chosen(["s.p"], tables("s.p1", "s.q"))
