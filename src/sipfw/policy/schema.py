"""The JSON Schema of the policy file."""

from __future__ import annotations

from typing import Any

from sipfw.policy.load import shipped_profiles, shipped_switches
from sipfw.policy.model import Policy


def json_schema() -> dict[str, Any]:
    """Return the schema with the shipped profiles and switches as choices."""
    schema = Policy.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "sipfw policy"
    schema["properties"]["profile"]["enum"] = shipped_profiles()
    schema["properties"]["switch"] = {
        "anyOf": [{"enum": shipped_switches()}, {"type": "null"}],
        "default": None,
        "description": "Softswitch whose ports are meant.",
    }
    return schema
