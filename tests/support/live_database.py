"""A database that a restore is to replace, a backup of it, and roles that come and go with the test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2 import sql
from psycopg2.extensions import connection as Connection

from deployments.quick_start.postgres import PostgresCluster
from tasks.catalogue.catalogue import Catalogue
from tasks.errors import PreflightFailed
from tasks.plans.plan import Plan, Policy
from tasks.postgres.dsn import parse
from tasks.restore.preflight.survey import Ground, survey
from tasks.restore.values import RestoreRequest
from tasks.storage.backup_values import (
    DatabaseProperties,
    Extension,
    Part,
    StoredBackup,
)
from tasks.storage.s3 import Storage

PASSWORD = "geheim"


@contextmanager
def opened(url: str) -> Iterator[Connection]:
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        yield connection


def run(url: str, statement: str, **names: str) -> None:
    with opened(url) as connection, connection.cursor() as cursor:
        cursor.execute(sql.SQL(statement).format(**{key: sql.Identifier(name) for key, name in names.items()}))


class LiveDatabase:
    """A live database, a backup of it, and roles that come and go with the test."""

    def __init__(self, server: PostgresCluster, url: str, spool: Path) -> None:
        self.server, self.url, self.dbname = server, url, parse(url).dbname
        self.admin = server.url()
        self.roles: list[str] = []
        self.databases = [self.dbname]
        self.plan = Plan(
            "shop",
            parse(url),
            Catalogue(parse(url)),
            Storage(None, "bucket"),
            "",
            Policy(),
            spool_directory=spool,
            tools_directory=str(server.bin_directory),
        )
        number = server.major * 10_000 + 1
        self.backup = StoredBackup(
            "shop",
            "backup_2026-03-01_02-00-00_9f2c41ab.sql",
            "bucket",
            "shop/backup.sql",
            1,
            "full",
            datetime(2026, 3, 1, 2, tzinfo=UTC),
            100,
            "a" * 64,
            (Part(1, 100, "a" * 64),),
            "none",
            False,
            (),
            100,
            "a" * 64,
            (),
            0,
            DatabaseProperties(
                self.dbname,
                "postgres",
                "UTF8",
                "C",
                "C",
                "libc",
                None,
                None,
                None,
                None,
                "pg_default",
                -1,
                False,
                None,
                None,
                (),
                8_000_000,
                f"{server.major}.1",
                number,
            ),
            (Extension("plpgsql", "1.0", "pg_catalog"),),
            ("postgres",),
            (),
            f"{server.major}.1",
            ("A doubt.",),
        )

    def role(self, name: str, options: str = "") -> str:
        """A new role that may log in."""
        run(self.admin, f"CREATE ROLE {{r}} LOGIN {options} PASSWORD '{PASSWORD}'", r=name)
        self.roles.append(name)
        return name

    def database(self, name: str) -> str:
        self.databases.append(name)
        run(self.admin, "CREATE DATABASE {d} TEMPLATE template0", d=name)
        return name

    def as_role(self, name: str) -> Plan:
        return replace(self.plan, database=parse(self.server.url(self.dbname, user=name, password=PASSWORD)))

    def own(self, role: str) -> None:
        run(self.admin, "ALTER DATABASE {d} OWNER TO {r}", d=self.dbname, r=role)
        self.backup = replace(self.backup, roles=(role,))

    def survey(self, plan: Plan | None = None, **request: Any) -> Ground:
        backup = request.pop("backup", self.backup)
        return survey(plan or self.plan, RestoreRequest(**request), backup)

    def problems(self, plan: Plan | None = None, **request: Any) -> tuple[str, ...]:
        with pytest.raises(PreflightFailed) as caught:
            self.survey(plan, **request)
        assert all(problem.endswith(".") for problem in caught.value.problems)
        return caught.value.problems

    def like(self, **changes: Any) -> StoredBackup:
        return replace(self.backup, database=replace(self.backup.database, **changes))

    def drop(self) -> None:
        for name in self.databases:
            run(self.admin, "DROP DATABASE IF EXISTS {d} WITH (FORCE)", d=name)
        for name in self.roles:
            run(self.admin, "DROP OWNED BY {r}", r=name)
            run(self.admin, "DROP ROLE {r}", r=name)
