"""What `.env` says is taken as it stands; what cannot be used is refused in one sentence; no secret is shown."""

from __future__ import annotations

import stat
from dataclasses import fields
from pathlib import Path

import pytest

from tasks.errors import BadSetting
from tasks.plans.settings import DEFAULTS, listed, load_settings, settings_from
from tests.support import whole_story

SECRET = "mArKeR-5ecret"
SECRETS = (
    "DATABASE_URL",
    "CATALOG_URL",
    "CLOUDFLARE_ACCESS_KEY_ID",
    "CLOUDFLARE_SECRET_ACCESS_KEY",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "NOTIFY_URL",
    "PING_URL",
)


def test_with_nothing_set_the_embedded_default_is_meant(tmp_path: Path) -> None:
    settings = load_settings(tmp_path, {})
    assert settings.uses_embedded_database and settings.uses_embedded_storage
    assert (settings.s3_bucket, settings.s3_folder) == ("main-bucket", "database-backups")
    assert (settings.retention_days, settings.compression) == (7, "none")


def test_the_environment_goes_before_the_file_and_the_file_before_the_default(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("S3_BUCKET=of-the-file\nS3_FOLDER=of-the-file\n")
    settings = load_settings(tmp_path, {"S3_BUCKET": "of-the-environment"})
    assert (settings.s3_bucket, settings.s3_folder, settings.retention_days) == ("of-the-environment", "of-the-file", 7)


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("S3_BUCKET=\nRETENTION_DAYS=\nCOMPRESSION\nDATABASE_URL=postgresql://h/d\n")
    settings = load_settings(tmp_path, {"DATABASE_URL": ""})
    assert (settings.s3_bucket, settings.retention_days, settings.compression) == ("main-bucket", 7, "none")
    assert settings.database_url == "postgresql://h/d"


@pytest.mark.parametrize("value", ["p$HOME", "${HOME}", "a%20b", "ümläut-💾", "back\\slash", 'dou"ble', "a=b=c", "a#b"])
def test_a_value_is_taken_letter_by_letter_and_nothing_in_it_is_expanded(tmp_path: Path, value: str) -> None:
    (tmp_path / ".env").write_text(f"CLOUDFLARE_ACCESS_KEY_ID=id\nCLOUDFLARE_SECRET_ACCESS_KEY={value}\n", "utf-8")
    assert load_settings(tmp_path, {}).secret_access_key == value


@pytest.mark.parametrize(
    ("given", "pair"),
    [
        ({"CLOUDFLARE": "ck cs"}, ("ck", "cs")),
        ({"AWS": "ak as"}, ("ak", "as")),
        ({"CLOUDFLARE": "ck cs", "AWS": "ak as"}, ("ck", "cs")),
        ({}, ("", "")),
    ],
)
def test_the_cloudflare_names_go_before_the_aws_names_and_pairs_are_never_mixed(
    given: dict[str, str], pair: tuple[str, str]
) -> None:
    values = {}
    for name, both in given.items():
        values[f"{name}_ACCESS_KEY_ID"], values[f"{name}_SECRET_ACCESS_KEY"] = both.split()
    settings = settings_from(values)
    assert (settings.access_key_id, settings.secret_access_key) == pair


@pytest.mark.parametrize("name", ["CLOUDFLARE", "AWS"])
@pytest.mark.parametrize("half", ["ACCESS_KEY_ID", "SECRET_ACCESS_KEY"])
def test_half_a_pair_of_keys_is_refused(name: str, half: str) -> None:
    with pytest.raises(BadSetting, match="one half") as refused:
        settings_from({f"{name}_{half}": SECRET})
    assert name in str(refused.value) and SECRET not in whole_story(refused.value)


@pytest.mark.parametrize("days", ["0", "-1", "7.5", "seven", "1e3", "٧٧x", "+7", "9" * 12, "9" * 5000])
def test_days_that_are_no_usable_number_are_refused(days: str) -> None:
    with pytest.raises(BadSetting, match="RETENTION_DAYS") as refused:
        settings_from({"RETENTION_DAYS": days})
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("codec", ["lz4", "ZSTD", "zip", "none,zstd"])
def test_an_unknown_compression_is_refused_with_the_known_ones(codec: str) -> None:
    with pytest.raises(BadSetting, match="none, zstd, gzip"):
        settings_from({"COMPRESSION": codec})


@pytest.mark.parametrize(("given", "folder"), [("/a/b/", "a/b"), ("a b", "a b"), ("ümlaut/💾", "ümlaut/💾")])
def test_a_folder_may_be_written_with_or_without_slashes_around_it(given: str, folder: str) -> None:
    assert settings_from({"S3_FOLDER": given}).s3_folder == folder


def test_a_file_in_another_encoding_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"S3_FOLDER=m\xfcll\n")
    with pytest.raises(BadSetting, match="UTF-8"):
        load_settings(tmp_path, {})


def test_no_secret_is_shown() -> None:
    shown = repr(settings_from(dict.fromkeys(SECRETS, SECRET)))
    assert SECRET not in shown
    assert "main-bucket" in shown


def test_every_variable_ends_in_a_setting() -> None:
    for name in DEFAULTS:
        values = {
            n: "x" for n in DEFAULTS if n.endswith(("KEY_ID", "ACCESS_KEY")) and n.split("_")[0] == name.split("_")[0]
        }
        values[name] = {
            "RETENTION_DAYS": "3",
            "COMPRESSION": "zstd",
            "KEPT_DATABASE_DAYS": "5",
            "GRACE_MINUTES": "90",
        }.get(name, "mark")
        settings = settings_from(values)
        assert settings != settings_from({**values, name: "" if "KEY" not in name else "other"}), name
    assert len(fields(settings)) == len(DEFAULTS) - 2  # two pairs of keys are one


def test_the_file_may_be_missing_and_is_not_made(tmp_path: Path) -> None:
    load_settings(tmp_path, {})
    assert list(tmp_path.iterdir()) == []


def test_a_private_file_stays_private(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("S3_BUCKET=b\n")
    (tmp_path / ".env").chmod(0o600)
    load_settings(tmp_path, {})
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("name", "text", "items"),
    [
        ("exclude_rows", "shop.log, audit.*", ["shop.log", "audit.*"]),
        ("exclude_rows", '["shop.log", " audit.* ", ""]', ["shop.log", "audit.*"]),
        ("exclude_rows", '["shop.\\"a,b\\""]', ['shop."a,b"']),
        ("exclude_rows", "[ab]*, c", ["[ab]*", "c"]),
        ("exclude_rows", "[1]", ["[1]"]),
        ("exclude_rows", '"1"', ['"1"']),
        ("checks", "SELECT 1, 2; SELECT 3;", ["SELECT 1, 2", "SELECT 3"]),
        ("checks", '["SELECT 1; SELECT 2"]', ["SELECT 1; SELECT 2"]),
    ],
)
def test_a_list_is_one_text_or_json(name: str, text: str, items: list[str]) -> None:
    assert listed(name, text) == items
