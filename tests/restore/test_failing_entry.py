"""A restore in one transaction, in place or of chosen tables, names the entry that ended it as `without` takes it."""

from __future__ import annotations

import pytest

from tasks.errors import RestoreRefused
from tasks.restore.dump_reader import NO_ENTRY, Entry
from tasks.restore.sql_errors import SentLines
from tests.support.scene import Scene, SceneFactory, in_words

#: What can be made and filled while `app.day` is set; rows longer than psql's buffer, and texts that look like entries.
SOURCE = """
SET app.day = 'sunny';
CREATE FUNCTION rate(int) RETURNS int IMMUTABLE LANGUAGE sql RETURN $1 / length(current_setting('app.day'));
CREATE FUNCTION tells() RETURNS text LANGUAGE sql AS $$ SELECT '
--
-- Name: liar; Type: INDEX; Schema: public; Owner: nobody
--

' $$;
CREATE TABLE before (i int, t text);
INSERT INTO before SELECT n, repeat(E'-- Name: liar; Type: TABLE; Schema: a; Owner: b\\r\\n', n * 20) FROM generate_series(1, 40) n;
CREATE TABLE {table} (i int, t text CHECK (rate(i) >= 0)); INSERT INTO {table} SELECT i, t FROM before;
CREATE INDEX "by rate" ON before (rate(i));
"""
ROWS, INDEX = "TABLE DATA public.limited", "INDEX public.by rate"


@pytest.fixture
def shop(scene: SceneFactory) -> Scene:
    made = scene()
    made.sql(SOURCE.format(table="limited"))
    made.back_up()
    return made


@pytest.mark.parametrize("tables", [(), ("before", "limited")], ids=["whole", "tables"])
def test_in_place_each_entry_that_ends_it_is_named_until_without_has_them_all(
    shop: Scene, tables: tuple[str, ...]
) -> None:
    before, left_out = shop.dumped_whole(), []
    for entry in (ROWS, INDEX):
        with pytest.raises(RestoreRefused) as failure:
            shop.restore(mode="in_place", tables=tables, without=tuple(left_out))
        in_words(f"rolled back: {entry}: .*(app.day|undefined object)", failure.value)
        in_words("name the entry in `without` to leave it out", failure.value)
        assert shop.dumped_whole() == before
        left_out.append(entry)
    done = shop.restore(mode="in_place", tables=tables, without=tuple(left_out))
    assert [f"{entry} was left out." for entry in left_out] == [one for one in done.warnings if "left out" in one]
    assert shop.sql("SELECT count(*) FROM before UNION ALL SELECT count(*) FROM limited") == [(40,), (0,)]


def test_what_belongs_to_no_entry_names_none(shop: Scene) -> None:
    shop.sql("CREATE FUNCTION stops() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''not today''; END'")
    shop.sql("CREATE EVENT TRIGGER stops ON sql_drop EXECUTE FUNCTION stops()")
    with pytest.raises(RestoreRefused) as failure:
        shop.restore(mode="in_place", tables=("before",))
    in_words(r"rolled back: raise exception \(SQLSTATE P0001\)$", failure.value)


def test_lines_are_counted_as_psql_counts_them() -> None:
    lines, first, second = SentLines(), Entry(1, "TABLE", "public", "a"), Entry(2, "INDEX", "public", "b")
    lines.add(b"BEGIN;\n")
    lines.add(b"CREATE\nTABLE", first)
    lines.add(b" a ();\n", first)
    lines.add(b"CREATE INDEX\r\n;\n", second)
    lines.add(b"COMMIT;\n")
    assert [lines.entry_at(line) for line in range(1, 7)] == [NO_ENTRY, first, first, second, second, NO_ENTRY]
