"""Databases of programs that we did not write come back as they were: the schemas, and rows, that Debian's packages bring.

The packages are unpacked, not installed: CI does that, into `build/known-databases` (see `.ci/run`).
"""

from __future__ import annotations

import gzip
import subprocess
from pathlib import Path

import pytest

from tests.support import ci_skip
from tests.support.scene import Scene, SceneFactory
from tests.support.world import CHECKOUT

UNPACKED = CHECKOUT / "build" / "known-databases" / "usr" / "share"
#: What makes each database, in this order.
SCRIPTS = {
    "icinga2": ["icinga2-ido-pgsql/schema/pgsql.sql"],
    "icingadb": ["icingadb/schema/pgsql/schema.sql"],
    "mediawiki": [f"mediawiki/maintenance/postgres/{name}.sql" for name in ("tables-generated", "tables")],
    "powerdns": ["pdns-backend-pgsql/schema/schema.pgsql.sql"],
    "roundcube": ["roundcube/SQL/postgres.initial.sql"],
    "tt-rss": ["tt-rss/schema/ttrss_schema_pgsql.sql"],
    "zabbix": [f"zabbix-server-pgsql/{name}.sql.gz" for name in ("schema", "images", "data")],
}

pytestmark = pytest.mark.thorough


def fill(scene: Scene, files: list[Path]) -> None:
    """Runs the scripts as the packages' own instructions say."""
    psql = str(scene.cluster.bin_directory / "psql")
    for file in files:
        script = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        words = [psql, f"--dbname={scene.url}", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"]
        done = subprocess.run(words, input=script, capture_output=True, check=False)
        assert done.returncode == 0, (file.name, done.stderr.decode()[-500:])


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_known_database_comes_back_as_it_was_in_every_mode(scene: SceneFactory, name: str) -> None:
    files = [UNPACKED / script for script in SCRIPTS[name]]
    if not all(file.exists() for file in files):
        ci_skip(f"the package of {name} is not unpacked in build/known-databases")
    made = scene(codec="zstd", jobs=2)
    if name == "icingadb":
        made.sql("CREATE EXTENSION citext", superuser=True)
    fill(made, files)
    before = made.dumped()
    backup = made.back_up()
    assert backup.tables > 5
    made.restore(mode="new_database", target="a new one", compare="content")
    assert made.dumped("a new one") == before
    made.discard("a new one")
    made.restore(mode="in_place")
    assert made.dumped() == before
    made.restore(mode="swap", compare="content")
    assert made.dumped() == before
    assert made.left_behind() == []
