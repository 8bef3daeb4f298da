"""`python -m tests.support.output_schema`: prints the JSON Schema of `backups … --json`, for docs/backups.schema.json."""

from __future__ import annotations

import json
import sys
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from deployments.command_line.output import OUTPUTS


class _WithoutTitles(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def schema() -> dict[str, Any]:
    """The JSON Schema: a definition for what each command prints, named after its class."""
    wanted = [(model, "serialization") for model in OUTPUTS.values()]
    _, made = models_json_schema(wanted, schema_generator=_WithoutTitles)  # type: ignore[arg-type]
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        "title": "What the command backups prints with --json",
        "anyOf": [{"$ref": f"#/$defs/{model.__name__}"} for model in OUTPUTS.values()],
        **made,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(schema(), indent=2, ensure_ascii=False) + "\n")
