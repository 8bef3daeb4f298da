"""Whatever byte of a backup is changed, cut off or exchanged: no restore begins, or it ends before its COMMIT.

Set DAMAGE_SEED to repeat a failure (the seed is printed, and named in every failure), DAMAGE_ROUNDS for more rounds.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg2
import pyrage
import pytest

from tasks.errors import BackupDamaged, BackupNotFound, BackupSystemError, RestoreRefused
from tasks.names import manifest_key
from tasks.restore import load as loading
from tasks.restore.values import RestoreRun
from tests.conftest import BIN_DIRECTORIES
from tests.support.scene import KIB, Meddler, Scene, SceneFactory, in_words

ROUNDS = int(os.environ.get("DAMAGE_ROUNDS", "1000"))  # of flips, and of truncations
SEED = int(os.environ.get("DAMAGE_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
PART = 16 * KIB
IN_MANIFEST = (
    r"manifest\.json.* is damaged: (?:the field \S+ |its content is no |its SHA-256 is not the manifest_sha256)"
)
CONTENT = """
CREATE TABLE numbers AS SELECT i AS id, i * 7 AS n FROM generate_series(1, 4000) i;
CREATE TABLE words AS SELECT i AS id, md5(i::text) AS t FROM generate_series(1, 1500) i;
ALTER TABLE numbers ADD PRIMARY KEY (id); CREATE INDEX ON words (t);
ALTER TABLE words ADD FOREIGN KEY (id) REFERENCES numbers; CREATE VIEW both_of_them AS SELECT * FROM numbers JOIN words USING (id);
CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TRIGGER t BEFORE INSERT ON words FOR EACH ROW EXECUTE FUNCTION f(); SELECT lo_from_bytea(77, decode(repeat('00ff', 9000), 'hex'));
"""
FINGERPRINT = """
SELECT (SELECT oid FROM pg_database WHERE datname = current_database()),
       (SELECT sum(hashtext(concat_ws(' ', oid, relname, relfilenode))::bigint) FROM pg_class WHERE oid >= 16384),
       (SELECT sum(hashtext(concat_ws(' ', n, xmin))::bigint) FROM numbers n),
       (SELECT sum(hashtext(concat_ws(' ', w, xmin))::bigint) FROM words w)
