"""Which client program to use: of the server's major version, else of the next newer one, never of an older one."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import ToolMissing

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
    found = ", ".join(f"{tool.version_text} at {tool.path}" for tool in tools) or "none"
    raise ToolMissing(
        f"The server is PostgreSQL {server_version} and needs {program} {server_major} or newer; found: {found}. "
        f"Install postgresql-client-{server_major} (Debian, Ubuntu), postgresql{server_major} (Red Hat) or "
        f"postgresql@{server_major} (Homebrew), or name its directory in the plan."
    )


def installed(program: str, configured_directory: str = "") -> list[Tool]:
    """Every `program` that runs: in the configured directory, on PATH, in the usual directories; in that order.

    Debian's `pg_wrapper` is left out, since it chooses a version by its own rules.
    """
    places = [*filter(None, [configured_directory]), *_path(), *_expand(USUAL_PLACES)]
    tools: dict[Path, Tool] = {}
    for path in filter(_is_program, (Path(place) / program for place in places)):
        real = path.resolve()
        if real not in tools and real.name != "pg_wrapper" and (version := _version_of(str(path))):
            tools[real] = Tool(str(path), version)
    return list(tools.values())


def parse_version(text: str) -> tuple[int, ...]:
    """(15, 18) from `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`; empty when there is none."""
    found = re.search(r"\(PostgreSQL\) (\d+(?:\.\d+)*)", text)
    return tuple(map(int, found[1].split("."))) if found else ()


def _is_program(path: Path) -> bool:
    try:
        return path.is_file() and os.access(path, os.X_OK)
    except OSError:  # in a directory that this user may not read
        return False


def _version_of(path: str) -> tuple[int, ...]:
    try:
        run = subprocess.run(
            [path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return parse_version(run.stdout.decode(errors="replace"))


def _path() -> list[str]:
    return [place for place in os.environ.get("PATH", os.defpath).split(os.pathsep) if place]


def _expand(patterns: Iterable[str]) -> list[str]:
    return [str(place) for pattern in patterns for place in sorted(Path("/").glob(pattern[1:]), reverse=True)]
