"""Backups that somebody else wrote: any text, with a manifest that fits it."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from tasks.storage.backup_stages import Backup
from tests.support.scene import Scene

_PAIR = re.compile(rb"\\(?:un)?restrict [A-Za-z0-9]+\n\n?")
_END = b"--\n-- PostgreSQL database dump complete\n"


def with_entry(text: bytes, attack: bytes) -> bytes:
    """The dump without pg_dump's own `\\restrict`, and with an entry more at its end."""
    entry = b"--\n-- Name: t; Type: COMMENT; Schema: public; Owner: o\n--\n\n" + attack + b"\n\n"
    plain = _PAIR.sub(b"", text)
    assert plain.count(_END) == 1
    return plain.replace(_END, entry + _END)


def forge(scene: Scene, backup: Backup, text: bytes) -> Scene:
    """Puts a plain text in the place of a backup, on the day when the catalogue is lost: nothing proves it wrong."""
    pieces = [text[at : at + scene.part_size] for at in range(0, len(text), scene.part_size)]
    digest = hashlib.sha256(text).hexdigest()

    def change(manifest: dict[str, Any]) -> None:
        parts = [
            {**manifest["object"]["parts"][0], "number": number, "size": len(piece), "sha256": _sha256(piece)}
            for number, piece in enumerate(pieces, 1)
        ]
        manifest["object"].update(size=len(text), sha256=digest, part_size=len(pieces[0]), parts=parts)
        manifest["plain"].update(size=len(text), sha256=digest)
        manifest["sections"] = [{"name": "all", "start": 0, "end": len(text)}]
        manifest["tool"]["version"] = "15.2"

    scene.store(backup, text)
    scene.rewrite(backup, change, recorded=False)
    return scene.without_catalogue()


def _sha256(piece: bytes) -> str:
    return hashlib.sha256(piece).hexdigest()
