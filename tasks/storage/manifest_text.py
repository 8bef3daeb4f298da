"""Writes and reads a manifest: whatever bytes come in, a checked manifest or an error of one sentence comes out."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NoReturn

from pydantic import ValidationError

from tasks.errors import BackupDamaged, BackupSystemError, BadSetting
from tasks.names import MANIFEST_SUFFIX
from tasks.storage.backup_stages import BackupRun, Dump, StoredObject
from tasks.storage.manifest_file import FORMAT, MANIFEST, Disagreement, Manifest, PlainText, Section, StoredFile, Tool
from tasks.storage.signatures import Keys

#: The end of a sentence about a backup that cannot be restored from one bucket.
ADVICE = "restore another backup, or this one from a replica"
_SIGNATURE = re.compile(rb'(?<=\n "signature": ")([A-Za-z0-9+/]{86}==)(?="\n}\n\Z)')
_CHECKSUM = re.compile(rb'(?<="checksum": ")([0-9a-f]{64})(?=")')
_LARGEST_FORMAT = 1_000  # a larger number is damage
_WHY = {"missing": "is missing", "unexpected_keyword_argument": "is unknown"}


def build_manifest(
    run: BackupRun, dump: Dump, stored: StoredObject, bucket: str, recorded_at: datetime, suspicious: str = ""
) -> Manifest:
    """The manifest of a backup; `to_bytes` computes its checksum. Pure."""
    return Manifest(
        format=FORMAT,
        checksum="",
        plan=run.plan,
        run_id=run.run_id,
        backup_id=run.backup_id,
        filename=run.filename,
        backup_type=run.backup_type,
        created_by=run.created_by,
        started_at=run.started_at,
        dump_started_at=dump.started_at,
        dump_finished_at=dump.finished_at,
        upload_finished_at=stored.finished_at,
        recorded_at=recorded_at,
        suspicious=suspicious,
        tool=Tool("pg_dump", run.pg_dump_version),
        object=StoredFile(bucket, stored.key, dump.stored_size, dump.stored_sha256, dump.parts[0].size, dump.parts),
        plain=PlainText(dump.plain_size, dump.plain_sha256),
        codec=run.codec,
        encrypted=run.encrypted,
        recipients=run.recipients,
        sections=(Section("all", 0, dump.plain_size),),
        tables=dump.tables,
        rows=dump.rows,
        table_count=dump.table_count,
        large_objects=dump.source.large_objects,
        partitions=dump.source.partitions,
        excluded_tables=run.excluded_tables,
        database=dump.source.database,
        extensions=dump.source.extensions,
        roles=dump.source.roles,
        conditions=dump.source.conditions,
        left_out=run.left_out,
        globals=dump.source.globals,
    )


def to_bytes(manifest: Manifest, keys: Keys | None = None) -> bytes:
    """The file's content, with its checksum, signed with the keys: UTF-8, fields in the order of the class."""
    fields = {**MANIFEST.dump_python(manifest, mode="json"), "checksum": "", "signature": ""}
    if not manifest.left_out:
        del fields["left_out"]  # what programs read that do not know it
    if not manifest.globals:
        del fields["globals"]
    if keys and keys.signing:
        fields["signature"] = keys.signature(_text(fields))
    else:
        del fields["signature"]
    return with_checksum(fields)


def with_checksum(fields: dict[str, Any]) -> bytes:
    """The content of a manifest with these fields and the checksum that fits them."""
    checksum = hashlib.sha256(_text({**fields, "checksum": ""})).hexdigest()
    return _text({**fields, "checksum": checksum})


def is_signed(content: bytes, keys: Keys) -> bool:
    """Whether a trusted key has signed the content of a manifest, which may be anything."""
    signature = _SIGNATURE.search(content)
    if signature is None:
        return False
    signed = _SIGNATURE.sub(b"", _CHECKSUM.sub(b"", content))
    return keys.have_signed(signed, base64.b64decode(signature[1]))


def _text(fields: dict[str, Any]) -> bytes:
    return (json.dumps(fields, ensure_ascii=False, indent=1) + "\n").encode()


def read_manifest(content: bytes, key: str) -> Manifest:
    """The manifest in `content`, the file `key` of a bucket.

    Raises BackupDamaged, which names file and field, when the file was changed or no backup can be as it says;
    BadSetting when its format is newer than this program.
    """
    written = _CHECKSUM.search(content)
    if written and written[1].decode() != checksum(content):
        raise _damaged(key, "the field checksum does not match the rest of the file, which was changed")
    _check_json(content, key)
    try:
        manifest = MANIFEST.validate_json(content)
    except ValidationError as error:
        raise _damaged(key, _reason(error.errors(include_url=False, include_input=False)[0])) from None
    if not written:
        raise _damaged(key, "the field checksum is not where it is expected")
    if key.rpartition("/")[2] != manifest.filename + MANIFEST_SUFFIX:
        raise _damaged(key, f"the field filename is {manifest.filename}: the file is the manifest of another backup")
    return manifest


def checksum(content: bytes) -> str:
    """SHA-256 over a manifest whose checksum is left empty; every format keeps this rule."""
    return hashlib.sha256(_CHECKSUM.sub(b"", content)).hexdigest()


def without_advice(error: BackupSystemError) -> str:
    """The message of an error, without `ADVICE`. Pure."""
    return str(error).removesuffix(f": {ADVICE}.").removesuffix(".") + "."


def _check_json(content: bytes, key: str) -> None:
    """Refuses what pydantic's parser accepts: a field twice, and formats that this program does not know."""
    try:
        fields = json.loads(content.decode(), object_pairs_hook=_fields, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise _damaged(key, f"its content is no JSON from line {error.lineno} on") from None
    except UnicodeDecodeError as error:
        raise _damaged(key, f"its content is no UTF-8 from byte {error.start} on") from None
    except (ValueError, RecursionError):  # a field twice, NaN, a number of thousands of digits, deep nesting
        raise _damaged(key, "its content is no JSON that a manifest can have") from None
    version = fields.get("format") if isinstance(fields, dict) else None
    if type(version) is int and FORMAT < version <= _LARGEST_FORMAT:
        raise BadSetting(f"{key} has format {version}, and this program reads format {FORMAT}: update the program.")


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a field twice")
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _reason(error: Mapping[str, Any]) -> str:
    """What pydantic refused, without any value of the file. Pure."""
    path = _path(error)
    if error["type"] == "json_invalid":
        return f"its content is no JSON that a manifest can have ({error['ctx']['error']})"
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, Disagreement):
        path += "." * bool(path and cause.field) + cause.field
        why = cause.why
    else:
        why = _WHY.get(error["type"]) or f"is not valid ({error['msg'][:1].lower()}{error['msg'][1:]})"
    return f"the field {path} {why}" if path else f"its content {why}"


def _path(error: Mapping[str, Any]) -> str:
    """The field as `object.parts[3].size`; a name that no manifest has is quoted and cut."""
    *steps, last = error["loc"] or ("",)
    if error["type"] == "unexpected_keyword_argument":
        last = repr(str(last)[:60])
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in (*steps, last)).lstrip(".")


def _damaged(key: str, reason: str) -> BackupDamaged:
    return BackupDamaged(f"{key} is damaged: {reason}: {ADVICE}.")
