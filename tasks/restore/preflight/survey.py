"""Looks for everything that could stand in the way of a restore, all at once, before anything is changed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from psycopg2.extensions import connection as Connection

from tasks.backup.preflight import pooler_problems
from tasks.backup.source import database_properties, extensions
from tasks.errors import AccessRefused
from tasks.plans.plan import Plan
from tasks.postgres import tools
from tasks.postgres.dsn import Dsn
from tasks.postgres.server import maintenance, source_session, within_pg_catalog
from tasks.postgres.tools import Tool
from tasks.restore.preflight import live as preflight_live
from tasks.restore.preflight import local as preflight_local
from tasks.restore.preflight import roles as preflight_roles
from tasks.restore.preflight import target_server as preflight_server
from tasks.restore.preflight.request import name_problems, outcome, request_problems
from tasks.restore.preflight.roles import Me
from tasks.restore.values import RestoreRequest
from tasks.runs.problems import Problems
from tasks.storage.manifest_model import DatabaseProperties, StoredBackup

NAME = "restore preflight"


@dataclass(frozen=True)
class Ground:
    """What a preflight without a problem has found out."""

    psql: Tool
    server_version: int
    """The target server's version as a number: 150018 for 15.18."""
    database: str
    """What the outcome is called."""
    live_exists: bool
    """Whether there is a database of that name now; never with `new_database`."""
    like: DatabaseProperties
    """What a new database is made like: the live one (with `new_database`: the plan's own), else the backed-up one."""
    create_roles: tuple[str, ...]
    """Roles to create first, NOLOGIN; a role that is no superuser must then be granted them."""
    warnings: tuple[str, ...]
    """What the preflight itself has found; those of the backup are not among them."""


@dataclass(frozen=True)
class _Look:
    """One look around: what is wanted, and where what is found goes."""

    plan: Plan
    request: RestoreRequest
    backup: StoredBackup
    database: str
    found: Problems
    warnings: list[str]
    drill: bool = False

    @property
    def makes_database(self) -> bool:
        return self.request.mode != "in_place"


@dataclass(frozen=True)
class _Model:
    """The database that the outcome resembles: its properties, owners and extensions where it is there to be asked."""

    like: DatabaseProperties
    is_there: bool = False
    owners: tuple[str, ...] = ()
    extensions: tuple[tuple[str, str], ...] = ()


def survey(plan: Plan, request: RestoreRequest, backup: StoredBackup, drill: bool = False) -> Ground:
    """Looks at parameters, server, databases, roles, psql, disk and keys, changing nothing.

    For a drill (with the mode new_database) the new database is one that this role may make, whosever the model is.
    Raises PreflightFailed with every problem at once, or Unreachable when all that is wrong may pass.
    """
    wanted = outcome(request, plan.database.dbname)
    found = Problems()
    wrong_name = name_problems(wanted)
    found.add(wrong_name)
    found.add(request_problems(request, wanted, plan.database.dbname))
    found.add(preflight_local.identity_problems(plan, backup))
    found.add(preflight_local.spool_room(plan, backup))
    look = _Look(plan, request, backup, plan.database.dbname if wrong_name else wanted, found, [], drill)
    ground = None
    with found:
        ground = _survey_server(look)
    found.raise_any(f"{backup.filename} cannot be {'tried out' if drill else 'restored'}")
    assert ground is not None
    return ground


