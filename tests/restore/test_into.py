"""Production's backup into staging: another plan's server, with its owner, masked, undone; or nothing is changed."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

import pytest

from deployments.quick_start.postgres import PostgresCluster
from deployments.set_up_parts.prefect_yaml import ListedDeployment, listed_deployments
from deployments.set_up_parts.schedules import wanted_schedules
from flows.backup import backup
from flows.restore import restore
from flows.undo_restore import undo_restore
from tasks.errors import BackupSystemError, BadSetting, PreflightFailed, RestoreRefused
from tasks.plans.blocks import BackupPlan
from tasks.plans.find_plan import plan_named
from tasks.plans.schedules import in_words
from tasks.postgres.dsn import parse
from tasks.restore.compare import compare_run
from tasks.retention.removal import reader
from tests.conftest import BIN_DIRECTORIES
from tests.support import ci_skip, whole_story
from tests.support.flow_fixtures import WorldFactory
from tests.support.world import CHECKOUT, Heard, World, plain_dump

pytestmark = pytest.mark.usefixtures("impatient")

ROW, IN_SQL = "ada-4711@example.org", "masked-by-0815"
#: Roles that staging's server does not have, which own everything and hold grants.
PRODUCTION = f"""
    SET ROLE {{owner}};
    CREATE TABLE customers (id int PRIMARY KEY, email text NOT NULL);
    INSERT INTO customers SELECT i, '{ROW}' FROM generate_series(1, 500) i;
    CREATE SCHEMA jobs;
    CREATE TABLE jobs.job (name text, active bool DEFAULT true);
    INSERT INTO jobs.job VALUES ('bill everybody');
    CREATE VIEW addresses AS SELECT email FROM customers;
    CREATE FUNCTION twice(i int) RETURNS int LANGUAGE sql AS 'SELECT 2 * i';
    CREATE TYPE mood AS ENUM ('good', 'bad');
    CREATE SEQUENCE counter;
    SELECT lo_from_bytea(0, 'a large object'), lo_from_bytea(0, 'another');
    GRANT SELECT ON customers TO {{app}};
    ALTER DEFAULT PRIVILEGES FOR ROLE {{owner}} IN SCHEMA jobs GRANT SELECT ON TABLES TO {{app}};
    RESET ROLE;
"""
#: One item of the form for each.
MASKS = [f"UPDATE customers SET email = '{IN_SQL}-' || id", "UPDATE jobs.job SET active = false", "DROP VIEW addresses"]
OWNED = """
    SELECT DISTINCT pg_get_userbyid(owner) FROM (
      SELECT relowner AS owner, relnamespace AS n FROM pg_class UNION ALL SELECT proowner, pronamespace FROM pg_proc
      UNION ALL SELECT typowner, typnamespace FROM pg_type UNION ALL SELECT nspowner, oid FROM pg_namespace
      UNION ALL SELECT lomowner, 'public'::regnamespace FROM pg_largeobject_metadata) o
      JOIN pg_namespace ON pg_namespace.oid = n
     WHERE nspname IN ('public', 'jobs') AND NOT (nspname = 'public' AND n = owner) ORDER BY 1
"""
_numbers = itertools.count(1)


def weekly() -> ListedDeployment:
    """The deployment that the page adds to prefect.yaml."""
    text = (CHECKOUT / "docs" / "restore.md").read_text(encoding="utf-8")
    [recipe] = re.findall(r"```yaml\n(  - name: refresh-staging\n.*?)```", text, re.DOTALL)
    written = f"{(CHECKOUT / 'prefect.yaml').read_text(encoding='utf-8').rstrip()}\n\n{recipe}"
    return next(entry for entry in listed_deployments(written) if entry.full_name == "restore/refresh-staging")


def test_the_weekly_refresh_of_the_page_is_a_deployment_with_a_schedule() -> None:
    schedule = wanted_schedules([weekly()], {})["restore/refresh-staging"]["weekly-refresh"]
    assert (in_words(schedule.rule), schedule.active) == ("cron 0 5 * * 1 (UTC)", True)
    assert weekly().parameters.keys() <= signature(restore.fn).parameters.keys()


@dataclass(frozen=True)
class Pair:
    """Two plans, each with a server, a catalogue and a bucket of its own."""

    production: World
    staging: World
    owner: str

    @property
    def live(self) -> str:
        return parse(self.staging.database_url).dbname

    def refresh(self, **more: Any) -> Any:
        """Staging gets production's newest backup."""
        names = {"plan": self.production.plan, "into": self.staging.plan, "confirm": self.live}
        return restore(**{**weekly().parameters, **names, **more})

    def masks(self, *statements: str) -> None:
        """The plan of staging has these, as the form saves them."""
        block = BackupPlan.load(self.staging.plan)
        block.after_restore = list(statements)
        block.save(self.staging.plan, overwrite=True)

    def dumped(self) -> bytes:
        """What staging holds."""
        return plain_dump(self.staging.cluster, self.staging.cluster.url(self.live))

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """The rows that a superuser sees in staging."""
        return self.staging.sql(query, url=self.staging.cluster.url(self.live))


