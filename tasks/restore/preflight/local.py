"""What a restore needs of the machine that it runs on: psql, room on the disk, the key of an encrypted backup."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence

import pyrage

from tasks.backup.preflight import spool_problems
from tasks.errors import ToolMissing
from tasks.plans.plan import Plan
from tasks.postgres.tools import Tool, choose
from tasks.storage.age_filter import identity, recipient
from tasks.storage.manifest_model import StoredBackup

#: From which minor of each major on psql understands `\restrict`, and pg_dump writes it.
_RESTRICT = {13: 22, 14: 19, 15: 14, 16: 10, 17: 6, 18: 0}
#: From which minor on psql is safe from CVE-2026-18408; older majors never became so.
_SAFE = {14: 24, 15: 19, 16: 15, 17: 11, 18: 6}
_CVE = "CVE-2026-18408"


def chosen_psql(
    tools: Sequence[Tool], server_major: int, server_version: str, pg_dump_version: str
) -> tuple[Tool, list[str]]:
    """The psql to use and what to warn of: a safe one before others, then as `tools.choose` has it. Pure.

    Raises ToolMissing when none is new enough for the server, or for what this pg_dump wrote.
    """
    fitting = [tool for tool in tools if tool.major >= server_major]
    if needs_restrict(pg_dump_version):
        able = [tool for tool in fitting if _reaches(tool.version, _RESTRICT)]
        if fitting and not able:
            found = ", ".join(f"{tool.version_text} at {tool.path}" for tool in fitting)
            raise ToolMissing(
                f"The dump was written by pg_dump {pg_dump_version} and has \\restrict, which psql understands from "
                f"{_listed(_RESTRICT)} on; found: {found}. Install a newer postgresql-client."
            )
        fitting = able
    safe = [tool for tool in fitting if _reaches(tool.version, _SAFE)]
    tool = choose(safe or fitting or tools, server_major, server_version, "psql")
    if safe:
        return tool, []
    return tool, [f"psql {tool.version_text} at {tool.path} is open to {_CVE}: install {_listed(_SAFE)} or newer."]


def needs_restrict(pg_dump_version: str) -> bool:
    r"""Whether this pg_dump writes `\restrict`; one of an unknown version does. Pure."""
    found = re.match(r"(\d{1,4})(?:\.(\d{1,4}))?", pg_dump_version, re.ASCII)
    return found is None or _reaches((int(found[1]), int(found[2] or 0)), _RESTRICT)


def identity_problems(plan: Plan, backup: StoredBackup) -> list[str]:
    """Whether the plan has a key for an encrypted backup. Nothing of a secret is ever repeated."""
    if not backup.encrypted:
        return []
    advice = "put the secret key of one of them into the plan (AGE_IDENTITY)"
    recipients = ", ".join(one[:80] for one in backup.recipients)
    if not plan.identities:
        return [f"The backup is encrypted for {recipients}, and the plan has no key for it: {advice}."]
    try:
        sealed = pyrage.encrypt(b"", [recipient(one) for one in backup.recipients])
        pyrage.decrypt(sealed, [identity(one) for one in plan.identities])
    except ValueError as error:
        return [f"It cannot be told whether a key of the plan fits {recipients} ({error}): {advice}."]
    except pyrage.DecryptError:
        return [f"The backup is encrypted for {recipients}, and no key of the plan fits: {advice}."]
    return []


def spool_room(plan: Plan, backup: StoredBackup) -> list[str]:
    """Whether what is downloaded and not yet restored has room in the spool."""
    return spool_problems(plan.spool_directory, min(plan.spool_limit, backup.size))


def disk_problems(host: str, directory: str, needed: int) -> list[str]:
    """Whether `needed` bytes fit where the server keeps the database; nothing when that cannot be known from here."""
    if not directory.startswith("/") or not _is_here(host):
        return []
    try:
        free = shutil.disk_usage(directory).free
    except OSError:
        return []
    if free >= needed:
        return []
    return [
        f"The database had {-(-needed // (1 << 20)):,} MiB, and the server's disk at {directory} has "
        f"{free // (1 << 20):,} MiB free: make room, or restore to another server."
    ]


def _is_here(host: str) -> bool:
    return host.startswith(("/", "@", "127.")) or host in ("localhost", "::1")


def _reaches(version: Sequence[int], since: Mapping[int, int]) -> bool:
    major, minor = version[0], version[1] if len(version) > 1 else 0
    return major > max(since) or minor >= since.get(major, minor + 1)


def _listed(since: Mapping[int, int]) -> str:
    return ", ".join(f"{major}.{minor}" for major, minor in sorted(since.items(), reverse=True))
