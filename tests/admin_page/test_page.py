"""The admin page as markdown: what it says, what it links to, and that no name is taken for markup."""

from __future__ import annotations

import base64
import html
import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tasks.admin_page.gather import NOTHING
from tasks.admin_page.notes import sources_with_backups, with_earlier_sources
from tasks.admin_page.page import page, plain
from tasks.admin_page.picture import picture, svg
from tasks.admin_page.view import BackupLine, Links, PlanReading, PlanView, Point, ui_base
from tasks.restore.kept_databases import UNFINISHED, Kept
from tasks.runs.markdown import cell, duration, growth, percent

NOW = datetime(2026, 3, 8, 12, tzinfo=UTC)
EVERY = Links(
    deployments={
        "backup/manual": "id-of-backup",
        "restore/restore-backup": "id-of-restore",
        "undo-restore/undo-last-restore": "id-of-undo-restore",
        "list-backups/refresh-admin-page": "id-of-list-backups",
        "download-backup/download-backup": "id-of-download-backup",
        "delete-backup/delete-backup": "id-of-delete-backup",
        "keep-backup/keep-backup": "id-of-keep-backup",
        "cleanup/clean-up-now": "id-of-cleanup",
        "verify-backup/verify-backup": "id-of-verify-backup",
        "check-health/check-now": "id-of-check-health",
    }
)
ODD = "<b>`x`</b> | [a](http://evil.example) *b* www.evil.example eve@evil.example ![i](x) &amp; ü"
LINE = BackupLine(
    backup_id=7,
    filename="backup_2026-03-08_02-00-00_9f2c41ab.sql",
    status="completed",
    backup_type="full",
    size=1_500_000,
    rows=12_345,
    tables=6,
    created_by="Ada",
    created_at=NOW - timedelta(hours=10),
    completed_at=NOW - timedelta(hours=10) + timedelta(seconds=75),
    verified_at=None,
    unverifiable=False,
    suspicious="",
    error="",
)
STATISTICS = replace(
    NOTHING,
    completed=3,
    stored=4_500_000,
    recorded=4,
    last_success=LINE.completed_at,
    month_ended=4,
    month_succeeded=3,
    month_seconds=75.0,
    month_first_size=1_000_000,
    month_last_size=1_500_000,
)


def view(*lines: BackupLine, name: str = "shop", **given: Any) -> PlanView:
    return PlanView(name, PlanReading(STATISTICS, lines, ()), database="shop_db", **given)


def links_in(text: str) -> dict[str, str]:
    """Address by text of every link, the last of each text."""
    return dict(re.findall(r"(?<!!)\[([^\]]*)\]\(([^)]*)\)", text))


def given_to(address: str) -> Any:
    """The parameters that a link fills in."""
    return json.loads(parse_qs(urlsplit(address).query)["parameters"][0])


def test_a_completed_backup_has_a_link_for_all_that_can_be_done_with_it() -> None:
    found = links_in(page([view(LINE)], EVERY, NOW))
    for text, flow in [
        ("Restore", "restore"),
        ("Download", "download-backup"),
        ("Verify", "verify-backup"),
        ("Delete", "delete-backup"),
        ("Keep", "keep-backup"),
    ]:
        assert found[text].startswith(f"/v2/deployments/deployment/id-of-{flow}/run?parameters=")
        assert given_to(found[text]) == {"backup": LINE.filename, "plan": "shop"}


def test_a_kept_backup_says_so_and_can_be_let_go() -> None:
    shown = page([view(replace(LINE, kept=ODD))], EVERY, NOW)
    found = links_in(shown)
    assert given_to(found["Let go"]) == {"backup": LINE.filename, "plan": "shop", "let_go": True}
    assert "Keep" not in found and "★" in shown and "<b>" not in shown
    assert "★" not in page([view(LINE)], EVERY, NOW)


def test_what_the_backups_cost_a_month_is_shown_where_the_plan_has_a_price() -> None:
    priced = view(name="shop", price_per_gib=300.0)  # 4.5 MB are 0.0041909515857696533 GiB
    top, *_ = page([priced, view(name="wiki"), view(name="crm", price_per_gib=0.001)], EVERY, NOW).split("\n## ")
    assert top.replace("\N{NO-BREAK SPACE}", " ").count("1.26 a month") == 2, "in the totals and in the line of shop"
    assert top.replace("\N{NO-BREAK SPACE}", " ").count("less than 0.01 a month") == 1
    assert "a month" not in page([view()], EVERY, NOW).replace("\N{NO-BREAK SPACE}", " ")


