"""Links from the admin page to the run forms of the Prefect UI, filled in. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from tasks.runs.markdown import cell

_V2 = "/v2"
_SAFE = "/:@!$&'*+,;=%~"


@dataclass(frozen=True)
class Links:
    """`base` is where the UI begins, `deployments` the ids of those that there are, by `<flow>/<name>`."""

    base: str = _V2
    deployments: Mapping[str, str] = field(default_factory=dict)

    def form(self, text: str, deployment: str, **parameters: str) -> str:
        """A link that opens the run form of `deployment` with these parameters; empty when there is none."""
        identity = self.deployments.get(deployment)
        if not identity:
            return ""
        given = f"?parameters={quote(json.dumps(parameters, separators=(',', ':')), safe='')}" if parameters else ""
        return f"[{cell(text)}]({self.base}/deployments/deployment/{quote(identity, safe='')}/run{given})"

    def run(self, text: str, identity: str) -> str:
        """A link to a flow run."""
        return f"[{cell(text)}]({self.base}/runs/flow-run/{quote(identity, safe='')})"


def ui_base(configured: str, serve_base: str, cloud: bool = False) -> str:
    """Where the UI's pages begin, without a slash at the end.

    `configured` is the address that somebody has set for it, such as a proxy's; without one the links stay on
    whatever host the page was opened on, below the path `serve_base`. Prefect Cloud knows one UI alone.
    """
    if configured and urlsplit(configured).scheme in ("http", "https"):
        base = quote(configured.split("?")[0].split("#")[0].rstrip("/"), safe=_SAFE + "[]")
    else:
        base = quote(f"/{serve_base.strip('/')}" if serve_base.strip("/") else "", safe=_SAFE)
    return base if cloud or base.endswith(_V2) else base + _V2
