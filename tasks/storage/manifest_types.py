"""Types of values in a manifest, and what belongs to the whole server; their docstrings are its descriptions.

A password of a role is among it only as an age file for those who can decrypt the backup.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

LARGEST = (1 << 63) - 1  # of PostgreSQL's bigint

Count = Annotated[int, Field(ge=0, le=LARGEST)]
Positive = Annotated[int, Field(ge=1, le=LARGEST)]
Text = Annotated[str, Field(pattern=r"^[^\x00]+$")]
TextOrEmpty = Annotated[str, Field(pattern=r"^[^\x00]*$")]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class Grant:
    """A privilege on the database, a tablespace or a parameter."""

    grantee: Text
    """Name of a role, or PUBLIC."""
    privilege: Text
    """Such as CONNECT, CREATE or TEMPORARY; of a parameter SET or ALTER SYSTEM."""
    grantable: bool
    """Whether the grantee may grant it to others."""
    grantor: TextOrEmpty = ""
    """Name of the role that granted it; empty or missing: the owner, of a parameter the role that made the server."""


@dataclass(frozen=True)
class RoleSettings:
    """Settings made by ALTER DATABASE … SET or ALTER ROLE … SET, in one database or in all."""

    role: Text | None
    """Role that the settings hold for; null for all roles."""
    settings: Annotated[tuple[Annotated[str, Field(pattern=r"^[^=\x00]+=[^\x00]*$")], ...], Field(min_length=1)]
    """Each as `name=value`."""


Attribute = Literal["SUPERUSER", "INHERIT", "CREATEROLE", "CREATEDB", "LOGIN", "REPLICATION", "BYPASSRLS"]


@dataclass(frozen=True)
class Role:
    """A role of the server, without its password."""

    name: Text
    """Name of the role."""
    attributes: tuple[Attribute, ...]
    """What the role has; what is not named, it has not."""
    connection_limit: Annotated[int, Field(ge=-1, le=1 << 31)]
    """Connections that the role may have; -1 means no limit."""
    valid_until: TextOrEmpty | None
    """When the password expires; null when it never does."""
    comment: TextOrEmpty | None
    """Comment on the role; null when there is none."""


@dataclass(frozen=True)
class Membership:
    """A role that is a member of another."""

    role: Text
    """Role that was granted."""
    member: Text
    """Role that it was granted to."""
    admin: bool
    """Whether the member may grant it to others."""
    inherit: bool | None
    """Whether the member has its privileges by itself; null before PostgreSQL 16, where its INHERIT decides."""
    set: bool | None
    """Whether the member may SET ROLE to it; null before PostgreSQL 16, where every member may."""
    granted_by: TextOrEmpty
    """Role that granted it; empty: the role that made the server, or not known (before PostgreSQL 16)."""


@dataclass(frozen=True)
class Tablespace:
    """A tablespace that somebody has made."""

    name: Text
    """Name of the tablespace."""
    owner: Text
    """Role that owns it."""
    location: TextOrEmpty
    """Directory on the server; empty: within the server's own."""
    options: tuple[Annotated[str, Field(pattern=r"^[a-z_]+=[^\x00]*$")], ...]
    """Options, each as `name=value`."""
    comment: TextOrEmpty | None
    """Comment on it; null when there is none."""
    grants: tuple[Grant, ...] | None
    """Privileges on it; null when nobody ever changed them."""


@dataclass(frozen=True)
class ParameterGrants:
    """Privileges on a parameter of the server's configuration."""

    name: Text
    """Name of the parameter."""
    grants: tuple[Grant, ...]
    """Who may SET it, or ALTER SYSTEM it."""


@dataclass(frozen=True)
class ServerGlobals:
    """Roles, tablespaces and what else belongs to the whole server, as of the dump."""

    roles: tuple[Role, ...]
    """Every role but those named pg_…, which every server has."""
    memberships: tuple[Membership, ...]
    """Who is a member of which role: each stands behind that by which its grantor may grant it."""
    settings: tuple[RoleSettings, ...]
    """Settings of roles in every database."""
    tablespaces: tuple[Tablespace, ...]
    """Every tablespace but pg_default and pg_global."""
    parameters: tuple[ParameterGrants, ...]
    """Privileges on parameters, since PostgreSQL 15."""
    missing: tuple[Text, ...]
    """What could not be kept, a sentence each; passwords apart."""
    passwords: TextOrEmpty
    """SQL that sets the roles' passwords, as an age file in ASCII for the backup's recipients; empty: not kept."""
    sql: tuple[Text, ...]
    """The statements that make all this again on an empty server, in order, for psql."""
    database_sql: tuple[Text, ...]
    """The statements that give the database, once it is restored under its name, what is not in the dump."""
