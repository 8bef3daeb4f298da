"""The blocks of a plan: its database, catalogue, credentials, storage, secrets, and the plan itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prefect.blocks.core import Block
from prefect.blocks.system import Secret
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import BlockDocumentUpdate

from deployments.set_up_parts.merging import SetUp, merged
from deployments.set_up_parts.remembered import fingerprint
from tasks.catalogue.catalogue import Catalogue
from tasks.errors import BackupSystemError, BadSetting
from tasks.plans.blocks import SECRETS, BackupPlan, BackupStorage, PostgresDatabase
from tasks.plans.find_plan import MASK, masked_fields, named_block, revealed, stored_block
from tasks.plans.from_settings import VARIABLES, Described, secret_block
from tasks.postgres.address import unproved_server
from tasks.postgres.dsn import parse
from tasks.prefect_client import refused


def set_up_plan(name: str, said: Described, run: SetUp) -> Iterator[str]:
    """The blocks of a plan, and the tables of its own catalogue, are there; yields a line for each that differed.

    The blocks that the plan names follow what is described. The fields of the plan follow it too, unless somebody has
    changed them in Prefect: that is reported when the description changes as well. Raises BadSetting, before anything
    is written, when the description cannot be used.
    """
    BackupPlan(**said.fields).resolved(
        name, lambda kind, block: said.blocks.get((kind, block)) or named_block(name, kind, block)
    )
    if catalogue := said.blocks.get((PostgresDatabase, said.fields["catalogue"])):
        yield from _catalogue(revealed(catalogue)["url"], run.check)
    for (_, block_name), block in said.blocks.items():
        yield from _save(block, block_name, name, run.check)
    yield from _apply_fields(name, said.fields, run)


def edit_block(stored: Block, fields: Mapping[str, Any]) -> None:
    """These fields of a stored block, and no other, have these values."""
    assert stored._block_document_id is not None  # it was loaded
    new = BlockDocumentUpdate(data=dict(fields), merge_existing_data=True)
    with get_client(sync_client=True) as client, refused(f"the block {stored._block_document_name}"):
        client.update_block_document(stored._block_document_id, new)


def _apply_fields(name: str, declared: Mapping[str, Any], run: SetUp) -> Iterator[str]:
    stored, thing = stored_block(BackupPlan, name), f"plan {name}"
    if stored is None:
        if not run.check:
            with refused(f"the block backup-plan/{name}"):
                BackupPlan(**declared).save(name)
            run.memory.note(thing, declared, declared, declared)
        yield f"Block backup-plan/{name} {'is missing' if run.check else 'was created'}."
        return
    found, last = {field: getattr(stored, field) for field in declared}, run.memory.of(thing)
    result = merged(declared, found, last)
    if result.write and not run.check:
        edit_block(stored, {field: declared[field] for field in result.write})
        _delete_unused_secrets(name, {field for field in result.write if not declared[field]})
    for field in result.write:
        yield f"Plan {name} {'differs' if run.check else 'was changed'}: {field} follows {VARIABLES[field]} in .env."
    for field in result.kept:
        if field in last and fingerprint(declared[field]) != last[field].declared:
            yield (
                f"{VARIABLES[field]} was changed in .env, and {field} was changed in the block of plan {name}, which "
                "stays as it is: correct the one or the other."
            )
    run.memory.note(thing, result.write, declared, declared)
    run.memory.note(thing, result.same, declared, found)
    # Changed by somebody before the set-up remembered anything:
    run.memory.note(thing, [field for field in result.kept if field not in last], declared, {})


def _delete_unused_secrets(plan: str, emptied: set[str]) -> None:
    """The blocks of secrets that `.env` held, and does not hold any more."""
    for field in emptied & set(SECRETS):
        if stored_block(Secret, block := secret_block(plan, field)) is not None:
            Secret.delete(block)


def _catalogue(url: str, check: bool) -> list[str]:
    catalogue = Catalogue(parse(url, "CATALOG_URL"))
    if not check:
        return ["The catalogue's tables were created."] if catalogue.prepare() else []
    try:
        catalogue.check()
    except BadSetting as missing:
        return [str(missing)]
    except BackupSystemError as silent:
        return [f"The catalogue cannot be reached: {silent}"]
    return []


def _save(block: Block, name: str, plan: str, check: bool) -> Iterator[str]:
    """Saves a block unless the stored block says the same already."""
    stored = stored_block(type(block), name)
    if stored is not None and revealed(stored) == revealed(block):
        return
    what = f"Block {block.get_block_type_slug()}/{name}"
    if not check:
        with refused(f"the block {block.get_block_type_slug()}/{name}"):
            block.save(name, overwrite=True)
    lost = next(masked_fields(revealed(stored)), "") if stored is not None else ""
    yield f"{what} {_was(stored, check)}{f': its field {lost} held {MASK} in place of a secret' if lost else ''}."
    if stored is not None and (line := _moved(stored, block, name, plan)):
        yield line
    if isinstance(block, PostgresDatabase) and not check:
        dsn = parse(block.url.get_secret_value())
        if doubt := unproved_server(dsn.parameters):
            yield f"The address {dsn.place} of block {name}: {doubt}"


def _was(stored: Block | None, check: bool) -> str:
    if check:
        return "is missing" if stored is None else "differs"
    return "was created" if stored is None else "was changed"


def _moved(old: Block, new: Block, name: str, plan: str) -> str:
    """What it means that a plan has another database, catalogue or bucket now; empty when it has the same."""
    before, now = _place(old), _place(new)
    if not before or before == now:
        return ""
    if isinstance(new, BackupStorage):
        return f"Plan {plan} stores its backups in {now} from now on. Earlier backups stay in {before}."
    if name.endswith("-database"):
        return f"Plan {plan} backs up {now} from now on, and not {before}."
    return (
        f"The records of plan {plan} are kept in {now} from now on, and the admin page shows only these. "
        f"The records of its earlier backups stay in {before}."
    )


def _place(block: Block) -> str:
    """Where a block leads to, without any secret; empty when that cannot be read."""
    if isinstance(block, BackupStorage):
        return f"bucket {block.bucket}, folder {block.folder}"
    if not isinstance(block, PostgresDatabase):
        return ""
    try:
        address = parse(block.url.get_secret_value())
    except BackupSystemError:
        return ""
    return f"the database {address.place}"
