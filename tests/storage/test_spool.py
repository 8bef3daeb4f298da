"""What the spool promises to the dump, to the upload, and to whoever clears up after a dead run."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

import pytest

from tasks.backup.dump import PartWriter
from tasks.backup.preflight import spool_problems
from tasks.errors import AlreadyRunning, BadSetting, DumpFailed, Stopped
from tasks.plans.plan import default_spool
from tasks.storage.backup_values import Part
from tasks.storage.spool import Spool, clear_dead_spools, open_spool, private_file, write_aside


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    (tmp_path / "spool").mkdir()
    return Spool(tmp_path / "spool", part_size=10, limit=30, most_parts=4)


def publish(spool: Spool, attempt: int, number: int, content: bytes) -> Part:
    """One part, written as the dump writes it."""
    spool.unfinished(attempt).write_bytes(content)
    part = Part(number, len(content), hashlib.sha256(content).hexdigest())
    spool.publish(attempt, part)
    return part


def write(spool: Spool, content: bytes) -> tuple[Part, ...]:
    """Everything of one dump, cut into parts by the dump's own writer."""
    attempt = spool.begin_attempt()
    writer = PartWriter(spool, attempt)
    writer.write(memoryview(content))
    parts = writer.close()
    spool.finish(attempt, len(parts))
    return parts


# --- parts


def test_before_the_first_attempt_there_is_nothing(spool: Spool) -> None:
    assert spool.attempt() == 0
    assert spool.ready(0) == spool.ready(1) == []
    assert spool.total(1) is None


def test_a_part_is_seen_once_it_is_published_and_never_before(spool: Spool) -> None:
    attempt = spool.begin_attempt()
    spool.unfinished(attempt).write_bytes(b"half")
    assert spool.ready(attempt) == []
    part = publish(spool, attempt, 1, b"whole")
    assert spool.ready(attempt) == [part]
    assert spool.part_file(attempt, part).read_bytes() == b"whole"


def test_parts_are_ready_in_the_order_of_their_numbers(spool: Spool) -> None:
    attempt = spool.begin_attempt()
    parts = {number: publish(spool, attempt, number, b"x" * number) for number in (3, 1, 10, 2)}
    assert spool.ready(attempt) == [parts[number] for number in (1, 2, 3, 10)]
    assert spool.waiting_bytes(attempt) == 16


def test_a_discarded_part_is_gone_and_discarding_it_again_is_no_error(spool: Spool) -> None:
    attempt = spool.begin_attempt()
    part = publish(spool, attempt, 1, b"x")
    spool.discard(attempt, part)
    assert spool.ready(attempt) == []
    spool.discard(attempt, part)


def test_the_number_of_parts_is_known_once_the_dump_is_whole(spool: Spool) -> None:
    attempt = spool.begin_attempt()
    assert spool.total(attempt) is None
    spool.finish(attempt, 7)
    assert spool.total(attempt) == 7


def test_a_new_attempt_makes_all_earlier_parts_void(spool: Spool) -> None:
    first = spool.begin_attempt()
    part = publish(spool, first, 1, b"first")
    spool.finish(first, 1)
    second = spool.begin_attempt()
    assert (first, second, spool.attempt()) == (1, 2, 2)
    assert spool.ready(first) == spool.ready(second) == []
    assert spool.total(first) is None and spool.total(second) is None
    assert not spool.part_file(first, part).exists()


def test_the_writer_cuts_parts_of_one_size_and_a_rest(spool: Spool) -> None:
    content = bytes(range(25))
    parts = write(spool, content)
    assert [part.size for part in parts] == [10, 10, 5]
    assert [part.number for part in parts] == [1, 2, 3]
    assert spool.ready(1) == list(parts)
    assert spool.total(1) == 3
    files = [spool.part_file(1, part).read_bytes() for part in parts]
    assert b"".join(files) == content
    assert [hashlib.sha256(file).hexdigest() for file in files] == [part.sha256 for part in parts]


