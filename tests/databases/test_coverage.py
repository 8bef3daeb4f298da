"""The health check says which databases of a server no plan covers."""

from __future__ import annotations

from tasks.databases.coverage import place_of_server, uncovered
from tasks.databases.on_server import Databases
from tasks.health.database import uncovered_line
from tasks.plans.addresses import PlanAddress, of_databases
from tasks.plans.database_patterns import checked_databases
from tasks.postgres.dsn import Dsn, parse
from tasks.runs.at_once import Answer

SERVER = parse("postgresql://me:pw@db.example/shop")
FOUND = Databases(("crm", "new_1", "postgres", "shop", "wiki"), ("backup_catalog",), ("postgres",))


def left(*plans: PlanAddress, found: Databases = FOUND, server: Dsn = SERVER) -> list[str]:
    return uncovered(found, place_of_server(server), plans)


def test_what_one_plan_lacks_another_may_cover() -> None:
    shop = PlanAddress("shop", SERVER)
    patterns = PlanAddress("server", SERVER.with_dbname("x"), databases=checked_databases(["new_*", "crm"]))
    assert left(shop) == ["crm", "new_1", "wiki"]
    assert left(shop, patterns) == ["wiki"]
    assert left(shop, PlanAddress("all", SERVER, databases=checked_databases(["*"]))) == []


def test_a_plan_with_patterns_does_not_cover_the_database_in_its_address() -> None:
    assert left(PlanAddress("server", SERVER, databases=checked_databases(["crm"]))) == ["new_1", "shop", "wiki"]


def test_a_plan_that_is_only_restored_into_covers_its_own_database_alone() -> None:
    everything = PlanAddress("into", SERVER, restore_only=True, databases=checked_databases(["*"]))
    assert left(everything) == ["crm", "new_1", "shop", "wiki"]
    assert left(PlanAddress("into", SERVER, restore_only=True)) == ["crm", "new_1", "wiki"]


def test_plans_of_other_servers_and_plans_that_cannot_be_read_cover_nothing() -> None:
    elsewhere = parse("postgresql://me:pw@db.example:5433/crm")
    assert left(PlanAddress("crm", elsewhere), PlanAddress("odd", problem="It is empty.")) == [
        "crm",
        "new_1",
        "shop",
        "wiki",
    ]


def test_a_postgres_with_tables_counts() -> None:
    assert left(PlanAddress("shop", SERVER), found=Databases(("postgres", "shop"))) == ["postgres"]


def test_the_line_names_five_and_the_number_and_says_what_to_do() -> None:
    assert uncovered_line(Answer([])).text() == "ok       Databases that no plan covers: None."
    line = uncovered_line(Answer([f"db_{number}" for number in range(7)]))
    assert line.status == "warning" and line.what == "7 on this server: db_0, db_1, db_2, db_3, db_4 and 2 more."
    assert "backups plan add" in line.to_do
    assert uncovered_line(Answer(["caf\udce9"])).what == "1 on this server: caf\\xe9."
    assert uncovered_line(Answer(None, "It did not answer.")).status == "warning"


def test_the_plans_of_its_databases_have_its_catalogue_and_each_its_own_database() -> None:
    server = PlanAddress("server", SERVER, SERVER.with_dbname("book"), databases=checked_databases(["*"]))
    [shop] = of_databases(server, ["server.~53hop"])
    assert (shop.name, shop.database, shop.catalogue) == ("server.~53hop", SERVER.with_dbname("Shop"), server.catalogue)
    assert not shop.databases and of_databases(PlanAddress("odd", problem="It is empty."), ["odd.a"]) == []
