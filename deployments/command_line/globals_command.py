"""`backups globals`: the SQL for roles and all else that belongs to the server of a backup. A call imports Prefect."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter

from tasks.errors import BackupDamaged, BackupNotFound, BadSetting


def server_globals(
    backup: str = "latest",
    /,
    *,
    plan: str = "default",
    passwords: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
) -> int:
    """Print the SQL that makes roles, memberships, their settings and tablespaces again on an empty server.

    It is made of the backup's manifest. Roles that exist are changed to what they were.

    Args:
        backup: The backup: latest, a file name or an id.
        plan: The backup plan.
        passwords: Print what sets the passwords too, a secret: of an encrypted backup, with the plan's age identity.
    """
    from tasks.plans.find_plan import plan_named
    from tasks.runs.command_line import some_server
    from tasks.storage.globals_sql import statements
    from tasks.stored_backups.find_backup import chosen_backup

    with some_server(logging.WARNING):
        chosen = plan_named(plan.strip())
        stored = chosen_backup(chosen, backup)
    if stored.globals is None:
        raise BackupNotFound(
            f"{stored.filename} holds no roles: it is an adopted dump, or of an earlier release. Choose another."
        )
    secret = opened_passwords(stored.filename, stored.globals.passwords, chosen.identities) if passwords else ""
    sys.stdout.write(f"-- Roles and tablespaces of the server of {stored.filename}, for psql\n")
    sys.stdout.writelines(f"{statement}\n" for statement in statements(stored.globals))
    sys.stdout.write(secret)
    sys.stderr.writelines(f"{sentence}\n" for sentence in (*stored.warnings, *stored.globals.missing))
    return 0


def opened_passwords(filename: str, sealed: str, identities: Sequence[str]) -> str:
    """The statements that set the passwords, and can do nothing else."""
    from tasks.storage.encoders import decrypted
    from tasks.storage.globals_sql import sets_passwords_alone

    if not sealed:
        raise BackupNotFound(
            f"{filename} holds no passwords of roles: it is not encrypted, or its plan's role may not read them. Leave "
            "--passwords out."
        )
    if not identities:
        raise BadSetting("The passwords are encrypted: give the plan an age identity (AGE_IDENTITY).")
    with decrypted(io.BytesIO(sealed.encode()), identities) as text:
        told = text.read().decode(errors="replace")
    if not sets_passwords_alone(told):
        raise BackupDamaged(f"The passwords of {filename} are not what a backup writes: leave --passwords out.")
    return told