def test_a_file_that_fits_its_parts_exactly_has_no_empty_rest(spool: Spool) -> None:
    assert [part.size for part in write(spool, bytes(20))] == [10, 10]


def test_more_parts_than_the_store_takes_start_over_with_larger_ones(spool: Spool) -> None:
    roomy = Spool(spool.directory, part_size=10, limit=1000, most_parts=4)
    with pytest.raises(DumpFailed, match="more than 4 parts of 10 bytes"):
        write(roomy, bytes(41))
    assert roomy.size_of_parts() == 40
    with pytest.raises(DumpFailed, match="more than 4 parts of 40 bytes"):
        write(roomy, bytes(161))
    assert [part.size for part in write(roomy, bytes(161))] == [160, 1]


# --- the limit


def write_beside_slow_upload(spool: Spool, content: bytes, full: int) -> list[int]:
    """Writes `content`. Another thread discards a part whenever `full` bytes wait; returns the bytes it found waiting."""
    found: list[int] = []
    written = Event()

    def discard_parts() -> None:
        while not written.is_set():
            waiting = spool.waiting_bytes(1)
            if waiting >= full:
                found.append(waiting)
                spool.discard(1, spool.ready(1)[0])
            time.sleep(0.01)

    uploading = Thread(target=discard_parts)
    uploading.start()
    try:
        assert len(write(spool, content)) == 4
    finally:
        written.set()
        uploading.join()
    return found


def test_the_dump_waits_while_the_spool_is_full(spool: Spool) -> None:
    """Three parts of ten bytes fill a limit of thirty; the fourth waits until one is shipped."""
    assert max(write_beside_slow_upload(spool, bytes(40), full=30)) == 30


def test_a_limit_below_one_part_still_lets_one_part_through(tmp_path: Path) -> None:
    narrow = Spool(tmp_path, part_size=10, limit=1)
    assert write_beside_slow_upload(narrow, bytes(35), full=10)[:3] == [10, 10, 10]


def test_a_dump_that_waits_for_room_ends_when_it_is_told_to(spool: Spool) -> None:
    waiting = Thread(target=lambda: (time.sleep(0.1), spool.stop("The upload failed.")))
    waiting.start()
    with pytest.raises(Stopped, match="The upload failed"):
        write(spool, bytes(40))
    waiting.join()


# --- stopping


def test_the_first_reason_to_stop_stands(spool: Spool) -> None:
    spool.check_stopped()
    assert not spool.is_stopped()
    spool.stop("First.")
    spool.stop("Second.")
    assert spool.is_stopped()
    with pytest.raises(Stopped, match=r"^First\.$"):
        spool.check_stopped()


def test_a_spool_that_was_taken_away_stops_its_steps(spool: Spool) -> None:
    spool.directory.rmdir()
    assert spool.is_stopped()
    with pytest.raises(Stopped, match="gone"):
        spool.check_stopped()
    spool.stop("Too late.")
    assert not spool.directory.exists()


def test_a_stopped_spool_takes_no_further_part(spool: Spool) -> None:
    attempt = spool.begin_attempt()
    writer = PartWriter(spool, attempt)
    writer.write(memoryview(bytes(10)))
    spool.stop("Enough.")
    with pytest.raises(Stopped, match="Enough"):
        writer.write(memoryview(b"x"))
    assert len(spool.ready(attempt)) == 1


# --- the life of a spool


def test_a_spool_lasts_as_long_as_its_block_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    root = tmp_path / "not" / "made yet"
    with open_spool(root, "run-1", part_size=10, limit=30) as spool:
        publish(spool, spool.begin_attempt(), 1, b"secret rows")
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (root, spool.directory, spool.directory / "attempt-1")]
        assert modes == [0o700, 0o700, 0o700]
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
def test_an_error_in_the_block_stops_the_steps_and_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)), open_spool(tmp_path, "run-1", 10, 30) as spool:
        spool.begin_attempt()
        raise error
    assert spool.is_stopped()
    assert list(tmp_path.iterdir()) == []


