"""JSON Schema (draft 2020-12) of gateway.yaml and of the settings.

Made from the types that read them. Rules between several fields, such as names that have to
exist, are not part of it; ``llm-gateway config check`` has them all.
"""

from __future__ import annotations

from typing import Any

from gateway.routing.load import LOCAL_FIELDS, REMOTE_ONLY
from gateway.routing.schema import FileYaml, RemoteYaml
from gateway.settings import Settings

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def file_schema() -> Schema:
    """Of gateway.yaml. Targets that name a server are remote, the others run in this process."""
    found = FileYaml.model_json_schema()
    remote = RemoteYaml.model_json_schema()
    settings = Settings.model_json_schema()
    definitions = {
        **settings.pop("$defs", {}),
        **remote.pop("$defs", {}),
        **found.pop("$defs", {}),
        "RemoteTarget": remote,
        "LocalTarget": local_target(settings),
    }
    definitions["ModelYaml"]["properties"]["targets"] = {
        "type": "array",
        "minItems": 1,
        "maxItems": 1000,
        "items": {
            "if": {"anyOf": [{"required": [name]} for name in sorted(REMOTE_ONLY)]},
            "then": {"$ref": "#/$defs/RemoteTarget"},
            "else": {"$ref": "#/$defs/LocalTarget"},
        },
    }
    return {"$schema": DIALECT, **found, "title": "gateway.yaml", "$defs": definitions}


def local_target(settings: Schema) -> Schema:
    """A target in this process: settings of one model, with a name and a weight."""
    own = settings["properties"]
    properties: Schema = {name: own[name] for name in sorted(LOCAL_FIELDS & own.keys())}
    properties["name"] = {"type": "string", "minLength": 1, "description": "Of the target."}
    properties["weight"] = {"type": "number", "exclusiveMinimum": 0, "default": 1.0}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def settings_schema() -> Schema:
    """Of the settings under their names in the environment, by the types that they have once
    they have been read: lists are written there separated by commas, objects as JSON."""
    found = Settings.model_json_schema()
    properties = {name.upper(): schema for name, schema in found["properties"].items()}
    return {"$schema": DIALECT, **found, "title": "Settings", "properties": properties}
