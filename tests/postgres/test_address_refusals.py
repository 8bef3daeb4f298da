"""What is wrong with an address is said by the name of the option, the value or the scheme; never with the password."""

from __future__ import annotations

import itertools
import subprocess

import psycopg2
import pytest
from psycopg2.extensions import libpq_version

from deployments.quick_start.postgres import PostgresCluster
from tasks.errors import BackupSystemError, BadSetting
from tasks.postgres.address import VALUES
from tasks.postgres.dsn import parse
from tests.support import whole_story

NOBODY = "postgresql://app:mArKeR-5ecret@127.0.0.1:1/shop"


def refusal(url: str) -> str:
    with pytest.raises(BadSetting) as refused:
        parse(url, "DATABASE_URL")
    assert "\n" not in str(refused.value) and "mArKeR" not in whole_story(refused.value)
    return str(refused.value)


def takes(url: str) -> bool:
    """Whether libpq itself takes an address: then nobody answers, which is another error."""
    try:
        psycopg2.connect(url)
    except psycopg2.ProgrammingError:
        return False
    except psycopg2.OperationalError as error:
        return not str(error).startswith("invalid ") and "invalid integer" not in str(error)
    raise AssertionError("somebody answers")


@pytest.mark.parametrize(
    "option", ["schema", "pgbouncer", "connection_limit", "pool_timeout", "currentSchema", "serverVersion", "Sslmode"]
)
@pytest.mark.parametrize("more", ["", "&sslmode=disable"])
def test_an_option_that_postgresql_does_not_know_is_named(option: str, more: str) -> None:
    version = f"{libpq_version() // 10_000}.{libpq_version() % 10_000}"
    expected = (
        f"DATABASE_URL has the option {option}, which PostgreSQL's client library (libpq {version}) does not know"
    )
    assert refusal(f"{NOBODY}?{option}=true{more}").startswith(expected)
    assert refusal(f"host=127.0.0.1 dbname=shop {option}=true").startswith(expected)
    assert not takes(f"{NOBODY}?{option}=true{more}")


@pytest.mark.parametrize("option", ["min_protocol_version", "max_protocol_version"])
def test_an_option_that_this_libpq_knows_or_does_not_know_is_taken_or_named(option: str) -> None:
    url = f"{NOBODY}?{option}=3.0"
    if takes(url):
        assert parse(url).parameters[option] == "3.0"
    else:
        assert f"the option {option}" in refusal(url)


@pytest.mark.parametrize(
    ("url", "scheme"),
    [
        ("postgresql+psycopg2://app:mArKeR@h/d", "postgresql+psycopg2:"),
        ("postgres+asyncpg://app:mArKeR@h/d", "postgres+asyncpg:"),
        ("jdbc:postgresql://h/d?user=app&password=mArKeR", "jdbc:postgresql:"),
        ("jdbc:postgresql:d", "jdbc:"),
        ("mysql://app:mArKeR@h/d", "mysql:"),
        ("https://app:mArKeR@h/d", "https:"),
        ("POSTGRESQL://app:mArKeR@h/d", "POSTGRESQL:"),
    ],
)
def test_another_scheme_is_named_with_the_one_to_write(url: str, scheme: str) -> None:
    assert f"begins with {scheme}" in refusal(url) and "write postgresql://user" in refusal(url)
    assert not takes(url)


def test_values_that_are_refused_are_those_that_libpq_refuses() -> None:
    for option, allowed in VALUES.items():
        values = allowed.split(", ")
        for value in (*values, "required", "verify_full", "true", "1", "rw", "yes", values[0].upper()):
            url = f"{NOBODY}?{option}={value}"
            if option == "sslmode" and "verify" in value:
                url += "&sslrootcert=system" if value == "verify-full" else ""
            if takes(url):
                assert parse(url).parameters[option] == value
            else:
                assert f"has a value of {option} that PostgreSQL does not know: use {allowed}." in refusal(url)


