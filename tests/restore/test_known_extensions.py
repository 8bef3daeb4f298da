"""Databases that use other people's extensions come back as they were: contrib, PostGIS with topology, pg_partman."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg2
import pytest

from deployments.quick_start.postgres import PostgresCluster
from tasks.errors import EntriesFailed
from tasks.verify.verdict import fault_of
from tests.conftest import BIN_DIRECTORIES
from tests.support import ci_skip
from tests.support.every_kind import make_roles
from tests.support.scene import Scene, SceneFactory
from tests.verify.test_verify import verify

SCRIPT = Path(__file__).with_name("known_extensions.sql")
SECTIONS = dict(re.findall(r"(?ms)^--- ([\w-]+)\n(.*?)(?=^--- |\Z)", SCRIPT.read_text(encoding="utf-8")))
#: A server without this many of them has been installed without contrib.
LEAST = 30
POSTGIS = """
CREATE EXTENSION postgis; CREATE EXTENSION postgis_topology;
SELECT topology.CreateTopology('city', 4326); SELECT topology.TopoGeo_AddLineString('city', 'SRID=4326;LINESTRING(0 0, 1 1, 2 1)');
SELECT topology.TopoGeo_AddPolygon('city', 'SRID=4326;POLYGON((5 5, 6 5, 6 6, 5 5))');
CREATE TABLE public.roads (id serial PRIMARY KEY, line geometry(LineString, 4326) NOT NULL, at geography(Point) CHECK (ST_IsValid(line)));
INSERT INTO public.roads (line, at) SELECT ST_SetSRID(ST_MakeLine(ST_Point(i, 0), ST_Point(i, 1)), 4326), 'POINT(16 48)' FROM generate_series(1, 50) i;
CREATE INDEX ON public.roads USING gist (line); CREATE INDEX ON public.roads USING spgist (line);
CREATE INDEX ON public.roads (ST_Length(line)); CREATE INDEX ON public.roads USING gist (ST_Buffer(line, 1));
SELECT topology.AddTopoGeometryColumn('city', 'public', 'roads', 'topo', 'LINE');
UPDATE public.roads SET topo = topology.toTopoGeom(line, 'city', 1) WHERE id = 1;
CREATE VIEW public.lengths AS SELECT id, ST_Length(at::geography) FROM public.roads;
CREATE MATERIALIZED VIEW public.hull AS SELECT ST_ConvexHull(ST_Collect(line)) AS g FROM public.roads;
INSERT INTO public.spatial_ref_sys VALUES (990001, 'us', 1, 'LOCAL_CS["x"]', '+proj=longlat');
GRANT SELECT ON public.spatial_ref_sys TO every_kind_reader; COMMENT ON EXTENSION postgis IS 'maps';
"""
PARTMAN = """
CREATE SCHEMA partman; CREATE EXTENSION pg_partman SCHEMA partman;
CREATE TABLE public.logs (id bigint NOT NULL, at timestamptz NOT NULL DEFAULT '2026-01-01', t text) PARTITION BY RANGE (id);
CREATE INDEX ON public.logs (at);
SELECT partman.create_parent('public.logs', 'id', 'native', '10', p_start_partition := '0');
INSERT INTO public.logs (id, t) SELECT i, md5(i::text) FROM generate_series(1, 45) i;
UPDATE partman.part_config SET retention = '100', infinite_time_partitions = true;
GRANT SELECT ON partman.part_config TO every_kind_reader;
"""
debian = pytest.mark.parametrize(
    "postgres_server", list(BIN_DIRECTORIES)[1:2] or [0], indirect=True, ids=lambda major: f"pg{major}"
)


def available(cluster: PostgresCluster, trusted: bool = False) -> set[str]:
    """The extensions that the server's packages have; those alone that an owner without superuser may create."""
    with psycopg2.connect(cluster.url()) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT name FROM pg_available_extension_versions WHERE trusted OR NOT %s",
            [trusted],
        )
        return {name for (name,) in cursor.fetchall()}


def check_every_mode(one: Scene) -> None:
    """What pg_dump says before is what it says after, in every mode; and the drill compares all of it."""
    before = one.dumped_whole()
    one.back_up()
    assert verify(one).by_content
    new = one.restore(mode="new_database", target=f"{one.name}_new")
    assert one.dumped_whole(new.database).replace(b"_new", b"") == before
    in_place = one.restore(mode="in_place")
    assert one.dumped_whole() == before
    swapped = one.restore(compare="content")
    assert one.dumped_whole() == before
    for done in (new, in_place, swapped):
        assert not [warning for warning in done.warnings if "left out" in warning or "not applied" in warning]
    assert one.left_behind() == []
    one.discard(new.database, swapped.kept)


@pytest.mark.slow
@debian
@pytest.mark.parametrize("owner", [False, True], ids=["superuser", "owner"])
def test_a_database_with_all_of_contrib_comes_back(
    scene: SceneFactory, postgres_server: PostgresCluster, owner: bool
) -> None:
    if (count := len(available(postgres_server) & SECTIONS.keys())) < LEAST:
        ci_skip(f"the server has only {count} of {len(SECTIONS)} extensions of contrib")
    make_roles(postgres_server)
    one, may = scene(owner=owner), available(postgres_server, trusted=owner)
    there = [name for name in SECTIONS if name in may]
    schemas = {name: f"x_{name.replace('-', '_')}" for name in there}
    for name, schema in schemas.items():
        path = ", ".join((schema, schemas.get("cube", "public"), "public"))
        one.sql(
            f'CREATE SCHEMA {schema}; CREATE EXTENSION "{name}" SCHEMA {schema}; SET search_path = {path};'
            f"{SECTIONS[name]}; COMMENT ON EXTENSION \"{name}\" IS 'of {name}';"
            f"GRANT USAGE ON SCHEMA {schema} TO every_kind_reader"
        )
    check_every_mode(one)


@pytest.mark.slow
@debian
@pytest.mark.parametrize(("extension", "source"), [("postgis_topology", POSTGIS), ("pg_partman", PARTMAN)])
def test_a_database_with_an_extension_that_keeps_rows_of_its_own_comes_back(
    scene: SceneFactory, postgres_server: PostgresCluster, extension: str, source: str
) -> None:
    if extension not in available(postgres_server):
        ci_skip(f"{extension} is not installed (postgresql-…-postgis-3, postgresql-…-partman)")
    make_roles(postgres_server)
    one = scene()
    for statement in source.strip().split(";\n"):
        one.sql(statement)
    check_every_mode(one)


@pytest.mark.slow
@debian
def test_an_index_that_an_extension_cannot_make_anew_is_named_and_all_else_comes_back_without_it(
    scene: SceneFactory, postgres_server: PostgresCluster
) -> None:
    """Functions of earthdistance find the type of cube by the search path of the day."""
    if "earthdistance" not in available(postgres_server):
        ci_skip("the server has no earthdistance")
    one = scene()
    one.sql("CREATE EXTENSION cube; CREATE EXTENSION earthdistance; CREATE TABLE places (lat float8, lon float8)")
    one.sql("INSERT INTO places VALUES (48, 16)")
    before = one.dumped_whole()
    one.sql("CREATE INDEX near ON places USING gist (ll_to_earth(lat, lon))")
    one.back_up()
    with pytest.raises(EntriesFailed, match=r"INDEX public\.near: type \"earth\" does not exist") as failure:
        verify(one)
    assert fault_of(failure.value) == "database"
    for mode in ("swap", "in_place"):
        kept = one.restore(mode=mode, without=("INDEX public.near",)).kept
        assert one.dumped_whole() == before
        if kept:
            one.discard(kept)
