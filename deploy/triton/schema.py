"""config.pbtxt through Triton's own protobuf schema (``model_config.proto`` of tritonclient).

The schema's package pins an older protobuf than ours, so it lives in the ``triton`` environment
and is asked through a process.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.triton.errors import TritonError

Config = dict[str, Any]
"""A ``ModelConfig`` message as protobuf's JSON, under the schema's own field names."""

WORKER = Path(__file__).with_name("schema_worker.py")


def render(python: Path, configs: Mapping[str, Config]) -> dict[str, str]:
    """The text of every config, by model name.

    Args:
        python: of the ``triton`` environment.

    Raises TritonError for a field that Triton does not have.
    """
    answer: dict[str, str] = _ask(python, "render", configs)
    return answer


def parse(python: Path, texts: Mapping[str, str]) -> dict[str, Config]:
    """Every config, by model name; raises TritonError for text that Triton would not read."""
    found: dict[str, Config] = _ask(python, "parse", texts)
    return {name: _plain(config) for name, config in found.items()}


def _plain(value: Any, key: str = "") -> Any:
    """With integers for what protobuf's JSON spells as strings: 64-bit numbers."""
    if isinstance(value, dict):
        return {k: _plain(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(item, key) for item in value]
    return int(value) if key in _WIDE and isinstance(value, str) else value


_WIDE = frozenset(
    (
        *("dims", "shape", "model_version", "versions", "max_queue_delay_microseconds"),
        *("priority_levels", "default_priority_level", "default_timeout_microseconds"),
    )
)


def _ask(python: Path, kind: str, what: Mapping[str, Any]) -> Any:
    done = subprocess.run(
        [str(python), "-I", str(WORKER)],
        input=json.dumps({kind: what}),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        raise TritonError(
            f"Triton's schema cannot be read from {python.parent.parent}: "
            f"{' '.join(last) or 'no message'}; delete that folder and make it again with --install"
        )
    answer = json.loads(done.stdout)
    if "error" in answer:
        name, message = answer["error"]
        raise TritonError(f"{name}/config.pbtxt: {message.strip()}")
    return answer[kind]
