# ruff: noqa: F401, F811 - fixtures are imported
"""No secret of a restore appears in an argument list, a log, an artifact, a parameter, an exception, a label or a file."""

from __future__ import annotations

import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg2
import pyrage
import pytest
from prefect.blocks.system import Secret

from flows.restore import restore
from tasks.errors import BackupSystemError
from tasks.plans.blocks import BackupPlan
from tests.backup.test_secrets import Leaks, Scene, Spy, scene
from tests.support import whole_story
from tests.support.signing import line_of, new_key
from tests.support.world import CHECKOUT, Heard


@dataclass
class Encrypted:
    """A scene whose backup is encrypted for a key that is one more secret."""

    scene: Scene
    programs: set[str] = field(default_factory=set)

    @property
    def live(self) -> str:
        return self.scene.world.database_url.rsplit("/", 1)[1]

    def run(
        self, *arguments: str, flow: str = "restore", meanwhile: Callable[[], None] = lambda: None
    ) -> tuple[int, str]:
        """Runs `python -m flows.restore` in all but name; status and what it said."""
        code = "\n".join(
            [
                "import sys, flows.restore, flows.undo_restore",
                "flows.restore.psql = flows.restore.psql.with_options(retry_delay_seconds=[0.1] * 3)",
                f"sys.argv = {['restore', '--plan', self.scene.world.plan, *arguments]!r}",
                f"sys.exit(flows.{flow}.main())",
            ]
        )
        spy = Spy(self.scene.leaks, self.scene.world.spool)
        spy.start()
        helper = threading.Thread(target=meanwhile, daemon=True)
        try:
            run = subprocess.Popen(
                [sys.executable, "-c", code],
                cwd=CHECKOUT,
                env=self.scene.environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            helper.start()
            said, _ = run.communicate(timeout=180)
            helper.join(timeout=10)
        finally:
            spy.end()
        self.programs |= spy.programs
        assert spy.rounds > 20 and not spy.open_to_others
        self.scene.leaks.look("output of the run", said)
        return run.returncode, said.decode()

    def check(self, tmp_path: Path) -> None:
        """No secret was seen, and none is left anywhere; not in what the server tells everybody, either."""
        self.scene.look_everywhere(tmp_path)
        with closing(psycopg2.connect(self.scene.world.cluster.url())) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT coalesce(string_agg(shobj_description(oid, 'pg_database'), ' '), '') FROM pg_database"
            )
            [labels] = cursor.fetchone()
            cursor.execute("SELECT string_agg(query || application_name, ' ') FROM pg_stat_activity")
            [sessions] = cursor.fetchone()
        assert isinstance(labels, str)
        self.scene.leaks.look("labels of databases", labels)
        self.scene.leaks.look("sessions of the server", sessions)
        assert not self.scene.leaks.found


@pytest.fixture
def encrypted(scene: Scene) -> Iterator[Encrypted]:
    """A marked world with an encrypted backup, and a live database that has changed since."""
    secret = pyrage.x25519.Identity.generate()
    plan = BackupPlan.load(scene.world.plan)
    plan.age_recipients = [str(secret.to_public())]  # type: ignore[union-attr]
    Secret(value=str(secret)).save("age-key", overwrite=True)
    plan.age_identity = "age-key"  # type: ignore[union-attr]
    signing = line_of(new_key())
    Secret(value=signing).save("signing-key", overwrite=True)
    plan.signing_key = "signing-key"  # type: ignore[union-attr]
    plan.save(scene.world.plan, overwrite=True)  # type: ignore[union-attr]
    scene.leaks.secrets["the key of the signatures"] = signing[-40:]
    scene.leaks.secrets["the key of the backups"] = str(secret).removeprefix("AGE-SECRET-KEY-1")
    status, said = scene.back_up()
    assert status == 0, said
    scene.superuser("DELETE FROM small")
    yield Encrypted(scene)


@pytest.mark.slow
def test_restores_and_their_undoing_show_no_secret_anywhere(encrypted: Encrypted, tmp_path: Path) -> None:
    status, said = encrypted.run()
    assert status == 0, said
    assert "psql" in encrypted.programs
    status, said = encrypted.run(flow="undo_restore")
    assert status == 0, said
    status, said = encrypted.run("--mode", "in_place", "--confirm", encrypted.live)
    assert status == 0, said
    encrypted.check(tmp_path)


@pytest.mark.slow
def test_a_psql_that_is_killed_again_and_again_shows_no_secret_anywhere(encrypted: Encrypted, tmp_path: Path) -> None:
    ended = threading.Event()

    def kill_each_psql() -> None:
        while not ended.wait(0.005):
            for process in encrypted.scene.world.restorers():
                with suppress(psutil.Error):
                    process.kill()

    helper = threading.Thread(target=kill_each_psql, daemon=True)
    helper.start()
    try:
        for _ in range(6):  # a psql that is done before the next look has outrun the killer: once more
            status, said = encrypted.run()
            if status:
                break
    finally:
        ended.set()
        helper.join()
    assert status == 1 and "psql ended with status -9" in said, said
    encrypted.check(tmp_path)


def _another_key(encrypted: Encrypted, key: str) -> None:
    Secret(value=key).save("age-key", overwrite=True)


def _refused_statement(encrypted: Encrypted) -> None:
    """psql dies with an error of the server's, whose words name the role."""
    encrypted.scene.superuser("ALTER ROLE marked_source NOSUPERUSER")


def _wrong_key(encrypted: Encrypted) -> None:
    encrypted.scene.superuser("ALTER ROLE marked_source SUPERUSER")
    other = str(pyrage.x25519.Identity.generate())
    _another_key(encrypted, other)
    encrypted.scene.leaks.secrets["the wrong key"] = other.removeprefix("AGE-SECRET-KEY-1")


def _garbled_key(encrypted: Encrypted) -> None:
    key = encrypted.scene.leaks.secrets["the key of the backups"]
    _another_key(encrypted, f"AGE-SECRET-KEY-1{key[:-3]}xyz")


def _wrong_password(encrypted: Encrypted) -> None:
    encrypted.scene.superuser("ALTER ROLE marked_source PASSWORD 'another'")


@pytest.mark.slow
def test_what_a_restore_raises_holds_no_secret_however_deep_one_looks(
    encrypted: Encrypted, heard: Heard, impatient: None
) -> None:
    leaks = encrypted.scene.leaks
    for break_it in (_refused_statement, _wrong_key, _garbled_key, _wrong_password):
        break_it(encrypted)
        with pytest.raises(BackupSystemError) as raised:
            restore(plan=encrypted.scene.world.plan)
        leaks.look(f"exception of {break_it.__name__}", whole_story(raised.value))
        leaks.look("traceback", "".join(traceback.format_exception(raised.value)))
    leaks.look("log", heard.text)
    assert "Traceback" not in heard.text
    assert not leaks.found


def test_the_search_for_a_key_finds_it() -> None:
    key = str(pyrage.x25519.Identity.generate())
    leaks = Leaks({"the key of the backups": key.removeprefix("AGE-SECRET-KEY-1")})
    leaks.look("here", f"x{key}y")
    assert leaks.found == {"the key of the backups in here"}
