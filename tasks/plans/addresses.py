"""Where the database and the catalogue of each plan are, by blocks as Prefect's API gives them, or by `.env`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tasks.errors import BackupSystemError
from tasks.names import parted
from tasks.plans.database_patterns import DatabasePatterns, checked_databases
from tasks.plans.settings import load_settings
from tasks.postgres.dsn import Dsn, parse

CATALOGUE_DATABASE = "backup_catalog"
_PLAN, _DATABASE = "backup-plan", "postgres-database"
#: What to ask `/block_documents/filter` for: the blocks that `plan_addresses` reads.
BLOCKS_ASKED: dict[str, Any] = {
    "block_types": {"slug": {"any_": [_PLAN, _DATABASE]}},
    "block_documents": {"is_anonymous": {"eq_": False}},
    "include_secrets": True,
    "sort": "NAME_ASC",
}


@dataclass(frozen=True)
class PlanAddress:
    """Where a plan's database and catalogue are; `problem` is the sentence that says why they are not known."""

    name: str
    database: Dsn | None = None
    catalogue: Dsn | None = None
    kept_days: int = 3
    problem: str = ""
    restore_only: bool = False
    """Whether backups of other plans are restored into it, and none are made of it."""
    databases: DatabasePatterns = DatabasePatterns()  # noqa: RUF009 - a frozen value
    """The databases of its server that it backs up in place of `database`, each as a plan of its own."""
    price_per_gib: float = 0
    """What a GiB of its backups costs in a month; 0 when nobody has said it."""


def plan_addresses(blocks: Iterable[Mapping[str, Any]], directory: Path) -> list[PlanAddress]:
    """The plans among `blocks`, by name; if none is called default, also the plan in `.env` of the directory."""
    documents = list(blocks)
    of_plans, databases = ([it for it in documents if it["block_type"]["slug"] == slug] for slug in (_PLAN, _DATABASE))
    urls = {database["name"]: str(database["data"].get("url", "")) for database in databases}
    plans = [_address(block["name"], block["data"], urls) for block in of_plans]
    described = [] if any(plan.name == "default" for plan in plans) else plans_of_settings(directory)
    return plans + [plan for plan in described if not plans or not plan.problem]


def plans_of_settings(directory: Path) -> list[PlanAddress]:
    """The plan `default` of `.env` in the directory and of the environment, if they describe one."""
    try:
        settings = load_settings(directory)
        if settings.uses_embedded_database or settings.uses_embedded_storage:
            return []
        database = parse(settings.database_url)
        catalogue = parse(settings.catalog_url, "CATALOG_URL") if settings.catalog_url else default_catalogue(database)
    except BackupSystemError as error:
        return [PlanAddress("default", problem=str(error))]
    return [PlanAddress("default", database, catalogue, settings.kept_database_days)]


def default_catalogue(database: Dsn) -> Dsn:
    """Where the catalogue is when the plan names none: a database of its own on the server that is backed up."""
    return database.with_dbname(CATALOGUE_DATABASE)


def _address(name: str, data: Mapping[str, Any], urls: Mapping[str, str]) -> PlanAddress:
    """The addresses that the data of a plan's block name, or the sentence that says why they cannot be read."""
    try:
        database = parse(urls.get(str(data.get("database")), ""), f"The database of plan {name}")
        catalogue = default_catalogue(database)
        if data.get("catalogue"):
            catalogue = parse(urls.get(str(data["catalogue"]), ""), f"The catalogue of plan {name}")
        databases = checked_databases(data.get("databases") or ())
    except BackupSystemError as error:
        return PlanAddress(name, problem=str(error))
    days, price = data.get("kept_database_days", 3), data.get("price_per_gib", 0)
    return PlanAddress(
        name,
        database,
        catalogue,
        days if isinstance(days, int) else 3,
        restore_only=bool(data.get("restore_only")),
        databases=databases,
        price_per_gib=float(price) if isinstance(price, int | float) else 0,
    )


def of_databases(server: PlanAddress, names: Iterable[str]) -> list[PlanAddress]:
    """The plans of these names (`server.shop`), each of one database of the server. Pure."""
    return [
        replace(server, name=name, databases=DatabasePatterns(), database=server.database.with_dbname(parted(name)[1]))
        for name in names
        if server.database
    ]
