"""Rows that go into a new database are frozen as they are copied; a database in use sees none of that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.scene import SceneFactory

CONTENT = """
CREATE TABLE plain AS SELECT i AS id, repeat('x', 100) AS t FROM generate_series(1, 5000) i;
CREATE TABLE parted (id int, t text) PARTITION BY RANGE (id);
CREATE TABLE low PARTITION OF parted FOR VALUES FROM (0) TO (3000);
CREATE TABLE "high " PARTITION OF parted FOR VALUES FROM (3000) TO (9000);
INSERT INTO parted SELECT id, t FROM plain;
"""
#: Pages, of which all are visible to all, of every table with rows. ANALYZE notes both.
PAGES = "SELECT relpages, relallvisible FROM pg_class WHERE relkind = 'r' AND oid >= 16384 AND relpages > 0"


@pytest.mark.parametrize("mode", ["swap", "new_database"])
def test_nobody_has_to_write_to_the_rows_of_a_restored_database_once_more(scene: SceneFactory, mode: str) -> None:
    one = scene()
    one.sql(CONTENT)
    one.back_up()
    target = {"target": f"{one.name[:40]} new"} if mode == "new_database" else {}
    one.restore(mode=mode, **target)
    pages = one.sql(PAGES, target.get("target", ""))
    assert len(pages) == 3 and all(visible > total / 2 for total, visible in pages), pages


def test_rows_put_back_in_place_are_not_frozen_since_others_have_older_snapshots(scene: SceneFactory) -> None:
    one = scene()
    one.sql(CONTENT)
    one.back_up()
    one.restore(mode="in_place")
    pages = one.sql(PAGES)
    assert len(pages) == 3 and not any(visible for _, visible in pages)


def test_a_dump_with_a_table_that_takes_no_frozen_rows_is_restored_without_freezing(
    scene: SceneFactory, tmp_path: Path
) -> None:
    """pg_dump can be told to load partitions by way of their parent, to which COPY's FREEZE does not apply."""
    one = scene()
    one.sql(CONTENT)
    for name in ("pg_dump", "psql"):
        more = "--load-via-partition-root" if name == "pg_dump" else ""
        (tmp_path / name).write_text(f'#!/bin/sh\nexec "{one.cluster.bin_directory / name}" "$@" {more}\n')
        (tmp_path / name).chmod(0o755)
    one = replace(one, plan=replace(one.plan, tools_directory=str(tmp_path)))
    backup = one.back_up()
    assert b"COPY public.parted (id, t) FROM stdin;\n" in one.stored(backup)[0]
    run = one.validated()
    one.load(run)
    assert one.sql("SELECT count(*) FROM parted", run.scratch) == [(5000,)]
    assert one.sql("SELECT count(*) FROM plain", run.scratch) == [(5000,)]
