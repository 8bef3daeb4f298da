"""What can be known without asking the server: parameters that do not go together, keys, room on the disk."""

from __future__ import annotations

import shutil
from typing import get_args

import pyrage

from tasks.backup.preflight import spool_problems
from tasks.plans.plan import Plan
from tasks.restore.values import Mode, RestoreRequest
from tasks.storage.age_filter import identity, recipient
from tasks.storage.attention import left_out_in_words
from tasks.storage.backup_values import StoredBackup

MODES: tuple[str, ...] = get_args(Mode)
_LONGEST_NAME = 63  # bytes


def outcome(request: RestoreRequest, own_database: str) -> str:
    """The name of the database that the restore creates or replaces; `own_database` is the plan's."""
    return request.target if request.target or request.mode == "new_database" else own_database


def name_problems(name: str) -> list[str]:
    """Why PostgreSQL could have no database of this name."""
    advice = "give the name of a database in target"
    if not name:
        return [f"The new database needs a name: {advice}."]
    if "\0" in name or any("\ud800" <= character <= "\udfff" for character in name):
        return [f"The name {name[:80]!r} has a character that no database's name can have: {advice}."]
    if len(name.encode()) > _LONGEST_NAME:
        return [f"The name {name[:80]!r}… is longer than {_LONGEST_NAME} bytes: {advice}."]
    return []


def request_problems(request: RestoreRequest, database: str, own_database: str) -> list[str]:
    """Parameters that do not go together; `database` is the outcome, `own_database` the plan's."""
    if request.mode not in MODES:
        return [f"There is no mode {str(request.mode)[:80]!r}: use {', '.join(MODES)}."]
    problems = []
    if request.analyze not in ("before", "after"):
        problems.append(f"analyze cannot be {str(request.analyze)[:80]!r}: use before or after.")
    if request.mode == "swap" and request.tables:
        problems.append(
            "The mode swap replaces the whole database, so it takes no tables: use in_place, or new_database."
        )
    if request.schemas and (request.mode != "new_database" or request.tables):
        problems.append(
            "schemas are restored alone into a new database: use the mode new_database, without tables; then copy what "
            "you need."
        )
    if request.mode == "in_place" and database != own_database:
        problems.append(
            f"in_place replaces what is in the plan's own database, {own_database}, of which it makes a "
            f"safety backup first: leave target empty, or restore {database} with the mode swap."
        )
    if request.mode == "in_place" and request.confirm != database:
        problems.append(
            f"in_place removes what is in the database now: to confirm, write its name, {database}, into confirm."
        )
    return problems


def confirmation_problems(request: RestoreRequest, backup: StoredBackup, database: str) -> list[str]:
    """Whether somebody has to confirm what the live database would lose, because the backup is without it."""
    if not backup.left_out or request.confirm == database:
        return []
    return [
        f"The backup was made {left_out_in_words(backup.left_out)}, which {database} would no longer have: to confirm "
        f"that, write its name, {database}, into confirm; or restore with the mode new_database."
    ]


def into_problems(request: RestoreRequest, database: str, plan: Plan, *, is_plan: bool) -> list[str]:
    """The same of a restore into another server; `is_plan` says that a plan looks after it."""
    problems = []
    if request.owners not in ("as_backed_up", "target"):
        problems.append(f"owners cannot be {str(request.owners)[:80]!r}: use as_backed_up or target.")
    if (request.mode == "in_place" or request.tables) and (request.owners == "target" or not request.privileges):
        problems.append(
            "owners=target and privileges=false are for a whole backup with the mode swap or new_database: leave them "
            "out for in_place and for tables."
        )
    if not request.into:
        return problems
    if not is_plan and request.mode != "new_database":
        problems.append(
            f"{request.into} is a PostgreSQL Database block, and nobody would undo or clean up there: use the mode "
            "new_database, or make a plan for that server and name it in into."
        )
    if request.mode == "in_place" and plan.after_restore:
        problems.append(
            f"after_restore of plan {request.into} cannot run before others see a database that is filled in place: "
            "use the mode swap or new_database."
        )
    if request.mode == "swap" and request.confirm != database:
        problems.append(
            f"Database {database} of {request.into} ({plan.database.host}:{plan.database.port}) would be replaced by "
            f"another plan's: to confirm, write its name, {database}, into confirm."
        )
    return problems


def identity_problems(plan: Plan, backup: StoredBackup) -> list[str]:
    """Whether the plan has a key for an encrypted backup. Nothing of a secret is ever repeated."""
    if not backup.encrypted:
        return []
    advice = "put the secret key of one of them into the plan (AGE_IDENTITY)"
    recipients = ", ".join(key[:80] for key in backup.recipients)
    if not plan.identities:
        return [f"The backup is encrypted for {recipients}, and the plan has no key for it: {advice}."]
    try:
        sealed = pyrage.encrypt(b"", [recipient(key) for key in backup.recipients])
        pyrage.decrypt(sealed, [identity(key) for key in plan.identities])
    except ValueError as error:
        return [f"Whether a key of the plan fits {recipients} is unknown ({error}): {advice}."]
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