"""
pytestmark = pytest.mark.parametrize(
    "postgres_server", list(BIN_DIRECTORIES)[:1] or [0], indirect=True, ids=lambda major: f"pg{major}"
)


class Patient:
    """A database with a backup, and a connection that sees whether anything in the database has changed."""

    def __init__(self, scene: Scene, chance: random.Random) -> None:
        self.scene, self.chance, self.refusals = scene, chance, 0
        scene.sql(CONTENT)
        self.backup = scene.back_up()
        self.scratch = scene.empty_database()
        self.object, self.manifest = scene.stored(self.backup)
        self.connection = psycopg2.connect(scene.url)
        self.connection.autocommit = True
        self.backed_up = self.dump = scene.dumped_whole()
        self.prints = self.fingerprint()

    def fingerprint(self) -> tuple[Any, ...] | None:
        with self.connection.cursor() as cursor:
            cursor.execute(FINGERPRINT)
            found: tuple[Any, ...] | None = cursor.fetchone()
            return found

    def refusal(
        self,
        action: Callable[[], object],
        note: object = "",
        kinds: tuple[type[BackupSystemError], ...] = (BackupDamaged,),
    ) -> str:
        """What `action` says, which must raise one of `kinds` and leave the database alone."""
        self.refusals += 1
        note = f"DAMAGE_SEED={SEED}, {note}"
        try:
            action()
        except kinds as error:
            said = str(error)
        except BackupSystemError as error:
            pytest.fail(f"{note}: {type(error).__name__}: {error}")
        else:
            pytest.fail(f"{note}: nothing was refused")
        assert "\n" not in said
        assert self.fingerprint() == self.prints, note
        return said

    def load(self, run: RestoreRun, meddle: Meddler = lambda spool: None, ahead: bool | None = None) -> None:
        """psql restores, half of the times with a download beside it; then all is cleared away as the flow does it."""
        ahead = self.chance.random() < 0.5 if ahead is None else ahead
        if run.scratch == self.scratch:
            self.scene.feed(run, meddle, ahead)
            return
        with loading.nothing_left(self.scene.plan, run, print):
            self.scene.load(run, meddle, ahead)

    def part_of(self, offset: int) -> str:
        """How a message names the part that holds a byte of the object."""
        return f": part {offset // PART + 1} of {-(-len(self.object) // PART)} in bucket "

    def flipped(self, content: bytes) -> tuple[int, bytes]:
        """Where a byte was changed, and what came of it."""
        at, mask = self.chance.randrange(len(content)), self.chance.randrange(1, 256)
        return at, content[:at] + bytes([content[at] ^ mask]) + content[at + 1 :]

    def cut(self, content: bytes) -> tuple[int, bytes]:
        """How much is left, and that."""
        left = self.chance.choice((0, len(content) - 1, *(self.chance.randrange(len(content)) for _ in range(30))))
        return left, content[:left]

    def runs(self) -> list[RestoreRun]:
        """Validated restores: one in place, one into a new database, and quick ones into a scratch that stays."""
        whole = [self.scene.validated(self.backup.filename, mode=mode) for mode in ("in_place", "swap")]
        return [*whole, *[replace(whole[1], scratch=self.scratch)] * 8]

    def check(self, refusals: int) -> None:
        """Nothing has changed, nothing was left behind, and the undamaged backup can be restored."""
        assert self.refusals == refusals
        assert self.scene.dumped_whole() == self.dump
        assert self.scene.left_behind() == []
        assert self.scene.sql("SELECT count(*) FROM pg_class WHERE oid >= 16384", self.scratch) == [(0,)]
        self.scene.store(self.backup, self.object, self.manifest)
        self.scene.restore(self.backup.filename, mode="in_place")
        assert self.scene.dumped_whole() == self.backed_up


#: `patient(**plan) -> Patient`
MakePatient = Callable[..., Patient]


@pytest.fixture
def patient(scene: SceneFactory, request: pytest.FixtureRequest) -> Iterator[MakePatient]:
    print(f"DAMAGE_SEED={SEED}")
    made: list[Patient] = []

    def make(**plan: Any) -> Patient:
        chance = random.Random(f"{SEED} {request.node.name}")
        made.append(Patient(replace(scene(**plan), part_size=PART), chance))
        return made[-1]

    yield make
    for one in made:
        one.connection.close()


#: A sample for every change, and many rounds where there is time.
many_rounds = pytest.mark.parametrize(
    "rounds", [pytest.param(40, id="some"), pytest.param(ROUNDS, id="many", marks=pytest.mark.thorough)]
)


# --- bytes flipped and cut off, at random


@pytest.mark.slow
@many_rounds
@pytest.mark.parametrize("how", ["flipped", "cut"])
def test_a_damaged_manifest_is_refused_by_field_with_and_without_the_catalogue(
    patient: MakePatient, how: str, rounds: int
) -> None:
    one = patient()
    scenes = [one.scene, *[one.scene.without_catalogue()] * 2]
    for number in range(rounds // 2):
        at, content = getattr(one, how)(one.manifest)
        one.scene.store(one.backup, its_manifest=content)
        scene, mode = scenes[number % 3], ("swap", "in_place")[number % 2]
        said = one.refusal(lambda: scene.validated(one.backup.filename, mode=mode), note=at)
        in_words(IN_MANIFEST, said)
    one.check(rounds // 2)


@pytest.mark.slow
@many_rounds
def test_a_changed_byte_of_the_object_is_refused_by_its_part(patient: MakePatient, rounds: int) -> None:
    one = patient()
    runs = one.runs()
    for number in range(rounds // 2):
        at, content = one.flipped(one.object)
        one.scene.store(one.backup, content)
        said = one.refusal(lambda: one.load(runs[number % 10]), note=at)
        assert one.part_of(at) in said
    one.check(rounds // 2)


@pytest.mark.slow
@many_rounds
def test_an_object_that_was_cut_is_refused_by_its_size_or_if_cut_later_by_the_part(
    patient: MakePatient, rounds: int
) -> None:
    one = patient()
    runs, scenes = one.runs(), [one.scene, one.scene.without_catalogue()]
    for number in range(rounds // 4):
        left, content = one.cut(one.object)
        one.scene.store(one.backup, content)
        scene = scenes[number % 2]
        said = one.refusal(lambda: scene.validated(one.backup.filename), note=left)
        in_words(rf"it has {left} bytes, and the field object.size of its manifest says {len(one.object)}", said)
        said = one.refusal(lambda: one.load(runs[number % 10]), note=left)
        assert int(in_words(r": part (\d+) of \d+ in bucket ", said)[1]) > left // PART
    one.check(rounds // 4 * 2)


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["zstd", "gzip", "age"])
def test_a_damaged_file_is_refused_by_its_part_when_it_is_compressed_or_encrypted_too(
    patient: MakePatient, codec: str
) -> None:
    one = patient(**encoded(codec))
    runs = one.runs()
    for number in range(20):
        at, content = one.flipped(one.object) if number % 2 else one.cut(one.object)
        one.scene.store(one.backup, content)
        said = one.refusal(lambda: one.load(runs[number % 10]), note=at)
        assert int(in_words(r": part (\d+) of \d+ in bucket ", said)[1]) >= at // PART + 1
    one.check(20)


def encoded(codec: str) -> dict[str, Any]:
    """Fields of a plan that compresses, or compresses and encrypts."""
    if codec != "age":
        return {"codec": codec}
    secret = pyrage.x25519.Identity.generate()
    return {"codec": "zstd", "recipients": (str(secret.to_public()),), "identities": (str(secret),)}


# --- whole parts and files exchanged


def test_what_was_exchanged_between_backups_of_one_size_is_refused(patient: MakePatient) -> None:
    one = patient()
    one.scene.sql("UPDATE words SET t = md5(t)")
    other = one.scene.back_up(one.backup.created_at + timedelta(hours=1))
    one.prints, one.dump = one.fingerprint(), one.scene.dumped_whole()
    its_object, its_manifest = one.scene.stored(other)
    assert len(its_object) == len(one.object) and its_object != one.object
    runs = one.runs()
    both = [number for number in range(0, len(one.object), PART) if differ(one.object, its_object, number)]
    assert len(both) > 2
    for at in both:
        one.scene.store(one.backup, spliced(one.object, at, its_object[at : at + PART]))
        assert one.part_of(at) in one.refusal(lambda: one.load(one.chance.choice(runs)))
    swapped = spliced(spliced(one.object, 0, one.object[PART : 2 * PART]), PART, one.object[:PART])
    one.scene.store(one.backup, swapped)
    assert one.part_of(0) in one.refusal(lambda: one.load(runs[0], ahead=False))
    one.scene.store(one.backup, its_object)
    in_words(r": part \d+ of \d+ in bucket ", one.refusal(lambda: one.load(runs[0])))
    for content in (one.object, its_object):
        one.scene.store(one.backup, content, its_manifest)
        said = one.refusal(lambda: one.scene.validated(one.backup.filename))
        in_words("its SHA-256 is not the manifest_sha256 that the catalogue has", said)
        said = one.refusal(lambda: one.scene.without_catalogue().validated(one.backup.filename))
        in_words(rf"the field filename is {other.filename}: the file is the manifest of another backup", said)
    one.check(len(both) + 2 + 4)


def differ(one: bytes, other: bytes, at: int) -> bool:
    """Whether the parts that begin here are not the same."""
    return one[at : at + PART] != other[at : at + PART]


def spliced(content: bytes, at: int, part: bytes) -> bytes:
    """The content with other bytes at a place."""
    return content[:at] + part + content[at + len(part) :]


def test_what_is_missing_or_too_long_is_refused(patient: MakePatient) -> None:
    one = patient()
    runs, key = one.runs(), one.backup.key
    one.scene.store(one.backup, one.object + b"\n")
    in_words("the field object.size", one.refusal(lambda: one.scene.validated(one.backup.filename)))
    one.scene.plan.storage.delete(key)
    for run in runs[:3]:
        in_words("is gone from bucket", one.refusal(lambda: one.load(run)))
    in_words("is missing from bucket", one.refusal(lambda: one.scene.validated(), kinds=(BackupNotFound,)))
    one.scene.store(one.backup, one.object)
    one.scene.plan.storage.delete(manifest_key(key))
    in_words("nothing can be proved without it", one.refusal(lambda: one.scene.validated(one.backup.filename)))
    one.check(6)


# --- what changes in the spool, after the proof


def planted(number: int, content: bytes) -> Meddler:
    """A part that stands in the spool as if it had been proved."""
    return lambda spool: (spool.directory / f"{number:05d}.part").write_bytes(content) and None


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["none", "zstd", "age"])
def test_a_part_that_changes_in_the_spool_is_found_before_the_commit(patient: MakePatient, codec: str) -> None:
    one = patient(**({} if codec == "none" else encoded(codec)))
    runs, damaged = one.runs(), 0
    for number in range(20):
        at = one.chance.randrange(0, len(one.object), PART)
        part = one.object[at : at + PART]
        _, content = one.flipped(part) if number % 4 else one.cut(part)
        said = one.refusal(
            lambda: one.load(runs[number % 10], planted(at // PART + 1, content), ahead=False),
            kinds=(BackupDamaged, RestoreRefused),
            note=at,
        )
        assert one.backup.filename in said
        damaged += "psql ended" not in said
    assert damaged > 3  # a byte of a statement may as well make psql stumble, which rolls back too
    one.check(20)


def test_a_digit_that_changes_in_the_spool_is_sql_and_never_committed(patient: MakePatient) -> None:
    one = patient()
    at = one.object.index(b"\n1234\t8638\n") + 6
    first = at // PART * PART
    assert at // PART == (at + 4) // PART
    content = spliced(one.object, at, b"8639")[first : first + PART]
    for run in one.runs()[:3]:
        said = one.refusal(lambda: one.load(run, planted(first // PART + 1, content), ahead=False))
        in_words(r"the SQL text is not what was dumped \(plain\.sha256", said)
    one.check(3)


def test_with_chosen_tables_the_part_itself_is_proved_once_more(patient: MakePatient) -> None:
    one = patient()
    at = one.object.index(b"\n1234\t8638\n") + 6
    first = at // PART * PART
    content = spliced(one.object, at, b"8639")[first : first + PART]
    for request in ({"mode": "in_place"}, {"mode": "new_database", "target": "of tables"}):
        run = one.scene.validated(tables=("public.numbers",), drop_dependents=True, **request)
        said = one.refusal(lambda: one.load(run, planted(first // PART + 1, content), ahead=False))
        assert one.part_of(at) in said
    one.check(2)
