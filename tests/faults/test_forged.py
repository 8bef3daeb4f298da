"""Backups that somebody else made, file and manifest consistent: none is restored, counted or taken for the newest."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from tasks.errors import BackupDamaged, BackupNotFound
from tasks.names import backup_filename
from tasks.rebuild_catalogue.rebuild import compare, write
from tasks.storage.manifest_text import with_checksum
from tests.conftest import NEWEST
from tests.faults.fault_lists import SEED
from tests.support.scene import Scene, SceneFactory, now

pytestmark = [
    pytest.mark.faults,
    pytest.mark.parametrize("postgres_server", NEWEST or [0], indirect=True, ids=lambda major: f"pg{major}"),
]
ROUNDS = 110  # of those in the place of a backup, and of those with a name of their own
CONTENT = "CREATE TABLE accounts AS SELECT i AS id, 100 AS balance FROM generate_series(1, 500) i; ALTER TABLE accounts ADD PRIMARY KEY (id)"


def richer(text: bytes, chance: random.Random) -> bytes:
    """Somebody has more than they had."""
    return text.replace(b"\n%d\t100\n" % (row := chance.randrange(2, 500)), b"\n%d\t999\n" % row)


def poorer(text: bytes, chance: random.Random) -> bytes:
    """A row is not there any more."""
    return text.replace(b"\n%d\t100\n" % chance.randrange(2, 500), b"\n")


def with_statement(text: bytes, chance: random.Random) -> bytes:
    """A statement more, which pg_dump did not write."""
    end = b"--\n-- PostgreSQL database dump complete\n"
    return text.replace(end, b"CREATE ROLE intruder_%d SUPERUSER;\n\n" % chance.randrange(1 << 30) + end)


def without_key(text: bytes, chance: random.Random) -> bytes:
    """A definition less; and a comment, so that no two are equal."""
    line = b"ALTER TABLE ONLY public.accounts\n    ADD CONSTRAINT accounts_pkey PRIMARY KEY (id);\n"
    return text.replace(line, b"-- %d\n" % chance.randrange(1 << 30))


WAYS: tuple[Callable[[bytes, random.Random], bytes], ...] = (richer, poorer, with_statement, without_key)


def manifest_for(text: bytes, told: bytes, key: str = "", **fields: Any) -> bytes:
    """A manifest that fits another text: sizes, hashes, parts and checksum."""
    manifest, digest = json.loads(told), hashlib.sha256(text).hexdigest()
    part = {**manifest["object"]["parts"][0], "number": 1, "size": len(text), "sha256": digest}
    manifest["object"].update(size=len(text), sha256=digest, part_size=len(text), parts=[part])
    manifest["object"]["key"] = key or manifest["object"]["key"]
    manifest["plain"].update(size=len(text), sha256=digest)
    manifest["sections"] = [{"name": "all", "start": 0, "end": len(text)}]
    manifest.update(fields)
    return with_checksum(manifest)


@pytest.fixture
def shop(scene: SceneFactory) -> Scene:
    made = scene()
    made.sql(CONTENT)
    return made


def test_a_forgery_in_the_place_of_a_backup_is_refused(shop: Scene, request: pytest.FixtureRequest) -> None:
    backup, chance = shop.back_up(), random.Random(SEED)
    text, told = shop.stored(backup)
    before = shop.dumped_whole()
    for number in range(ROUNDS):
        forged = WAYS[number % len(WAYS)](text, chance)
        assert forged != text
        shop.store(backup, forged, manifest_for(forged, told))
        with pytest.raises(BackupDamaged, match="its SHA-256 is not the manifest_sha256 that the catalogue has"):
            shop.validated(backup.filename, mode="in_place")
    shop.store(backup, text, told)
    shop.restore(backup.filename, mode="in_place")
    assert shop.dumped_whole() == before
    recorded(request, "in the place of a backup")


def test_a_forgery_with_a_name_of_its_own_is_never_restored_nor_the_newest(
    shop: Scene, request: pytest.FixtureRequest
) -> None:
    backup, chance = shop.back_up(now() - timedelta(days=2)), random.Random(SEED)
    text, told = shop.stored(backup)
    before = shop.dumped_whole()
    names = [put(shop, told, WAYS[number % len(WAYS)](text, chance), number) for number in range(ROUNDS)]
    assert shop.validated("latest").backup.filename == backup.filename
    compared = compare(shop.plan, ())
    assert compared.unproved == ROUNDS
    write(shop.plan, compared.changes, "rebuild-run", "tester")
    for name in names:
        with pytest.raises(BackupNotFound, match="unproved"):
            shop.validated(name, mode="in_place")
    assert shop.validated("latest").backup.filename == backup.filename
    assert shop.dumped_whole() == before
    recorded(request, "with a name of its own")


def put(shop: Scene, told: bytes, text: bytes, number: int) -> str:
    """Object and manifest of a backup that is newer than the true one; returns its file name."""
    at: datetime = now() - timedelta(minutes=number + 1)
    name = backup_filename(shop.plan.name, f"forged-{number}", at)
    key = shop.plan.key(name)
    manifest = manifest_for(text, told, key, filename=name, run_id=f"forged-{number}", started_at=at.isoformat())
    shop.plan.storage.put(key, text)
    shop.plan.storage.put(f"{key}.manifest.json", manifest)
    return name


def recorded(request: pytest.FixtureRequest, what: str) -> None:
    request.node.user_properties += [("kind", "forged"), ("what", what), ("count", ROUNDS), ("seed", SEED)]
