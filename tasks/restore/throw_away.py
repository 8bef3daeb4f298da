"""A PostgreSQL server that lives as long as a drill: in a directory of its own, without TCP, with a guard.

    <root>/<name>.drill.lock    locked by the run and by the guard; when the lock is free, both are dead. Holds the
                                address and the password, which the server itself cannot change
    <root>/<name>.drill/data    the server's files
                        log     its messages, without statements

Whoever becomes superuser there has a shell on this machine. So the dump's roles are no superusers there, whatever they
were where they come from; the superuser has a name that no dump has; and nothing of the worker's environment, which may
hold keys, gets to the server.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tasks.errors import AlreadyRunning, ServerNotStarted, ToolMissing, Unreachable
from tasks.postgres.as_ordinary_user import prefix_for_throw_away
from tasks.postgres.dsn import Dsn
from tasks.postgres.same_server import Server
from tasks.postgres.tools import Tool, choose, installed, wheel_bin_directory
from tasks.restore import guard
from tasks.storage.spool import own_directory

SUFFIX = ".drill"
_LOCK = ".drill.lock"
_SUPERUSER = "drill_superuser_"
_LONGEST_SOCKET = 100  # bytes of a path, of 107
_LOCK_PATIENCE = 10.0  # seconds: a guard that is still clearing away needs one or two
_START_PATIENCE = 60.0  # seconds
_END_PATIENCE = 30.0  # seconds
_CHECKSUMS_SINCE = 18
_KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
#: No safety in a crash, since nothing is to survive one; little memory; no word of what statements hold.
_SETTINGS = {
    "autovacuum": "off",
    "dynamic_shared_memory_type": "mmap",  # other kinds outlive a server that is killed
    "fsync": "off",
    "full_page_writes": "off",
    "jit": "off",
    "listen_addresses": "",
    "log_min_error_statement": "panic",
    "log_min_messages": "fatal",
    "log_timezone": "UTC",
    "max_connections": "30",
    "max_wal_senders": "0",
    "max_wal_size": "512MB",
    "min_wal_size": "64MB",
    "shared_buffers": "128MB",
    "synchronous_commit": "off",
    "unix_socket_permissions": "0700",
    "wal_level": "minimal",
}


@dataclass(frozen=True)
class ThrowAway:
    """A server that runs."""

    directory: Path
    programs: Path
    """The directory of its programs."""
    postgres: Tool

    @property
    def lock_file(self) -> Path:
        """What the run and the guard have locked."""
        return _lock_file(self.directory)


def chosen_server(tools_directory: str, major: int, exactly: bool = False) -> Tool:
    """The `postgres` on this machine for a server of `major`: of that major, else of the next newer one.

    With `exactly`, of no other. Raises ToolMissing, which says what to install.
    """
    wheel = wheel_bin_directory()
    places = os.pathsep.join(filter(None, [tools_directory, str(wheel or "")]))
    whole = [tool for tool in installed("postgres", places) if Path(tool.path).resolve().with_name("initdb").exists()]
    fitting = [tool for tool in whole if tool.major == major] if exactly else whole
    try:
        return choose(fitting, major, str(major), "postgres")
    except ToolMissing:
        at_hand = ", ".join(f"{tool.version_text} at {tool.path}" for tool in whole) or "none"
        wanted = f"PostgreSQL {major}" if exactly else f"PostgreSQL {major} or newer"
        raise ToolMissing(
            f"This worker has no {wanted} to restore into (initdb and postgres; installed: {at_hand}): install "
            f"postgresql-{major} (Debian, Ubuntu), postgresql{major}-server (Red Hat) or postgresql@{major} "
            "(Homebrew) on it, or name the directory of its programs in the plan's Client tools directory."
        ) from None


@contextmanager
def throw_away_server(
    root: Path, name: str, postgres: Tool, settings: Mapping[str, str], patience: float = _LOCK_PATIENCE
) -> Iterator[ThrowAway]:
    """A running server for the length of a `with` block; nothing of it is left afterwards, nor when this process dies.

    Raises AlreadyRunning when another run has the server of this name, ServerNotStarted with the reason.
    """
    own_directory(root)
    server = ThrowAway((root / f"{name}{SUFFIX}").absolute(), Path(postgres.path).resolve().parent, postgres)
    lock = _locked(server.lock_file, name, patience)
    try:
        with _guarded(server, settings, lock):
            yield server
    finally:
        _remove(server.directory)
        server.lock_file.unlink(missing_ok=True)
        os.close(lock)


def address(directory: Path) -> Dsn:
    """The address of the server in a directory, for its superuser; pinned. Raises ServerNotStarted when it is gone."""
    try:
        facts = json.loads(_lock_file(directory).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        raise ServerNotStarted(f"The server for the drill at {directory} is gone: run verify-backup again.") from None
    return _pinned(facts["socket"], facts["user"], facts["password"])


def clear_dead_servers(root: Path, dry_run: bool = False) -> list[str]:
    """Ends and removes what drills of dead runs left on this machine; a sentence for each."""
    sentences = []
    for lock_file in sorted(root.glob(f"*{_LOCK}")) if root.is_dir() else ():
        with suppress(FileNotFoundError, PermissionError), lock_file.open("r+") as file:
            if _try_lock(file.fileno()):
                directory, name = lock_file.with_suffix(""), lock_file.name.removesuffix(_LOCK)
                if directory.exists():
                    fate = "would be" if dry_run else "was"
                    sentences.append(f"The server that a dead drill of plan {name} left on this worker {fate} removed.")
                if not dry_run:
                    _remove(directory)
                    lock_file.unlink(missing_ok=True)
    return sentences


@lru_cache(maxsize=4)
def _pinned(socket_directory: str, user: str, password: str) -> Dsn:
    """An empty `hostaddr` keeps libpq from taking one of the environment."""
    where = {"host": socket_directory, "hostaddr": "", "port": "5432", "dbname": "postgres", "sslmode": "disable"}
    dsn = Dsn({**where, "gssencmode": "disable", "user": user, "password": password})
    with dsn.session("drill: which server") as connection:
        return Dsn(dsn.parameters, Server(connection))


@contextmanager
def _guarded(server: ThrowAway, settings: Mapping[str, str], lock: int) -> Iterator[None]:
    try:
        orders = _orders(server, settings)
    except OSError as error:
        raise ServerNotStarted(
            f"The server for the drill could not be made at {server.directory} ({error.strerror}): set SPOOL_DIRECTORY "
            "to a directory with room that this user can write to."
        ) from None
    environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", guard.__file__],
        env={**environment, "HOME": str(server.directory), "LC_ALL": "C"},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[lock],
        start_new_session=True,
    )
    assert process.stdin is not None
    try:
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(orders).encode() + b"\n")
            process.stdin.flush()
        _wait_for(server.directory, process)
        yield
    finally:
        with suppress(BrokenPipeError):
            process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_PATIENCE)
        process.kill()
        process.wait()


def _orders(server: ThrowAway, settings: Mapping[str, str]) -> dict[str, object]:
    """What the guard is to do. The directory is made, and the address is noted."""
    directory, programs = server.directory, server.programs
    _remove(directory)
    directory.mkdir(mode=0o700)
    socket_directory = _socket_directory(directory)
    prefix = prefix_for_throw_away(directory, programs / "postgres")
    owner = directory.stat().st_uid
    user, password = f"{_SUPERUSER}{secrets.token_hex(8)}", secrets.token_urlsafe(24)
    facts = {"socket": str(socket_directory), "user": user, "password": password}
    server.lock_file.write_text(json.dumps(facts), encoding="utf-8")
    first_password = directory / "first-password"
    first_password.touch(mode=0o600)
    first_password.write_text(password, encoding="ascii")
    if owner != os.geteuid():
        os.chown(first_password, owner, -1)
        os.chown(socket_directory, owner, -1)
    options = {**_SETTINGS, **settings, "unix_socket_directories": _quoted(socket_directory)}
    words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    start = [*prefix, *_dies_with_guard(), str(programs / "postgres"), "-D", str(directory / "data"), *words]
    return {
        "directory": str(directory),
        "commands": [_initdb(server, prefix, user, first_password), start],
        "remove": [str(path) for path in dict.fromkeys((socket_directory, directory, server.lock_file))],
    }


def _initdb(server: ThrowAway, prefix: Sequence[str], user: str, password_file: Path) -> list[str]:
    return [
        *prefix,
        str(server.programs / "initdb"),
        f"--pgdata={server.directory / 'data'}",
        f"--username={user}",
        f"--pwfile={password_file}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C",
        "--no-sync",
        *(("--no-data-checksums",) if server.postgres.major >= _CHECKSUMS_SINCE else ()),
    ]


def _dies_with_guard() -> tuple[str, ...]:
    """A guard that is killed takes the server with it, where the system can do that."""
    setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
    return (setpriv, "--pdeathsig", "QUIT") if setpriv else ()


def _socket_directory(directory: Path) -> Path:
    """The directory itself, unless its path is too long for a socket."""
    if len(os.fsencode(directory.absolute())) <= _LONGEST_SOCKET - len("/.s.PGSQL.5432"):
        return directory.absolute()
    return Path(tempfile.mkdtemp(prefix="drill-"))


def _quoted(directory: Path) -> str:
    """A path as an item of a list in PostgreSQL's settings."""
    return '"' + str(directory).replace('"', '""') + '"'


