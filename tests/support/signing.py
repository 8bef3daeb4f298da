"""Keys that sign manifests, as openssl makes them."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tasks.storage.signatures import checked_keys, public_line


def new_key() -> str:
    """The file of a new private key."""
    private = Ed25519PrivateKey.generate()
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def line_of(private: str) -> str:
    """The line within the file of a key."""
    [line] = private.splitlines()[1:-1]
    return line


def public_of(private: str) -> str:
    """The public key of a private one, on one line."""
    return public_line(checked_keys(private).trusted[0])
