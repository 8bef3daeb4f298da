"""`python -I age_filter.py RECIPIENT…`: encrypts standard input to standard output, as an age file.
`python -I age_filter.py --decrypt`: decrypts it, by the identities in AGE_IDENTITIES (a JSON list).

Format: https://age-encryption.org/v1.

A program of its own, because pyrage holds Python's global lock while it works. Recipients are public keys. Identities
are secret keys; only the environment of this program holds them.
"""

from __future__ import annotations

import json
import os
import sys

import pyrage

_SSH_KEY = "-----BEGIN OPENSSH PRIVATE KEY-----"


def recipient(text: str) -> object:
    """The recipient `age1…` or `ssh-…`. Raises ValueError when the text is neither."""
    kind = pyrage.ssh if text.startswith("ssh-") else pyrage.x25519
    try:
        return kind.Recipient.from_str(text)
    except pyrage.RecipientError as error:
        raise ValueError(str(error)) from None


def identity(text: str) -> object:
    """The identity `AGE-SECRET-KEY-…`, or an ssh private key. Raises ValueError, which does not repeat it."""
    try:
        if text.startswith(_SSH_KEY):
            return pyrage.ssh.Identity.from_buffer(text.encode())
        return pyrage.x25519.Identity.from_str(text)
    except pyrage.IdentityError:
        raise ValueError("no usable age identity") from None


def split_identities(text: str) -> tuple[str, ...]:
    """The identities in a file as `age-keygen` or `ssh-keygen` writes it: without comments and empty lines."""
    if text.strip().startswith(_SSH_KEY):
        return (text.strip() + "\n",)
    lines = (line.strip() for line in text.splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


if __name__ == "__main__":
    if sys.argv[1:] == ["--decrypt"]:
        identities = [identity(text) for text in json.loads(os.environ.pop("AGE_IDENTITIES"))]
        try:
            pyrage.decrypt_io(sys.stdin.buffer, sys.stdout.buffer, identities)
        except (pyrage.DecryptError, OSError) as refusal:  # OSError for a file that was changed behind its header
            sys.exit(str(refusal))
    else:
        pyrage.encrypt_io(sys.stdin.buffer, sys.stdout.buffer, [recipient(text) for text in sys.argv[1:]])
    sys.stdout.buffer.flush()