def _survey_server(look: _Look) -> Ground | None:
    own, mode = look.plan.database, look.request.mode
    stand = maintenance(own if mode == "new_database" else own.with_dbname(look.database))
    pooled = pooler_problems(_connect(stand), stand.host, stand.port)
    look.found.add(pooled)
    if pooled:
        return None  # what a pooler answers may be true of another connection
    with source_session(stand, NAME) as server:
        me, exists = preflight_roles.role_of(server), preflight_live.exists(server, look.database)
        look.found.add(preflight_server.version_problems(server, look.backup))
        look.warnings.extend(preflight_server.version_warnings(server, look.backup))
        look.found.add(preflight_server.connection_problems(server, me.name, NAME), may_pass=True)
        _survey_database(look, server, me, exists)
        model = _model(look, server)
        if look.drill:
            model = replace(model, like=preflight_server.made_own(server, model.like))
        look.found.add(preflight_roles.privilege_problems(server, me, "drill" if look.drill else mode, look.database))
        create = _survey_roles(look, server, me, model)
        _survey_content(look, server, me, model)
        psql = None
        with look.found:
            psql = _psql(look, server)
        if psql is None:
            return None
        live = exists and mode != "new_database"
        return Ground(psql, server.server_version, look.database, live, model.like, create, tuple(look.warnings))


def _survey_database(look: _Look, server: Connection, me: Me, exists: bool) -> None:
    """The database that is to be replaced, or that must not be there."""
    mode, name = look.request.mode, preflight_live.quoted(server, look.database)
    if mode == "new_database" and exists:
        look.found.add([f"There is a database {name} already: give another name in target, or drop it first."])
    if mode == "in_place" and not exists:
        look.found.add([f"There is no database {name} to restore in place: use the mode swap or new_database."])
    if mode == "new_database" or not exists:
        return
    look.found.add(preflight_live.state_problems(server, look.database))
    if mode == "swap":
        look.found.add(preflight_live.session_problems(server, me.name, look.database), may_pass=True)
        look.warnings.extend(preflight_live.left_behind(server, look.database))


def _model(look: _Look, server: Connection) -> _Model:
    name = look.plan.database.dbname if look.request.mode == "new_database" else look.database
    if preflight_live.exists(server, name):
        unheard = suppress(AccessRefused) if look.drill else look.found  # a drill needs no more than an example
        with unheard, source_session(look.plan.database.with_dbname(name), NAME) as live:
            there = tuple((one.name, one.version) for one in extensions(live))
            return _Model(database_properties(live), True, preflight_roles.owners_in(live), there)
    return _Model(look.backup.database)


def _survey_roles(look: _Look, server: Connection, me: Me, model: _Model) -> tuple[str, ...]:
    """The roles to create."""
    needed = preflight_roles.roles_needed(look.backup, model.like if look.makes_database else None)
    missing = preflight_roles.missing_roles(server, needed)
    create = look.request.create_missing_roles
    look.found.add(preflight_roles.missing_role_problems(server, me, missing, create, look.drill))
    owners = set(model.owners) & set(look.backup.roles) | ({model.like.owner} if look.makes_database else set())
    look.found.add(preflight_roles.ownership_problems(server, me, owners))
    if not model.is_there:
        look.warnings.extend(preflight_roles.ownership_warnings(server, me, set(look.backup.roles) - owners))
    return tuple(name for name in missing if create)


def _survey_content(look: _Look, server: Connection, me: Me, model: _Model) -> None:
    """Extensions, and what a new database takes; the disk, when all of the backup is restored."""
    kept = {} if look.makes_database else dict(model.extensions)
    problems, warnings = preflight_server.extension_findings(server, me, look.backup, kept)
    look.found.add(problems)
    look.warnings.extend(warnings)
    if look.makes_database:
        look.found.add(preflight_server.place_problems(server, me, model.like, elsewhere=not model.is_there))
    if not look.request.tables:
        directory = preflight_server.directory_of(server, model.like.tablespace)
        size = look.backup.database.size
        look.found.add(preflight_local.disk_problems(look.plan.database.host, directory, size))


def _psql(look: _Look, server: Connection) -> Tool:
    at_hand = tools.installed("psql", look.plan.tools_directory)
    version = server.get_parameter_status("server_version")
    major = server.server_version // 10_000
    psql, warnings = preflight_local.chosen_psql(at_hand, major, version, look.backup.pg_dump_version)
    look.warnings.extend(warnings)
    return psql


def _connect(dsn: Dsn) -> Callable[[], Connection]:
    return lambda: within_pg_catalog(dsn.connect(NAME))
