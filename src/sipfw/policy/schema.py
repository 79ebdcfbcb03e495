"""The JSON Schema of the policy file."""

from __future__ import annotations

from typing import Any

from sipfw.policy.load import shipped_profiles, shipped_switches
from sipfw.policy.model import Policy

# What is said of a field as a whole, whichever form its value has.
_ABOUT = {"title", "description", "default"}


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
    for section in (schema, *schema["$defs"].values()):
        for name, field in section.get("properties", {}).items():
            section["properties"][name] = _one_or_list(field)
    _bare_peers(schema)
    return schema


def _bare_peers(schema: dict[str, Any]) -> None:
    """A peer may be an address alone, or stand under its name."""
    peer = schema["$defs"]["Peer"]
    addresses = peer["properties"]["signalling"]["anyOf"]
    named = {key: value for key, value in peer["properties"].items() if key != "name"}
    schema["$defs"]["NamedPeer"] = {**peer, "properties": named, "required": ["signalling"]}
    by_name = {
        "type": "object",
        "additionalProperties": {"anyOf": [{"$ref": "#/$defs/NamedPeer"}, *addresses]},
    }
    whole, one = schema["properties"]["trusted_peers"]["anyOf"]
    address = addresses[-1]
    entry = {"anyOf": [one, address, {**by_name, "maxProperties": 1}]}
    schema["properties"]["trusted_peers"]["anyOf"] = [
        {**whole, "items": entry},
        one,
        address,
        by_name,
    ]


def _one_or_list(field: dict[str, Any]) -> dict[str, Any]:
    """One value stands for a list of one."""
    if field.get("type") != "array":
        return field
    about = {key: value for key, value in field.items() if key in _ABOUT}
    whole = {key: value for key, value in field.items() if key not in _ABOUT}
    return about | {"anyOf": [whole, field["items"]]}
