"""What the admin page reads of real catalogues and servers, and how little one that is down costs the others."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg2
import pytest
from psycopg2 import sql

from deployments.quick_start.postgres import PostgresCluster
from tasks.admin_page import gather as gathering
from tasks.admin_page.gather import changed, gather, read
from tasks.admin_page.notes import kept_notes
from tasks.admin_page.page import page
from tasks.admin_page.steps import chosen
from tasks.admin_page.view import Links, PlanView
from tasks.catalogue.catalogue import Catalogue
from tasks.catalogue.rows import Event
from tasks.plans.addresses import PlanAddress
from tasks.plans.database_patterns import checked_databases
from tasks.postgres.dsn import Dsn, parse
from tasks.restore.kept_databases import Kept
from tasks.restore.labels import Label
from tasks.restore.last_restore import UNKNOWN
from tasks.runs.at_once import asked_at_once
from tests.admin_page.rows import insert, row
from tests.conftest import DatabaseFactory

NOW = datetime.now(UTC).replace(microsecond=0)
NOBODY = parse("postgresql://somebody:a-secret@127.0.0.1:1/nothing")
DAY = timedelta(days=1)
DEPLOYMENTS = (
    "backup/manual",
    "restore/restore-backup",
    "undo-restore/undo-last-restore",
    "cleanup/clean-up-now",
    "download-backup/download-backup",
    "verify-backup/verify-backup",
    "delete-backup/delete-backup",
)
LINKS = Links(deployments=dict.fromkeys(DEPLOYMENTS, "0e3f6a52-93b5-4bcb-8a3c-b11c06bd5c02"))

CatalogueFactory = Callable[[], Catalogue]


@pytest.fixture
def catalogue(any_postgres: PostgresCluster, fresh_database: DatabaseFactory) -> CatalogueFactory:
    def create() -> Catalogue:
        made = Catalogue(parse(fresh_database(any_postgres)))
        made.prepare()
        return made

    return create


@pytest.fixture
def server_of_kept(any_postgres: PostgresCluster) -> Iterator[Callable[[Label], Dsn]]:
    """Makes a database that carries this label, and returns the server's address."""
    made: list[str] = []

    def run(statement: sql.Composed) -> None:
        connection = psycopg2.connect(any_postgres.url())
        connection.autocommit = True
        connection.cursor().execute(statement)
        connection.close()

    def create(label: Label) -> Dsn:
        run(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(label.name)))
        made.append(label.name)
        run(sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(label.name), sql.Literal(label.text())))
        return parse(any_postgres.url())

    yield create
    for name in made:
        run(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def by_name(views: tuple[PlanView, ...]) -> dict[str, PlanView]:
    return {view.name: view for view in views}


def test_the_numbers_of_a_plan_are_those_of_its_rows(catalogue: CatalogueFactory) -> None:
    book = catalogue()
    insert(
        book,
        [
            row("shop", NOW - 40 * DAY, status="expired", seconds=500, file_size=7),
            row("shop", NOW - 20 * DAY, status="expired", seconds=10, file_size=100, plain_size=100),
            row("shop", NOW - 10 * DAY, seconds=30, file_size=150),
            row("shop", NOW - 9 * DAY, status="failed"),
            row("shop", NOW - 2 * DAY, seconds=20, file_size=12, plain_size=120),
            row("shop", NOW - 1 * DAY, seconds=20, file_size=9999, backup_type="pre_restore"),
            row("shop", NOW - 3 * DAY, seconds=900, file_size=1, backup_type="adopted"),
            row("shop", NOW - 4 * DAY, status="failed", backup_type="adopted"),
            row("shop", NOW, status="in_progress"),
            row("wiki", NOW - DAY, file_size=5),
        ],
    )
    told = read(book, ["shop"], ["wiki"], 50, NOW).plans
    assert told.keys() == {"shop"}
    numbers = told["shop"].statistics
    assert (numbers.recorded, numbers.completed, numbers.stored) == (9, 4, 150 + 12 + 9999 + 1)
    assert (numbers.month_ended, numbers.month_succeeded, numbers.month_seconds) == (5, 4, 20.0)
    assert (numbers.month_first_size, numbers.month_last_size) == (100, 120)
    assert numbers.last_success == NOW - 2 * DAY + timedelta(seconds=20)
    assert sum(point.failed for point in told["shop"].points) == 1
    assert [point.size for point in told["shop"].points] == [7, 100, 150, None, 12]


def test_the_newest_completed_backups_stay_on_the_page_however_many_failed_since(catalogue: CatalogueFactory) -> None:
    book = catalogue()
    insert(book, [row("shop", NOW - DAY - timedelta(hours=hour)) for hour in range(9)])
    insert(book, [row("shop", NOW - timedelta(minutes=minute), status="failed") for minute in range(80)])
    lines = read(book, ["shop"], [], 50, NOW).plans["shop"].lines
    assert [line.status for line in lines] == ["failed"] * 50 + ["completed"] * 5
    assert [line.created_at for line in lines] == sorted((line.created_at for line in lines), reverse=True)


def test_a_backup_that_did_not_pass_its_drill_is_told_from_one_that_had_none(catalogue: CatalogueFactory) -> None:
    book = catalogue()
    insert(
        book,
        [
            row("shop", NOW - DAY, metadata={"verification": {"outcome": "unverifiable"}}),
            row("shop", NOW - 2 * DAY, metadata={"verification": {"outcome": "verified"}}, verified_at=NOW),
            row("shop", NOW - 3 * DAY, metadata=["odd"]),
        ],
    )
    assert [line.unverifiable for line in read(book, ["shop"], [], 50, NOW).plans["shop"].lines] == [True, False, False]


def test_plans_share_a_catalogue_or_have_their_own(catalogue: CatalogueFactory) -> None:
    ours, theirs = catalogue(), catalogue()
    insert(ours, [row("shop", NOW - DAY), row("wiki", NOW - 2 * DAY), row("crm", NOW - DAY), row("gone", NOW - DAY)])
    insert(theirs, [row("crm", NOW - 3 * DAY), row("crm", NOW - 4 * DAY)])
    plans = [
        PlanAddress("shop", None, ours.dsn),
        PlanAddress("wiki", None, ours.dsn),
        PlanAddress("crm", None, theirs.dsn),
        PlanAddress("new", None, theirs.dsn),
    ]
    views = by_name(gather(plans, {"wiki": NOW + DAY}, NOW).views)
    assert [(view.name, len(view.reading.lines), view.configured) for view in views.values() if view.reading] == [
        ("shop", 1, True),
        ("wiki", 1, True),
        ("crm", 2, True),
        ("new", 0, True),
        ("gone", 1, False),
    ]
    assert views["wiki"].next_run == NOW + DAY
    assert not any(view.problems for view in views.values())


def test_each_database_of_a_server_is_shown_as_its_own_plan(catalogue: CatalogueFactory) -> None:
    """By the rows of the catalogue; the server is not asked for its databases. Without rows, the plan itself is shown."""
    book, other = catalogue(), catalogue()
    insert(book, [row("server.shop", NOW - DAY), row("server.~53hop", NOW - DAY), row("serverless", NOW - DAY)])
    insert(other, [row("server.old", NOW - DAY)])
    patterns, address = checked_databases(["*"]), NOBODY.with_dbname("x")
    plans = [
        PlanAddress("server", address, book.dsn, databases=patterns, price_per_gib=2),
        PlanAddress("young", address, other.dsn, databases=patterns),
    ]
    old = Kept("Shop__before_1", "Shop", NOW, "run", 1024, None, "server.~53hop", "restore")
    noted = kept_notes([PlanView("server.~53hop", None, kept=(old,))])
    views = by_name(gather(plans, {"server": NOW + DAY}, NOW, "server.shop", noted).views)
    assert [(view.name, view.database, view.configured) for view in views.values()] == [
        ("server.shop", "shop", True),
        ("server.~53hop", "Shop", True),
        ("young", "x", True),
        ("serverless", "", False),
    ]
    assert views["server.shop"].next_run == NOW + DAY and views["server.shop"].price_per_gib == 2
    assert views["server.~53hop"].kept == (old,) and views["server.shop"].kept == ()
    assert [view.name for view in chosen(tuple(views.values()), "server")] == ["server.shop", "server.~53hop"]
    insert(book, [row("server", NOW - 9 * DAY)])  # of the time before it had patterns
    assert [view.name for view in gather(plans, {}, NOW, "server").views][:2] == ["server", "server.shop"]


def test_a_catalogue_or_a_server_that_is_down_costs_a_sentence(catalogue: CatalogueFactory) -> None:
    book = catalogue()
    insert(book, [row("shop", NOW - DAY)])
    plans = [
        PlanAddress("shop", NOBODY, book.dsn),
        PlanAddress("wiki", None, NOBODY),
        PlanAddress("odd", problem="The database of plan odd is empty."),
    ]
    gathered = gather(plans, {}, NOW)
    views = by_name(gathered.views)
    assert views["shop"].reading is not None
    assert "127.0.0.1:1" in views["shop"].problems[0]
    assert views["wiki"].reading is None
    assert "127.0.0.1:1" in views["wiki"].problems[0]
    assert views["odd"].problems == ("The database of plan odd is empty.",)
    assert "a-secret" not in page(gathered.views, LINKS, NOW)
    assert not changed(plans, gathered.marks)


def test_a_server_that_is_not_to_be_asked_is_left_alone_and_what_was_noted_of_it_stands(
    catalogue: CatalogueFactory,
) -> None:
    book = catalogue()
    plans = [PlanAddress("shop", NOBODY, book.dsn), PlanAddress("twin", NOBODY.with_dbname("twin"), book.dsn)]
    old = Kept("shop__before_1", "shop", NOW, "run", 1024, "a comment", "shop", "undo-restore")
    [view, _] = gather(plans, {}, NOW, "shop").views
    noted = kept_notes([replace(view, kept=(old, old))])
    views = by_name(gather(plans, {}, NOW, "shop", {**noted, "kept database: shop/009": '{"name": "cut o'}).views)
    assert views["shop"].kept == (replace(old, comment=None),) * 2 and views["twin"].kept == ()
    assert not views["shop"].problems and not views["twin"].problems


def test_a_database_without_the_tables_costs_a_sentence(
    any_postgres: PostgresCluster, fresh_database: DatabaseFactory
) -> None:
    dsn = parse(fresh_database(any_postgres))
    [view] = gather([PlanAddress("shop", None, dsn)], {}, NOW).views
    assert view.reading is None
    assert "run the set-up" in view.problems[0]


def test_who_hangs_is_not_waited_for() -> None:
    began = time.monotonic()
    answers = asked_at_once({"slow": lambda: time.sleep(60), "quick": lambda: 7}, 0.5)
    assert time.monotonic() - began < 10
    assert answers["quick"] == 7
    assert "No answer" in str(answers["slow"])


def test_an_error_that_nobody_foresaw_is_told_without_what_it_says() -> None:
    answers = asked_at_once({"odd": lambda: {}["a-secret"], "none": lambda: None, "quick": lambda: 7}, 10)
    assert (answers["none"], answers["quick"]) == (None, 7)
    assert "It broke (KeyError at test_statistics.py:" in str(answers["odd"])
    assert "a-secret" not in str(answers["odd"])


def test_a_stopped_server_keeps_nobody_waiting(
    start_postgres: Callable[[int], PostgresCluster],
    servers_directory: object,
    monkeypatch: pytest.MonkeyPatch,
    any_postgres: PostgresCluster,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    cluster = PostgresCluster(tmp_path_factory.mktemp("stopped"), any_postgres.bin_directory, durable=False, owned=True)
    cluster.start()
    pid = int((cluster.data_directory / "postmaster.pid").read_text().splitlines()[0])
    monkeypatch.setattr(gathering, "DEADLINE", 1.0)
    try:
        os.kill(pid, signal.SIGSTOP)
        dsn = parse(cluster.url())
        [view] = gather([PlanAddress("shop", dsn, dsn)], {}, NOW).views
        assert view.reading is None
        assert "gave no answer" in view.problems[0]
    finally:
        os.kill(pid, signal.SIGCONT)
        cluster.stop(immediate=True)


def test_kept_databases_stand_at_the_plan_whose_restore_kept_them(
    catalogue: CatalogueFactory, server_of_kept: Callable[[Label], Dsn]
) -> None:
    name = "odd <i>`ü`|__before_20260301T020000Z"
    label = Label("kept", name, "shop", NOW - DAY, "run", None, "odd-shop")
    server, book = server_of_kept(label), catalogue()
    plans = [
        PlanAddress("odd-shop", server.with_dbname("shop"), book.dsn, 5),
        PlanAddress("odd-wiki", server.with_dbname("wiki"), book.dsn),
    ]
    views = by_name(gather(plans, {}, NOW).views)
    assert [(one.name, one.size) for one in views["odd-wiki"].kept] == []
    [one] = views["odd-shop"].kept
    assert one.name == name
    assert one.size is not None
    assert one.size > 1 << 20


def test_whatever_is_recorded_is_noticed(catalogue: CatalogueFactory) -> None:
    book = catalogue()
    plans = [PlanAddress("shop", None, book.dsn)]
    marks = gather(plans, {}, NOW).marks
    assert not changed(plans, marks)
    book.note(Event("backup", "failed", "shop", "Ada", "run"))
    assert changed(plans, marks)
    marks = gather(plans, {}, NOW).marks
    insert(book, [row("shop", NOW, status="in_progress")])
    assert changed(plans, marks)


def test_ten_thousand_backups_are_on_the_page_within_two_seconds(catalogue: CatalogueFactory) -> None:
    book = catalogue()
    insert(
        book,
        [
            row(
                f"plan-{number % 4}",
                NOW - timedelta(minutes=13 * number),
                suspicious="It shrank." * 20,
                created_by="x" * 200,
            )
            for number in range(10_000)
        ],
    )
    plans = [PlanAddress(f"plan-{number}", None, book.dsn) for number in range(4)]
    took = []
    for _ in range(3):  # the quickest counts, in seconds of work: the machine may be busy
        began = time.process_time()
        text = page(gather(plans, {}, NOW).views, LINKS, NOW)
        took.append(time.process_time() - began)
    assert min(took) < 2, took
    assert text.count("[Restore]") == 4 * 50
    assert "The newest 50 of 2,500 rows." in text
    assert len(text) < 500_000


def test_the_page_stays_readable_with_very_many_plans(catalogue: CatalogueFactory) -> None:
    book = catalogue()
    insert(book, [row(f"plan-{number % 100}", NOW - timedelta(hours=number)) for number in range(6000)])
    plans = [PlanAddress(f"plan-{number}", None, book.dsn) for number in range(100)]
    text = page(gather(plans, {}, NOW).views, LINKS, NOW)
    assert text.count("[Restore]") == gathering.ROWS_IN_ALL
    assert len(text) < 2_000_000


def test_the_time_to_restore_is_that_of_the_last_whole_restore_or_verify_run(catalogue: CatalogueFactory) -> None:
    book = catalogue()
    insert(book, [row("shop", NOW - DAY), row("other", NOW - DAY)])

    def note(
        action: str, seconds: float | None, size: int | None = 3 << 30, outcome: str = "completed", **details: object
    ) -> None:
        given = {"mode": "swap", "tables": [], **details} if action == "restore" else {"tables": {"public.t": 1}}
        book.note(Event(action, outcome, "shop", "Ada", "run", None, "b.sql", seconds, size, details=given))

    def shown() -> str:
        reading = read(book, ["shop", "other"], [], 10, NOW).plans["shop"]
        return page([PlanView("shop", reading, "shop")], LINKS, NOW)

    assert UNKNOWN in shown()
    note("verify-backup", 185.0)
    note("restore", 1.0, tables=["public.t"])
    note("restore", 2.0, mode="in_place")
    note("restore", 3.0, size=None)
    note("restore", 4.0, outcome="failed")
    note("backup", 5.0)
    said = "UTC) took 3 min 5 s for a backup of 3.0 GiB: download, load, and a comparison of all content."
    assert "The last verify-backup (" in shown() and said in shown() and UNKNOWN not in shown()
    note("restore", 61.0, size=1 << 20)
    assert "took 1 min 1 s for a backup of 1.0 MiB: download, load, count and swap. A restore takes" in shown()
    other = read(book, ["shop", "other"], [], 10, NOW).plans["other"]
    assert other.last_restore is None
