"""What belongs to the server is in the manifest, but for passwords, and comes back with psql alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pyrage
import pytest

from deployments.command_line.globals_command import opened_passwords
from deployments.quick_start.postgres import PostgresCluster
from tasks.backup.read_globals import in_order, server_globals
from tasks.backup.source import database_properties
from tasks.errors import BackupDamaged, BackupNotFound, BadSetting
from tasks.postgres.dsn import parse
from tasks.postgres.server import source_session
from tasks.storage import globals_sql
from tasks.storage.globals_sql import password_statements, sets_passwords_alone, statements, with_sql
from tasks.storage.manifest_types import Grant, Membership, ParameterGrants, Role, RoleSettings, ServerGlobals
from tests.conftest import BIN_DIRECTORIES
from tests.support.lost_server import PASSWORD, by_psql, execute, new_directory, two_servers, whole_dump


@pytest.fixture(scope="module", params=list(BIN_DIRECTORIES), ids=lambda major: f"pg{major}")
def servers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[PostgresCluster, PostgresCluster]]:
    """The server that gets lost, and the empty one."""
    with two_servers(BIN_DIRECTORIES[request.param], tmp_path_factory.mktemp("lost")) as pair:
        yield pair


def read(server: PostgresCluster, user: str | None = None, password: str | None = None) -> ServerGlobals:
    with source_session(parse(server.url("postgres", user, password)), "test") as connection:
        return with_sql(server_globals(connection), database_properties(connection))


def test_psql_alone_makes_roles_memberships_settings_and_tablespaces_again(
    servers: tuple[PostgresCluster, PostgresCluster],
) -> None:
    lost, empty = servers
    kept = read(lost)
    place = new_directory(empty, "fast disk")
    text = "\n".join(kept.sql).replace(str(lost.data_directory.parent / "fast disk"), str(place))
    assert kept.missing == ()
    by_psql(empty, text)
    made = whole_dump(empty, "--globals-only").replace(str(place), str(lost.data_directory.parent / "fast disk"))
    assert made == whole_dump(lost, "--globals-only")
    by_psql(empty, text)  # as after an error in the middle


def test_passwords_are_kept_only_encrypted(servers: tuple[PostgresCluster, PostgresCluster]) -> None:
    lost, _ = servers
    secret, other = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
    with closing(psycopg2.connect(lost.url())) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'boss'")
        [(verifier,)] = cursor.fetchall()
    assert verifier.startswith("SCRAM-SHA-256$")
    with source_session(parse(lost.url()), "test") as connection:
        clear, sealed = server_globals(connection), server_globals(connection, [str(secret.to_public())])
    assert clear.passwords == "" and "boss" in repr(clear)
    for kept in (clear, sealed):
        assert not [it for it in (verifier, "SCRAM", PASSWORD, "********") if it in repr(kept)]
    opened = pyrage.decrypt(sealed.passwords.encode(), [secret]).decode()
    assert f"ALTER ROLE \"boss\" PASSWORD '{verifier}';\n" in opened and sets_passwords_alone(opened)
    with pytest.raises(pyrage.DecryptError):
        pyrage.decrypt(sealed.passwords.encode(), [other])
    with source_session(parse(lost.url("postgres", "shop app", PASSWORD)), "test") as connection:
        seen = server_globals(connection, [str(secret.to_public())])
    assert (seen.passwords, seen.missing) == ("", ())


@pytest.mark.parametrize(
    "more",
    ["\\! touch marker\n", 'ALTER ROLE "a" SUPERUSER;\n', "ALTER ROLE \"a\" PASSWORD 'x'; DROP ROLE b;\n", "--\n"],
)
def test_what_does_more_than_set_passwords_is_none(more: str) -> None:
    told = "".join(
        f"{statement}\n" for statement in password_statements([('odd"\nname', "SCRAM-SHA-256$4096:aa+/=$b:c")])
    )
    assert sets_passwords_alone(told) and not sets_passwords_alone(told + more) and not sets_passwords_alone(more)


def test_an_ordinary_role_sees_the_same_and_what_it_may_not_read_is_said_to_be_missing(
    servers: tuple[PostgresCluster, PostgresCluster],
) -> None:
    lost, _ = servers
    assert read(lost, "shop app", PASSWORD) == read(lost)
    execute(lost, "REVOKE SELECT ON pg_auth_members, pg_tablespace FROM PUBLIC")
    try:
        with source_session(parse(lost.url("postgres", "shop app", PASSWORD)), "test") as connection:
            with connection.cursor() as cursor:
                cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            kept = server_globals(connection)
            with connection.cursor() as cursor:
                cursor.execute("SELECT 'the transaction is alive'")
    finally:
        execute(lost, "GRANT SELECT ON pg_auth_members, pg_tablespace TO PUBLIC")
    whole = read(lost)
    assert (kept.roles, kept.settings, kept.parameters) == (whole.roles, whole.settings, whole.parameters)
    assert (kept.memberships, kept.tablespaces) == ((), ())
    assert [sentence.split(" of the server")[0] for sentence in kept.missing] == [
        "The memberships of roles",
        "The tablespaces",
    ]
    assert all("permission denied" in sentence for sentence in kept.missing)


def test_more_than_a_manifest_can_hold_is_not_kept_and_said_so(
    servers: tuple[PostgresCluster, PostgresCluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(globals_sql, "MOST_SQL", 1000)
    kept = read(servers[0])
    assert (kept.roles, kept.sql) == ((), ())
    [sentence] = kept.missing
    assert "are not kept" in sentence and "pg_dumpall --globals-only" in sentence


def test_a_membership_stands_behind_that_by_which_its_grantor_may_grant_it() -> None:
    def granted(member: str, grantor: str, admin: bool = True) -> Membership:
        return Membership("team", member, admin, True, True, grantor)

    first, second, third = granted("b", ""), granted("a", "b"), granted("c", "a", admin=False)
    assert in_order([third, second, first]) == [first, second, third]
    lost = granted("x", "gone")
    assert in_order([lost, first]) == [first, lost]


def test_ten_thousand_roles_are_read_in_seconds(servers: tuple[PostgresCluster, PostgresCluster]) -> None:
    lost, _ = servers
    execute(
        lost,
        "DO 'BEGIN FOR n IN 1..10000 LOOP EXECUTE format(''CREATE ROLE many_%s IN ROLE shop_owner'', n); END LOOP; END'",
    )
    try:
        kept = read(lost)
    finally:
        execute(lost, "DO 'BEGIN FOR n IN 1..10000 LOOP EXECUTE format(''DROP ROLE many_%s'', n); END LOOP; END'")
    assert len(kept.roles) > 10_000 and len(kept.memberships) > 10_000 and kept.missing == ()


def test_a_hostile_manifest_makes_no_other_statement_than_those_that_are_meant(
    servers: tuple[PostgresCluster, PostgresCluster], tmp_path: Path
) -> None:
    """Names, values and options that try to end their quotes; a privilege that is none."""
    _, empty = servers
    marker = tmp_path / "marker"
    evil = f"""x"'); DROP DATABASE shop; --\n\\! touch {marker}\n$$ :'PGUSER' `touch {marker}`\\gexec"""[:63]
    grants = (Grant("PUBLIC", f"SELECT ON x TO y;\n\\! touch {marker}\n", False),)
    kept = ServerGlobals(
        roles=(Role(evil, ("LOGIN",), -1, None, evil),),
        memberships=(Membership("pg_monitor", evil, True, None, None, ""),),
        settings=(RoleSettings(evil, (f"app.x={evil}", f"search_path={evil}")),),
        tablespaces=(),
        parameters=(ParameterGrants("work_mem", grants),),
        missing=(),
        passwords="",
        sql=(),
        database_sql=(),
    )
    text = "\n".join(statements(kept))
    by_psql(empty, text)
    assert not marker.exists()
    with closing(psycopg2.connect(empty.url())) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT shobj_description(oid, 'pg_authid'), rolsuper FROM pg_roles WHERE rolname = %s", [evil])
        assert cursor.fetchall() == [(evil, False)]
        cursor.execute(
            "SELECT setconfig[1] FROM pg_db_role_setting JOIN pg_roles r ON r.oid = setrole WHERE rolname = %s", [evil]
        )
        assert cursor.fetchall() == [(f"app.x={evil}",)]
    assert "SELECT ON" not in text


def test_passwords_that_somebody_else_has_encrypted_are_not_printed_when_they_do_more() -> None:
    secret = pyrage.x25519.Identity.generate()
    keys = [str(secret)]

    def sealed(text: str) -> str:
        return pyrage.encrypt(text.encode(), [secret.to_public()], armored=True).decode()

    good = "".join(f"{statement}\n" for statement in password_statements([("boss", "SCRAM-SHA-256$4096:a=$b:c")]))
    assert opened_passwords("it", sealed(good), keys) == good
    with pytest.raises(BackupDamaged, match="not what a backup writes"):
        opened_passwords("it", sealed(good + "ALTER ROLE boss SUPERUSER;\n"), keys)
    with pytest.raises(BackupDamaged, match="cannot be decrypted"):
        opened_passwords("it", sealed(good), [str(pyrage.x25519.Identity.generate())])
    with pytest.raises(BadSetting, match="age identity"):
        opened_passwords("it", sealed(good), [])
    with pytest.raises(BackupNotFound, match="holds no passwords"):
        opened_passwords("it", "", keys)
