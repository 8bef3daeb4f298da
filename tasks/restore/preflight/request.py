"""What can be said of a request without asking any server. Pure: sentences for a person, none when all is well."""

from __future__ import annotations

from typing import get_args

from tasks.restore.values import Mode, RestoreRequest

MODES: tuple[str, ...] = get_args(Mode)
_LONGEST_NAME = 63  # bytes


def outcome(request: RestoreRequest, own_database: str) -> str:
    """The name of the database that the restore makes, or replaces; `own_database` is the plan's."""
    return request.target if request.target or request.mode == "new_database" else own_database


def name_problems(name: str) -> list[str]:
    """Why PostgreSQL could have no database of this name."""
    advice = "give the name of a database in target"
    if not name:
        return [f"The new database needs a name: {advice}."]
    if "\0" in name or any("\ud800" <= character <= "\udfff" for character in name):
        return [f"The name {name[:80]!r} has a character that no database's name can have: {advice}."]
    if len(name.encode()) > _LONGEST_NAME:
        return [f"The name {name[:80]!r}… is longer than {_LONGEST_NAME} bytes: {advice}."]
    return []


def request_problems(request: RestoreRequest, database: str, own_database: str) -> list[str]:
    """Parameters that do not go together; `database` is the outcome, `own_database` the plan's."""
    if request.mode not in MODES:
        return [f"There is no mode {str(request.mode)[:80]!r}: use {', '.join(MODES)}."]
    found = []
    if request.analyze not in ("before", "after"):
        found.append(f"analyze cannot be {str(request.analyze)[:80]!r}: use before or after.")
    if request.mode == "swap" and request.tables:
        found.append("The mode swap replaces the whole database, so it takes no tables: use in_place, or new_database.")
    if request.mode == "in_place" and database != own_database:
        found.append(
            f"in_place replaces what is in the plan's own database, {own_database}, of which it makes a "
            f"safety backup first: leave target empty, or restore {database} with the mode swap."
        )
    if request.mode == "in_place" and request.confirm != database:
        found.append(
            f"in_place removes what is in the database now: to confirm, write its name, {database}, into confirm."
        )
    return found