PairFactory = Callable[..., Pair]


@pytest.fixture
def pair(make_world: WorldFactory, start_postgres: Callable[[int], PostgresCluster]) -> PairFactory:
    """`pair(superuser, *statements, **settings)`: from the oldest version to the newest; who restores to staging."""
    versions = sorted(BIN_DIRECTORIES)
    if len(versions) < 2:
        ci_skip("two versions of PostgreSQL are not installed")

    def make(superuser: bool, *after_restore: str, script: str = PRODUCTION) -> Pair:
        number = next(_numbers)
        old, new = start_postgres(versions[0]), start_postgres(versions[-1])
        roles = {"owner": f"prod_owner_{number}", "app": f"prod_app_{number}"}
        production = make_world(old, mebibytes=0)
        for role in roles.values():
            production.sql(f"CREATE ROLE {role}")
        production.sql(f"ALTER DATABASE {parse(production.database_url).dbname} OWNER TO {roles['owner']}")
        production.sql(script.format(**roles))
        staging, owner = make_world(new, mebibytes=0), f"staging_owner_{number}"
        name = parse(staging.database_url).dbname
        staging.sql(f"CREATE ROLE {owner} LOGIN CREATEDB PASSWORD 'pw'")
        staging.sql(f"ALTER DATABASE {name} OWNER TO {owner}")
        staging.sql("CREATE TABLE what_staging_had AS SELECT 'precious' AS what")
        staging.sql(f"ALTER TABLE what_staging_had OWNER TO {owner}")
        if not superuser:
            staging = replace(staging, database_url=new.url(name, owner, "pw"))
        tools = f"{new.bin_directory}{os.pathsep}{old.bin_directory}"
        mask = ";".join(after_restore)
        saved = staging.save_plan(f"staging-{number}", AFTER_RESTORE=mask, SCHEDULE="never")
        return Pair(
            production.save_plan(f"production-{number}", SCHEDULE="never", PG_BIN_DIRECTORY=tools), saved, owner
        )

    return make


@pytest.mark.parametrize("superuser", [True, False], ids=["superuser", "plain owner"])
@pytest.mark.parametrize("compare", ["rows", "content"])
def test_production_into_staging_masked_and_owned_by_staging_until_undone(
    pair: PairFactory, superuser: bool, compare: str, heard: Heard
) -> None:
    both = pair(superuser, *MASKS)
    saved = backup(plan=both.production.plan)
    before = both.dumped()
    done = both.refresh(compare=compare)
    assert (done.filename, done.database) == (saved.filename, both.live)
    assert both.ask(f"SELECT count(*), count(*) FILTER (WHERE email LIKE '{IN_SQL}-%') FROM customers") == [(500, 500)]
    assert both.ask("SELECT active FROM jobs.job") == [(False,)]
    assert both.ask("SELECT to_regclass('addresses') IS NULL, count(*) FROM pg_largeobject_metadata") == [(True, 2)]
    assert {name for (name,) in both.ask(OWNED)} <= {both.owner, "pg_database_owner"}
    assert both.ask("SELECT relacl FROM pg_class WHERE relname = 'customers'") == [(None,)]
    assert both.ask("SELECT count(*) FROM pg_default_acl") == [(0,)]
    assert both.ask("SELECT count(*) FROM pg_roles WHERE rolname ~ '^(prod_|backup_loader_)'") == [(0,)]
    assert both.production.sql(f"SELECT count(*) FROM customers WHERE email = '{ROW}'") == [(500,)]
    assert both.production.events()[-2:] == [("restore", "started"), ("restore", "completed")]
    assert both.staging.events()[-2:] == [("restore", "started"), ("restore", "completed")]
    undo_restore(plan=both.staging.plan)
    assert both.dumped() == before
    assert ROW not in heard.text and IN_SQL not in heard.text


