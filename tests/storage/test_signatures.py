"""Only the holder of the private key signs a manifest; openssl makes the keys, and checks the signature without us."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import BackupDamaged, BadSetting
from tasks.names import backup_filename, manifest_key
from tasks.storage.backup_values import Part
from tasks.storage.manifest_file import MANIFEST
from tasks.storage.manifest_text import is_signed, read_manifest, to_bytes, with_checksum
from tasks.storage.signatures import Keys, checked_keys, public_line
from tests.support.manifests import AT, manifest_bytes
from tests.support.signing import line_of, new_key, public_of

NAME = backup_filename("shop", "run", AT)
KEY = f"folder/shop/{NAME}"


PRIVATE = new_key()
KEYS = checked_keys(PRIVATE)
FIELDS: dict[str, Any] = json.loads(manifest_bytes(NAME, KEY, 5, "a" * 64, (Part(1, 5, "a" * 64),)))


def manifest(keys: Keys = KEYS, **changes: Any) -> bytes:
    """A manifest with these changes, signed by these keys."""
    return to_bytes(MANIFEST.validate_json(json.dumps({**FIELDS, **changes})), keys)


SIGNED = manifest()
ANOTHERS = manifest(checked_keys(new_key()))


# --- keys


def test_a_key_is_read_as_a_file_as_a_line_and_as_a_form_saves_it() -> None:
    assert checked_keys(PRIVATE) == checked_keys(line_of(PRIVATE)) == checked_keys(PRIVATE.replace("\n", " ")) == KEYS
    public = public_of(PRIVATE)
    pem = f"-----BEGIN PUBLIC KEY-----\n{public}\n-----END PUBLIC KEY-----\n"
    assert checked_keys("", [public]) == checked_keys("", [pem, public, " "]) == Keys(b"", KEYS.trusted)
    assert checked_keys("", []) == Keys() and not Keys().are_asked_for


def test_what_is_no_key_is_named_in_one_sentence_that_repeats_none_of_it() -> None:
    other_kind = ec.generate_private_key(ec.SECP256R1())
    pem = other_kind.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    openssh = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    public = public_of(PRIVATE)
    for text in ("hello", "s3cret!", pem, openssh, public, PRIVATE[:-40]):
        with pytest.raises(BadSetting, match=r"signing key of the plan cannot be read: .* openssl genpkey") as refusal:
            checked_keys(text)
        assert text not in str(refusal.value)
    with pytest.raises(BadSetting, match="A trusted key of the plan cannot be read"):
        checked_keys("", ["MCow"])
    with pytest.raises(BadSetting, match=r"A trusted key of the plan is a private key") as refusal:
        checked_keys("", [PRIVATE])
    assert PRIVATE.splitlines()[1] not in str(refusal.value)


def test_a_key_shows_in_no_representation() -> None:
    assert repr(KEYS.signing) not in repr(KEYS) and KEYS.signing.hex() not in repr(KEYS)


# --- signatures


def test_a_signed_manifest_is_read_as_any_other_and_an_unsigned_one_stays_readable() -> None:
    assert is_signed(SIGNED, KEYS)
    assert read_manifest(SIGNED, manifest_key(KEY)).signature
    older = with_checksum(FIELDS)
    assert read_manifest(older, manifest_key(KEY)).signature == "" and not is_signed(older, KEYS)
    assert manifest(Keys()) == older, "without a key, nothing changes"


def test_after_a_change_of_keys_the_old_signature_counts_as_long_as_its_public_key_is_trusted() -> None:
    public = public_of(PRIVATE)
    changed = checked_keys(new_key(), [public])
    assert is_signed(SIGNED, changed) and is_signed(manifest(changed), changed)
    assert not is_signed(SIGNED, checked_keys(new_key()))
    assert is_signed(SIGNED, checked_keys("", [public])), "a machine that restores has the public key alone"
    assert not is_signed(SIGNED, Keys()), "without a key nothing is proved"


def resealed(content: bytes) -> bytes:
    """The manifest with the checksum that fits it, as whoever can write to the bucket makes it."""
    return with_checksum(json.loads(content))


FORGERIES = st.one_of(
    st.tuples(st.just("byte"), st.integers(0, len(SIGNED) - 1), st.integers(1, 255)),
    st.tuples(st.just("cut"), st.integers(0, len(SIGNED) - 1), st.just(0)),
    st.tuples(st.just("insert"), st.integers(0, len(SIGNED)), st.integers(0, 255)),
    st.tuples(st.just("field"), st.integers(0, len(FIELDS) - 1), st.integers(0, 4)),
)


def forged(how: str, place: int, value: int) -> bytes:
    if how == "byte":
        return SIGNED[:place] + bytes([SIGNED[place] ^ value]) + SIGNED[place + 1 :]
    if how == "cut":
        return SIGNED[:place]
    if how == "insert":
        return SIGNED[:place] + bytes([value]) + SIGNED[place:]
    fields = json.loads(SIGNED)
    name = list(fields)[place]
    signature_of_another = json.loads(manifest(created_by="mallory"))["signature"]
    replacements: list[Any] = ["x", 7, None, fields["filename"], signature_of_another]
    if name == "checksum" or fields[name] == replacements[value]:
        name = "created_by"
    return with_checksum({**fields, name: replacements[value]})


@settings(max_examples=200, deadline=None)
@given(FORGERIES)
def test_no_forged_manifest_is_taken_for_signed(forgery: tuple[str, int, int]) -> None:
    """A byte or a field changed, left out or put in, whatever its checksum; 200 of them.

    The digits of the checksum alone are not signed: the manifest's reader refuses wrong ones.
    """
    content = forged(*forgery)
    if content == SIGNED:
        return
    if is_signed(content, KEYS):
        with pytest.raises(BackupDamaged, match="field checksum does not match"):
            read_manifest(content, manifest_key(KEY))


@pytest.mark.parametrize(
    "content",
    [
        ANOTHERS,
        manifest(Keys()),
        resealed(SIGNED.replace(b"olga", b"0lga")),
        with_checksum({**json.loads(SIGNED), "signature": json.loads(ANOTHERS)["signature"]}),
        SIGNED.replace(b'"signature"', b'"signature": "", "signature"'),
        SIGNED + SIGNED,
        b"",
        b"\x00" * 99,
    ],
    ids=["another key", "unsigned", "resealed", "another's signature", "twice", "doubled", "empty", "no text"],
)
def test_a_manifest_that_a_trusted_key_has_not_signed_is_known(content: bytes) -> None:
    assert not is_signed(content, KEYS)


def test_a_signed_manifest_under_another_name_is_refused() -> None:
    """An old backup that is copied under a newer name keeps its signature, and is still the old one."""
    newer = backup_filename("shop", "run", AT.replace(year=2027))
    assert is_signed(SIGNED, KEYS)
    with pytest.raises(BackupDamaged, match="the manifest of another backup"):
        read_manifest(SIGNED, f"folder/shop/{manifest_key(newer)}")


# --- without us


def test_openssl_makes_the_keys_and_checks_the_signature(tmp_path: Path) -> None:
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    openssl("genpkey", "-algorithm", "ed25519", "-out", private)
    openssl("pkey", "-in", private, "-pubout", "-out", public)
    keys = checked_keys(private.read_text(), [public.read_text()])
    assert len(keys.trusted) == 1 and public_line(keys.trusted[0]) in public.read_text()
    (tmp_path / "text").write_bytes(b"signed")
    (tmp_path / "signature").write_bytes(Ed25519PrivateKey.from_private_bytes(keys.signing).sign(b"signed"))
    verify = ["pkeyutl", "-verify", "-pubin", "-inkey", public, "-rawin", "-in", tmp_path / "text", "-sigfile"]
    assert "Successfully" in openssl(*verify, tmp_path / "signature")


def openssl(*arguments: str | Path) -> str:
    return subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, text=True).stdout
