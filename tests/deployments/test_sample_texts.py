"""The sample shop's rows: sizes, determinism, and what COPY is given."""

from __future__ import annotations

import itertools
from random import Random

import pytest

from deployments.sample import rows, sizes, texts
from deployments.sample.__main__ import main
from deployments.sample.objects import large_objects


def text_of(megabytes: int, seed: int) -> dict[str, str]:
    """Everything that COPY is given, by table."""
    return {content.table: "".join(content.batches) for content in rows.contents(sizes.sizes_for(megabytes), seed)}


def test_the_same_seed_gives_the_same_rows_and_another_seed_others() -> None:
    first, again, other = text_of(1, 7), text_of(1, 7), text_of(1, 8)
    assert first == again
    assert all(first[table] != other[table] for table in first)


def test_there_are_as_many_rows_as_the_sizes_say() -> None:
    wanted, made = sizes.sizes_for(3), text_of(3, 1)
    for table in ("customers", "products", "orders", "order_items"):
        assert made[f"shop.{table}"].count("\n") == getattr(wanted, table)
    events = sum(text.count("\n") for table, text in made.items() if table.startswith("shop.events_"))
    assert events == wanted.events


def test_every_row_has_as_many_fields_as_the_table_has_columns() -> None:
    for content in rows.contents(sizes.sizes_for(1), 1):
        fields = content.columns.count(",") + 1
        for line in "".join(content.batches).split("\n")[:-1]:
            assert line.count("\t") == fields - 1, (content.table, line)


def test_items_of_orders_have_keys_of_their_own() -> None:
    lines = text_of(2, 1)["shop.order_items"].splitlines()
    keys = [tuple(line.split("\t")[:2]) for line in lines]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("megabytes", [1, 50, 4000])
def test_the_expected_bytes_add_up_to_the_wanted_size(megabytes: int) -> None:
    wanted = sizes.sizes_for(megabytes)
    expected = sizes.FIXED_BYTES + 2 * wanted.large_object
    expected += sum(getattr(wanted, table) * width for table, (_, width) in sizes.SHARES.items())
    assert expected == pytest.approx(megabytes * 1_000_000, rel=0.01)


@pytest.mark.parametrize("megabytes", [0, -1])
def test_a_size_below_one_megabyte_is_refused(megabytes: int) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        sizes.sizes_for(megabytes)


def test_rows_are_made_as_they_are_asked_for() -> None:
    """A size far beyond memory costs nothing until its rows are read."""
    first = next(rows.contents(sizes.sizes_for(10**9), 1))
    assert all(len(batch) < 2_000_000 for batch in itertools.islice(first.batches, 3))


@pytest.mark.parametrize(
    ("value", "written"),
    [(None, r"\N"), ("", ""), ("a\tb\nc\r", r"a\tb\nc\r"), ("\\.", r"\\."), ("\\N", r"\\N"), ("ü🎁", "ü🎁")],
)
def test_fields_are_escaped_for_copy(value: str | None, written: str) -> None:
    assert texts.copy_text(value) == written


def test_arrays_and_row_values_quote_what_needs_it() -> None:
    assert texts.array(["a,b", 'say "x"', "\\", ""]) == r'{"a,b","say \"x\"","\\",""}'
    assert texts.composite("a", None, 'b"') == r'("a",,"b\"")'


def test_every_awkward_text_is_in_the_data() -> None:
    made = texts.sentences(Random(1), 4096)
    assert set(texts.AWKWARD) <= set(made)


def test_large_objects_have_their_sizes_and_are_made_in_chunks() -> None:
    chunks = {name: list(content) for _, name, content in large_objects(200_000, 1)}
    assert sum(map(len, chunks['scan "d\'été".tiff'])) == 200_000
    assert max(map(len, chunks['scan "d\'été".tiff'])) <= 65_536
    assert chunks["empty"] == []


def test_the_command_says_in_one_sentence_that_the_address_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    assert main(["--megabytes", "1"]) == 1
    assert capsys.readouterr().err == "DATABASE_URL is not set: put the address of the database to fill into it.\n"