def test_a_spool_where_nothing_can_be_written_is_a_bad_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with (
        pytest.raises(BadSetting, match="SPOOL_DIRECTORY"),
        open_spool(tmp_path / "file" / "spool", "run-1", 10, 30),
    ):
        pytest.fail("there is no such spool")


DYING_RUN = """
import os, sys
from pathlib import Path
from tasks.storage.spool import open_spool
with open_spool(Path(sys.argv[1]), "dead-run", 10, 30) as spool:
    spool.unfinished(spool.begin_attempt()).write_bytes(b"half a part")
    os.kill(os.getpid(), 9)
"""


def test_the_spool_of_a_killed_run_is_cleared_and_that_of_a_live_one_is_not(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", DYING_RUN, str(tmp_path)], check=False)
    assert killed.returncode == -9
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dead-run.spool", "dead-run.spool.lock"]
    with open_spool(tmp_path, "live-run", 10, 30) as alive:
        part = publish(alive, alive.begin_attempt(), 1, b"x")
        assert clear_dead_spools(tmp_path, dry_run=True) == ["dead-run"]
        assert (tmp_path / "dead-run.spool" / "attempt-1" / "unfinished").exists()
        assert clear_dead_spools(tmp_path) == ["dead-run"]
        assert clear_dead_spools(tmp_path) == []
        assert alive.ready(1) == [part]
        alive.check_stopped()


def test_clearing_spools_touches_nothing_else_in_the_directory(tmp_path: Path) -> None:
    """Somebody may name a directory that holds other things, such as a checkout with `requirements.lock` in it."""
    (tmp_path / "requirements.lock").write_text("boto3==1")
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "base.txt").write_text("boto3")
    (tmp_path / "run-1").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert clear_dead_spools(tmp_path) == []
    assert sorted(tmp_path.rglob("*")) == before


def test_clearing_spools_where_there_are_none_is_no_error(tmp_path: Path) -> None:
    assert clear_dead_spools(tmp_path / "never made") == []


def test_a_spool_waits_while_a_clean_up_looks_at_its_lock(tmp_path: Path) -> None:
    lock_file = tmp_path / "run-1.spool.lock"
    descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)

    def give_way() -> None:
        time.sleep(0.1)
        lock_file.unlink()
        os.close(descriptor)

    cleaner = Thread(target=give_way)
    cleaner.start()
    with open_spool(tmp_path, "run-1", 10, 30):
        assert lock_file.exists()
        assert clear_dead_spools(tmp_path) == []
    cleaner.join()


def test_a_file_that_is_written_aside_is_seen_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "journal"
    texts = {str(digit) * 200_000 for digit in range(5)}
    write_aside(file, next(iter(texts)))
    writer = Thread(target=lambda: [write_aside(file, text) for _ in range(4) for text in texts])
    writer.start()
    while writer.is_alive():
        assert file.read_text() in texts
    writer.join()
    assert [path.name for path in tmp_path.iterdir()] == ["journal"]


def test_the_same_run_started_twice_is_refused_and_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.storage.spool.LOCK_SECONDS", 0.2)
    with open_spool(tmp_path, "run", 1, 1), pytest.raises(AlreadyRunning, match="Another process uses the spool"):
        open_spool(tmp_path, "run", 1, 1).__enter__()


def test_a_spool_is_gone_although_a_transfer_goes_on_for_a_moment_after_it_was_told_to_stop(tmp_path: Path) -> None:
    wrote = 0

    def transfer(directory: Path, until: float) -> None:
        nonlocal wrote
        while time.monotonic() < until and directory.is_dir():
            with suppress(FileNotFoundError):
                (directory / f"{wrote}.part").touch()
                wrote += 1

    for _ in range(5):
        with open_spool(tmp_path, "run", 10, 30) as spool:
            late = [Thread(target=transfer, args=(spool.directory, time.monotonic() + 0.3)) for _ in range(3)]
            for thread in late:
                thread.start()
            time.sleep(0.05)
        assert list(tmp_path.iterdir()) == []
        for thread in late:
            thread.join()
    assert wrote


