"""The machine that makes backups: its client programs, free space for the spool, and its clock."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from tasks.backup.preflight import spool_problems
from tasks.errors import ToolMissing
from tasks.health.lines import Line, span
from tasks.plans.plan import Plan
from tasks.postgres import tools
from tasks.postgres.tools import Tool, chosen_psql, needs_restrict
from tasks.runs.at_once import Answer
from tasks.runs.markdown import human_bytes
from tasks.storage.s3_client import SMALLEST_PART
from tasks.storage.signatures import Keys, public_line

MOST_APART = timedelta(minutes=5)
PG_DUMP, PSQL = "pg_dump", "psql"
_ADVICE = "Until then a dump that was manipulated at its source can run commands during a restore."


def spool_line(plan: Plan, expected_size: int | None) -> Line:
    """Whether the spool has room for a backup of about `expected_size` bytes; None: of the largest allowed size."""
    needed = plan.spool_limit if expected_size is None else min(plan.spool_limit, expected_size + SMALLEST_PART)
    problems = spool_problems(plan.spool_directory, needed)
    if problems and expected_size is None:
        return Line(
            "Spool",
            "warning",
            " ".join(problems),
            "This is what the largest backup needs; the size of this database is not known.",
        )
    if problems:
        return Line("Spool", "failed", " ".join(problems), "Until then every backup is refused.")
    try:
        free = human_bytes(shutil.disk_usage(plan.spool_directory).free)
    except OSError as error:
        return Line("Spool", "failed", f"The disk of {plan.spool_directory} cannot be looked at ({error.strerror}).")
    return Line("Spool", "ok", f"{plan.spool_directory} has {free} free; a backup needs {human_bytes(needed)}.")


def clock_line(ahead: Mapping[str, timedelta]) -> Line:
    """Whether the clocks of servers, given how far each is ahead of ours, are right enough. Pure."""
    apart = {server: by for server, by in ahead.items() if abs(by) > MOST_APART}
    if apart:
        clocks = ", ".join(
            f"{server} is {span(abs(by))} {'ahead' if by > timedelta() else 'behind'}" for server, by in apart.items()
        )
        return Line(
            "Clocks",
            "warning",
            f"Compared with the clock of this machine, that of {clocks}.",
            "Set the clocks (NTP): stores refuse requests that are 15 minutes off, and the catalogue's times come "
            "from these clocks.",
        )
    if not ahead:
        return Line(
            "Clocks",
            "warning",
            "The time is not known: neither the database nor the store answered.",
            "Solve what keeps them from answering.",
        )
    return Line("Clocks", "ok", f"This machine and {' and '.join(ahead)} agree.")


def signature_lines(keys: Keys) -> list[Line]:
    """Which key signs the plan's manifests; nothing where no signature is asked for. Pure."""
    shown = ", ".join(map(public_line, keys.trusted))
    if not keys.are_asked_for:
        return []
    if not keys.signing:
        return [Line("Signatures", "ok", f"Those of these keys count; no new backup of this plan is signed: {shown}.")]
    return [Line("Signatures", "ok", f"New backups are signed. The public key, then others that count: {shown}.")]


@dataclass(frozen=True)
class AtHand:
    """Every pg_dump and every psql that runs, in the order in which they are looked for."""

    pg_dump: tuple[Tool, ...]
    psql: tuple[Tool, ...]


def at_hand(directory: str) -> AtHand:
    """What is installed; `directory` is looked in first."""
    return AtHand(tuple(tools.installed(PG_DUMP, directory)), tuple(tools.installed(PSQL, directory)))


def tool_lines(answer: Answer[AtHand], server: tuple[int, str] | None) -> list[Line]:
    """A line for each program; `server` is its major and its whole version, None when not known. Pure."""
    tools_here = answer.value
    if tools_here is None:
        return [Line("Client programs", "failed", answer.problem, "Call pg_dump --version to see why.")]
    if server is None:
        return [_unjudged(PG_DUMP, tools_here.pg_dump), _unjudged(PSQL, tools_here.psql)]
    major, version = server
    try:
        dumper = tools.choose(tools_here.pg_dump, major, version)
    except ToolMissing as missing:
        dump_line, written_by = Line(PG_DUMP, "failed", str(missing)), version.split(" ")[0]
    else:
        written_by = dumper.version_text
        dump_line = Line(PG_DUMP, "ok", f"{_place(dumper)} fits PostgreSQL {version}.")
    return [dump_line, _psql_line(tools_here.psql, major, version, written_by)]


def _psql_line(installed: tuple[Tool, ...], major: int, version: str, written_by: str) -> Line:
    try:
        psql, warnings = chosen_psql(installed, major, version, written_by)
    except ToolMissing as missing:
        return Line(PSQL, "failed", str(missing), "Backups go on; restores do not.")
    # What writes and understands \restrict is what closed the earlier hole.
    if not needs_restrict(psql.version_text):
        warnings = [f"psql {psql.version_text} is open to CVE-2025-8714.", *warnings]
    if warnings:
        return Line(PSQL, "warning", " ".join(warnings), _ADVICE)
    return Line(PSQL, "ok", f"{_place(psql)} fits PostgreSQL {version} and has none of the known holes.")


def _unjudged(program: str, installed: tuple[Tool, ...]) -> Line:
    if not installed:
        return Line(
            program,
            "failed",
            f"There is no {program} on this machine.",
            "Install postgresql-client, or name its directory in the plan.",
        )
    versions = ", ".join(dict.fromkeys(tool.version_text for tool in installed))
    return Line(
        program,
        "warning",
        f"Installed: {versions}. Whether any of them fits is not known: the database server did not tell its version.",
        "Solve that first.",
    )


def _place(tool: Tool) -> str:
    return f"{tool.version_text} at {tool.path}"
