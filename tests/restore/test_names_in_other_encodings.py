"""Names that were made in a database of another encoding: every session of the server sees them, and few can read them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import psycopg2
import pytest

from deployments.quick_start.postgres import PostgresCluster
from tasks.errors import BadSetting
from tasks.health.database import ask_kept
from tasks.restore.kept_databases import drop_due
from tasks.retention.debris import clear_databases
from tests.support.scene import Scene, SceneFactory, in_words, now

LATIN1 = "made_in_latin1"


def as_latin1(cluster: PostgresCluster, *statements: str) -> None:
    with closing(psycopg2.connect(cluster.url(LATIN1), client_encoding="LATIN1")) as connection:
        connection.autocommit = True
        for statement in statements:
            connection.cursor().execute(statement.encode("latin-1"))


@pytest.fixture
def one(scene: SceneFactory) -> Iterator[Scene]:
    """A plan on a server with a role and a database of strangers, whose names are no UTF-8."""
    made = scene()
    made.sql("CREATE TABLE t (i int)")
    made.sql(f"CREATE DATABASE {LATIN1} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'", "postgres")
    try:
        as_latin1(made.cluster, 'CREATE ROLE "Müller"', 'CREATE DATABASE "Bücher"')
        as_latin1(made.cluster, "COMMENT ON DATABASE \"Bücher\" IS 'Größe'", "COMMENT ON ROLE \"Müller\" IS 'Größe'")
        yield made
    finally:
        made.sql(f"DROP DATABASE {made.name} WITH (FORCE)", "postgres")
        as_latin1(made.cluster, 'DROP DATABASE IF EXISTS "Bücher"', 'DROP ROLE IF EXISTS "Müller"')
        made.sql(f"DROP DATABASE {LATIN1} WITH (FORCE)", "postgres")


def test_names_of_strangers_that_are_no_utf_8_hinder_nothing(one: Scene) -> None:
    one.back_up()
    one.restore(compare="content")
    one.restore(mode="in_place")
    assert len(ask_kept(one.plan)) == 1
    one.undo()
    assert drop_due(one.plan.database, "shop", now(), 3) == ((), ())
    clear_databases(one.plan, now())


@pytest.mark.parametrize("statement", ["GRANT CONNECT ON DATABASE {d} TO {r}", "ALTER DATABASE {d} OWNER TO {r}"])
def test_a_name_in_the_database_that_is_no_utf_8_is_refused_in_one_sentence(one: Scene, statement: str) -> None:
    as_latin1(one.cluster, statement.format(d=one.name, r='"Müller"'))
    with pytest.raises(BadSetting) as refused:
        one.back_up()
    in_words(f"A name at .*/{one.name} is not in UTF-8: rename", refused.value)