def test_the_top_of_the_page_has_what_concerns_no_backup_in_particular() -> None:
    found = links_in(page([view()], EVERY, NOW))
    assert given_to(found["Back up now"]) == given_to(found["Clean up"]) == {"plan": "shop"}
    assert given_to(found["Undo last restore"]) == {"plan": "shop"}
    assert {"Refresh", "Check health"} <= found.keys()


def test_with_several_plans_each_has_its_own_links() -> None:
    text = page([view(name="shop"), view(name="wiki")], EVERY, NOW)
    top, shop, wiki = text.split("\n## ")
    assert "parameters" not in links_in(top)["Back up now"]
    assert given_to(links_in(shop)["Back up now"]) == {"plan": "shop"}
    assert given_to(links_in(wiki)["Clean up"]) == {"plan": "wiki"}


def test_a_plan_with_backups_can_be_restored_into_each_other_plan_first_into_those_without_backups() -> None:
    receives = PlanView("staging", PlanReading(replace(STATISTICS, completed=0), (), ()))
    text = page([view(LINE, name="shop"), view(LINE, name="crm"), receives], EVERY, NOW)
    _, shop, _, staging = text.split("\n## ")
    into = [text for text in links_in(shop) if text.startswith("Restore into")]
    assert into == ["Restore into staging", "Restore into crm"]
    assert given_to(links_in(shop)["Restore into staging"]) == {"plan": "shop", "into": "staging"}
    assert "Restore into" not in staging
    assert "Restore into" not in page([view(LINE)], EVERY, NOW)
    databases = [view(LINE, name=f"server.{name}") for name in ("crm", "shop")]
    assert "Restore into" not in page(databases, EVERY, NOW)
    only = replace(receives, restore_only=True)
    text = page([view(LINE, name="shop"), *databases, only], EVERY, NOW)
    assert set(re.findall("Restore into [^]]*", text)) == {"Restore into staging"}


def test_a_plan_that_is_only_restored_into_is_shown_without_warnings_and_is_not_backed_up() -> None:
    receives = PlanView("staging", PlanReading(NOTHING, (), ()), database="shop_staging", restore_only=True)
    text = page([view(LINE, name="shop", next_run=NOW), receives], EVERY, NOW)
    *_, staging = text.split("\n## ")
    assert "Back up now" not in links_in(staging) and "Undo last restore" in links_in(staging)
    assert "Backups of other plans are restored into this one, and none are made of it." in staging
    [line] = [line for line in text.splitlines() if line.startswith("| **staging**")]
    assert "only restored into" in line.replace("\N{NO-BREAK SPACE}", " ") and "⚠" not in line


@pytest.mark.parametrize("status", ["in_progress", "failed", "expired", "deleted", "missing"])
def test_what_is_not_there_cannot_be_restored_or_deleted(status: str) -> None:
    found = links_in(page([view(replace(LINE, status=status))], EVERY, NOW))
    assert not {"Restore", "Download", "Verify", "Delete"} & found.keys()


def test_a_deployment_that_the_server_lacks_has_no_link() -> None:
    text = page([view(LINE)], Links(deployments={"restore/restore-backup": "one"}), NOW)
    assert links_in(text).keys() == {"Restore"}


def test_a_row_says_everything_of_its_backup() -> None:
    line = replace(LINE, verified_at=NOW - timedelta(hours=2))
    [shown] = [one for one in page([view(line)], EVERY, NOW).splitlines() if LINE.filename in one]
    said = shown.replace("\N{NO-BREAK SPACE}", " ")
    for fact in (
        "2026-03-08 02:00:00",
        "completed",
        "1.4 MiB",
        "12,345 rows",
        "6 tables",
        "Ada",
        "1 min 15 s",
        "2026-03-08 10:00",
    ):
        assert fact in said


def test_a_plan_has_its_numbers_and_its_next_run() -> None:
    kept = Kept("shop__before_1", "shop_db", NOW - timedelta(days=1), "run", 3 << 20, None, "shop")
    text = page([view(LINE, kept=(kept,), next_run=NOW + timedelta(hours=14))], EVERY, NOW)
    said = html.unescape(text.replace("\N{NO-BREAK SPACE}", " "))
    for fact in (
        "3 backups",
        "4.3 MiB",
        "75 % success (3 of 4)",
        "1 min 15 s median",
        "+50.0 % growth",
        "2026-03-08 02:01",
        "2026-03-09 02:00",
        "1 kept database, 3.0 MiB",
        "shop__before_1",
        "2026-03-10 12:00",
    ):
        assert fact in said


def test_the_actions_of_a_backup_stand_in_the_first_column_under_its_name() -> None:
    [row] = [row for row in page([view(LINE)], EVERY, NOW).splitlines() if LINE.filename in row]
    first = row.split(" | ")[0]
    assert first.index(LINE.filename) < first.index("[Restore]")
    assert links_in(first).keys() == {"Restore", "Download", "Verify", "Delete", "Keep"}


