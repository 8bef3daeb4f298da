"""Encrypted files are age files that the stock tools undo."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import psutil
import pyrage
import pytest

from tasks.errors import BadSetting, DumpFailed
from tasks.storage.encoders import ENCODERS, checked_recipients, encrypted
from tests.support import ci_skip

PLAIN = os.urandom(300_000) + b"the same again " * 400_000
DECODERS = {"none": ["cat"], "zstd": ["zstd", "-dc"], "gzip": ["gunzip", "-c"]}


@pytest.fixture
def identity(tmp_path: Path) -> tuple[Path, str]:
    """A secret key's file and its public key."""
    secret = pyrage.x25519.Identity.generate()
    file = tmp_path / "key.txt"
    file.write_text(f"{secret}\n")
    return file, str(secret.to_public())


def encoded(codec: str, recipients: Sequence[str]) -> bytes:
    with encrypted(ENCODERS[codec](), recipients) as encoder:
        step = 1 << 20
        chunks = [bytes(encoder.encode(memoryview(PLAIN)[at : at + step])) for at in range(0, len(PLAIN), step)]
        return b"".join(chunks) + bytes(encoder.finish())


def decrypted(file: bytes, key: Path) -> subprocess.CompletedProcess[bytes]:
    if shutil.which("age") is None:
        ci_skip("the program age is not installed")
    return subprocess.run(["age", "-d", "-i", str(key)], input=file, capture_output=True, check=False)


@pytest.mark.parametrize("codec", sorted(ENCODERS))
def test_stock_age_and_the_codecs_own_tool_give_the_plain_text_back(codec: str, identity: tuple[Path, str]) -> None:
    key, public = identity
    opened = decrypted(encoded(codec, [public]), key)
    assert opened.returncode == 0, opened.stderr
    plain = subprocess.run(DECODERS[codec], input=opened.stdout, capture_output=True, check=True).stdout
    assert plain == PLAIN


def test_each_of_several_recipients_can_open_the_file(identity: tuple[Path, str]) -> None:
    key, public = identity
    other = str(pyrage.x25519.Identity.generate().to_public())
    assert decrypted(encoded("none", [other, public]), key).stdout == PLAIN


def test_nobody_else_can_open_it_and_none_of_it_is_plain(identity: tuple[Path, str]) -> None:
    key, _ = identity
    file = encoded("none", [str(pyrage.x25519.Identity.generate().to_public())])
    assert decrypted(file, key).returncode != 0
    assert b"the same again" not in file


def test_a_truncated_file_is_refused_by_stock_age(identity: tuple[Path, str]) -> None:
    key, public = identity
    file = encoded("none", [public])
    assert decrypted(file[:-1], key).returncode != 0
    assert decrypted(file[: len(file) // 2], key).returncode != 0


def test_an_encryption_that_dies_fails_the_dump(identity: tuple[Path, str]) -> None:
    _, public = identity
    with pytest.raises(DumpFailed, match="encryption"), encrypted(ENCODERS["none"](), [public]) as encoder:
        [child] = [
            one
            for one in psutil.process_iter(["cmdline", "ppid"])
            if one.info["ppid"] == os.getpid() and "age_filter.py" in " ".join(one.info["cmdline"] or [])
        ]
        child.send_signal(signal.SIGKILL)
        for _ in range(64):
            encoder.encode(memoryview(PLAIN))
        encoder.finish()


@pytest.mark.parametrize("text", ["age1nonsense", "ssh-ed25519 AAAA", "me@example.com", "AGE-SECRET-KEY-1MARKER"])
def test_what_is_no_public_key_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(BadSetting) as refusal:
        checked_recipients([text])
    assert "MARKER" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_blank_recipients_count_for_nothing() -> None:
    assert checked_recipients(["", " "]) == ()
