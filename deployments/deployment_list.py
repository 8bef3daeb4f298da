"""What prefect.yaml lists: the one place that names the deployments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

DEPLOYMENT_FILE = Path(__file__).parent.parent / "prefect.yaml"


def deployment_entries() -> list[dict[str, Any]]:
    """The entries of prefect.yaml, as they stand there."""
    entries: list[dict[str, Any]] = yaml.safe_load(DEPLOYMENT_FILE.read_text())["deployments"]
    return entries


def listed_deployments() -> list[str]:
    """`<flow>/<deployment>` of every entry; the flow is named like its function."""
    return [f"{entry['entrypoint'].split(':')[1].replace('_', '-')}/{entry['name']}" for entry in deployment_entries()]
