"""Invented texts, and how PostgreSQL's COPY wants values written."""

from __future__ import annotations

import json
from collections.abc import Iterable
from random import Random

NULL = r"\N"

_VOCABULARY = """
    Lieferung Rechnung Größe Übermaß Straße schön weiß grün blau rot leicht schwer neu gebraucht Kunde
    Bestellung Paket Karton order parcel customer invoice shirt jacket kettle lamp chair table drawer
    bottle garden bicycle window carpet mirror cotton wool leather steel oak walnut glass paper linen
    ceramic rubber copper silver round square narrow broad arrived returned replaced cancelled confirmed
    delayed opened broken repaired wrapped weighed labelled scanned sorted quickly slowly carefully twice
    yesterday tomorrow morning evening early late again never always often rarely the a with without for
    from into under over between behind and or but because although while until
"""
_PEOPLE = """
    Anna Jürgen Zoë Mehmet Siân Łukasz Ingrid Óscar Björk Chloë Dmitri Éva Fatima Georg Hana Ivo 愛
    Müller O'Brien Gruber Šimić Nguyễn Ångström de_la_Cruz Öztürk Smith Weiß Kovács 田中 D'Arcy
"""
_PLACES = "Wien Graz Zürich München Łódź Kraków Århus Besançon Köln Linz Malmö Brno"

WORDS = _VOCABULARY.split()
FIRST_NAMES, LAST_NAMES = (line.split() for line in _PEOPLE.strip().splitlines())
CITIES = _PLACES.split()
COLOURS = ("red", "grün", "sky blue", 'so-called "white"', "black\\ish", "NULL", "{curly}", "a,b", "")
STATUSES = ("cart", "paid", "shipped", "shipped", "delivered", "delivered", "zurückgegeben", 'isn\'t "known"')
KINDS = ("page_viewed", "cart_changed", "payment", "search", "login", "error", "Rückgabe", "it's odd")
ADDRESSES = ("10.1.2.3", "192.168.0.0/16", "2001:db8::7", "::1", "203.0.113.200", "fe80::1:2")
INTERVALS = ("00:00:00", "1 day 02:03:04.5", "-3 days", "1 year 2 mons 3 days", "36:15:00", "14 days")

#: What a reader of dumps may stumble over: each of these appears in the data.
AWKWARD = (
    "tab\there",
    "line\nbreak",
    "carriage\rreturn\r\n",
    "back\\slash",
    "ends with \\",
    "\\.",
    "\\N",
    "\n\\.\n",
    "",
    " ",
    "NULL",
    "it's",
    'say "hi"',
    "emoji 🎁👩\u200d🚀",
    "Grüße aus Österreich",
    "e\u0301 ≠ é",
    "right-to-left שלום",
    "\u2028\ufeff",
    "\x01\x08\x0b\x0c\x7f",
    "$1 %s %(x)s {}",
    "'; DROP TABLE x; --",
    "\\unrestrict abc",
    "COPY shop.x (id) FROM stdin;\n1\n\\.\n",
    "--\n-- PostgreSQL database dump complete\n--\n",
)

_COPY_ESCAPES = str.maketrans(
    {"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r", "\b": r"\b", "\f": r"\f", "\v": r"\v"}
)


def copy_text(value: str | None) -> str:
    """One field of COPY's text format; None becomes NULL."""
    return NULL if value is None else value.translate(_COPY_ESCAPES)


def array(values: Iterable[str]) -> str:
    """A text[] literal, before `copy_text`."""
    return "{" + ",".join(_quoted(value) for value in values) + "}"


def composite(*values: str | None) -> str:
    """A literal of a row type, before `copy_text`; None becomes NULL."""
    return "(" + ",".join("" if value is None else _quoted(value) for value in values) + ")"


def document(value: object) -> str:
    """A jsonb literal, before `copy_text`."""
    return json.dumps(value, ensure_ascii=False)


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def sentences(rng: Random, count: int) -> list[str]:
    """`count` texts of about 80 characters; one in a hundred is of the awkward kind."""
    return [
        AWKWARD[i // 100 % len(AWKWARD)] if i % 100 == 0 else " ".join(rng.choices(WORDS, k=rng.randint(8, 16)))
        for i in range(count)
    ]


def addresses(rng: Random, count: int) -> list[str]:
    """`count` literals of shop.address, ready for COPY; one in fifty is NULL, one in fifty has one inside."""
    made = [
        composite(
            f'{rng.choice(LAST_NAMES)}straße {rng.randint(1, 200)} "{rng.choice("ABC")}"',
            f"{rng.randint(1000, 9999)}",
            rng.choice(CITIES) if i % 50 else None,
            rng.choice(("AT", "DE", "CH", "PL")),
        )
        for i in range(count)
    ]
    return [NULL if i % 50 == 1 else copy_text(text) for i, text in enumerate(made)]
