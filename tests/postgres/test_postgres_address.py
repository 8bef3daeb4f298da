"""Addresses of databases: read as libpq reads them, shown without secrets, refused in one sentence."""

from __future__ import annotations

import os
import re
from urllib.parse import quote

import psycopg2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg2.extensions import parse_dsn

from tasks.errors import AccessRefused, BackupSystemError, BadSetting, Unreachable
from tasks.postgres import address
from tasks.postgres import dsn as postgres
from tasks.postgres.dsn import Dsn, connection_error, parse
from tests.support import whole_story

SECRET = "mArKeR-5ecret"
ANY_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=40)
ODD_TEXTS = (
    "two words",
    " leading and trailing ",
    "quo'te",
    'dou"ble',
    "back\\slash",
    "\\'",
    "per%cent%20",
    "$HOME ${HOME} $$",
    "@:/?#[]&=+",
    "ümläut",
    "💾",
    "-dash",
    "new\nline",
    "tab\tbed",
    "; drop --",
    "x" * 63,
)


@pytest.mark.parametrize("text", ODD_TEXTS, ids=repr)
def test_percent_encoded_user_password_and_database_come_out_as_they_are(text: str) -> None:
    odd = quote(text, safe="")
    dsn = parse(f"postgresql://{odd}:{odd}@db.example:6000/{odd}")
    assert (dsn.user, dsn.parameters["password"], dsn.dbname) == (text, text, text)
    assert (dsn.host, dsn.port) == ("db.example", 6000)


@given(user=ANY_TEXT, password=ANY_TEXT, dbname=ANY_TEXT)
def test_the_connection_string_for_a_program_says_the_same_without_the_password(
    user: str, password: str, dbname: str
) -> None:
    dsn = parse(
        "postgresql://" + ":".join(quote(t, safe="") for t in (user, password)) + "@h/" + quote(dbname, safe="")
    )
    told = parse_dsn(dsn.conninfo())
    assert (told["user"], told["dbname"], told["host"]) == (user, dbname, "h")
    assert "password" not in told


@given(ANY_TEXT, ANY_TEXT)
def test_another_database_of_the_same_server_may_have_any_name(name: str, password: str) -> None:
    dsn = parse("postgresql://u@h/d")
    moved = Dsn({**dsn.parameters, "password": password}).with_dbname(name)
    assert moved.dbname == name and moved.parameters["password"] == password and moved.host == "h"


