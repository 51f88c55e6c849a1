"""What the tests of a gateway with hooks in front of other servers share."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from routing_calls import events
from server_process import PATIENCE_S, ServerProcess

THOUGHT = "Mail ann@example.com?"
TEXT = "Write to ann@example.com or pay 4111 1111 1111 1111 now."
SHOWN = "Write to [redacted] or pay [redacted] now."
THOUGHT_SHOWN = "Mail [redacted]?"
KEY = "sk-of-the-upstream-0123456789"
CONFIG = """
models:
- name: far
  aliases: [trips]
  targets: [{base_url: "@far@/v1", kind: gateway, model: m, api_key: "${UPSTREAM_KEY}"}]
- {name: here, targets: [{engine: fake, engine_options: {text: "@text@"}}]}
- {name: ok, targets: [{base_url: "@ok@", kind: gateway, health: {path: ""}}]}
- {name: tried, targets: [{base_url: "@ok-tried@", kind: gateway, health: {path: ""}}]}
- {name: copied, targets: [{base_url: "@ok@", apis: [chat, messages]}], shadow: {to: tried}}
- {name: hangmid, targets: [{base_url: "@hangmid@", timeouts: {idle: 0.4}}]}
- {name: trips-late, targets: [{base_url: "@long@", kind: gateway, health: {path: ""}}]}
- {name: resetmid, targets: [{base_url: "@resetmid@"}]}
- {name: errormid, targets: [{base_url: "@errormid@"}]}
- {name: nodone, targets: [{base_url: "@nodone@"}]}
- name: retried
  policy: weighted
  retries: {ratio: 1, burst: 100}
  targets:
  - {base_url: "@errormid@", name: bad, weight: 1000000, breaker: {failures: 1000}}
  - {base_url: "@ok@", name: good, weight: 0.000001}
- name: hedged
  policy: weighted
  hedge: {after: 0.05, ratio: 0.5, burst: 100}
  targets:
  - {base_url: "@hang@", name: first, weight: 1000000}
  - {base_url: "@ok-second@", name: second, weight: 0.000001}
"""


def process(folder: Path, **settings: Any) -> Iterator[ServerProcess]:
    running = ServerProcess(folder, **settings)
    try:
        yield running.wait_ready()
    finally:
        running.kill()
        running.process.wait()


def user(text: str) -> Any:
    return [{"role": "user", "content": text}]


def noted(server: ServerProcess, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What the hook has noted of an answer, once it has."""
    limit = time.monotonic() + PATIENCE_S
    while time.monotonic() < limit:
        file = server.folder / "seen.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        if found := [entry for entry in map(json.loads, lines) if wanted(entry)]:
            return dict(found[0])
        time.sleep(0.01)
    raise AssertionError(f"nothing was noted\n{server.logs()}")


def text_of(reply: Any) -> str:
    chunks = [event for event in events(reply) if "choices" in event]
    pieces = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    return "".join(piece.get("content", "") for piece in pieces)