def test_a_restore_of_the_plans_own_backup_never_masks(pair: PairFactory) -> None:
    both = pair(True, "UPDATE what_staging_had SET what = 'masked'")
    backup(plan=both.staging.plan)
    restore(plan=both.staging.plan)
    assert both.ask("SELECT what FROM what_staging_had") == [("precious",)]


FAILING = {
    "divides by zero": ("SELECT 1 / 0", "division by zero"),
    "repeats a value": (f"INSERT INTO customers VALUES (1, '{IN_SQL}')", "unique violation"),
    "is no SQL": (f"MASK {IN_SQL}", "syntax error"),
    "ends the transaction": ("COMMIT", "ends the transaction"),
    "fails at the end": (
        f"CREATE TABLE late (i int UNIQUE DEFERRABLE INITIALLY DEFERRED, t text DEFAULT '{IN_SQL}');"
        "INSERT INTO late VALUES (7), (7)",
        "unique violation",
    ),
}


@pytest.mark.parametrize("superuser", [True, False], ids=["superuser", "plain owner"])
def test_a_statement_that_fails_leaves_staging_as_it_was_and_is_named_by_its_number(
    pair: PairFactory, superuser: bool, heard: Heard
) -> None:
    both = pair(superuser)
    backup(plan=both.production.plan)
    before, databases = both.dumped(), both.staging.databases()
    for case, (statements, how) in FAILING.items():
        both.masks(MASKS[0], statements)
        with pytest.raises(RestoreRefused, match=how) as refused:
            both.refresh()
        number = "at the end of the transaction" if "at the end" in case else "Statement 2 of 2"
        assert number in str(refused.value), case
        assert (both.dumped(), both.staging.databases()) == (before, databases), case
        assert both.ask("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'backup_loader_%'") == [(0,)]
        assert both.staging.events()[-1] == ("restore", "failed")
        told = whole_story(refused.value)
        assert ROW not in told and IN_SQL not in told, case
    [(recorded,)] = both.staging.sql("SELECT array_agg(e::text) FROM backup_events e", url=both.staging.catalogue_url)
    assert all(secret not in f"{heard.text} {recorded}" for secret in (ROW, IN_SQL))


def test_unmasked_rows_do_not_stay_where_an_entry_failed(pair: PairFactory) -> None:
    both = pair(True, *MASKS, script=PRODUCTION + "CREATE POLICY p ON customers TO {app} USING (true);")
    backup(plan=both.production.plan)
    databases = both.staging.databases()
    with pytest.raises(BackupSystemError, match="POLICY"):  # the role is missing there, and no grant of its
        both.refresh()
    assert both.staging.databases() == databases
    both.refresh(without=["POLICY public.customers p"])


def test_code_of_production_that_masking_calls_gets_no_rights_of_a_superuser(pair: PairFactory) -> None:
    """A trigger of production runs with each masked row."""
    script = PRODUCTION + (
        "CREATE ROLE climber_{app}; CREATE FUNCTION climb() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "RESET ROLE; RESET SESSION AUTHORIZATION; "
        "BEGIN EXECUTE 'ALTER ROLE ' || quote_ident(session_user) || ' SUPERUSER'; EXCEPTION WHEN OTHERS THEN NULL; END; "
        "INSERT INTO jobs.job SELECT session_user || rolsuper FROM pg_roles WHERE rolname = session_user; "
        "RETURN NEW; END $$;"
        "CREATE TRIGGER climb BEFORE UPDATE ON customers FOR EACH ROW EXECUTE FUNCTION climb();"
    )
    both = pair(True, MASKS[0], script=script)
    backup(plan=both.production.plan)
    both.refresh()
    [(calls, climbed)] = both.ask(
        "SELECT count(*), count(*) FILTER (WHERE name LIKE '%true') FROM jobs.job WHERE name LIKE 'backup_loader_%'"
    )
    assert (calls, climbed) == (500, 0)


def test_owners_as_backed_up_need_the_roles_which_are_named_all_at_once(pair: PairFactory) -> None:
    both = pair(True, *MASKS)
    backup(plan=both.production.plan)
    with pytest.raises(PreflightFailed, match=r"needs the role prod_app_\d+, prod_owner_\d+"):
        both.refresh(owners="as_backed_up", privileges=True)
    both.refresh(owners="as_backed_up", privileges=True, create_missing_roles=True)
    assert {name for (name,) in both.ask("SELECT tableowner FROM pg_tables WHERE schemaname = 'public'")} == {
        both.owner.replace("staging", "prod")
    }


