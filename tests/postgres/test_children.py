"""A client program dies with whoever started it, cannot block on what it complains about, and shows no password."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import psycopg2
import pytest

from deployments.quick_start.postgres import PostgresCluster
from tasks.backup.dump import pg_dump_arguments
from tasks.postgres.child_processes import STDERR_LINES, child
from tasks.postgres.dsn import parse
from tests.conftest import DatabaseFactory
from tests.support import eventually

CHECKOUT = Path(__file__).parents[2]
ENVIRONMENT = {"PATH": os.environ["PATH"]}
MARKER = "mArKeR-5ecret"


def _python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


_PARENT = """
import os, sys, threading
from tasks.postgres.child_processes import child

def run():
    with child([sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(300)"],
               os.environ) as one:
        print(one.stdout.readline().decode().strip(), flush=True)
        one.wait()

{start}
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a child with its parent")
@pytest.mark.parametrize("start", ["run()", "threading.Thread(target=run).start()"], ids=["main thread", "task thread"])
def test_a_child_dies_with_a_parent_that_is_killed(start: str) -> None:
    parent = subprocess.Popen(_python(_PARENT.format(start=start)), cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert _lives(pid)
    parent.kill()
    parent.wait()
    try:
        assert eventually(lambda: not _lives(pid))
    finally:
        parent.stdout.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)


def test_the_end_of_the_block_ends_the_child() -> None:
    with child(_python("import os, time; print(os.getpid(), flush=True); time.sleep(300)"), ENVIRONMENT) as one:
        pid = int(one.stdout.readline())
        assert _lives(pid)
    assert not _lives(pid)


def test_an_error_in_the_block_ends_the_child_and_comes_through() -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        child(_python("import os, time; print(os.getpid(), flush=True); time.sleep(300)"), ENVIRONMENT) as one,
    ):
        pid = int(one.stdout.readline())
        raise KeyboardInterrupt
    assert not _lives(pid)


def test_a_child_that_was_killed_says_so_by_its_status() -> None:
    with child(_python("import time; time.sleep(300)"), ENVIRONMENT) as one:
        one.kill()
        one.kill()
        assert one.wait() == -9


def test_a_program_that_is_not_there_is_an_error_and_no_silence() -> None:
    try:
        with child(["/no/such/program"], ENVIRONMENT) as one:
            assert one.stdout.read() == b""
            assert one.wait() != 0
            assert "/no/such/program" in one.complaints()
    except FileNotFoundError as error:
        assert "/no/such/program" in str(error)


@pytest.mark.timeout(60)
def test_megabytes_of_complaints_block_nobody_and_the_last_lines_are_kept() -> None:
    code = "import sys; [print('complaint', i, 'x' * 100, file=sys.stderr) for i in range(60_000)]; print('done')"
    with child(_python(code), ENVIRONMENT) as one:
        assert one.stdout.read() == b"done\n"
        assert one.wait() == 0
    lines = one.complaints().splitlines()
    assert len(lines) == STDERR_LINES
    assert lines[-1].startswith("complaint 59999 ")


@pytest.mark.timeout(60)
def test_a_complaint_of_megabytes_on_one_line_takes_little_memory_and_little_room_in_an_error() -> None:
    code = "import sys; sys.stderr.write('first ' + 'x' * 50_000_000 + ' last'); print('done')"
    with child(_python(code), ENVIRONMENT) as one:
        assert one.stdout.read() == b"done\n"
        assert one.wait() == 0
    assert one.complaints().endswith(" last")
    assert len(one.complaints()) < 1_000_000


def test_bytes_that_are_no_text_do_no_harm_in_complaints() -> None:
    code = "import sys; sys.stderr.buffer.write(b'm\\xfcller\\r\\n\\xff\\0 end\\n')"
    with child(_python(code), ENVIRONMENT) as one:
        one.wait()
    assert "end" in one.complaints() and "\0" not in one.complaints()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_child_has_no_stdio_and_no_open_file_of_ours(tmp_path: Path) -> None:
    with (
        (tmp_path / "ours").open("w"),
        child(_python("import time; print(flush=True); time.sleep(300)"), ENVIRONMENT) as one,
    ):
        one.stdout.readline()
        [process] = [
            p
            for p in psutil.process_iter(["cmdline", "ppid"])
            if p.info["ppid"] == os.getpid() and "time.sleep(300)" in (p.info["cmdline"] or [""])[-1]
        ]
        theirs = {path.name: str(path.readlink()) for path in Path(f"/proc/{process.pid}/fd").iterdir()}
        ours = {str(Path(f"/proc/self/fd/{number}").readlink()) for number in (0, 1, 2)}
    assert theirs["0"] == "/dev/null"
    assert theirs["1"].startswith("pipe:") and theirs["2"].startswith("pipe:")
    assert theirs["1"] != theirs["2"]
    assert not (set(theirs.values()) - {"/dev/null"}) & ours
    assert str(tmp_path / "ours") not in theirs.values()


def test_a_child_sees_no_variable_but_those_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", MARKER)
    with child(_python("import os; print(dict(os.environ))"), ENVIRONMENT) as one:
        assert MARKER.encode() not in one.stdout.read()


def test_threads_and_descriptors_of_ended_children_are_given_back() -> None:
    def open_files() -> int:
        return psutil.Process().num_fds()

    with child(_python("pass"), ENVIRONMENT) as one:
        one.stdout.read()
    threads, files = threading.active_count(), open_files()
    for _ in range(5):
        with child(_python("print('x')"), ENVIRONMENT) as one:
            one.stdout.read()
    assert threading.active_count() <= threads
    assert open_files() <= files


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("password", [MARKER, "mArKeR 5 \"e'c\\r%e$t ü💾"])
def test_pg_dump_shows_no_password_to_whoever_lists_processes(
    any_postgres: PostgresCluster, fresh_database: DatabaseFactory, password: str
) -> None:
    url = fresh_database(any_postgres)
    with contextlib.closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("DROP ROLE IF EXISTS marked")
            cursor.execute("CREATE ROLE marked LOGIN SUPERUSER PASSWORD %s", [password])
            cursor.execute("CREATE TABLE held (i int)")
            connection.autocommit = False
            cursor.execute("LOCK TABLE held IN ACCESS EXCLUSIVE MODE")  # pg_dump waits, and can be looked at
            dsn = parse(any_postgres.url(parse(url).dbname, "marked", password))
            arguments = [
                one
                for one in pg_dump_arguments(
                    str(any_postgres.bin_directory / "pg_dump"), dsn.conninfo(), "", "UTF8", []
                )
                if not one.startswith("--snapshot")
            ]
            with child(arguments, dsn.child_environment("look at me")) as one:
                waits = (
                    "SELECT 1 FROM pg_stat_activity WHERE application_name = 'look at me' AND wait_event_type = 'Lock'"
                )

                def waiting() -> bool:
                    with contextlib.closing(psycopg2.connect(any_postgres.url())) as other, other.cursor() as looking:
                        looking.execute(waits)
                        return looking.fetchone() is not None

                assert eventually(waiting), one.complaints()
                lists = _argument_lists()
                assert any(b"pg_dump" in words for words in lists)
                assert not [words for words in lists if password.encode() in words or b"mArKeR" in words]


def _argument_lists() -> list[bytes]:
    """What every process below this one was called with; one that has just ended counts for nothing."""
    lists = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            lists.append(Path(f"/proc/{process.pid}/cmdline").read_bytes())
    return lists
