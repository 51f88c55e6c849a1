"""The gateway.yaml of the tests."""

from __future__ import annotations

import re

from chaos_upstream import ChaosUpstream, closed_port

FAULTS = (
    *("hang", "hangmid", "reset", "resetmid", "garbage", "garbagemid", "badjsonmid"),
    *("errormid", "errorfirst", "html", "truncated", "nodone", "hugehead"),
    *("status_400", "status_401", "status_404", "status_422", "status_429", "status_500"),
    *("status_503", "status_529"),
)


def chaos_config(upstream: ChaosUpstream) -> str:
    """For each fault a model ``FAULT`` that only has it, and ``FAULT+ok`` with a second target
    that works; and models for everything else that the tests look at."""
    lines = ["models:"]
    for fault in [*FAULTS, "refuse"]:
        url = upstream.url(fault)
        if fault == "refuse":
            url = f"http://127.0.0.1:{closed_port()}/v1"
        # Only what is to run out is short, for machines that are busy.
        quick = "hang" in fault
        times = "{first_byte: 0.4, idle: 0.4}" if quick else "{first_byte: 60, idle: 60}"
        bad = f"{{base_url: '{url}', name: bad, timeouts: {times}, include_usage: false}}"
        good = f"{{base_url: '{upstream.url('ok')}', name: good}}"
        lines += [
            f"- {{name: {fault}, targets: [{bad}], upstream_429: 503}}",
            f"- {{name: {fault}+ok, targets: [{bad}, {good}]}}",
        ]
    lines.append(MORE)
    text = "\n".join(lines)
    for name in set(re.findall("@(.+?)@", text)):
        text = text.replace(f"@{name}@", f"'{upstream.url(name)}'")
    return text


MORE = """
- name: plain
  aliases: [gpt-4o, "ü/name"]
  targets:
  - base_url: @ok@
    kind: vllm
    health: {path: ""}
    model: upstream-name
    api_key: ${UPSTREAM_KEY}
    headers: {x-tenant: "7"}
    forward_headers: [x-extra]
- {name: gated, targets: [{base_url: @gated@}]}
- {name: wrongmodel, targets: [{base_url: @wrongmodel@}]}
- {name: drip, targets: [{base_url: @drip@}]}
- {name: stale, targets: [{base_url: @stale@}]}
- {name: limited, upstream_429: 429, targets: [{base_url: @status_429@}]}
- name: sessions
  policy: session
  load_factor: 100
  targets: [{base_url: @ok-a@, name: a}, {base_url: @ok-b@, name: b}, {base_url: @ok-c@, name: c}]
- name: prefixes
  policy: prefix
  prefix_chars: 64
  load_factor: 100
  targets: [{base_url: @ok-a@, name: a}, {base_url: @ok-b@, name: b}, {base_url: @ok-c@, name: c}]
- {name: v1, targets: [{base_url: @ok-a@, name: a}]}
- {name: v2, targets: [{base_url: @ok-b@, name: b}]}
- name: canary
  split: {sticky: "header:x-user", shares: [{model: v1, weight: 80}, {model: v2, weight: 20}]}
- name: short
  targets: [{base_url: @status_400@, name: short}]
  fallbacks: {context_too_long: [long]}
- {name: long, targets: [{base_url: @ok-a@, name: roomy}]}
- name: busy
  targets: [{base_url: @status_503@, name: busy}]
  fallbacks: {overloaded: [status_500, long], down: [v2]}
- name: down
  targets: [{base_url: @status_500@, name: down}]
  fallbacks: {down: [own]}
- name: own
  targets: [{engine: fake, engine_options: {text: "from this process"}, model_name: own}]
- name: mixed
  policy: weighted
  targets:
  - {base_url: @status_500@, name: bad, weight: 1000000}
  - {engine: fake, engine_options: {text: "from this process"}, name: here, weight: 0.000001}
- {name: tried, targets: [{base_url: @ok-shadow@, name: tried}]}
- {name: copied, targets: [{base_url: @ok@}], shadow: {to: tried}}
- {name: hung, targets: [{base_url: @hang@}]}
- name: flaky
  targets: [{base_url: @ok-flaky@, breaker: {failures: 2, open: 0.2, successes: 1}}]
"""
