"""What is offered to a person who wants a stored backup: a link, and the commands that check and restore the file.

The link downloads the file until it expires. It needs no key, so the link is a secret. The commands use stock programs
alone; docs/restore.md explains each, and a test runs them as they are.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from urllib.parse import parse_qs, urlsplit

from tasks.errors import BackupDamaged, BackupNotFound, BadSetting
from tasks.names import ADOPTED, ENCRYPTED_SUFFIX
from tasks.plans.plan import Plan
from tasks.storage.backup_values import StoredBackup
from tasks.stored_backups.find_backup import chosen_backup

#: What signature version 4 allows: seven days.
MOST_MINUTES = 7 * 24 * 60
_RESTORE_ADVICE = "restore another backup, or this one from a replica"
#: Reads the link from the terminal: so it is neither in the shell's history nor in an argument list.
PASTE = "read -r LINK"


@dataclass(frozen=True)
class Link:
    """`url` is never logged, shown or returned; only its artifact holds it."""

    url: str = field(repr=False)
    expires_at: datetime
    temporary: bool
    """Signed with temporary credentials: the link expires with them, which may be earlier."""

    @property
    def host(self) -> str:
        """Host and port that the downloading machine must reach."""
        return urlsplit(self.url).netloc


def checked_minutes(minutes: int) -> int:
    """`minutes` unchanged. Raises BadSetting when a link cannot be valid for that time."""
    if not 1 <= minutes <= MOST_MINUTES:
        raise BadSetting(
            f"A link cannot be valid for {minutes} minutes: set expires_minutes to 1 to {MOST_MINUTES} (seven days)."
        )
    return minutes


def stored_backup(plan: Plan, wanted: str) -> StoredBackup:
    """The backup that `wanted` names, chosen as by a restore, in the plan's own bucket.

    It has the recorded size and the recorded manifest. When the catalogue is lost, the bucket is enough. Raises as
    `chosen_backup`.
    """
    try:
        return chosen_backup(replace(plan, replicas=()), wanted)
    except (BackupNotFound, BackupDamaged) as error:
        instead = "choose another backup" + (", or restore this one from a replica" if plan.replicas else "")
        raise type(error)(str(error).replace(_RESTORE_ADVICE, instead)) from None


def link_to(plan: Plan, backup: StoredBackup, minutes: int, now: datetime) -> Link:
    """A link to a backup in the plan's own bucket, valid for `minutes` from `now` on."""
    url = plan.storage.presigned(backup.key, checked_minutes(minutes) * 60, backup.filename)
    temporary = "X-Amz-Security-Token" in parse_qs(urlsplit(url).query)
    return Link(url, now + timedelta(minutes=minutes), temporary)


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
    if backup.database.locale_provider == "libc" and backup.backup_type != ADOPTED:
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
