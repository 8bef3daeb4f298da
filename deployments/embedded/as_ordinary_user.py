"""PostgreSQL refuses to run as root: what to put before its programs so that they start all the same."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tasks.core.errors import BadSetting

#: Root outside, user 1000 inside a user namespace: files stay root's, and no privilege remains.
NAMESPACE = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
NOBODY = 65534
#: User nobody, who may still pass through root's folders: for containers that allow no user namespace.
NOBODY_WITH_ACCESS = (
    "setpriv",
    f"--reuid={NOBODY}",
    f"--regid={NOBODY}",
    "--clear-groups",
    "--inh-caps=+dac_override",
    "--ambient-caps=+dac_override",
)


def prefix_for(data: Path, user_id: int | None = None) -> tuple[str, ...]:
    """What comes before `initdb` and `postgres` for the data directory `data`: nothing for an ordinary user.

    A data directory that exists keeps the way in which it was made. Raises BadSetting when root has no way.
    """
    if (os.geteuid() if user_id is None else user_id) != 0:
        return ()
    ways = [NAMESPACE, NOBODY_WITH_ACCESS]
    if data.exists():
        ways = [NAMESPACE if data.stat().st_uid == 0 else NOBODY_WITH_ACCESS]
    for way in ways:
        if _works(way):
            return way
    raise BadSetting(
        "PostgreSQL does not run as root, and neither unshare nor setpriv can change the user here: "
        "start this as an ordinary user, or set DATABASE_URL to use a PostgreSQL server of your own."
    )


def _works(way: tuple[str, ...]) -> bool:
    try:
        tried = subprocess.run([*way, "true"], capture_output=True, stdin=subprocess.DEVNULL, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return tried.returncode == 0
