"""Names of plans, files and keys. Pure.

backup_2026-03-01_02-00-00_9f2c41ab.sql            sorts by time
database-backups/shop/backup_2026-03-01_….sql      <folder>/<plan>/<file name>
server.shop, server.~53hop                         one of the databases of the plan `server`: shop, Shop
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta

from tasks.errors import BadSetting

#: The tag of every deployment, and so of every run.
TAG = "database-backup"
#: The type of a backup that counts for retention.
FULL = "full"
#: The type of a backup that was made of a dump which this system did not make.
ADOPTED = "adopted"
#: What the audit calls that.
ADOPTION = "adopt-backup"

MANIFEST_SUFFIX = ".manifest.json"
#: The object that the health check writes and deletes, always the same: what one check leaves, the next deletes.
PROBE = ".health-check"
#: What the codec and the encryption of a plan add to `.sql`.
CODEC_SUFFIXES = {"none": "", "zstd": ".zst", "gzip": ".gz"}
ENCRYPTED_SUFFIX = ".age"

#: Regular expressions that match a whole name.
BLOCK_NAME = r"[a-z0-9]+(-[a-z0-9]+)*"
PLAN_NAME = rf"{BLOCK_NAME}(\.([a-z0-9_-]|~[0-9a-f]{{2}})+)?"
#: The most characters of a plan's name: those of its block, a dot, and each byte of a database's name as `~xx`.
LONGEST_PLAN = 63 + 1 + 3 * 63
BACKUP_FILENAME = (
    r"backup_([0-9]{4}-[0-9]{2}-[0-9]{2}_[0-9]{2}-[0-9]{2}-[0-9]{2})_[0-9a-f]{8}\.sql(\.zst|\.gz)?(\.age)?"
)
#: So that the keys of all plans and manifests stay below the 1,024 bytes that S3 allows.
_LONGEST_FOLDER = 800  # bytes
_LONGEST_PREFIX = 950  # bytes
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_-")
_CLOCKS_DIFFER = timedelta(minutes=10)


def checked_plan_name(plan: str) -> str:
    """`plan` unchanged. Raises BadSetting when it cannot be the name of a Prefect block document."""
    if not re.fullmatch(BLOCK_NAME, plan) or len(plan) > 63:
        raise BadSetting(
            f"{plan!r} cannot be the name of a plan: use lower-case letters, digits and single dashes, at most 63."
        )
    return plan


def database_plan(plan: str, database: str) -> str:
    """The name under which `plan` backs up one of the databases of its server: `server.shop`.

    A byte that is no small letter, digit, underscore or dash is written as `~` and two hexadecimal digits, so that no
    two databases have names that differ in their case alone.
    """
    name = database.encode(errors="surrogateescape")
    return f"{plan}.{''.join(chr(byte) if byte in _PLAIN else f'~{byte:02x}' for byte in name)}"


def shown(database: str) -> str:
    """The name of a database for a message: bytes that are no UTF-8 as `\\xe9`."""
    return database.encode(errors="surrogateescape").decode(errors="backslashreplace")


def base_of(plan: str) -> str:
    """The plan whose block describes `plan`: that of `server.shop` is `server`, every other is its own."""
    return plan.partition(".")[0]


def parted(plan: str) -> tuple[str, str]:
    """The block's name and the database in the name of a plan; the database is empty where the name has none.

    Raises BadSetting when it cannot be the name of a plan.
    """
    base, dot, written = plan.partition(".")
    checked_plan_name(base if dot else plan)
    if not dot:
        return plan, ""
    pieces = re.split("~([0-9a-f]{2})", written)
    database = b"".join(bytes.fromhex(it) if odd % 2 else it.encode() for odd, it in enumerate(pieces))
    name = database.decode(errors="surrogateescape")
    if not 0 < len(database) <= 63 or b"\0" in database or database_plan(base, name) != plan:
        raise BadSetting(
            f"{plan!r} cannot be the name of a plan: after the dot comes the name of a database, each byte that is no "
            f"small letter, digit, _ or - as ~ and two hexadecimal digits, such as {database_plan(base, 'Shop')}."
        )
    return base, name


def checked_prefix(folder: str, plan: str) -> str:
    """The prefix of all keys of a plan. Raises BadSetting when S3 would refuse the keys below it."""
    prefix = plan_prefix(folder, plan)
    if len(prefix.encode()) > _LONGEST_PREFIX:
        raise BadSetting(f"The folder and the name of plan {plan} are too long for S3: shorten the folder.")
    return prefix


def artifact_key(text: str) -> str:
    """`text` as the key of an artifact, which has small letters, digits and dashes alone; other texts, other keys."""
    if re.fullmatch("[a-z0-9-]+", text):
        return text
    return f"{re.sub('[^a-z0-9-]+', '-', text)}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def checked_folder(folder: str) -> str:
    """`folder` without slashes around it. Raises BadSetting when a store would change or refuse its keys."""
    folder = folder.strip("/")
    segments = folder.split("/") if folder else []
    if (
        any(segment in ("", ".", "..") for segment in segments)
        or not folder.isprintable()
        or len(folder.encode()) > _LONGEST_FOLDER
    ):
        raise BadSetting(
            f"{folder[:100]!r} cannot be the folder of the backups (S3_FOLDER): use names separated by single slashes, "
            f"none of them . or .., without control characters, at most {_LONGEST_FOLDER} bytes in all."
        )
    return folder


def backup_filename(plan: str, run_id: str, started_at: datetime, codec: str = "none", encrypted: bool = False) -> str:
    """The file name of a backup, known before the dump starts.

    Its eight hex digits come from plan, run id and time, so two backups of the same second have different names.
    """
    moment = started_at.astimezone(UTC)
    digest = hashlib.sha256("\0".join((plan, run_id, moment.isoformat())).encode()).hexdigest()[:8]
    suffix = CODEC_SUFFIXES[codec] + (ENCRYPTED_SUFFIX if encrypted else "")
    return f"backup_{moment:%Y-%m-%d_%H-%M-%S}_{digest}.sql{suffix}"


def is_backup_filename(name: str) -> bool:
    """Whether `name` has the form of `backup_filename`."""
    return re.fullmatch(BACKUP_FILENAME, name) is not None


def started_at(name: str) -> datetime | None:
    """When the run of the backup `name` began, to the second; None when `name` is no backup's, or holds no time."""
    match = re.fullmatch(BACKUP_FILENAME, name)
    try:
        return datetime.strptime(match[1], "%Y-%m-%d_%H-%M-%S").replace(tzinfo=UTC) if match else None
    except ValueError:
        return None


def is_in_future(at: datetime | None) -> bool:
    """Whether a backup that began at that time cannot be true; the clocks of two machines may differ by minutes."""
    return at is not None and at > datetime.now(UTC) + _CLOCKS_DIFFER


def plan_prefix(folder: str, plan: str) -> str:
    """The prefix of all keys of one plan; ends in a slash, so `app` never covers `app_prod`."""
    return f"{folder.strip('/')}/{plan}/".lstrip("/")


def object_key(folder: str, plan: str, filename: str) -> str:
    """`<folder>/<plan>/<file name>`."""
    return plan_prefix(folder, plan) + filename


def manifest_key(key: str) -> str:
    """The key of the manifest of the object `key`."""
    return key + MANIFEST_SUFFIX
