"""The shared installation as it was when it began: each file of tests finds it so, whatever the files before it did."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg2
from psycopg2 import sql

from tests.support.installation import CATALOGUE, DATABASE, Installation
from tests.support.prefect_client import prefect_client

#: Copies of the databases by what they are copies of. As templates they are nobody's database.
COPIES = {DATABASE: "installation_began", CATALOGUE: "installation_catalogue_began"}
#: What tests add by name: plans in blocks, and the automations that watch them.
ADDED = ("block_documents", "automations")


class Beginning:
    """Databases, objects, blocks and automations of an installation that nobody has used yet."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.is_used = False
        self._objects = {key: self._object(key) for key in installation.world.objects()}
        self._names = {kind: {_name(one) for one in self._there(kind)} for kind in ADDED}
        self._run("CREATE DATABASE {1} TEMPLATE {0} IS_TEMPLATE true ALLOW_CONNECTIONS false")

    def put_back(self) -> None:
        """Everything is as in the beginning again, the admin page too; runs and other artifacts of Prefect stay."""
        self._delete_added()
        self._run("DROP DATABASE IF EXISTS {0} WITH (FORCE)")
        self._run("CREATE DATABASE {0} TEMPLATE {1}")
        self._put_objects_back()
        run = self.installation.ended(self.installation.begin("list-backups/refresh-admin-page"))
        assert run["state"]["type"] == "COMPLETED", run["state"]

    def _put_objects_back(self) -> None:
        world = self.installation.world
        there = set(world.objects())
        for key in there - set(self._objects):
            world.s3.client.delete_object(Bucket=world.bucket, Key=key)
        for key in set(self._objects) - there:
            world.s3.client.put_object(Bucket=world.bucket, Key=key, **self._objects[key])

    def _object(self, key: str) -> dict[str, Any]:
        """What is to be put to have the object again."""
        world = self.installation.world
        answer = world.s3.client.get_object(Bucket=world.bucket, Key=key)
        headers = {name: answer[name] for name in ("ContentDisposition", "ContentType", "Metadata") if name in answer}
        return {"Body": answer["Body"].read(), **headers}

    def _there(self, kind: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.installation.api(f"/{kind}/filter", {})
        return found

    def _delete_added(self) -> None:
        server = self.installation.server
        with prefect_client(server.api_url, server.password) as client:
            for path in self._added():
                client.delete(path).raise_for_status()

    def _added(self) -> Iterator[str]:
        for kind in ADDED:
            yield from (f"{kind}/{one['id']}" for one in self._there(kind) if _name(one) not in self._names[kind])

    def _run(self, statement: str) -> None:
        for name, copy in COPIES.items():
            self._sql(statement, name, copy)

    def _sql(self, statement: str, *names: str) -> None:
        with closing(psycopg2.connect(self.installation.world.cluster.url())) as connection:
            connection.autocommit = True
            connection.cursor().execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def _name(one: dict[str, Any]) -> tuple[str, str]:
    return one.get("block_type_id", ""), one["name"]
