"""The rules by which the emulated Vertex AI refuses, and helpers for its JSON."""

from __future__ import annotations

import re
from typing import Any

from google.protobuf import json_format


class Refused(Exception):
    """An answer that is an error: HTTP code and message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def parse(kind: Any, body: dict[str, Any], lenient: bool = False) -> Any:
    """The message of a JSON body. Raises ParseError for a field that it does not have."""
    message = kind.pb(kind())
    return json_format.ParseDict(body, message, ignore_unknown_fields=lenient)


def show(message: Any) -> dict[str, Any]:
    return json_format.MessageToDict(message)


def packed(message: Any) -> dict[str, Any]:
    return {"@type": f"type.googleapis.com/{message.DESCRIPTOR.full_name}", **show(message)}


def camel(path: str) -> str:
    return re.sub("_([a-z])", lambda m: m[1].upper(), path)


def only(shown: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in shown.items() if name in names}


def matches(resource: Any, query: dict[str, str]) -> bool:
    """Whether ``labels.a=b AND labels.c=d`` holds; anything else is refused."""
    for term in filter(None, query.get("filter", "").split(" AND ")):
        found = re.fullmatch(r'labels\.([a-z0-9_-]+)="?([a-z0-9_-]+)"?', term)
        if found is None:
            raise Refused(400, f"cannot parse filter {term!r}")
        if resource.labels.get(found[1]) != found[2]:
            return False
    return True


def check_split(split: Any, ids: set[str]) -> None:
    if sum(split.values()) != 100:
        raise Refused(400, f"the traffic split sums to {sum(split.values())}, not 100")
    if set(split) - ids:
        raise Refused(400, f"no deployed models {sorted(set(split) - ids)}")


def check_resources(resources: Any, endpoint: Any, version: str) -> None:
    machine = resources.machine_spec
    if not machine.machine_type:
        raise Refused(400, "machine_spec.machine_type is required")
    if bool(machine.accelerator_type) != bool(machine.accelerator_count):
        raise Refused(400, "accelerator type and count come together")
    if resources.max_replica_count < max(resources.min_replica_count, 1):
        raise Refused(400, "max_replica_count is below min_replica_count")
    if resources.min_replica_count < 1:
        if version != "v1beta1":
            raise Refused(400, "min_replica_count has to be 1 or more")
        if not 1 <= resources.initial_replica_count <= resources.max_replica_count:
            raise Refused(400, "initial_replica_count has to be 1 to max_replica_count")
        if endpoint.deployed_models:
            raise Refused(400, "scale to zero: one model per endpoint")
