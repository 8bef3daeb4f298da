"""Looks for everything that could stand in the way of a restore, all at once, before anything is changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from psycopg2.extensions import connection as Connection

from tasks.backup.preflight import pooler_problems
from tasks.backup.source import database_properties, extensions
from tasks.errors import AccessRefused, Problems
from tasks.plans.plan import Plan, pinned
from tasks.postgres import tools
from tasks.postgres.dsn import Dsn
from tasks.postgres.server import maintenance, source_session, within_pg_catalog
from tasks.postgres.tools import Tool, chosen_psql
from tasks.restore.entries import ChosenSchemas
from tasks.restore.in_place import lock_problems
from tasks.restore.preflight import live as preflight_live
from tasks.restore.preflight import local as preflight_local
from tasks.restore.preflight import roles as preflight_roles
from tasks.restore.preflight import target_server as preflight_server
from tasks.restore.preflight.local import into_problems, name_problems, outcome, request_problems
from tasks.restore.preflight.roles import Me
from tasks.restore.preflight.target_entries import Target, entry_findings
from tasks.restore.tables.patterns import chosen, left_out_of
from tasks.restore.tables.table_scripts import replacement
from tasks.restore.values import Ground, RestoreRequest
from tasks.storage.backup_values import DatabaseProperties, StoredBackup

NAME = "restore preflight"


@dataclass(frozen=True)
class _Look:
    """What is asked for, and where problems and warnings are collected."""

    plan: Plan
    request: RestoreRequest
    backup: StoredBackup
    database: str
    problems: Problems
    warnings: list[str]
    verify: bool = False
    elsewhere: bool = False

    @property
    def makes_database(self) -> bool:
        return self.request.mode != "in_place"


@dataclass(frozen=True)
class _Model:
    """The database that the new one is made like; its owners and extensions where it is on the server."""

    like: DatabaseProperties
    is_there: bool = False
    owners: tuple[str, ...] = ()
    extensions: tuple[tuple[str, str], ...] = ()


def survey(
    plan: Plan,
    request: RestoreRequest,
    backup: StoredBackup,
    verify: bool = False,
    elsewhere: bool = False,
    is_plan: bool = True,
) -> Ground:
    """Looks at parameters, server, databases, roles, psql, disk and keys, changing nothing.

    To `verify` (with the mode new_database) the new database is one that this role may make, whoever owns the model.
    `elsewhere` says that the plan's database is not on this server: the backed-up database is the model then.
    `is_plan` says that a plan looks after the server.
    Raises PreflightFailed with every problem at once, or Unreachable when all that is wrong may pass.
    """
    problems = Problems()
    with problems:
        plan = pinned(plan)
    wanted = outcome(request, plan.database.dbname)
    wrong_name = name_problems(wanted)
    problems.add(wrong_name)
    problems.add(request_problems(request, wanted, plan.database.dbname))
    problems.add(into_problems(request, wanted, plan, is_plan=is_plan))
    with problems:
        ChosenSchemas(request.schemas)
    with problems:
        left_out = left_out_of(request.tables, backup.left_out, backup.tables, backup.parents)
        problems.add(left_out)
        if not left_out:
            chosen(request.tables, backup.tables, backup.parents)
    problems.add(preflight_local.identity_problems(plan, backup))
    problems.add(preflight_local.spool_room(plan, backup))
    look = _Look(plan, request, backup, plan.database.dbname if wrong_name else wanted, problems, [], verify, elsewhere)
    ground = None
    with problems:
        ground = _survey_server(look) if plan.database.server else None
    problems.raise_any(f"{backup.filename} cannot be {'verified' if verify else 'restored'}")
    assert ground is not None
    return ground


def _survey_server(look: _Look) -> Ground | None:
    own, mode = look.plan.database, look.request.mode
    stand = maintenance(own if mode == "new_database" else own.with_dbname(look.database))
    pooled = pooler_problems(_connect(stand), stand.host, stand.port)
    look.problems.add(pooled)
    if pooled:
        return None  # what a pooler answers may be true of another connection
    with source_session(stand, NAME) as server:
        me, exists = preflight_roles.role_of(server), preflight_live.exists(server, look.database)
        look.problems.add(preflight_server.version_problems(server, look.backup))
        look.warnings.extend(preflight_server.version_warnings(server, look.backup))
        look.problems.add(preflight_server.connection_problems(server, me.name, NAME), may_pass=True)
        _survey_database(look, server, me, exists)
        model = _model(look, server)
        if look.request.owners == "target":
            model = _owned_by_target(look, server, model)
        if look.verify:
            model = replace(model, like=preflight_server.made_own(server, model.like))
        look.problems.add(
            preflight_roles.privilege_problems(server, me, "verify" if look.verify else mode, look.database)
        )
        create = _survey_roles(look, server, me, model)
        _survey_content(look, server, me, model)
        _survey_loader(look, server, stand, me)
        psql = None
        with look.problems:
            psql = _psql(look, server)
        if psql is None:
            return None
        live = exists and mode != "new_database"
        foreign = preflight_roles.foreign_superusers(server)
        return Ground(
            psql,
            server.server_version,
            look.database,
            live,
            model.like,
            create,
            tuple(look.warnings),
            me.is_superuser,
            foreign,
        )


def _survey_database(look: _Look, server: Connection, me: Me, exists: bool) -> None:
    """The database that is to be replaced, or that must not be there."""
    mode, name = look.request.mode, preflight_live.quoted(server, look.database)
    if mode == "new_database" and exists:
        look.problems.add([f"There is a database {name} already: give another name in target, or drop it first."])
    if mode == "in_place" and not exists:
        look.problems.add([f"There is no database {name} to restore in place: use the mode swap or new_database."])
    if mode == "new_database" or not exists:
        return
    look.problems.add(preflight_live.state_problems(server, look.database))
    if not look.request.tables:
        look.problems.add(preflight_local.confirmation_problems(look.request, look.backup, look.database))
    if mode == "swap":
        look.problems.add(preflight_live.session_problems(server, me.name, look.database), may_pass=True)
        look.warnings.extend(preflight_live.left_behind(server, look.database))


def _model(look: _Look, server: Connection) -> _Model:
    if look.elsewhere:
        return _Model(preflight_server.known_on(server, look.backup))
    name = look.plan.database.dbname if look.request.mode == "new_database" else look.database
    if preflight_live.exists(server, name):
        unless_refused = (
            suppress(AccessRefused) if look.verify else look.problems
        )  # verify-backup needs no more than an example
        with unless_refused, source_session(look.plan.database.with_dbname(name), NAME) as live:
            there = tuple((extension.name, extension.version) for extension in extensions(live))
            like = database_properties(live)
            owner = preflight_server.made_own(server, like).owner if look.verify else like.owner
            if look.request.owners != "target":  # else all have the owner of their schema
                problems, warnings = preflight_roles.schema_findings(
                    live, preflight_roles.role_of(server), owner, look.backup, every_table=not look.request.tables
                )
                look.problems.add(problems)
                look.warnings.extend(warnings)
            return _Model(like, True, preflight_roles.owners_in(live), there)
    return _Model(preflight_server.known_on(server, look.backup))


def _owned_by_target(look: _Look, server: Connection, model: _Model) -> _Model:
    """The model whose owner gets everything; of a database that is not there, the role that restores."""
    like = model.like
    if not model.is_there:
        like = preflight_server.made_for(server, like)
    look.problems.add(preflight_roles.new_owner_problems(server, like.owner))
    return replace(model, like=like, owners=())


def _survey_roles(look: _Look, server: Connection, me: Me, model: _Model) -> tuple[str, ...]:
    """Problems of roles; returns those to create."""
    named = () if look.request.needs_no_roles else look.backup.roles
    needed = preflight_roles.roles_needed(named, model.like if look.makes_database else None)
    missing = preflight_roles.missing_roles(server, needed)
    create = look.request.create_missing_roles
    look.problems.add(preflight_roles.missing_role_problems(server, me, missing, create, look.verify))
    owners = set(model.owners) & set(look.backup.roles) | ({model.like.owner} if look.makes_database else set())
    refused = preflight_roles.ownership_problems(server, me, owners)
    if look.request.without:  # what they own may be what is left out; else the load names it
        look.warnings.extend(refused)
    else:
        look.problems.add(refused)
    if not model.is_there and look.request.owners != "target":
        look.warnings.extend(preflight_roles.ownership_warnings(server, me, set(look.backup.roles) - owners))
    return tuple(name for name in missing if create)


def _survey_content(look: _Look, server: Connection, me: Me, model: _Model) -> None:
    """Extensions, and what a new database takes; the disk, when all of the backup is restored."""
    kept = {} if look.makes_database else dict(model.extensions)
    _survey_entries(look, server, me, model, kept)
    for problems, warnings in (
        preflight_server.extension_findings(server, me, look.backup, kept, look.request.without),
        preflight_server.condition_findings(server, look.backup),
    ):
        look.problems.add(problems)
        look.warnings.extend(warnings)
    if look.makes_database:
        look.problems.add(preflight_server.place_problems(server, me, model.like, elsewhere=not model.is_there))
    if not look.request.tables:
        directory = preflight_server.directory_of(server, model.like.tablespace)
        size = look.backup.database.size
        look.problems.add(preflight_local.disk_problems(look.plan.database.host, directory, size))


def _survey_entries(look: _Look, server: Connection, me: Me, model: _Model, kept: Mapping[str, str]) -> None:
    """Entries that not every server takes; in place also what depends on chosen tables, or the locks that all take."""
    target = Target(server, me, look.database, model.like.encoding, kept, look.makes_database)
    if look.makes_database:
        _note_entries(look, target)
    elif model.is_there:
        with look.problems, source_session(look.plan.database.with_dbname(look.database), NAME) as live:
            if look.request.tables:  # they bring their own entries alone
                replacement(live, look.backup, look.request.tables, look.request.drop_dependents)
                return
            _note_entries(look, replace(target, server=live))
            look.problems.add(lock_problems(live, len(look.backup.tables)))


def _note_entries(look: _Look, target: Target) -> None:
    findings = entry_findings(target, look.backup, look.request.left_out)
    look.problems.add(findings.problems)
    look.warnings.extend(findings.warnings)


def _survey_loader(look: _Look, server: Connection, stand: Dsn, me: Me) -> None:
    """Who loads, where the plan's role is a superuser."""
    if not me.is_superuser:
        return
    if look.makes_database and not look.request.tables:
        look.problems.add(preflight_roles.login_problems(server, stand, me, look.verify))
    else:
        look.warnings.extend(preflight_roles.rights_warnings(server, me, look.backup.roles))


def _psql(look: _Look, server: Connection) -> Tool:
    at_hand = tools.installed("psql", look.plan.tools_directory)
    version = server.get_parameter_status("server_version")
    major = server.server_version // 10_000
    psql, warnings = chosen_psql(at_hand, major, version, look.backup.pg_dump_version)
    look.warnings.extend(warnings)
    return psql


def _connect(dsn: Dsn) -> Callable[[], Connection]:
    return lambda: within_pg_catalog(dsn.connect(NAME))