@pytest.mark.parametrize(
    ("url", "host", "port", "dbname"),
    [
        ("postgresql://u@h/d", "h", 5432, "d"),
        ("postgres://u@h:6000/d", "h", 6000, "d"),
        ("host=h port=6000 dbname='a b' user=u", "h", 6000, "a b"),
        ("  postgresql://u@h/d\n", "h", 5432, "d"),
        ("postgresql://u@[::1]:6000/d", "::1", 6000, "d"),
        ("postgresql://u@%2Frun%2Fpostgresql/d", "/run/postgresql", 5432, "d"),
        ("postgresql://u@h1:6000,h2:6001/d", "h1,h2", 6000, "d"),
        ("postgresql://u@h1,h2:6001/d", "h1,h2", 5432, "d"),
        ("postgresql://u@h1,h2/d", "h1,h2", 5432, "d"),
        ("hostaddr=127.0.0.1 user=u dbname=d", "127.0.0.1", 5432, "d"),
        ("postgresql://h/?user=u", "h", 5432, "u"),
    ],
)
def test_every_form_that_psql_takes_is_taken(
    url: str, host: str, port: int, dbname: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PGHOST", "PGPORT", "PGUSER"):
        monkeypatch.delenv(name, raising=False)
    dsn = parse(url)
    assert (dsn.host, dsn.port, dsn.dbname) == (host, port, dbname)
    assert str(port) in dsn.place and dbname in dsn.place


@pytest.mark.parametrize(
    "url",
    [
        "",
        "   ",
        f"postgres//u:{SECRET}@h/d",
        f"postgresql://u:{SECRET}%zz@h/d",
        f"postgresql://u:{SECRET}%00@h/d",
        f"postgresql://u:{SECRET}@h:port/d",
        f"postgresql://u:{SECRET}@h/d?nonsense=1",
        f"postgresql://u:{SECRET}/x@h/d",
        f"mysql://u:{SECRET}@h/d",
        f"host=h password='{SECRET}",
        f"host=h password={SECRET} oops",
        f"postgresql://u:{SECRET}\0@h/d",
        f"postgresql://u:{SECRET}\ud800@h/d",
        f"host=h sslpassword={SECRET}",
        SECRET,
    ],
    ids=repr,
)
def test_an_address_that_cannot_be_read_is_refused_without_repeating_any_of_it(url: str) -> None:
    with pytest.raises(BadSetting) as refused:
        parse(url, "CATALOG_URL")
    assert "CATALOG_URL" in str(refused.value) and "\n" not in str(refused.value)
    assert SECRET not in whole_story(refused.value)


@given(st.text(max_size=60))
def test_no_address_makes_anything_but_an_address_or_a_clear_refusal(text: str) -> None:
    try:
        dsn = parse(text)
    except BadSetting:
        return
    assert isinstance(dsn.port, int) and isinstance(dsn.place, str) and isinstance(dsn.conninfo(), str)


def test_an_address_shows_neither_password_nor_anything_else_that_was_given() -> None:
    dsn = parse(f"postgresql://u:{SECRET}@h:6000/d?options=-csearch_path%3D{SECRET}")
    for shown in (repr(dsn), str(dsn), dsn.place, f"{dsn!r}", repr([dsn]), repr(vars(type(dsn)))):
        assert SECRET not in shown


def test_the_password_reaches_a_program_by_its_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "of-the-shell")
    dsn = parse(f"postgresql://u:{SECRET}@h/d")
    assert dsn.child_environment("x")["PGPASSWORD"] == SECRET
    assert SECRET not in dsn.conninfo()


def test_a_program_is_given_no_secret_of_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "AWS_SECRET_ACCESS_KEY",
        "CLOUDFLARE_SECRET_ACCESS_KEY",
        "PREFECT_API_AUTH_STRING",
        "DATABASE_URL",
        "CATALOG_URL",
        "NOTIFY_URL",
    ):
        monkeypatch.setenv(name, SECRET)
    given = parse("postgresql://u:other@h/d").child_environment("x")
    assert SECRET not in repr(given)
    assert given["PGAPPNAME"] == "x" and given["PATH"] == os.environ["PATH"]


def test_what_a_program_says_is_shown_on_one_line_and_without_the_password() -> None:
    dsn = parse(f"postgresql://u:{SECRET}@h/d")
    assert dsn.clean(f"a\nb  {SECRET}\tc{SECRET}c") == "a b [hidden] c[hidden]c"


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ('FATAL:  password authentication failed for user "u"', AccessRefused),
        ("fe_sendauth: no password supplied", AccessRefused),
        ('FATAL:  role "u" does not exist', AccessRefused),
        ('FATAL:  database "d" does not exist', AccessRefused),
        ('FATAL:  no pg_hba.conf entry for host "h", user "u", database "d", no encryption', AccessRefused),
        ("server does not support SSL, but SSL was required", AccessRefused),
        ("SSL error: certificate verify failed", AccessRefused),
        ('invalid port number: "99999"', AccessRefused),
        ('FATAL:  password authentication failed for user "too many cooks"', AccessRefused),
        ('FATAL:  database "starting up" does not exist', AccessRefused),
        ("connection refused", Unreachable),
        ("timeout expired", Unreachable),
        ("server closed the connection unexpectedly", Unreachable),
        ("FATAL:  the database system is starting up", Unreachable),
        ("FATAL:  the database system is shutting down", Unreachable),
        ("FATAL:  the database system is in recovery mode", Unreachable),
        ("FATAL:  the database system is not yet accepting connections", Unreachable),
        ("FATAL:  sorry, too many clients already", Unreachable),
        ('FATAL:  too many connections for role "u"', Unreachable),
        ("FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute", Unreachable),
    ],
)
def test_what_may_pass_is_told_from_what_a_person_has_to_change(
    said: str, kind: type[BackupSystemError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "resolves", lambda host: True)
    text = f'connection to server at "h" (192.0.2.1), port 5432 failed: {said}\n'
    error = connection_error(parse(f"postgresql://u:{SECRET}@h/d"), text)
    assert type(error) is kind
    assert "h:5432/d" in str(error) and "\n" not in str(error) and SECRET not in whole_story(error)


def test_a_host_without_an_address_is_a_matter_of_spelling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "resolves", lambda host: False)
    error = connection_error(parse("postgresql://u@h/d"), 'could not translate host name "h" to address')
    assert isinstance(error, BadSetting) and "check the spelling" in str(error)


