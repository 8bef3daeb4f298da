"""The checks of a plan are asked of what was restored: read-only, and without a value of a row in any message."""

from __future__ import annotations

import pytest

from tasks.errors import BackupSystemError, BadSetting, CheckFailed, VerifyImpossible
from tasks.plans.plan import checked_checks
from tasks.restore.labels import is_verify_scratch_name
from tasks.verify import checks
from tasks.verify.checks import run_checks
from tasks.verify.steps import proved
from tasks.verify.verdict import fault_of
from tests.support import whole_story
from tests.support.scene import Scene, SceneFactory
from tests.verify.test_verify import examined, lock, no_scratch_left, one_version, row_of, subject_of, verify

MARKER = "mArKeR-of-a-row"
SOURCE = f"""
CREATE TABLE orders (id int PRIMARY KEY, note text);
INSERT INTO orders SELECT i, '{MARKER}' FROM generate_series(1, 30) i;
CREATE SCHEMA other; CREATE TABLE other.hidden (i int);
ALTER DATABASE "{{name}}" SET search_path = public, other;
CREATE FUNCTION complain() RETURNS bool LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'order % is bad', (SELECT note FROM orders LIMIT 1); END $$;
CREATE FUNCTION writes() RETURNS bool LANGUAGE plpgsql AS $$ BEGIN DELETE FROM orders; RETURN true; END $$;
"""
TRUE = (
    "SELECT count(*) = 30 FROM orders",
    "(SELECT count(*) FROM hidden) = 0",
    "EXISTS (SELECT FROM orders WHERE note LIKE '%mArKeR%')",
    "with n AS (SELECT 1) SELECT true FROM n",
    "VALUES (true)",
    "current_setting('transaction_read_only')::bool",
    "SELECT true -- a comment",
)
#: What each of these says, but for its number and its text.
FAILING = {
    "SELECT count(*) > 1000 FROM orders": "is false",
    "SELECT NULL::bool": "is NULL",
    "SELECT true WHERE false": "gives no row",
    "SELECT id > 0 FROM orders": "gives more than one row",
    "SELECT count(*) FROM orders": "does not give one boolean",
    "SELECT note FROM orders": "does not give one boolean",
    "SELECT true, true": "does not give one boolean",
    "SELECT count(*) > 0 FROM invoices": "ended with an error (undefined table, SQLSTATE 42P01)",
    "SELECT cnt(*)": "ended with an error (undefined function, SQLSTATE 42883)",
    "SELECT note::int > 0 FROM orders": "ended with an error (invalid text representation, SQLSTATE 22P02)",
    "complain()": "ended with an error (raise exception, SQLSTATE P0001)",
    "writes()": "ended with an error (read only sql transaction, SQLSTATE 25006)",
    "DELETE FROM orders": "ended with an error (undefined column, SQLSTATE 42703)",
    "COMMIT": "ended with an error (undefined column, SQLSTATE 42703)",
    "WITH d AS (DELETE FROM orders RETURNING 1) SELECT true FROM d": (
        "ended with an error (feature not supported, SQLSTATE 0A000)"
    ),
}


@pytest.fixture
def shop(scene: SceneFactory) -> Scene:
    made = scene()
    made.sql(SOURCE.replace("{name}", made.name))
    return made


@one_version
def test_checks_that_are_true_are_counted_and_shown(shop: Scene) -> None:
    checked = shop.with_plan(checks=TRUE)
    backup = shop.back_up()
    done = verify(checked)
    assert done.checks == len(TRUE) and "Every check of the plan is true of it: 7." in proved(done)
    assert row_of(shop, backup).metadata["verification"]["checks"] == 7
    assert verify(shop).checks == 0


def failing(shop: Scene) -> BackupSystemError:
    subject = subject_of(shop)
    with pytest.raises(BackupSystemError) as failure, lock(shop, subject):
        run = examined(shop, subject)
        with no_scratch_left(shop.plan, run, pytest.fail):
            shop.load(run)
            run_checks(shop.plan, run)
    assert not [name for name in shop.databases() if is_verify_scratch_name(name, shop.name)]
    return failure.value


@one_version
def test_checks_that_are_not_true_are_all_named_in_one_sentence_without_a_value_of_a_row(shop: Scene) -> None:
    shop.back_up()
    error = failing(shop.with_plan(checks=("true", *FAILING, "SELECT count(*) = 30 FROM orders")))
    assert isinstance(error, CheckFailed) and fault_of(error) == "check"
    total = len(FAILING) + 2
    for number, (check, said) in enumerate(FAILING.items(), 2):
        assert f"check {number} of {total} {said}: {check}" in str(error)
    assert f"check 1 of {total}" not in str(error) and f"check {total} of" not in str(error)
    assert MARKER not in whole_story(error) and "\n" not in str(error)
    assert shop.sql("SELECT count(*) FROM orders") == [(30,)]


@one_version
def test_a_check_that_takes_too_long_says_nothing_about_the_backup(
    shop: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "_MINUTES", 0.005)
    shop.back_up()
    error = failing(shop.with_plan(checks=("SELECT pg_sleep(60) IS NOT NULL",)))
    assert isinstance(error, VerifyImpossible) and fault_of(error) == "environment"
    assert "check 1 of 1 had no answer after 0.005 minutes" in str(error)


def test_a_check_is_one_statement() -> None:
    assert checked_checks(["SELECT true; ", " ", "", "true;;"]) == ("SELECT true", "true")
    with pytest.raises(BadSetting, match=r"Check 2 has a semicolon within it: .* chr\(59\)"):
        checked_checks(["true", "COMMIT; DROP TABLE orders"])
