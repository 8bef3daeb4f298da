"""`python -I age_filter.py RECIPIENT…`: encrypts standard input to standard output, as an age file.

Format: https://age-encryption.org/v1.

A program of its own, because pyrage holds Python's lock while it works. Recipients are public keys.
"""

from __future__ import annotations

import sys

import pyrage


def recipient(text: str) -> object:
    """The recipient `age1…` or `ssh-…`. Raises ValueError when it is none."""
    kind = pyrage.ssh if text.startswith("ssh-") else pyrage.x25519
    try:
        return kind.Recipient.from_str(text)
    except pyrage.RecipientError as error:
        raise ValueError(str(error)) from None


if __name__ == "__main__":
    pyrage.encrypt_io(sys.stdin.buffer, sys.stdout.buffer, [recipient(one) for one in sys.argv[1:]])
    sys.stdout.buffer.flush()
