"""PostgreSQL refuses root, and users without a name: what to put before its programs so that they start."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

from tasks.errors import BadSetting

NOBODY = 65534
#: The caller outside, nobody inside a user namespace: files stay the caller's, and no privilege remains.
NAMESPACE = ("unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}")
#: User nobody, who may still pass through root's folders: for containers that allow no user namespace.
NOBODY_WITH_ACCESS = (
    "setpriv",
    f"--reuid={NOBODY}",
    f"--regid={NOBODY}",
    "--clear-groups",
    "--inh-caps=+dac_override",
    "--ambient-caps=+dac_override",
)
#: User nobody and no privilege: only where that user may pass through the folders.
NOBODY_ALONE = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all")


def prefix_for(data: Path, user_id: int | None = None) -> tuple[str, ...]:
    """What comes before `initdb` and `postgres` for the data directory `data`: nothing for an ordinary user.

    A data directory that exists keeps the way in which it was made. Raises BadSetting when there is no way.
    """
    user = os.geteuid() if user_id is None else user_id
    if user != 0 and _has_a_name(user):
        return ()
    ways: list[tuple[str, ...]] = [NAMESPACE, NOBODY_WITH_ACCESS] if user == 0 else [NAMESPACE]
    if data.exists():
        ways = [NAMESPACE if data.stat().st_uid == user else NOBODY_WITH_ACCESS]
    for way in ways:
        if _works(way):
            return way
    raise BadSetting(
        "PostgreSQL runs neither as root nor as a user without a name, and neither unshare nor setpriv can change "
        "the user here: start this as an ordinary user, or set DATABASE_URL to use a server of your own."
    )


def prefix_for_throw_away(directory: Path, program: Path, user_id: int | None = None) -> tuple[str, ...]:
    """The same for a server that is thrown away: as nobody without any privilege, where that can be.

    Then `directory` belongs to nobody from now on. Whoever gets the rights of that server has fewer than the caller.
    """
    user = os.geteuid() if user_id is None else user_id
    if user == 0 and _works(NOBODY_ALONE):
        os.chown(directory, NOBODY, NOBODY)
        tried = (("test", "-w", str(directory)), (str(program), "--version"))
        if all(_works(NOBODY_ALONE, *words) for words in tried):
            return NOBODY_ALONE
        os.chown(directory, user, -1)
    return prefix_for(directory / "data", user)


def _has_a_name(user_id: int) -> bool:
    try:
        pwd.getpwuid(user_id)
    except KeyError:
        return False
    return True


def _works(way: tuple[str, ...], *words: str) -> bool:
    try:
        tried = subprocess.run([*way, *(words or ("true",))], capture_output=True, stdin=subprocess.DEVNULL, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return tried.returncode == 0
