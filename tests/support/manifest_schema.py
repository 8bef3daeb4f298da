"""`python -m tests.support.manifest_schema`: prints the JSON Schema of the manifest, for docs/manifest.schema.json."""

from __future__ import annotations

import json
import sys
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from tasks.storage.manifest_file import FORMAT, MANIFEST

#: Only an encrypted backup has recipients.
_RECIPIENTS = {
    "if": {"properties": {"encrypted": {"const": True}}},
    "then": {"properties": {"recipients": {"minItems": 1}}},
    "else": {"properties": {"recipients": {"maxItems": 0}}},
}


class _WithoutTitles(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def schema() -> dict[str, Any]:
    """The JSON Schema, made from the classes of the manifest."""
    made = MANIFEST.json_schema(schema_generator=_WithoutTitles)
    made["title"] = f"Manifest of a backup, format {FORMAT}"
    definitions = made.pop("$defs")
    return {"$schema": GenerateJsonSchema.schema_dialect, **made, **_RECIPIENTS, "$defs": definitions}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(schema(), indent=2, ensure_ascii=False) + "\n")
