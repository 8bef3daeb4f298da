"""The role that loads a scratch database when a superuser restores: what runs on the way has no right elsewhere.

Code of the database's users runs while it is loaded: CHECKs, domains, generated columns, index expressions. The loader
is no superuser, is a member of no role, and owns what it has loaded until the hand-over. psql connects as the loader,
so there is nothing that RESET ROLE could give back.

While it owns everything, that code could change what somebody else is to own, such as a function that a superuser
will call. So a guard, an event trigger of the superuser, refuses the loader every definition that psql itself has not
sent. It sees that by the call stack, which has more than one line when a function defines something.

The loader cannot log in, but for the moment in which psql connects, with a password that is new each time: the code
could give the role another one. The server gets its SCRAM verifier alone.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import encrypt_password

from tasks.errors import RestoreRefused
from tasks.postgres.dsn import Dsn
from tasks.postgres.server import on, primary, rows, source_session, transaction
from tasks.restore.apply_properties import setting_steps
from tasks.restore.tables.patterns import TableName
from tasks.storage.manifest_types import RoleSettings

NAME = "restore: loader"
PREFIX = "backup_loader_"
#: Parameters of the plan's address that are about its own role.
_OF_THE_PLAN = ("user", "password", "passfile", "options")
_LABEL = re.compile(r"Database Backup System: loads a scratch database\. (?P<facts>\{.*\})", re.DOTALL)
_NAMED_AT_MOST = 10
_GUARD = """
    CREATE SCHEMA {r};
    CREATE FUNCTION {r}.only_psql() RETURNS event_trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $guard$
    DECLARE
        calls text;
    BEGIN
        GET DIAGNOSTICS calls = PG_CONTEXT;
        IF session_user = {l} AND strpos(calls, chr(10)) > 0 THEN
            RAISE EXCEPTION 'code that runs while the backup is loaded must not change definitions (%)', tg_tag
                USING ERRCODE = 'insufficient_privilege';
        END IF;
    END $guard$;
    CREATE FUNCTION {r}.note(label text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog
    AS $note$
    DECLARE
        calls text;
    BEGIN
        GET DIAGNOSTICS calls = PG_CONTEXT;
        IF strpos(calls, chr(10)) > 0 THEN
            RAISE EXCEPTION 'only a restore labels its database' USING ERRCODE = 'insufficient_privilege';
        END IF;
        EXECUTE format('COMMENT ON DATABASE %%I IS %%L', current_database(), label);
    END $note$;
    REVOKE EXECUTE ON FUNCTION {r}.note(text) FROM PUBLIC;
    GRANT USAGE ON SCHEMA {r} TO {r};
    GRANT EXECUTE ON FUNCTION {r}.note(text) TO {r};
    CREATE EVENT TRIGGER {r} ON ddl_command_start EXECUTE FUNCTION {r}.only_psql();
    ALTER EVENT TRIGGER {r} ENABLE ALWAYS;
"""
LEFT = """
    SELECT pg_describe_object(d.classid, d.objid, d.objsubid) AS name
      FROM pg_shdepend d JOIN pg_roles r ON r.oid = d.refobjid
     WHERE starts_with(r.rolname, %(prefix)s) AND d.deptype = 'o' AND d.refclassid = 'pg_authid'::regclass
       AND d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY 1
"""
#: Before PostgreSQL 17 a multirange does not follow its range.
_MULTIRANGES = """
    SELECT format('ALTER TYPE %%I.%%I OWNER TO %%I', n.nspname, m.typname, pg_get_userbyid(t.typowner)) AS statement
      FROM pg_range r JOIN pg_type t ON t.oid = r.rngtypid JOIN pg_type m ON m.oid = r.rngmultitypid
      JOIN pg_namespace n ON n.oid = m.typnamespace
     WHERE starts_with(pg_get_userbyid(m.typowner), %(prefix)s) AND t.typowner <> m.typowner
"""
#: What the plan's role has set for its sessions: what is loaded may depend on it.
_SETTINGS = """
    SELECT setconfig FROM pg_db_role_setting LEFT JOIN pg_database d ON d.oid = setdatabase
     WHERE setrole = (SELECT oid FROM pg_roles WHERE rolname = current_user)
       AND (setdatabase = 0 OR d.datname = current_database()) ORDER BY setdatabase
"""
_ROLES = """
    SELECT rolname, shobj_description(oid, 'pg_authid') AS comment FROM pg_roles
     WHERE starts_with(rolname, %(prefix)s) AND (rolvaliduntil BETWEEN now() AND now() + interval '1 day') IS NOT TRUE
     ORDER BY 1
"""
_TEMPLATE_OWNER = """
    SELECT CASE WHEN starts_with(pg_get_userbyid(nspowner), %(prefix)s)
                THEN CASE WHEN current_setting('server_version_num')::int >= 150000 THEN 'pg_database_owner'
                          ELSE pg_get_userbyid(10) END
                ELSE pg_get_userbyid(nspowner) END::text AS owner
      FROM pg_namespace WHERE nspname = 'public'
"""
_MEMBERS = """
    SELECT pg_get_userbyid(m.member)::text AS name FROM pg_auth_members m WHERE m.roleid = %(role)s::regrole
"""


class Loader:
    """The role of one run. It asks and acts by a session of the superuser in the scratch database."""

    def __init__(self, dsn: Dsn, connection: Connection, name: str) -> None:
        self.name, self._dsn, self._connection = name, dsn, connection
        self.settle: Callable[[], None] = lambda: None
        """Commits what is under way, before the server is asked."""
        self._public_owner: str | None = None
        self._free: frozenset[str] | None = None
        self._made: frozenset[TableName] | None = None

    @contextmanager
    def may_connect(self) -> Iterator[Dsn]:
        """The address by which psql connects as the loader; only within the `with` block."""
        self._turn_away_members()
        self.run("ALTER ROLE {r} RESET ALL; ALTER ROLE {r} IN DATABASE {d} RESET ALL")
        for row in rows(self._connection, _SETTINGS):
            settings = RoleSettings(self.name, tuple(s for s in row["setconfig"] if not s.startswith("role=")))
            for step in setting_steps(self._dsn.dbname, settings):
                self.run(step.statement)
        self.run("GRANT CONNECT ON DATABASE {d} TO {r}")
        try:
            yield login_address(self._dsn, self._connection, self.name)
        finally:
            self.run(
                "ALTER ROLE {r} NOLOGIN PASSWORD NULL VALID UNTIL 'infinity'; REVOKE CONNECT ON DATABASE {d} FROM {r}"
            )

    def make_tablespace(self, name: bytes) -> None:
        """On a server that is thrown away there is each tablespace of the dump, in the server's own directory.

        `name` is as SQL writes it. A server that cannot do that refuses the entry that needs it.
        """
        self.settle()
        tablespace = sql.SQL(name.decode("utf-8", "replace"))
        with suppress(psycopg2.errors.DuplicateObject, psycopg2.errors.UndefinedObject, psycopg2.DataError):
            self.run("SET allow_in_place_tablespaces = on")
            self.run(sql.SQL("CREATE TABLESPACE {} LOCATION ''").format(tablespace))
            self.run(sql.SQL("GRANT CREATE ON TABLESPACE {} TO ").format(tablespace) + sql.Identifier(self.name))

    def give_public_back(self) -> None:
        """The schema public has the owner again that it had in the empty database."""
        if self._public_owner is not None:
            self.run(on("ALTER SCHEMA public OWNER TO {d}", self._public_owner))

    def remove(self) -> None:
        """Nothing is left of the role and its guard. Raises RestoreRefused when it owns anything still."""
        if self._connection.server_version >= 140000:
            for row in rows(self._connection, _MULTIRANGES, prefix=PREFIX):
                self.run(sql.SQL(row["statement"]))
        left = [row["name"] for row in rows(self._connection, LEFT, prefix=PREFIX)]
        if left:
            more = f" and {len(left) - _NAMED_AT_MOST} more" if len(left) > _NAMED_AT_MOST else ""
            raise RestoreRefused(
                f"{self._dsn.dbname} was loaded, and the dump names no owner of {', '.join(left[:_NAMED_AT_MOST])}"
                f"{more}: nothing was replaced. Give them an owner in the backed-up database, and make a new backup."
            )
        with event_triggers_off(self._connection):
            drop_guards(self._connection)
            for row in rows(self._connection, _ROLES, prefix=PREFIX):
                # "": with such a one a dead run tried whether it can log in
                if row["rolname"] == self.name or _database_of(row["comment"]) in (self._dsn.dbname, ""):
                    self.run(on("DROP OWNED BY {r}; DROP ROLE {r}", "", r=row["rolname"]))

    # --- what the server says, for hands.Hands

    def trusts(self, language: str) -> bool:
        """Whether ordinary roles may write functions in a language."""
        self.settle()
        query = "SELECT FROM pg_language WHERE lanname = %(name)s AND lanpltrusted"
        return bool(rows(self._connection, query, name=language))

    def frees(self, setting: str) -> bool:
        """Whether every role may change a setting."""
        if self._free is None:
            found = rows(self._connection, "SELECT lower(name) AS name FROM pg_settings WHERE context = 'user'")
            self._free = frozenset(row["name"] for row in found)
        return setting.lower() in self._free

    def made_by_extension(self, relation: TableName) -> bool:
        """Whether a table or sequence is an extension's own. Asked when all extensions are there."""
        if self._made is None:
            self.settle()
            query = """
                SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                  JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
                 WHERE c.relkind IN ('r', 'p', 'S')
            """
            self._made = frozenset(TableName(row["nspname"], row["relname"]) for row in rows(self._connection, query))
        return relation in self._made

    def _make(self) -> None:
        create_role(self._connection, self.name, self._dsn.dbname)
        self.run("GRANT CREATE ON DATABASE {d} TO {r}")
        for row in rows(self._connection, "SELECT spcname FROM pg_tablespace WHERE spcname !~ '^pg_'"):
            self.run(on("GRANT CREATE ON TABLESPACE {d} TO {r}", row["spcname"], r=self.name))
        for row in rows(self._connection, _TEMPLATE_OWNER, prefix=PREFIX):
            self._public_owner = row["owner"]
            self.run("ALTER SCHEMA public OWNER TO {r}")
        drop_guards(self._connection)
        with transaction(self._connection):
            self.run(_GUARD.replace("%%", "%"))

    def _turn_away_members(self) -> None:
        """Before PostgreSQL 15 a role may make others its members; they could connect as long as it can."""
        for row in rows(self._connection, _MEMBERS, role=self.name):
            self.run(on("REVOKE {r} FROM {d}", row["name"], r=self.name))

    def run(self, statements: str | sql.Composable, value: str = "") -> None:
        """Runs statements as the superuser; `{r}` is the role in them, and `{d}` the database."""
        words = statements
        if isinstance(statements, str):
            names = {"r": sql.Identifier(self.name), "d": sql.Identifier(self._dsn.dbname)}
            words = sql.SQL(statements).format(**names, l=sql.Literal(self.name), v=sql.Literal(value))
        with self._connection.cursor() as cursor:
            cursor.execute(words)


@contextmanager
def loader_of(dsn: Dsn) -> Iterator[Loader]:
    """A role that loads the scratch database `dsn`, made by the superuser who connects there.

    After an error the role stays as long as its scratch database does. It cannot log in.
    """
    with source_session(dsn, NAME) as connection:
        loader = Loader(dsn, connection, f"{PREFIX}{secrets.token_hex(8)}")
        loader._make()
        yield loader


def create_role(connection: Connection, name: str, database: str) -> None:
    """A role without a right, labelled as the loader of `database`. It passes by row-level security in what it owns."""
    label = f"Database Backup System: loads a scratch database. {json.dumps({'database': database})}"
    with transaction(connection), connection.cursor() as cursor:
        cursor.execute(on("CREATE ROLE {d} NOLOGIN NOINHERIT BYPASSRLS", name))
        cursor.execute(on("COMMENT ON ROLE {d} IS ", name) + sql.Literal(label))


def login_address(dsn: Dsn, connection: Connection, name: str) -> Dsn:
    """The address of `dsn` for the role `name`, which can log in for a minute with a new password."""
    password = secrets.token_urlsafe(24)
    verifier = encrypt_password(password, name, connection, "scram-sha-256")
    [row] = rows(connection, "SELECT (now() + interval '1 minute')::text AS until")
    login = on("ALTER ROLE {d} LOGIN PASSWORD ", name) + sql.Literal(verifier)
    with connection.cursor() as cursor:
        cursor.execute(login + sql.SQL(" VALID UNTIL ") + sql.Literal(row["until"]))
    parameters = {key: value for key, value in dsn.parameters.items() if key not in _OF_THE_PLAN}
    return Dsn({**parameters, "user": name, "password": password}, dsn.server)


@contextmanager
def event_triggers_off(connection: Connection) -> Iterator[None]:
    """A transaction in which no event trigger of the database fires, not one that is ENABLE ALWAYS either.

    Before PostgreSQL 17 no setting keeps such a one from running its function with the superuser's rights.
    """
    query = "SELECT evtname AS name FROM pg_event_trigger WHERE evtenabled = 'A'"
    with transaction(connection), connection.cursor() as cursor:
        always = [row["name"] for row in rows(connection, query) if not row["name"].startswith(PREFIX)]
        for name in always:
            cursor.execute(on("ALTER EVENT TRIGGER {d} DISABLE", name))
        yield
        for name in always:
            cursor.execute(on("ALTER EVENT TRIGGER {d} ENABLE ALWAYS", name))


def drop_guards(connection: Connection) -> None:
    """Drops what guards of restores there are in the database, those of dead runs too."""
    query = """
        SELECT evtname AS name, 'EVENT TRIGGER' AS kind FROM pg_event_trigger JOIN pg_roles o ON o.oid = evtowner
         WHERE starts_with(evtname, %(prefix)s) AND o.rolsuper
         UNION ALL
        SELECT nspname, 'SCHEMA' FROM pg_namespace JOIN pg_roles o ON o.oid = nspowner
         WHERE starts_with(nspname, %(prefix)s) AND o.rolsuper
         ORDER BY kind -- with the schema go the function and its event trigger
    """
    for row in rows(connection, query, prefix=PREFIX):
        cascade = " CASCADE" if row["kind"] == "SCHEMA" else ""
        with connection.cursor() as cursor:
            cursor.execute(on(f"DROP {row['kind']} {{d}}{cascade}", row["name"]))


def drop_dead_loaders(server: Connection) -> list[str]:
    """Drops the loaders whose scratch databases are gone; a sentence for each that stays."""
    roles = rows(server, _ROLES, prefix=PREFIX)
    databases = {row["datname"] for row in rows(server, "SELECT datname FROM pg_database")}
    sentences = []
    for row in roles:
        if _database_of(row["comment"]) in (None, *databases):
            continue
        try:
            with transaction(server), server.cursor() as cursor:
                cursor.execute(on("DROP OWNED BY {d}", row["rolname"]))
                cursor.execute(on("DROP ROLE {d}", row["rolname"]))
        except psycopg2.Error as error:
            if error.pgcode is None or server.closed:
                raise
            sentences.append(f"Role {row['rolname']} could not be dropped and stays: {primary(error)}.")
    return sentences


def _database_of(comment: str | None) -> str | None:
    match = _LABEL.fullmatch(comment or "")
    try:
        return str(json.loads(match["facts"])["database"]) if match else None
    except (ValueError, KeyError, TypeError):
        return None
