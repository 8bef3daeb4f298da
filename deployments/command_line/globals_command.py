"""`backups globals`: the SQL for roles and all else that belongs to the server of a backup. A call imports Prefect."""

from __future__ import annotations

import logging
import sys

from tasks.errors import BackupNotFound


def server_globals(backup: str = "latest", /, *, plan: str = "default") -> int:
    """Print the SQL that makes roles, memberships, their settings and tablespaces again on an empty server.

    It is made of the backup's manifest, and holds no passwords. Roles that exist are changed to what they were.

    Args:
        backup: The backup: latest, a file name or an id.
        plan: The backup plan.
    """
    from tasks.plans.find_plan import plan_named
    from tasks.runs.command_line import some_server
    from tasks.storage.globals_sql import statements
    from tasks.stored_backups.find_backup import chosen_backup

    with some_server(logging.WARNING):
        stored = chosen_backup(plan_named(plan.strip()), backup)
    if stored.globals is None:
        raise BackupNotFound(f"{stored.filename} was made by a release that did not keep roles: choose a newer backup.")
    sys.stdout.write(f"-- Roles and tablespaces of the server of {stored.filename}, without passwords, for psql\n")
    sys.stdout.writelines(f"{statement}\n" for statement in statements(stored.globals))
    sys.stderr.writelines(f"{sentence}\n" for sentence in (*stored.warnings, *stored.globals.missing))
    return 0
