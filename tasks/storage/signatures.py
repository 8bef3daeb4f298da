"""Signatures over manifests: Ed25519 (RFC 8032), with the keys that openssl makes, and that openssl checks without us.

Who can write to a bucket can put a backup there, with a manifest that fits it. Only the worker has the private key that
signs manifests. A machine that restores needs the public key alone.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

from tasks.errors import BadSetting

_MAKE_ONE = "make one with openssl genpkey -algorithm ed25519"
_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm)
_FRAME = re.compile(r"-----(BEGIN|END) [A-Z ]*-----")


@dataclass(frozen=True)
class Keys:
    """The key that signs the manifests of a plan, and the public keys whose signatures count. 32 bytes each."""

    signing: bytes = field(default=b"", repr=False)
    """The private key; empty when the plan signs nothing."""
    trusted: tuple[bytes, ...] = ()
    """The public key of `signing` first; empty when the plan asks for no signatures."""

    @property
    def are_asked_for(self) -> bool:
        """Whether a backup that the catalogue does not know has to be signed."""
        return bool(self.trusted)

    def signature(self, text: bytes) -> str:
        """The signature of the private key over `text`, in base64."""
        return base64.b64encode(Ed25519PrivateKey.from_private_bytes(self.signing).sign(text)).decode()

    def have_signed(self, text: bytes, signature: bytes) -> bool:
        """Whether one of the trusted keys has made this signature (64 bytes) over `text`."""
        for key in self.trusted:
            with suppress(InvalidSignature):
                Ed25519PublicKey.from_public_bytes(key).verify(signature, text)
                return True
        return False


def checked_keys(signing: str, trusted: Iterable[str] = ()) -> Keys:
    """The keys of a plan, from PEM files of openssl or from the line within them.

    Raises BadSetting for a key that cannot be used; it never repeats one.
    """
    private = _private(signing) if signing.strip() else b""
    own = [_public_of(private)] if private else []
    public = [*own, *(_public(text) for text in trusted if text.strip())]
    return Keys(private, tuple(dict.fromkeys(public)))


def public_line(key: bytes) -> str:
    """A public key as people write it into a plan: the line within the file that openssl makes of it."""
    der = Ed25519PublicKey.from_public_bytes(key).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(der).decode()


def _private(text: str) -> bytes:
    key = _loaded_private(text)
    if key is None:
        raise BadSetting(
            "The signing key of the plan cannot be read: it must be a private Ed25519 key without pass phrase; "
            f"{_MAKE_ONE}."
        )
    return key.private_bytes_raw()


def _public(text: str) -> bytes:
    with suppress(*_UNREADABLE):
        key = load_der_public_key(_der(text))
        if isinstance(key, Ed25519PublicKey):
            return key.public_bytes_raw()
    if _loaded_private(text) is not None:
        raise BadSetting(
            "A trusted key of the plan is a private key: give its public key (openssl pkey -pubout), and keep the "
            "other."
        )
    raise BadSetting(
        "A trusted key of the plan cannot be read: it must be a public Ed25519 key, MCow…, as openssl pkey -pubout "
        "writes it."
    )


def _loaded_private(text: str) -> Ed25519PrivateKey | None:
    with suppress(*_UNREADABLE):
        key = load_der_private_key(_der(text), None)
        return key if isinstance(key, Ed25519PrivateKey) else None
    return None


def _public_of(private: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def _der(text: str) -> bytes:
    """The content of a PEM file, also when a form has made one line of it. Raises ValueError."""
    return base64.b64decode("".join(_FRAME.sub("", text).split()), validate=True)
