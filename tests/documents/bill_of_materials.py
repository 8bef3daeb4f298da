"""`python -m tests.documents.bill_of_materials`: keeps of a bill of materials (CycloneDX, JSON) what names the packages.

Reads the bill from standard input and prints it without addresses and descriptions, which say nothing of what is
installed and change with each release of a package.
"""

from __future__ import annotations

import json
import sys
from typing import Any

_LEFT_OUT = {"externalReferences", "description", "tools"}


def shortened(value: Any) -> Any:
    """The value without these fields, at any depth. Pure."""
    if isinstance(value, dict):
        return {name: shortened(inner) for name, inner in value.items() if name not in _LEFT_OUT}
    return [shortened(inner) for inner in value] if isinstance(value, list) else value


if __name__ == "__main__":
    print(json.dumps(shortened(json.load(sys.stdin)), indent=1))
