"""Whatever encoding role, database and environment ask for: a dump is in the database's own, and comes back."""

from __future__ import annotations

import pytest

from tests.restore.test_odd_databases import check_every_mode
from tests.support.scene import SceneFactory

NAMES_AND_ROWS = (
    'CREATE TABLE "Größe" (i int PRIMARY KEY, t text);'
    "INSERT INTO \"Größe\" VALUES (1, 'ÄÖÜ'), (2, '12 €'), (3, '日本');"
    'CREATE TABLE "Maße €" (i int) PARTITION BY LIST (i); CREATE TABLE "Maß 1" PARTITION OF "Maße €" FOR VALUES IN (1);'
    'INSERT INTO "Maße €" VALUES (1)'
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("whose", "encoding"),
    [
        ("role", "LATIN1"),
        ("database", "SJIS"),
        ("role in database", "SQL_ASCII"),
        ("environment", "LATIN1"),
        ("options", "LATIN1"),
        ("address", "SQL_ASCII"),
    ],
)
def test_a_client_encoding_that_somebody_set_changes_no_backup_and_no_restore(
    scene: SceneFactory, monkeypatch: pytest.MonkeyPatch, whose: str, encoding: str
) -> None:
    one = scene(owner=True)
    one.sql(NAMES_AND_ROWS)
    role, name = one.plan.database.user, one.name
    setting = f"SET client_encoding = '{encoding}'"
    if whose == "environment":
        monkeypatch.setenv("PGCLIENTENCODING", encoding)
    elif whose == "options":
        monkeypatch.setenv("PGOPTIONS", f"-c client_encoding={encoding}")
    elif whose == "address":
        given = {**one.plan.database.parameters, "client_encoding": encoding}
        one = one.with_plan(database=type(one.plan.database)(given).pinned())
    else:
        names = {
            "role": f"ROLE {role}",
            "database": f"DATABASE {name}",
            "role in database": f"ROLE {role} IN DATABASE {name}",
        }
        one.sql(f"ALTER {names[whose]} {setting}", "postgres")
    try:
        monkeypatch.setattr("tests.support.scene.Scene.dumped", in_utf_8(type(one).dumped))
        check_every_mode(one, lambda: one.sql("CREATE TABLE later ()"), f"new of {name}")
    finally:
        one.sql(f"ALTER ROLE {role} RESET client_encoding", "postgres")


def in_utf_8(dumped):  # type: ignore[no-untyped-def]
    """What is compared is made by pg_dump in UTF-8."""
    return lambda self, database="", *options: dumped(self, database, "--encoding=UTF8", *options)


@pytest.mark.parametrize("mode", ["in_place", "new_database"])
def test_chosen_tables_come_back_whatever_the_client_encoding_of_the_role(scene: SceneFactory, mode: str) -> None:
    one = scene()
    one.sql(NAMES_AND_ROWS)
    one.sql(f"ALTER DATABASE {one.name} SET client_encoding = 'LATIN1'")
    one.back_up()
    one.sql('DELETE FROM "Größe"')
    done = one.restore(mode=mode, tables=('public."Größe"',), target="tables alone" if mode == "new_database" else "")
    texts = one.sql("SELECT encode(convert_to(t, 'UTF8'), 'hex') FROM \"Größe\" ORDER BY i", done.database)
    assert [bytes.fromhex(text).decode() for (text,) in texts] == ["ÄÖÜ", "12 €", "日本"]
    if mode == "new_database":
        one.discard(done.database)