def test_a_restore_that_failed_and_can_go_on_is_listed_without_an_undo() -> None:
    left = Kept("shop__restoring_1", "shop", NOW - timedelta(hours=1), "", 3 << 20, None, "shop", UNFINISHED)
    [row] = [
        row for row in page([view(LINE, kept=(left,))], EVERY, NOW).splitlines() if left.name in html.unescape(row)
    ]
    said = html.unescape(row.replace("\N{NO-BREAK SPACE}", " "))
    assert "run it again to go on" in said and "2026-03-09 11:00" in said and "undo" not in said.lower()


def test_a_kept_database_says_what_it_holds() -> None:
    """The name of both kinds is the same: what was live at that time."""
    restored = Kept("shop__before_1", "shop_db", NOW - timedelta(days=1), "run", 3 << 20, None, "shop")
    undone = replace(restored, name="shop__before_2", replaced_by="undo-restore")
    text = page([view(LINE, kept=(undone, restored))], EVERY, NOW)
    rows = {
        name: row for row in text.splitlines() for name in (restored.name, undone.name) if name in html.unescape(row)
    }
    assert "the database before a restore" in rows[restored.name]
    assert "the restored database that an undo took back" in rows[undone.name]
    assert "Undo last restore" in links_in(rows[undone.name].split(" | ")[0])


def test_a_plan_without_backups_whose_settings_changed_says_so() -> None:
    now_empty = PlanView(
        "shop", PlanReading(NOTHING, (), ()), "shop_db", "new:5432/shop_db with the catalogue new:5432/c"
    )
    [said] = with_earlier_sources([now_empty], {"source of plan shop": "old:5432/sample with the catalogue old:5432/c"})
    text = html.unescape(page([said], EVERY, NOW))
    assert "It backs up new:5432/shop_db with the catalogue new:5432/c now" in text
    assert "Before, it backed up old:5432/sample with the catalogue old:5432/c" in text
    assert "No backup has been made yet." not in text


def test_what_a_plan_backed_up_is_remembered_while_it_has_no_backup() -> None:
    full = replace(view(LINE), source="old:5432/sample with the catalogue old:5432/c")
    noted = sources_with_backups([full], {"source of plan wiki": "elsewhere", "ui": "/v2"})
    assert noted == {"source of plan shop": full.source, "source of plan wiki": "elsewhere"}
    empty = PlanView("shop", PlanReading(NOTHING, (), ()), source="new:5432/shop_db with the catalogue new:5432/c")
    silent = replace(empty, reading=None)
    assert sources_with_backups([empty], noted) == sources_with_backups([silent], noted) == noted
    for as_before in (full, silent, replace(empty, source=full.source)):
        assert with_earlier_sources([as_before], noted) == (as_before,)


def test_trouble_is_said_where_it_is_seen() -> None:
    lines = (
        replace(LINE, status="failed", error="pg_dump ended early."),
        replace(LINE, suspicious="It has 1 table; the last good one had 9."),
        replace(LINE, unverifiable=True),
        replace(LINE, status="missing"),
    )
    said = html.unescape(page([view(*lines)], EVERY, NOW))
    assert "failed: pg_dump ended early." in said
    assert "is suspicious: It has 1 table; the last good one had 9." in said
    assert "did not pass its last verification" in said
    assert "its object is gone from the bucket" in said
    assert "not\N{NO-BREAK SPACE}scheduled" in said


def test_a_catalogue_that_does_not_answer_costs_a_sentence_and_no_other_plan() -> None:
    silent = PlanView("wiki", None, problems=("The catalogue does not answer. Nobody is at db:5432.",))
    text = page([silent, view(LINE)], EVERY, NOW)
    assert "Nobody is at db" in text
    assert "Restore" in links_in(text)


def test_nothing_at_all_says_what_to_do() -> None:
    assert "make up" in page([], EVERY, NOW)


def test_no_name_is_taken_for_markup() -> None:
    line = replace(LINE, created_by=ODD, suspicious=ODD, filename=ODD, backup_type=ODD)
    failed = replace(LINE, status="failed", error=ODD)
    kept = Kept(ODD, ODD, NOW, "run", None, None, ODD)
    one = PlanView(ODD, PlanReading(STATISTICS, (line, failed), ()), ODD, (kept,), problems=(ODD,))
    text = page([one, view(LINE)], EVERY, NOW, [ODD])
    assert set(re.findall(r"<(?!br>|!---->)[^>]*>", text)) == set()
    for sign in ("http://evil", "www.evil", "@evil", "`x`", "*b*", "&amp;", "![i]"):
        assert sign not in re.sub(r"\]\([^)]*\)", "]", text)
    for row in (row for row in text.splitlines() if row.startswith("|")):
        assert row.count("|") in (5, 6)
    assert given_to(links_in(text.split("\n## ")[1])["Back up now"]) == {"plan": ODD}


