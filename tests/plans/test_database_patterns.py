"""Patterns for the databases of a server, and the names of their plans."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tasks.errors import BadSetting
from tasks.names import PLAN_NAME, artifact_key, backup_filename, checked_prefix, database_plan, parted
from tasks.plans.database_patterns import checked_databases

NAMES = st.text(min_size=1).filter(lambda name: "\0" not in name and _bytes(name) <= 63)


def _bytes(name: str) -> int:
    return len(name.encode(errors="surrogatepass"))


@pytest.mark.parametrize(
    ("patterns", "meant"),
    [
        (["*"], ["Shop", "a\nb", "crm", "shop_1", "shop_2", "test_1", "x[1]"]),
        (["shop_*"], ["shop_1", "shop_2"]),
        (["shop_?", "crm"], ["crm", "shop_1", "shop_2"]),
        (["!test_*"], ["Shop", "a\nb", "crm", "shop_1", "shop_2", "x[1]"]),
        (["*", "!test_*", "!*1*"], ["Shop", "a\nb", "crm", "shop_2"]),
        (["crm", "!crm"], []),
        (["shop"], []),
        (["SHOP", "S?o?"], ["Shop"]),
        (["x[1]", "[cs]*"], ["x[1]"]),
        (["a?b"], ["a\nb"]),
        (["  crm  "], ["crm"]),
    ],
)
def test_patterns_mean_what_a_shell_means_by_star_and_question_mark(patterns: list[str], meant: list[str]) -> None:
    there = ["Shop", "a\nb", "crm", "shop_1", "shop_2", "test_1", "x[1]"]
    assert [name for name in there if checked_databases(patterns).mean(name)] == meant


def test_a_name_without_a_star_names_exactly() -> None:
    patterns = checked_databases(["rds*", "rdsadmin", "azure_sys", "!azure_sys"])
    assert patterns.name_exactly("rdsadmin") and not patterns.name_exactly("rdsother")
    assert not patterns.name_exactly("azure_sys")


def test_no_pattern_is_no_plan_of_a_server() -> None:
    assert not checked_databases([]) and checked_databases(["!x"])


@pytest.mark.parametrize("pattern", ["", "  ", "!", "a\0b"])
def test_a_pattern_that_names_nothing_is_refused_in_one_sentence(pattern: str) -> None:
    with pytest.raises(BadSetting, match=r"databases has .* which names no database: write a name, or a pattern"):
        checked_databases(["shop", pattern])


@given(NAMES)
@example("Größe \" ' % / \n~.$")
@example("a.b")
@example("\udcff\udcfe")
def test_every_name_of_a_database_makes_the_name_of_a_plan_and_comes_back(database: str) -> None:
    if re.search("[\ud800-\udc7f\udd00-\udfff]", database):
        return  # no bytes of a server become these
    plan = database_plan("server", database)
    assert re.fullmatch(PLAN_NAME, plan), plan
    assert parted(plan) == ("server", database) and plan == plan.lower()
    assert re.fullmatch("[a-z0-9-]+", artifact_key(f"backup-{plan}"))
    key = checked_prefix("f" * 600, plan) + backup_filename(plan, "r", datetime.now(UTC), "zstd", encrypted=True)
    assert len(f"{key}.manifest.json") <= 1024


@given(NAMES, NAMES)
def test_two_databases_never_share_a_name_an_artifact_or_a_case(one: str, other: str) -> None:
    if one == other or any("\ud800" <= letter <= "\udfff" for letter in one + other):
        return
    first, second = (database_plan("server", name) for name in (one, other))
    assert first.lower() != second.lower() and artifact_key(first) != artifact_key(second)


@pytest.mark.parametrize(
    "plan",
    ["server.", ".shop", "server.Shop", "server.~61", "server.~5", "server.a.b", "server.~00", "server." + "a" * 64],
)
def test_a_name_that_no_database_has_is_refused(plan: str) -> None:
    with pytest.raises(BadSetting, match="cannot be the name of a plan"):
        parted(plan)


def test_the_sentence_says_how_a_capital_letter_is_written() -> None:
    with pytest.raises(BadSetting, match=re.escape("such as server.~53hop")):
        parted("server.Shop")


def test_a_folder_that_leaves_no_room_for_a_long_name_is_refused() -> None:
    with pytest.raises(BadSetting, match="too long for S3: shorten the folder"):
        checked_prefix("f" * 790, database_plan("server", "Ü" * 31))
