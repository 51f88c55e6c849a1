"""Renders and parses config.pbtxt with Triton's own protobuf schema.

Run as a script by the Python of the ``triton`` environment, whose tritonclient carries the
schema. Reads ``{"render": {key: config}, "parse": {key: text}}`` as JSON on stdin and answers
``{"render": {key: text}, "parse": {key: config}}``, or ``{"error": [key, message]}``.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

from google.protobuf import json_format, text_format


def schema() -> Any:
    """The message class. Its module alone, since its package would bring gRPC along."""
    package = importlib.util.find_spec("tritonclient")
    assert package is not None
    assert package.submodule_search_locations is not None
    folder = Path(next(iter(package.submodule_search_locations))) / "grpc"
    spec = importlib.util.spec_from_file_location(
        "model_config_pb2", folder / "model_config_pb2.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ModelConfig


ModelConfig = schema()


def render(config: dict[str, Any]) -> str:
    """The text form; a field or value that the schema does not have is an error."""
    text: str = text_format.MessageToString(json_format.ParseDict(config, ModelConfig()))
    return text


def parse(text: str) -> dict[str, Any]:
    """A message as JSON, under the schema's own field names."""
    message = text_format.Parse(text, ModelConfig())
    found: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return found


def main() -> None:
    """Answer the one request on stdin."""
    asked = json.load(sys.stdin)
    answer: dict[str, Any] = {"render": {}, "parse": {}}
    for kind, work in (("render", render), ("parse", parse)):
        for key, value in asked.get(kind, {}).items():
            try:
                answer[kind][key] = work(value)
            except (json_format.ParseError, text_format.ParseError) as error:
                answer = {"error": [key, str(error)]}
                json.dump(answer, sys.stdout)
                return
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