def test_what_a_dead_process_left_of_the_same_run_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / "run.spool" / "attempt-3").mkdir(parents=True)
    with open_spool(tmp_path, "run", 10, 30) as spool:
        assert spool.attempt() == 0


def test_a_spool_that_cannot_be_removed_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as stuck:
        stuck.setattr("tasks.storage.spool._remove", lambda _: None)
        with open_spool(tmp_path, "run", 10, 30):
            pass
        assert clear_dead_spools(tmp_path) == []
    assert clear_dead_spools(tmp_path) == ["run"]
    assert list(tmp_path.iterdir()) == []


def test_a_spool_that_was_begun_anew_while_its_old_lock_was_looked_at_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old lock's file is gone by the time it is locked, and another stands in its place."""
    lock_file = tmp_path / "run.spool.lock"
    lock_file.touch()
    (tmp_path / "run.spool").mkdir()

    def slowly(descriptor: int) -> bool:
        lock_file.unlink()
        lock_file.touch()
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True

    monkeypatch.setattr("tasks.storage.spool._try_lock", slowly)
    assert clear_dead_spools(tmp_path) == []
    assert (tmp_path / "run.spool").exists()


# --- other users of the machine


NOBODY = 65534
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory like /tmp, in which everybody may write."""
    place = Path(tempfile.mkdtemp(prefix="like-tmp-"))
    place.chmod(0o1777)
    yield place
    shutil.rmtree(place)


@needs_root
@pytest.mark.parametrize("what", ["directory", "link to theirs", "link to ours"])
def test_a_directory_or_a_link_that_another_user_made_first_is_refused(shared: Path, what: str) -> None:
    root, elsewhere = shared / "spool", shared / "elsewhere"
    target = root if what == "directory" else elsewhere
    target.mkdir(mode=0o700)
    if target != root:
        root.symlink_to(target)
    if what != "link to ours":
        os.chown(target, NOBODY, NOBODY)
    os.lchown(root, NOBODY, NOBODY)
    with pytest.raises(BadSetting, match="belongs to another user"), open_spool(root, "run", 10, 30):
        pass
    assert "belongs to another user" in spool_problems(root, 1)[0]
    assert clear_dead_spools(root) == []
    assert list(target.iterdir()) == []


def test_a_directory_that_everybody_may_write_to_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "spool"
    root.mkdir()
    root.chmod(0o777)
    with pytest.raises(BadSetting, match="everybody may write to it"), open_spool(root, "run", 10, 30):
        pass
    root.chmod(0o1777)
    with open_spool(root, "run", 10, 30) as spool:
        assert stat.S_IMODE(spool.directory.stat().st_mode) == 0o700


def test_files_of_parts_are_for_their_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with open_spool(tmp_path / "spool", "run", 10, 100) as spool:
            write(spool, b"0123456789abc")
            made = [path for path in (tmp_path / "spool").rglob("*") if path.suffix in (".part", ".lock", ".spool")]
            assert len(made) == 4
            assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in made)
            with private_file(spool.directory / "other") as file:
                assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "spool").stat().st_mode) == 0o700
    finally:
        os.umask(before)


def test_a_new_file_never_follows_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "theirs")
    with pytest.raises(OSError, match="symbolic links"):
        private_file(tmp_path / "link")
    assert not (tmp_path / "theirs").exists()


@pytest.mark.parametrize(
    ("surroundings", "expected"),
    [
        ({"HOME": "home"}, "home/.cache/database-backups"),
        ({"HOME": "home", "XDG_CACHE_HOME": "cache"}, "cache/database-backups"),
        ({"HOME": "home", "TMPDIR": "tmp"}, "tmp/database-backups-{uid}"),
    ],
)
def test_the_default_directory_is_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, surroundings: dict[str, str], expected: str
) -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", None)
    for name, place in surroundings.items():
        (tmp_path / place).mkdir()
        monkeypatch.setenv(name, str(tmp_path / place))
    assert default_spool() == tmp_path / expected.format(uid=os.getuid())