def test_everything_is_never_given_to_a_superuser(pair: PairFactory) -> None:
    both = pair(True)
    backup(plan=both.production.plan)
    both.ask(f"ALTER DATABASE {both.live} OWNER TO CURRENT_USER")
    with pytest.raises(PreflightFailed, match="let an ordinary role own the target database"):
        both.refresh()


def test_a_restore_elsewhere_is_confirmed_and_never_goes_where_it_comes_from(pair: PairFactory) -> None:
    both = pair(True, *MASKS)
    backup(plan=both.production.plan)
    before = both.dumped()
    with pytest.raises(PreflightFailed, match=f"Database {both.live} of {both.staging.plan} .*write its name"):
        both.refresh(confirm="")
    with pytest.raises(PreflightFailed, match="cannot run before others see"):
        both.refresh(mode="in_place", owners="as_backed_up", privileges=True)
    with pytest.raises(BadSetting, match="itself"):
        both.refresh(into=both.production.plan)
    with pytest.raises(BadSetting, match="There is no plan 'nowhere'"):
        both.refresh(into="nowhere")
    with pytest.raises(PreflightFailed, match="use the mode new_database, or make a plan"):
        both.refresh(into=f"{both.staging.plan}-database")
    assert both.dumped() == before
    twin = both.production.save_plan(f"{both.staging.plan}-twin", AFTER_RESTORE=MASKS[0])
    name = parse(both.production.database_url).dbname
    with pytest.raises(PreflightFailed, match=f"{name} is the database that plan {both.production.plan} backs up"):
        both.refresh(into=twin.plan, confirm=name)
    assert both.production.sql(f"SELECT count(*) FROM customers WHERE email = '{ROW}'") == [(500,)]


def test_a_new_database_beside_staging_is_masked_too_and_one_on_the_server_of_a_block_is_made(
    pair: PairFactory,
) -> None:
    both = pair(False, *MASKS)
    backup(plan=both.production.plan)
    done = both.refresh(mode="new_database", target=f"{both.live}_beside", confirm="")
    url = both.staging.cluster.url(done.database)
    assert both.staging.sql(f"SELECT count(*) FROM customers WHERE email LIKE '{IN_SQL}-%'", url=url) == [(500,)]
    block = f"{both.staging.plan}-database"
    moved = both.refresh(mode="new_database", into=block, target=f"{both.live}_moved", confirm="")
    url = both.staging.cluster.url(moved.database)
    assert both.staging.sql(f"SELECT count(*) FROM customers WHERE email = '{ROW}'", url=url) == [(500,)]


def test_a_backup_that_is_read_for_another_server_is_not_removed(
    pair: PairFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, seen = pair(True, *MASKS), []
    saved = backup(plan=both.production.plan)

    def asked(*arguments: Any) -> Any:
        seen.append(reader(plan_named(both.production.plan), saved.filename, "another run"))
        return compare_run(*arguments)

    monkeypatch.setattr("tasks.restore.steps.compare_run", asked)
    both.refresh()
    assert len(seen) == 1 and seen[0].startswith("restore (run ")
    assert reader(plan_named(both.production.plan), saved.filename, "another run") == ""


def test_a_plan_that_is_only_restored_into_makes_no_backups_and_takes_those_of_others(pair: PairFactory) -> None:
    both = pair(True)
    backup(plan=both.production.plan)
    backup(plan=both.staging.plan)
    block = BackupPlan.load(both.staging.plan)
    block.restore_only = True
    block.save(both.staging.plan, overwrite=True)
    rows = both.staging.rows()
    with pytest.raises(BadSetting, match=f"Plan {both.staging.plan} is only restored into, so no backup of it is made"):
        backup(plan=both.staging.plan)
    assert both.staging.rows() == rows and both.staging.events()[-1] == ("backup", "refused")
    both.refresh()
    assert both.ask("SELECT count(*) FROM customers") == [(500,)]
    undo_restore(plan=both.staging.plan)
    assert both.ask("SELECT what FROM what_staging_had") == [("precious",)]
    restore(plan=both.staging.plan, mode="in_place", confirm=both.live)  # which secures what it replaces
    assert [row.status for row in both.staging.rows()] == ["completed", "completed"]
