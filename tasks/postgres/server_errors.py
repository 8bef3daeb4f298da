"""What may be repeated of an error of the server: names, and no value of a row."""

from __future__ import annotations

import psycopg2
from psycopg2 import errorcodes

#: Classes of SQLSTATE whose messages hold names alone: no feature, constraints, privileges, objects, resources, the
#: server. All others (data exceptions, errors that a function raises) may repeat a value.
_NAMES_ALONE = frozenset(
    ("08", "0A", "23", "25", "28", "2B", "2D", "3D", "3F", "40", "42", "53", "54", "55", "57", "58")
)
#: Those of them whose details hold names too; the detail of a constraint is a row.
_DETAILED = frozenset(("28", "2B", "3D", "3F", "42", "53", "55"))
_ADVICE = {
    "53100": "Make room on the server's disk.",
    "53200": "Raise max_locks_per_transaction on the server (to 1024, say) and restart it, or give it more memory.",
    "53300": "Raise max_connections on the server, or end sessions that nobody needs.",
}


def may_show_values(sqlstate: str) -> bool:
    """Whether the message of such an error may repeat a value of a row, when its statement reads rows. Pure."""
    return sqlstate[:2] not in _NAMES_ALONE


def condition(sqlstate: str) -> str:
    """The name of a condition as PostgreSQL's documentation has it, such as `unique violation`. Pure."""
    try:
        return str(errorcodes.lookup(sqlstate)).replace("_", " ").lower()
    except KeyError:
        return "an error of the server"


def without_values(error: psycopg2.Error) -> str:
    """The error on one line, without a value of a row, hint, context and statement."""
    sqlstate = error.pgcode
    if sqlstate is None:
        return " ".join(str(error).split())  # of libpq, or of the driver
    if may_show_values(sqlstate):
        return f"{condition(sqlstate)} (SQLSTATE {sqlstate})"
    message = error.diag.message_primary or str(error)
    if sqlstate[:2] in _DETAILED and error.diag.message_detail:
        message += f" ({error.diag.message_detail})"
    return " ".join(message.split())


def ended(place: str, error: psycopg2.Error) -> str:
    """What an error says that a later try may not meet: the server at `place` lacks something, or did not answer."""
    sqlstate = error.pgcode or ""
    if sqlstate[:2] == "53":
        return f"The server at {place} has not enough of what this needs"
    is_answer = sqlstate and sqlstate[:2] != "08" and sqlstate[:3] != "57P"
    return f"The server at {place} ended what was asked" if is_answer else f"The connection to {place} broke"


def advice(error: psycopg2.Error) -> str:
    """What to do about an error of the server, after a space; empty where nothing is known."""
    known = _ADVICE.get(error.pgcode or "")
    return f" {known}" if known else ""


def cleaned(error: psycopg2.Error) -> psycopg2.Error:
    """An error of the same class and SQLSTATE that says no more than `without_values`."""
    clean = type(error)(without_values(error))
    clean.__setstate__({"pgcode": error.pgcode})
    return clean