@pytest.mark.parametrize("host", ["/run/postgresql", "@abstract", "127.0.0.1", "127.0.0.1,127.0.0.2", "::1"])
def test_paths_and_numbers_need_no_name_service(host: str) -> None:
    assert postgres.resolves(host)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 300, "a..b", "127.0.0.1,no-such-host.invalid"])
def test_a_name_that_leads_nowhere_does_not_resolve(host: str) -> None:
    assert not postgres.resolves(host)


def test_an_option_of_the_address_that_libpq_refuses_only_on_connecting_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(**settings: str) -> None:
        raise psycopg2.ProgrammingError(f"invalid dsn: something about {SECRET}")

    monkeypatch.setattr(psycopg2, "connect", refuse)
    with pytest.raises(BadSetting, match="has an option that libpq refuses") as refused:
        parse(f"postgresql://u:{SECRET}@h/d").connect("test")
    assert SECRET not in whole_story(refused.value)


@pytest.mark.parametrize("option", ["sslpassword", "scram_client_key", "scram_server_key", "oauth_client_secret"])
def test_a_secret_that_programs_can_only_take_as_an_argument_is_refused(
    option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(address, "parse_dsn", lambda url: {"host": "h", option: SECRET})  # whatever libpq knows today
    with pytest.raises(BadSetting, match=option) as refused:
        parse("host=h")
    assert SECRET not in whole_story(refused.value)


def test_a_name_of_the_application_in_the_address_does_not_hide_which_run_a_session_belongs_to() -> None:
    dsn = parse("postgresql://u@h/d?application_name=mine")
    assert "application_name" not in parse_dsn(dsn.conninfo())
    assert dsn.child_environment("backup 4711")["PGAPPNAME"] == "backup 4711"


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ("localhost/shop", ""),
        ("127.0.0.1:5433/shop?sslmode=disable", ""),
        ("[::1]/shop", ""),
        ("%2Frun%2Fpostgresql/shop", ""),
        ("/shop", ""),
        ("localhost,127.0.0.1/shop", ""),
        ("db.example.org/shop?sslmode=verify-full", ""),
        ("db.example.org/shop?sslmode=require&channel_binding=require", ""),
        ("db.example.org/shop?service=elsewhere", ""),
        (
            "db.example.org/shop",
            "sslmode is prefer, .*, or that the connection is encrypted: write sslmode=verify-full",
        ),
        ("db.example.org/shop?channel_binding=require", "sslmode is prefer"),
        ("localhost,db.example.org/shop?sslmode=require", "sslmode is require, .* is the right one: write"),
        ("10.0.0.7/shop?sslmode=verify-ca", "sslmode is verify-ca"),
        ("localhost/shop?hostaddr=10.0.0.7", "sslmode is prefer"),
    ],
)
def test_an_address_across_a_network_that_proves_no_server_is_named(rest: str, said: str) -> None:
    doubt = address.unproved_server(parse(f"postgresql://somebody:{SECRET}@{rest}").parameters)
    assert re.match(said, doubt) if said else not doubt
    assert SECRET not in doubt