@pytest.mark.parametrize(
    ("option", "value"),
    [("connect_timeout", "soon"), ("keepalives", "x"), ("require_auth", "x"), ("ssl_min_protocol_version", "1.2")],
)
def test_any_other_value_that_libpq_refuses_is_named_when_it_connects(option: str, value: str) -> None:
    assert not takes(f"{NOBODY}?{option}={value}")
    with pytest.raises(BadSetting, match=f"has a value that libpq refuses: .*{option}"):
        parse(f"{NOBODY}?{option}={value}").pinned()


def test_a_wrong_value_in_the_environment_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSSLMODE", "required")
    with pytest.raises(BadSetting, match='a value that libpq refuses: invalid sslmode value: "required"'):
        parse(NOBODY).connect("test")


TAKEN = (
    "postgresql://app:a?b@127.0.0.1:1/d",
    "postgresql://app:a#b@127.0.0.1:1/d",
    "postgresql://app:a:b@127.0.0.1:1/d",
    "postgresql://app:%40%2F%3F%25@127.0.0.1:1/d",
    "postgresql://127.0.0.1:1/d?user=app&password=a%40b&ssl=true",
    "postgresql://app@127.0.0.1:1/a%40b?application_name=x%40y",
    "postgresql://app@127.0.0.1:1/a@b",
    "postgresql://127.0.0.1:1,127.0.0.2:1/d?target_session_attrs=read-write&load_balance_hosts=random",
    "postgresql:///d?host=127.0.0.1&port=1",
    "host=127.0.0.1 port=1 password='a@b/c d' user=app",
    "host=127.0.0.1 port = 1 options='-c geqo=off'",
    "postgres://127.0.0.1:1",
    "port=1 hostaddr=127.0.0.1",
)


@pytest.mark.parametrize("url", TAKEN)
def test_what_libpq_takes_is_taken(url: str) -> None:
    assert takes(url)
    parse(url)


@pytest.mark.parametrize("url", TAKEN)
def test_psql_takes_it_too_and_gets_the_same(url: str, any_postgres: PostgresCluster) -> None:
    """What we give it, and what a person would give it."""
    dsn = parse(url)
    for given, environment in ((url, None), (dsn.conninfo(), dsn.child_environment("test"))):
        words = [str(any_postgres.bin_directory / "psql"), "-w", "-d", given]
        done = subprocess.run(words, env=environment, capture_output=True, text=True)
        assert "Connection refused" in done.stderr or "SSL support is not compiled in" in done.stderr, done.stderr


CHARACTERS = "@/#%?:&=;, \\'\"[]+"


@pytest.mark.parametrize("pair", itertools.product(CHARACTERS, CHARACTERS), ids="".join)
@pytest.mark.parametrize("beginning", ["mArK", "12", ""])
def test_no_part_of_a_password_that_is_not_encoded_is_shown(pair: tuple[str, str], beginning: str) -> None:
    password = f"{beginning}{pair[0]}5ecret{pair[1]}tAiL"
    for end in ("@127.0.0.1:1/shop", "@127.0.0.1:1/shop?schema=public", "@127.0.0.1:1/shop?sslmode=required"):
        url = f"postgresql://app:{password}{end}"
        try:
            dsn = parse(url)
            shown = f"{dsn!r} {dsn.place} {dsn.user}"
            dsn.pinned()
        except BackupSystemError as error:
            shown = whole_story(error)
        assert not [part for part in ("mArK", "5ecret", "tAiL") if part in shown], shown


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://127.0.0.1:1/shop?user=app&password=5ecret&tAiL=x",
        "host=127.0.0.1 user=app password=5ecret tAiL=x",
        "host=127.0.0.1 user=app password='5ecret tAiL",
        "Host=127.0.0.1;Password=5ecret;tAiL=x",
        "app:5ecret@127.0.0.1/shop",
    ],
)
def test_no_part_of_a_password_among_the_options_is_shown(url: str) -> None:
    with pytest.raises(BadSetting) as refused:
        parse(url)
    assert "5ecret" not in whole_story(refused.value) and "tAiL" not in whole_story(refused.value)
