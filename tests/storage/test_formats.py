"""Manifests of an older format are restored in every mode; those of a newer one are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tasks.errors import BadSetting
from tasks.storage import manifest
from tests.support.scene import Scene, SceneFactory, in_words

CONTENT = """
CREATE TABLE whole (id integer PRIMARY KEY, year integer) ; INSERT INTO whole VALUES (1, 2001);
CREATE TABLE parent (id integer, year integer) PARTITION BY RANGE (year);
CREATE TABLE old PARTITION OF parent FOR VALUES FROM (1900) TO (2000);
CREATE TABLE new PARTITION OF parent FOR VALUES FROM (2000) TO (2100);
INSERT INTO parent VALUES (1, 1999), (2, 2001); SELECT lo_from_bytea(9, 'large');
"""


def as_format_1(told: dict[str, Any]) -> None:
    """What the first release wrote: neither checksum, nor large objects, nor partitions, nor what a catalogue knows."""
    told["format"] = 1
    for later in ("checksum", "large_objects", "partitions", "suspicious", "backup_id"):
        del told[later]


def as_format_4(told: dict[str, Any]) -> None:
    """What a later release may write."""
    told.update(format=4, something={"new": True})


@pytest.mark.parametrize("mode", ["swap", "new_database", "in_place"])
@pytest.mark.parametrize("lost", [False, True], ids=["catalogue", "no catalogue"])
def test_a_manifest_of_format_1_restores_everything(scene: SceneFactory, mode: str, lost: bool) -> None:
    one, before = backed_up(scene)
    one.sql("DROP TABLE old; UPDATE whole SET id = 2; SELECT lo_unlink(9)")
    one = one.without_catalogue() if lost else one
    done = one.restore(mode=mode, target=f"{one.name}_new" if mode == "new_database" else "")
    assert one.dumped(done.database) == before
    assert ["format 1, without a checksum" in warning for warning in done.warnings if "format" in warning] == [
        True
    ] * lost


@pytest.mark.parametrize("mode", ["new_database", "in_place"])
def test_a_manifest_of_format_1_restores_chosen_tables(scene: SceneFactory, mode: str) -> None:
    one, _ = backed_up(scene)
    one.sql("DELETE FROM parent; DELETE FROM whole")
    target = f"{one.name}_new" if mode == "new_database" else ""
    database = one.restore(mode=mode, tables=("public.whole",), target=target).database
    assert one.sql("SELECT id, year FROM whole", database) == [(1, 2001)]
    assert one.sql("SELECT count(*) FROM pg_class WHERE relname = 'old'", database) == [(int(mode == "in_place"),)]


def test_a_manifest_of_format_1_restores_partitions_by_their_own_names(scene: SceneFactory) -> None:
    one, before = backed_up(scene)
    one.sql("DELETE FROM parent")
    one.restore(mode="in_place", tables=("old", "new"))
    assert one.dumped() == before
    with pytest.raises(BadSetting, match="has no table 'parent'"):
        one.validated(mode="in_place", tables=("parent",))


@pytest.mark.parametrize("lost", [False, True], ids=["catalogue", "no catalogue"])
def test_a_manifest_of_a_newer_format_is_refused_in_one_sentence(scene: SceneFactory, lost: bool) -> None:
    one = scene()
    one.sql(CONTENT)
    backup = one.back_up()
    one.rewrite(backup, as_format_4)
    assert json.loads(one.stored(backup)[1])["checksum"] == manifest.checksum(one.stored(backup)[1])
    with pytest.raises(BadSetting) as refusal:
        (one.without_catalogue() if lost else one).validated(backup.filename)
    in_words(
        r"\.manifest\.json has format 4, and this program reads formats 1 to 3: update the program\.$", refusal.value
    )


def backed_up(scene: SceneFactory) -> tuple[Scene, bytes]:
    """A database whose backup has a manifest of format 1, and its dump."""
    one = scene()
    one.sql(CONTENT)
    before = one.dumped()
    one.rewrite(one.back_up(), as_format_1)
    return one, before
