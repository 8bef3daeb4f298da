# ruff: noqa: F401, F811 - fixtures are imported
"""Thousands of files with a byte changed, cut off or exchanged: each is refused, and no live database is touched."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tasks.restore import load as loading
from tasks.restore.values import RestoreRun
from tasks.storage.spool import open_spool
from tests.conftest import NEWEST
from tests.faults.fault_lists import SEED
from tests.restore.test_damage import IN_MANIFEST, PART, MakePatient, Patient, patient
from tests.support.scene import in_words

pytestmark = [
    pytest.mark.faults,
    pytest.mark.parametrize("postgres_server", NEWEST or [0], indirect=True, ids=lambda major: f"pg{major}"),
]
ROUNDS = 1100  # of files and of manifests each


def flipped(content: bytes, chance: random.Random) -> bytes:
    """One byte is another."""
    at = chance.randrange(len(content))
    return content[:at] + bytes([content[at] ^ chance.randrange(1, 256)]) + content[at + 1 :]


def cut(content: bytes, chance: random.Random) -> bytes:
    """The end is missing."""
    return content[: chance.randrange(len(content))]


def lengthened(content: bytes, chance: random.Random) -> bytes:
    """Something is inserted."""
    at = chance.randrange(len(content) + 1)
    return content[:at] + chance.randbytes(chance.randrange(1, 9)) + content[at:]


def exchanged(content: bytes, chance: random.Random) -> bytes:
    """Two stretches have changed places."""
    size = chance.choice((1, 7, 64, 1024))
    one, other = sorted(chance.sample(range(0, len(content) - size, size), 2))
    first, second = content[one : one + size], content[other : other + size]
    return content[:one] + second + content[one + size : other] + first + content[other + size :]


def blanked(content: bytes, chance: random.Random) -> bytes:
    """A stretch is empty, as after a disk that lost a block."""
    at = chance.randrange(len(content))
    return content[:at] + bytes(min(512, len(content) - at)) + content[at + 512 :]


WAYS: tuple[Callable[[bytes, random.Random], bytes], ...] = (flipped, cut, lengthened, exchanged, blanked)


def tampered(content: bytes, number: int, chance: random.Random) -> bytes:
    """Another content, made in one of the ways in turn."""
    while (changed := WAYS[number % len(WAYS)](content, chance)) == content:
        pass
    return changed


def fetched(one: Patient, run: RestoreRun) -> None:
    """Every part is fetched and proved, as it is before psql gets it; the first that is damaged ends it."""
    with open_spool(one.scene.plan.spool_directory, run.run_id, PART, 1 << 30) as parts:
        incoming = loading.parts_of(one.scene.plan, run, parts)
        for _ in incoming.stored_bytes():
            pass


def test_a_file_that_was_tampered_with_is_refused_by_its_part(
    patient: MakePatient, request: pytest.FixtureRequest
) -> None:
    one, chance = patient(), random.Random(SEED)
    run = one.scene.validated(one.backup.filename)
    for number in range(ROUNDS):
        one.scene.store(one.backup, tampered(one.object, number, chance))
        said = one.refusal(lambda: fetched(one, run), note=f"round {number} of SEED={SEED}")
        in_words(r": part \d+ of \d+ in bucket ", said)
    recorded(request, one, "stored files")


def test_a_manifest_that_was_tampered_with_is_refused_by_its_field(
    patient: MakePatient, request: pytest.FixtureRequest
) -> None:
    one, chance = patient(), random.Random(SEED)
    scenes = (one.scene, one.scene.without_catalogue())
    for number in range(ROUNDS):
        one.scene.store(one.backup, its_manifest=tampered(one.manifest, number, chance))
        said = one.refusal(
            lambda: scenes[number // 5 % 2].validated(one.backup.filename), note=f"round {number} of SEED={SEED}"
        )
        in_words(IN_MANIFEST, said)
    recorded(request, one, "manifests")


def recorded(request: pytest.FixtureRequest, one: Patient, what: str) -> None:
    """All were refused; the backup as it was can be restored."""
    one.check(ROUNDS)
    request.node.user_properties += [("kind", "tampered"), ("what", what), ("count", ROUNDS), ("seed", SEED)]