def _wait_for(directory: Path, guardian: subprocess.Popen[bytes]) -> None:
    """Until the server answers. Raises ServerNotStarted."""
    give_up = time.monotonic() + _START_PATIENCE
    while guardian.poll() is None and time.monotonic() < give_up:
        if (directory / "data" / "postmaster.pid").exists():
            with suppress(Unreachable):
                address(directory)
                (directory / "first-password").unlink(missing_ok=True)
                return
        time.sleep(0.02)
    raise ServerNotStarted(f"The server for the drill did not start: {_last_words(directory)}")


def _last_words(directory: Path) -> str:
    with suppress(OSError):
        lines = (directory / "log").read_text(errors="replace").split("\n")
        if words := [line.strip() for line in lines if line.strip()][-3:]:
            return " / ".join(words).rstrip(".") + "."
    return "it said nothing."


def _remove(directory: Path) -> None:
    """Nothing works in the directory, and it is gone, and so is the one of its socket."""
    guard.end_processes_in(directory)
    with suppress(OSError, ValueError):
        other = Path(json.loads(_lock_file(directory).read_text(encoding="utf-8"))["socket"])
        if other != directory:
            shutil.rmtree(other, ignore_errors=True)
    shutil.rmtree(directory, ignore_errors=True)


def _lock_file(directory: Path) -> Path:
    return directory.with_name(f"{directory.name}.lock")


def _locked(path: Path, name: str, patience: float) -> int:
    give_up = time.monotonic() + patience
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        if _try_lock(descriptor) and path.exists() and path.stat().st_ino == os.fstat(descriptor).st_ino:
            return descriptor
        os.close(descriptor)
        if time.monotonic() > give_up:
            raise AlreadyRunning(
                f"A backup of plan {name} is being verified on this worker already: wait for it to end, or cancel it."
            )
        time.sleep(0.1)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
