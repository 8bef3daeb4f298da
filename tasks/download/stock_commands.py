"""The commands that download, check, decrypt, decompress and restore a backup file with stock programs alone. Pure.

docs/restore.md explains each command; a test runs them as they are.
"""

from __future__ import annotations

import shlex

from tasks.names import ENCRYPTED_SUFFIX
from tasks.storage.manifest_model import StoredBackup

#: Reads the link from the terminal: so it is neither in the shell's history nor in an argument list.
PASTE = "read -r LINK"


def fetch_commands(backup: StoredBackup) -> list[str]:
    """From the link in `LINK` to a checked file."""
    return [
        f'printf \'url = "%s"\\n\' "$LINK" | curl --fail --config - --output {backup.filename}',
        _check(backup.sha256, backup.filename),
    ]


def open_commands(backup: StoredBackup) -> list[str]:
    """From the file to checked SQL text, decrypted and decompressed as its suffixes say; none for plain text."""
    commands, name = [], backup.filename
    if name.endswith(ENCRYPTED_SUFFIX):
        opened = name.removesuffix(ENCRYPTED_SUFFIX)
        commands.append(f"age --decrypt --identity backup-key.txt --output {opened} {name}")
        name = opened
    if name.endswith(".zst"):
        commands.append(f"zstd --decompress --quiet --force {name} -o {plain_name(backup)}")
    elif name.endswith(".gz"):
        commands.append(f"gunzip --stdout {name} > {plain_name(backup)}")
    return [*commands, _check(backup.plain_sha256, plain_name(backup))] if commands else []


def restore_commands(backup: StoredBackup, database: str = "restored") -> list[str]:
    """From the SQL text to a new database."""
    options = {"encoding": backup.database.encoding}
    if backup.database.locale_provider == "libc":
        options |= {"lc-collate": backup.database.collate, "lc-ctype": backup.database.ctype}
    given = "".join(f" --{name}={shlex.quote(value)}" for name, value in options.items() if _fits_a_line(value))
    return [
        f"createdb --template=template0{given} {shlex.quote(database)}",
        f"psql -X -q -1 -v ON_ERROR_STOP=1 -d {shlex.quote(database)} -f {plain_name(backup)} > restore.log",
    ]


def plain_name(backup: StoredBackup) -> str:
    """The file name without the suffixes of compression and encryption."""
    return backup.filename.partition(".sql")[0] + ".sql"


def _check(sha256: str, filename: str) -> str:
    return f'echo "{sha256}  {filename}" | sha256sum --check --strict -'


def _fits_a_line(value: str) -> bool:
    return bool(value) and value.isprintable() and "`" not in value
