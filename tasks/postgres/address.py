"""Reads the text of an address as libpq does, and says what is wrong with one that libpq does not take.

No sentence repeats what may be a part of a password. A password with a character that should be percent-encoded can
reach into every other part of the address, so names of options are repeated only where that cannot be.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address

import psycopg2
from psycopg2.extensions import libpq_version, parse_dsn

from tasks.errors import BadSetting

#: The values that libpq takes for these options; for the others it takes any text, or says itself what is wrong.
VALUES = {
    "channel_binding": "disable, prefer, require",
    "gssencmode": "disable, prefer, require",
    "load_balance_hosts": "disable, random",
    "sslcertmode": "disable, allow, require",
    "sslmode": "disable, allow, prefer, require, verify-ca, verify-full",
    "sslnegotiation": "postgres, direct",
    "target_session_attrs": "any, read-write, read-only, primary, standby, prefer-standby",
}
#: Secrets that client programs accept only as an argument.
_UNSAFE_OPTIONS = {"sslpassword", "scram_client_key", "scram_server_key", "oauth_client_secret"}
_FORM = "write postgresql://user:password@host:port/database"
_ENCODE = "percent-encode special characters in user, password and database name (@ is %40, / is %2F, % is %25)"
#: Modes of libpq with which a connection may have no TLS.
_MAYBE_PLAIN = ("disable", "allow", "prefer")
_SCHEME = re.compile(r"((?:jdbc:)?[a-z][a-z0-9+.-]*)://|(jdbc):", re.IGNORECASE)
_LIBPQ_SCHEMES = ("postgresql", "postgres")
_UNKNOWN_OPTION = re.compile(r'invalid (?:URI query parameter|connection option):? "([A-Za-z][\w.-]*)"')


def read_address(url: str, name: str) -> dict[str, str]:
    """The parameters in `url`, as libpq names them. `name` says whose address it is.

    Raises BadSetting, which says what to change.
    """
    text = url.strip()
    if not text:
        raise BadSetting(f"{name} is empty: give the address of a database, postgresql://user:password@host/database.")
    parameters, problem = _parsed(text)
    if problem or _hides_a_password(text):
        raise BadSetting(f"{name} {problem or f'has an @ too many: {_FORM} and {_ENCODE}'}.")
    if unsafe := sorted(_UNSAFE_OPTIONS & parameters.keys()):
        raise BadSetting(
            f"{name} has {unsafe[0]}, which client programs can only take as an argument: use a password, "
            "or a key file that needs no pass phrase, readable by its owner alone."
        )
    for option, allowed in VALUES.items():
        if option in parameters and parameters[option] not in allowed.split(", "):
            raise BadSetting(f"{name} has a value of {option} that PostgreSQL does not know: use {allowed}.")
    return parameters


def _parsed(text: str) -> tuple[dict[str, str], str]:
    """The parameters, and what is wrong. libpq's own error may hold the password, so it is dropped here."""
    try:
        parameters = dict(parse_dsn(text))
        int(parameters.get("port", "").split(",")[0] or 0)
        return parameters, ""
    except psycopg2.Error as error:
        return {}, _wrong_scheme(text) or _wrong_option(text, str(error)) or _unreadable()
    except ValueError:
        return {}, _unreadable()


def _unreadable() -> str:
    return f"cannot be read as a PostgreSQL address; {_FORM} and {_ENCODE}"


def _wrong_scheme(text: str) -> str:
    scheme = _SCHEME.match(text)
    if not scheme or scheme[1] in _LIBPQ_SCHEMES:
        return ""
    return f"begins with {scheme[1] or scheme[2]}:, and a PostgreSQL address with postgresql://: {_FORM}"


def _wrong_option(text: str, error: str) -> str:
    """That libpq does not know an option; by its name, unless that may be a part of a password."""
    option = _UNKNOWN_OPTION.search(error)
    if not option:
        return ""
    version = f"{libpq_version() // 10_000}.{libpq_version() % 10_000}"
    what = "an option" if _may_be_secret(text) else f"the option {option[1]}"
    return f"has {what}, which PostgreSQL's client library (libpq {version}) does not know: take it out"


def _may_be_secret(text: str) -> bool:
    """Whether a password may reach into the options: one that is given as an option, or one with a question mark."""
    options = text.partition("?")[2] if _SCHEME.match(text) else text
    return "@" in options or "password" in options.lower()


def _hides_a_password(text: str) -> bool:
    """Whether a part of a password may be taken for a host, a port, a database or an option: an @ follows on it.

    libpq ends user and password at the first @, and takes them for host and port where a slash comes before it.
    """
    scheme = _SCHEME.match(text)
    before, at, after = text[scheme.end() if scheme else len(text) :].partition("@")
    user_or_host, slash, _ = before.partition("/")
    return bool(at) and ":" in user_or_host and (bool(slash) or "@" in after)


def unproved_server(parameters: Mapping[str, str]) -> str:
    """Why whoever answers to these parameters may not be the server that is meant; empty where libpq makes sure. Pure.

    Nobody stands between two programs of one machine. What a service file adds is not known here, and not judged.
    """
    hosts = [name for name in (parameters.get("hostaddr") or parameters.get("host", "")).split(",") if name]
    mode = parameters.get("sslmode", "prefer")
    proved = mode == "verify-full" or (parameters.get("channel_binding") == "require" and mode not in _MAYBE_PLAIN)
    if all(map(_is_local, hosts)) or proved or "service" in parameters:
        return ""
    return (
        f"sslmode is {mode}, with which nothing proves that the server is the right one"
        f"{', or that the connection is encrypted' if mode in _MAYBE_PLAIN else ''}: write sslmode=verify-full, and "
        "sslrootcert=<the file of its certificate authority>, unless the network is yours alone."
    )


def _is_local(host: str) -> bool:
    if host.startswith(("/", "@")) or host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
