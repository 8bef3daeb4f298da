"""What of a backup will need attention when it is restored, in sentences with what to do. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tasks.errors import named
from tasks.storage.backup_values import Hindrance, LeftOut

#: For each kind what comes before the entries, and what to do. `{needs}` is what the entries need.
_SENTENCES = {
    "superuser": (
        "Only a superuser can create ",
        "restore as a superuser, or leave them out by name in without.",
    ),
    "default_privileges": (
        "Only a superuser and the role itself can set what {needs} has granted in advance: ",
        "restore as a superuser, or as a member of the role, or leave them out by name in without.",
    ),
    "pg_cron": (
        "pg_cron works in one database of a server, so a new database cannot hold ",
        "restore with the mode in_place, or leave all of them out by name in without, run CREATE EXTENSION pg_cron in "
        "the restored database, and schedule the jobs again.",
    ),
    "timescaledb": (
        "TimescaleDB has to prepare a database before its rows are loaded, which a restore does not do: ",
        "restore the downloaded file by hand, between timescaledb_pre_restore() and timescaledb_post_restore().",
    ),
    "collation": (
        "The collation {needs} was added to the server's own in this database alone, so a new database cannot hold ",
        "use a collation that you have made in a schema of yours, or add it to template0 of the server.",
    ),
    "unlogged_partitions": (
        "PostgreSQL 18 refuses unlogged partitioned tables, and so ",
        "make {needs} again without UNLOGGED (in older versions that word does nothing for a partitioned table), or "
        "restore to version 17 or older.",
    ),
    "disabled_triggers": (
        "pg_dump names the triggers of foreign keys that are switched off in the partition {needs} by numbers that no "
        "other database has, so a restore cannot load ",
        "run ALTER TABLE … ENABLE TRIGGER ALL for it, or leave them out by name in without and switch the triggers off "
        "afterwards.",
    ),
    "disabled_keys": (
        "Triggers of foreign keys are switched off in {needs} (DISABLE TRIGGER ALL). No dump says so: a restore has "
        "them switched on, and where rows have nothing to refer to it cannot load ",
        "run ALTER TABLE … ENABLE TRIGGER ALL, or DROP CONSTRAINT where the key is not wanted.",
    ),
    "search_path": (
        "{needs} names functions, tables or types without their schema, and has no fixed search_path, so a restore may "
        "not load ",
        "write the schemas into its body, or run ALTER FUNCTION … SET search_path = … for it.",
    ),
    "other_tables": (
        "{needs} reads tables while it checks rows, and a dump does not know which rows must come first, so a restore "
        "may not load ",
        "make a trigger of such a check, or a constraint that is NOT VALID.",
    ),
    "left_out": (
        "The plan leaves {needs} out of its backups, so a restore cannot load ",
        "back up what they need as well, or leave them out by name in without when you restore.",
    ),
}


def marks(hindrances: Iterable[Hindrance]) -> list[str]:
    """By what a hindrance of the next backup is known to be the same: which entries it has may change each night."""
    return [f"{hindrance.kind}: {hindrance.needs}" for hindrance in hindrances if hindrance.here]


def attention(hindrances: Iterable[Hindrance]) -> list[str]:
    """A sentence for each kind of hindrance that already is one where the backup comes from."""
    here = [hindrance for hindrance in hindrances if hindrance.here]
    return [sentence for kind in _SENTENCES for sentence in _sentence([h for h in here if h.kind == kind])]


def _sentence(hindrances: list[Hindrance]) -> list[str]:
    if not hindrances:
        return []
    beginning, advice = _SENTENCES[hindrances[0].kind]
    needs = named_in_short(hindrance.needs for hindrance in hindrances)
    entries = list(dict.fromkeys(entry for hindrance in hindrances for entry in hindrance.entries))
    return named(beginning.replace("{needs}", needs), entries, advice.replace("{needs}", needs))


def left_out_in_words(left_out: LeftOut) -> str:
    """`without the rows of public.log and without public.cache`; empty when nothing is left out."""
    rows = f"without the rows of {named_in_short(left_out.rows)}" if left_out.rows else ""
    alone = [name for name in left_out.tables if not name.startswith(tuple(f"{it}." for it in left_out.schemas))]
    tables = f"without {named_in_short(alone)}" if alone else ""
    schemas = f"without the schemas {named_in_short(left_out.schemas)}" if left_out.schemas else ""
    return " and ".join(filter(None, (rows, tables, schemas)))


def named_in_short(names: Iterable[str]) -> str:
    """The first three of the names on one line, and how many more there are."""
    every = [re.sub(r"[\r\n]", " ", name) for name in names]
    return ", ".join(every[:3]) + (f" and {len(every) - 3} more" if len(every) > 3 else "")
