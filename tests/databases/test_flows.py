"""Every flow with the plan of a server, and with the plans of its databases, each run directly in this process."""

from __future__ import annotations

import pytest

from flows.backup import backup
from flows.check_health import check_health
from flows.cleanup import cleanup
from flows.list_backups import list_backups
from flows.rebuild_catalogue import rebuild_catalogue
from flows.restore import restore
from tasks.errors import BadSetting, HealthFailed
from tasks.health.steps import plans_meant, text
from tasks.plans.blocks import BackupPlan
from tasks.postgres.dsn import parse
from tests.support.flow_fixtures import WorldFactory

ODD = 'street_"Ü" 100% /'


def health_of(plan: str) -> str:
    """What the health check says, whether or not it finds something wrong."""
    try:
        return text(check_health(plan))  # type: ignore[arg-type]
    except HealthFailed as error:
        return error.report


def test_flows_take_the_plan_of_a_server_and_those_of_its_databases(make_world: WorldFactory) -> None:
    world = make_world(mebibytes=0).save_plan("street")
    own = parse(world.database_url).dbname
    world.sql("CREATE TABLE t AS SELECT 1 AS i")
    for name in ("nobodys", "street_a", ODD.replace('"', '""')):
        world.sql(f'CREATE DATABASE "{name}" TEMPLATE "{own}"', url=world.catalogue_url)
    block = BackupPlan.load("street")
    block.databases = ["street_*", "!*_none"]
    block.save("street", overwrite=True)
    names = ["street.street_a", "street.street_~22~c3~9c~22~20100~25~20~2f"]

    made = backup("street", "Ada")
    assert {(one.ended.plan, one.completed) for one in made} == {(name, True) for name in names}  # type: ignore[union-attr]
    rows = world.catalogue.newest("street", 9)
    assert sorted((row.plan, row.status) for row in rows) == [(name, "completed") for name in names]

    assert plans_meant("street") == ["street", *names]
    said = health_of("street")
    assert "Databases: 2 are meant, and all of them have been backed up." in said
    [line] = [line for line in said.splitlines() if "Databases that no plan covers: " in line]
    assert line.startswith("warning") and "nobodys" in line and "street" not in line
    assert [said.count(f"Plan {name}: ") for name in ("street", *names)] == [1, 1, 1], said
    assert [done.plan for done in cleanup("street")] == names
    assert [done.plan for done in rebuild_catalogue("street", dry_run=True)] == names
    assert sorted(view.name for view in list_backups("street")) == names

    url = world.cluster.url(ODD)
    before = world.sql("SELECT count(*) FROM pg_class", url=url)
    world.sql("CREATE TABLE lost_later (i int)", url=url)
    restore(plan=names[1], confirm=ODD)
    assert world.sql("SELECT count(*) FROM pg_class", url=url) == before
    with pytest.raises(BadSetting, match="backs up each database of its server as a plan of its own"):
        restore(plan="street")
