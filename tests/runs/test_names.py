"""A backup's name is known before the dump, says when it was made, never collides, and stays within its plan."""

from __future__ import annotations

import string
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks import names
from tasks.errors import BadSetting

MOMENT = datetime(2026, 3, 1, 2, 0, 0, tzinfo=UTC)
PLANS = st.from_regex(r"[a-z0-9]{1,8}(-[a-z0-9]{1,8}){0,5}", fullmatch=True)
RUNS = st.uuids().map(str)
MOMENTS = st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001

VALID_PLANS = ("default", "a", "0", "shop-eu-1", "7-days", "x" * 63)
INVALID_PLANS = (
    "",
    " ",
    "-leading",
    "trailing-",
    "two--dashes",
    "Upper",
    "under_score",
    "with space",
    "dot.ted",
    "a/b",
    "../other",
    "per%cent",
    "dollar$",
    "quo'te",
    'quo"te',
    "back\\slash",
    "ümlaut",
    "💾",
    "new\nline",
    "trailing-newline\n",
    "nul\0",
    "x" * 64,
)


@pytest.mark.parametrize("plan", VALID_PLANS)
def test_a_plan_may_be_called_whatever_a_prefect_block_may_be_called(plan: str) -> None:
    assert names.checked_plan_name(plan) == plan


@pytest.mark.parametrize("plan", INVALID_PLANS, ids=repr)
def test_any_other_plan_name_is_refused_in_one_sentence_that_says_what_is_allowed(plan: str) -> None:
    with pytest.raises(BadSetting, match="use lower-case letters, digits and single dashes") as refused:
        names.checked_plan_name(plan)
    assert "\n" not in str(refused.value) and "\0" not in str(refused.value)


@given(st.text(max_size=80))
def test_a_plan_name_that_is_accepted_is_one_harmless_path_segment(plan: str) -> None:
    try:
        names.checked_plan_name(plan)
    except BadSetting:
        return
    assert set(plan) <= set(string.ascii_lowercase + string.digits + "-") and 0 < len(plan) < 64


def test_the_file_name_has_the_form_that_people_were_promised() -> None:
    name = names.backup_filename("default", "run-1", MOMENT)
    assert name.startswith("backup_2026-03-01_02-00-00_") and name.endswith(".sql")
    assert len(name) == len("backup_YYYY-MM-DD_HH-mm-ss_12345678.sql")


def test_the_file_name_tells_the_time_in_utc_wherever_the_machine_stands() -> None:
    elsewhere = MOMENT.astimezone(timezone(timedelta(hours=-9, minutes=-30)))
    assert names.backup_filename("p", "r", elsewhere) == names.backup_filename("p", "r", MOMENT)


@pytest.mark.parametrize(
    ("codec", "encrypted", "suffix"),
    [
        ("none", False, ".sql"),
        ("zstd", False, ".sql.zst"),
        ("gzip", False, ".sql.gz"),
        ("zstd", True, ".sql.zst.age"),
        ("none", True, ".sql.age"),
    ],
)
def test_the_suffix_says_which_tools_undo_the_file(codec: str, encrypted: bool, suffix: str) -> None:
    name = names.backup_filename("p", "r", MOMENT, codec, encrypted)
    assert name.partition(".")[2] == suffix.removeprefix(".")
    assert names.is_backup_filename(name)


@given(PLANS, RUNS, MOMENTS, st.sampled_from(sorted(names.CODEC_SUFFIXES)), st.booleans())
def test_every_name_that_is_made_is_known_again(plan: str, run: str, at: datetime, codec: str, encrypted: bool) -> None:
    assert names.is_backup_filename(names.backup_filename(plan, run, at, codec, encrypted))


@given(st.lists(st.tuples(PLANS, RUNS), min_size=2, max_size=20, unique=True))
def test_backups_of_one_second_have_different_names(runs: list[tuple[str, str]]) -> None:
    made = {names.backup_filename(plan, run, MOMENT) for plan, run in runs}
    assert len(made) == len(runs)


def test_plan_and_run_cannot_be_shifted_into_each_other() -> None:
    assert names.backup_filename("a", "bc", MOMENT) != names.backup_filename("ab", "c", MOMENT)


@given(MOMENTS, MOMENTS)
def test_names_sort_as_their_times_do(one: datetime, other: datetime) -> None:
    one, other = (moment.replace(microsecond=0) for moment in (one, other))
    if one < other:
        assert names.backup_filename("p", "r", one) < names.backup_filename("p", "r", other)


@pytest.mark.parametrize(
    "name",
    [
        "backup_2026-03-01_02-00-00_9F2C41AB.sql",
        "backup_2026-03-01_02-00-00_9f2c41ab.sql\n",
        "backup_2026-03-01_02-00-00_9f2c41ab.sql.manifest.json",
        "backup_2026-03-01_02-00-00_9f2c41ab.dump",
        "sub/backup_2026-03-01_02-00-00_9f2c41ab.sql",
        "xbackup_2026-03-01_02-00-00_9f2c41ab.sql",
        "backup_2026-03-01_02-00-00_9f2c41ab.sql.age.zst",
        "",
    ],
    ids=repr,
)
def test_what_somebody_else_put_into_the_bucket_is_not_taken_for_a_backup(name: str) -> None:
    assert not names.is_backup_filename(name)


@pytest.mark.parametrize(
    ("folder", "prefix"),
    [
        ("database-backups", "database-backups/shop/"),
        ("/database-backups/", "database-backups/shop/"),
        ("a/b", "a/b/shop/"),
        ("", "shop/"),
        ("/", "shop/"),
        ("with space/ümlaut/💾", "with space/ümlaut/💾/shop/"),
    ],
)
def test_everything_of_a_plan_lies_below_one_prefix(folder: str, prefix: str) -> None:
    assert names.plan_prefix(folder, "shop") == prefix
    assert names.object_key(folder, "shop", "f.sql") == f"{prefix}f.sql"
    assert names.manifest_key(f"{prefix}f.sql") == f"{prefix}f.sql.manifest.json"


@pytest.mark.parametrize(
    "folder", ["a", "a/b", "/a/", "", "/", "two words", "ümläut/💾", "per%cent%20", "back\\slash", "..."]
)
def test_a_folder_may_have_any_printable_name(folder: str) -> None:
    assert names.checked_folder(folder) == folder.strip("/")


@pytest.mark.parametrize(
    "folder",
    ["..", "../other", "a/../../b", ".", "a/./b", "a//b", "new\nline", "nul\0", "escape\x1b", "x" * 801, "half \ud800"],
    ids=ascii,
)
def test_a_folder_that_a_store_might_change_or_refuse_is_refused_in_one_sentence(folder: str) -> None:
    with pytest.raises(BadSetting, match="cannot be the folder") as refused:
        names.checked_folder(folder)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 500


def test_no_key_of_an_allowed_folder_is_longer_than_s3_allows() -> None:
    longest = names.backup_filename("x" * 63, "r", MOMENT, "zstd", True)
    assert len(names.manifest_key(names.object_key("ü" * 400, "x" * 63, longest)).encode()) <= 1024


@given(PLANS, PLANS)
def test_no_plan_lies_below_the_prefix_of_another(one: str, other: str) -> None:
    if one != other:
        assert not names.plan_prefix("f", other).startswith(names.plan_prefix("f", one))
