"""Files that only their owner may read: folders of mode 700, secrets of mode 600."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from tasks.errors import BadSetting

GIBIBYTE = 1 << 30


def private_directory(path: Path) -> Path:
    """`path`, made with mode 700 when it was missing; an existing one keeps what it holds.

    Raises BadSetting when it cannot be made or written.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
    except OSError as error:
        raise BadSetting(f"{path} cannot be used ({error.strerror}): make it writable for this user.") from error
    return path


def write_private(path: Path, text: str) -> None:
    """`path` holds `text` with mode 600: written aside, then moved, so that no reader sees half of it."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    aside.replace(path)


def remembered_secret(path: Path) -> str:
    """The secret kept in `path`: 32 URL-safe characters, drawn on the first call and the same ever after."""
    if not path.exists():
        write_private(path, secrets.token_urlsafe(24))
    return path.read_text(encoding="utf-8")


def require_free_disk(directory: Path, wanted: int = GIBIBYTE) -> None:
    """Raises BadSetting when the disk of `directory` has fewer than `wanted` bytes left."""
    free = shutil.disk_usage(directory).free
    if free < wanted:
        raise BadSetting(
            f"The disk of {directory} has {free / GIBIBYTE:.1f} GiB left and "
            f"{wanted / GIBIBYTE:.1f} GiB are needed: free some space, then try again."
        )
