"""What the request, the backup and its keys say is checked before a restore, all at once, and changes nothing."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyrage
import pytest

from tasks.errors import PreflightFailed
from tasks.restore.preflight.local import (
    identity_problems,
    name_problems,
    outcome,
    request_problems,
)
from tasks.restore.values import RestoreRequest
from tasks.storage.backup_values import (
    Extension,
)
from tests.support.live_database import LiveDatabase, opened, run


def test_nothing_is_changed(live: LiveDatabase) -> None:
    query = "SELECT count(*), sum(oid::bigint), (SELECT count(*) FROM pg_roles) FROM pg_database"
    with opened(live.admin) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        before = cursor.fetchone()
        live.survey()
        run(live.admin, "DROP DATABASE {d} WITH (FORCE)", d=live.dbname)
        live.survey(backup=live.like(owner="gone"), create_missing_roles=True)
        run(live.admin, "CREATE DATABASE {d}", d=live.dbname)
        cursor.execute(query)
        assert cursor.fetchone()[::2] == before[::2]
        cursor.execute("SELECT count(*) FROM pg_collation WHERE collname = 'trial'")
        assert cursor.fetchone() == (0,)


def test_a_database_that_is_gone_is_made_like_the_one_that_was_backed_up(live: LiveDatabase) -> None:
    run(live.admin, "DROP DATABASE {d} WITH (FORCE)", d=live.dbname)
    ground = live.survey()
    assert (ground.live_exists, ground.database, ground.like) == (False, live.dbname, live.backup.database)


def test_every_problem_is_told_at_once(live: LiveDatabase) -> None:
    live.role("nobody")
    said = live.problems(
        live.as_role("nobody"),
        backup=replace(
            live.like(server_version_number=990_000),
            roles=("nobody", "missing one"),
            extensions=(Extension("no_such", "1.2", "public"),),
            encrypted=True,
            recipients=("age1xyz",),
            size=1 << 60,
        ),
        tables=("public.t",),
    )
    for words in (
        "takes no tables",
        "has no key",
        "to version 99",
        "CREATEDB",
        "does not own database",
        '"missing one"',
        "no_such 1.2",
        "to their owner postgres",
    ):
        assert [one for one in said if words in one], (words, said)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"mode": "sideways"}, "There is no mode 'sideways'"),
        ({"mode": "new_database"}, "needs a name"),
        ({"mode": "new_database", "target": "x" * 64}, "longer than 63 bytes"),
        ({"mode": "new_database", "target": "ü" * 32}, "longer than 63 bytes"),
        ({"mode": "new_database", "target": "a\0b"}, "character that no"),
        ({"mode": "new_database", "target": "\ud800"}, "character that no"),
        ({"mode": "new_database", "target": "postgres"}, "There is a database postgres already"),
        ({"mode": "new_database", "target": "template0"}, "There is a database template0 already"),
        ({"tables": ("public.t",)}, "takes no tables"),
        ({"mode": "in_place"}, "into confirm"),
        ({"mode": "in_place", "confirm": "no_such_db", "target": "no_such_db"}, "There is no database no_such_db"),
        ({"analyze": "never"}, "analyze cannot be 'never'"),
        ({"target": "template1"}, "is a template"),
        ({"mode": "in_place", "target": "template0", "confirm": "template0"}, "takes no connections"),
        (
            {"mode": "in_place", "target": "template1", "confirm": "template1"},
            "of which it makes a safety backup first",
        ),
    ],
)
def test_parameters_that_cannot_be_are_refused(live: LiveDatabase, request_: dict[str, Any], words: str) -> None:
    said = live.problems(**request_)
    assert [one for one in said if words in one], said
    " ".join(said).encode()


def test_what_a_request_means_is_known_without_a_server() -> None:
    assert outcome(RestoreRequest(), "own") == "own" and outcome(RestoreRequest(target="x"), "own") == "x"
    assert outcome(RestoreRequest(mode="new_database"), "own") == ""
    assert name_problems("x" * 63) == [] and name_problems(" ") == []
    assert request_problems(RestoreRequest(mode="in_place", confirm="own", tables=("t",)), "own", "own") == []


def test_extensions_that_are_not_there_are_refused_and_other_versions_warned_of(live: LiveDatabase) -> None:
    backup = replace(live.backup, extensions=(Extension("no such", "1.2", "x"), Extension("citext", "0.9", "x")))
    [said] = live.problems(backup=backup)
    assert "does not have the extension no such 1.2: install its package" in said
    warnings = live.survey(backup=replace(backup, extensions=backup.extensions[1:])).warnings
    assert [one for one in warnings if "another version of the extension citext 1." in one and "(was 0.9)" in one]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoding": "KLINGON"}, "encoding KLINGON"),
        ({"collate": "tlh_QO.UTF-8", "ctype": "C"}, "locale tlh_QO.UTF-8 / C"),
        ({"collate": "C", "ctype": "it's"}, "locale C / it's"),
        ({"tablespace": "fast disk"}, "no tablespace fast disk"),
    ],
)
def test_what_the_server_does_not_know_is_refused(live: LiveDatabase, changes: dict[str, Any], words: str) -> None:
    run(live.admin, "DROP DATABASE {d} WITH (FORCE)", d=live.dbname)
    [said] = live.problems(backup=live.like(**changes))
    assert words in said


@pytest.mark.parametrize(
    "changes",
    [
        {"collate": "POSIX", "ctype": "POSIX"},
        {"collate": "C.UTF-8", "ctype": "C.UTF-8"},
        {"encoding": "LATIN1"},
        {"locale_provider": "icu", "icu_locale": "de-DE"},
    ],
)
def test_what_the_server_knows_is_accepted(live: LiveDatabase, changes: dict[str, Any]) -> None:
    run(live.admin, "DROP DATABASE {d} WITH (FORCE)", d=live.dbname)
    try:
        assert live.survey(backup=live.like(**changes)).like.encoding
    except PreflightFailed as error:
        assert "ICU is not supported" in str(error) and changes.get("icu_locale")


def test_an_encrypted_backup_needs_a_key_that_fits(live: LiveDatabase) -> None:
    ours, other = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
    backup = replace(live.backup, encrypted=True, recipients=(str(other.to_public()), str(ours.to_public())))
    with_ours = replace(live.plan, identities=(str(pyrage.x25519.Identity.generate()), str(ours)))
    assert identity_problems(with_ours, backup) == []
    assert identity_problems(live.plan, live.backup) == []
    for keys, words in (
        ((), "has no key for it"),
        ((str(pyrage.x25519.Identity.generate()),), "no key of the plan fits"),
        (("AGE-SECRET-KEY-1BROKEN",), "is unknown"),
    ):
        [said] = identity_problems(replace(live.plan, identities=keys), backup)
        assert words in said and str(ours.to_public()) in said and "SECRET" not in said
    [said] = identity_problems(with_ours, replace(backup, recipients=("nonsense",)))
    assert "is unknown" in said


def test_a_key_of_ssh_fits_too(live: LiveDatabase, tmp_path: Path) -> None:
    keygen = shutil.which("ssh-keygen")
    if keygen is None:
        pytest.skip("ssh-keygen is not installed")
    key = str(tmp_path / "key")
    subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    recipient = " ".join((tmp_path / "key.pub").read_text().split()[:2])
    backup = replace(live.backup, encrypted=True, recipients=(recipient,))
    assert identity_problems(replace(live.plan, identities=((tmp_path / "key").read_text(),)), backup) == []
    assert identity_problems(replace(live.plan, identities=(str(pyrage.x25519.Identity.generate()),)), backup)