@pytest.mark.parametrize("text", ["http://a.b/c", "see www.a.b", "eve@a.b", "mailto:eve@a.b", "HTTPS://A.B"])
def test_no_address_in_a_name_becomes_a_link(text: str) -> None:
    """GitHub's markdown looks for addresses after it has decoded entities: only a tag between keeps it from it."""
    pieces = html.unescape(cell(text)).split("<!---->")
    assert len(pieces) > 1
    assert "".join(pieces) == text


@pytest.mark.parametrize(
    ("configured", "serve_base", "cloud", "base"),
    [
        ("", "", False, "/v2"),
        ("", "/", False, "/v2"),
        ("", "/prefect", False, "/prefect/v2"),
        ("", "/prefect/v2/", False, "/prefect/v2"),
        ("https://backups.example.org", "/x", False, "https://backups.example.org/v2"),
        ("https://backups.example.org/prefect/", "", False, "https://backups.example.org/prefect/v2"),
        ("https://backups.example.org/v2", "", False, "https://backups.example.org/v2"),
        ("https://a.b/c d)(e|f", "", False, "https://a.b/c%20d%29%28e%7Cf/v2"),
        ("https://a.b/?x=1#y", "", False, "https://a.b/v2"),
        ("javascript:alert(1)", "", False, "/v2"),
        (
            "https://app.prefect.cloud/account/1/workspace/2",
            "",
            True,
            "https://app.prefect.cloud/account/1/workspace/2",
        ),
    ],
)
def test_links_begin_where_the_ui_is(configured: str, serve_base: str, cloud: bool, base: str) -> None:
    assert ui_base(configured, serve_base, cloud) == base


def test_a_link_survives_whatever_its_parameters_hold() -> None:
    address = links_in(EVERY.form("Restore", "restore/restore-backup", plan=ODD, backup='")( |\\`'))["Restore"]
    assert given_to(address) == {"plan": ODD, "backup": '")( |\\`'}
    assert re.fullmatch(r"[\w/%.?=~-]+", address)


def test_the_picture_is_whole_and_labelled() -> None:
    points = [Point(NOW + timedelta(days=day), 10**9 + day, 60.0 + day, 0) for day in range(90)]
    points[40] = Point(NOW + timedelta(days=40), None, None, 2)
    drawn = picture(points)
    assert drawn.startswith("data:image/svg+xml;base64,")
    root = ElementTree.fromstring(base64.b64decode(drawn.split(",")[1]))  # noqa: S314 - our own
    said = " ".join(root.itertext())
    for label in ("size", "duration", "failed", "953.7 MiB", "2 min 29 s", "2026-03-08", "2026-06-05"):
        assert label in said
    assert len(drawn) < 32_000


@pytest.mark.parametrize(
    "points",
    [
        [Point(NOW, 5, 1.0, 0)] * 2,
        [Point(NOW, None, None, 1), Point(NOW + timedelta(hours=1), 0, 0.0, 0)],
        [Point(NOW, 5, None, 0)],
    ],
)
def test_a_picture_of_little_is_well_formed(points: list[Point]) -> None:
    ElementTree.fromstring(svg(points))  # noqa: S314 - our own


def test_there_is_no_picture_of_a_single_backup() -> None:
    assert picture([Point(NOW, 5, 1.0, 0)]) == picture([]) == ""


def test_a_terminal_gets_columns_without_control_characters() -> None:
    text = plain([view(replace(LINE, created_by="a\x1b[31m\n| b"))])
    assert text.count("\n") == 2
    assert "\x1b" not in text
    assert LINE.filename in text
    assert plain([view()]) == "No backup has been made yet.\n"


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (duration(None), "–"),
        (duration(0.04), "0.0 s"),
        (duration(9.96), "10 s"),
        (duration(59.6), "1 min 0 s"),
        (duration(7800), "2 h 10 min"),
        (percent(0, 0), "–"),
        (percent(999, 1000), "99.9 %"),
        (percent(1, 9999), "0.1 %"),
        (percent(99_999, 100_000), "99.9 %"),
        (percent(0, 9), "0 %"),
        (percent(9, 9), "100 %"),
        (growth(None, 5), "–"),
        (growth(100, 90), "-10.0 %"),
        (growth(1, 500), "×500"),
        (growth(0, 1), "–"),
    ],
)
def test_numbers_read_well(said: str, text: str) -> None:
    assert said == text
