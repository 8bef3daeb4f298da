"""Finds a plan by its name."""

from __future__ import annotations

from pathlib import Path

from tasks.blocks import BackupPlan
from tasks.core.errors import BadSetting
from tasks.core.names import checked_plan_name
from tasks.core.plan import Plan, plan_from_settings
from tasks.core.settings import load_settings


def plan_named(name: str) -> Plan:
    """The plan of the block `name`; without one, `default` is what `.env` describes.

    Raises BadSetting when there is no such plan, or it names something unusable.
    """
    checked_plan_name(name)
    try:
        block = BackupPlan.load(name)
    except ValueError as error:
        if "Unable to find block document" not in str(error):
            raise BadSetting(f"The block of plan {name} cannot be read: open it in the Prefect UI and save it again.") from None
        if name != "default":
            raise BadSetting(f"There is no plan {name!r}: see the blocks in the Prefect UI, or run "
                             f"python -m deployments.add_plan {name}.") from None  # fmt: skip
        return plan_from_settings(name, load_settings(Path.cwd()))
    return block.resolved(name)
