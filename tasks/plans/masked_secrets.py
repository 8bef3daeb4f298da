"""Finds secrets that were lost: Prefect shows `********` in their place, and a form can save that as the value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

#: What Prefect shows in place of a secret.
MASK = "********"
#: The fields of a plan that name blocks, by the type of these.
_NAMES = {
    "postgres-database": ("database", "catalogue"),
    "backup-storage": ("storage", "replicas"),
    "secret": ("age_identity", "ping_url"),
}


def lost_secret(block: str, field: str) -> str:
    """The sentence for a field of a block, such as `postgres-database/default-database`."""
    return (
        f"Block {block}: the field {field} holds {MASK}, so its secret is lost: enter it again under Blocks in the "
        "Prefect UI."
    )


def lost_secrets(documents: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each secret that plans, or the blocks that they name, have lost. Pure.

    `documents` are block documents as Prefect's API gives them, with secrets.
    """
    data = {(str(one["block_type"]["slug"]), str(one["name"])): one["data"] for one in documents}
    plans = {place: fields for place, fields in data.items() if place[0] == "backup-plan"}
    used = {*plans, *(place for fields in plans.values() for place in _named(fields))}
    used |= {("aws-credentials", str(data[place].get("credentials"))) for place in used & data.keys()}
    return [
        lost_secret(f"{slug}/{name}", field)
        for slug, name in sorted(used & data.keys())
        for field in masked_fields(data[slug, name])
    ]


def _named(plan: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Type and name of the blocks that a plan names."""
    for slug, fields in _NAMES.items():
        for field in fields:
            value = plan.get(field)
            yield from ((slug, str(name)) for name in (value if isinstance(value, list) else [value]))


def masked_fields(data: Any, path: str = "") -> Iterator[str]:
    """The paths (`database.url`) of all texts in the data of a block that are a mask. Pure."""
    if data == MASK:
        yield path
    pairs: Sequence[tuple[Any, Any]] = ()
    if isinstance(data, Mapping):
        pairs = list(data.items())
    elif isinstance(data, list | tuple):
        pairs = list(enumerate(data, 1))
    for name, value in pairs:
        yield from masked_fields(value, f"{path}.{name}" if path else str(name))


def revealed(value: Any) -> Any:
    """What a block holds, as plain data with its secrets, without what Prefect adds when it stores a block.

    Field by field, since model_dump() of a block takes seconds.
    """
    if hasattr(value, "get_secret_value"):
        return value.get_secret_value()
    if isinstance(value, BaseModel):
        names = [name for name in type(value).model_fields if not name.startswith("_") and name != "block_type_slug"]
        return {name: revealed(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {name: revealed(inner) for name, inner in value.items()}
    return [revealed(inner) for inner in value] if isinstance(value, list | tuple) else value
