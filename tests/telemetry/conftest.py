"""One server that tells a collector of its requests, with secrets planted wherever one can be."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from chaos_upstream import ChaosUpstream
from otlp_collector import OtlpCollector
from planted import SECRETS, planted_settings
from server_process import ServerProcess
from traced_server import Traced

YAML = """
models:
- name: own
  targets: [{engine: fake, engine_options: {text: "An answer of the model."}, model_name: own}]
- name: far
  targets: [{base_url: '%s', name: there, kind: vllm, health: {path: ""},
             api_key: '${UPSTREAM_KEY}', headers: {x-tenant: '${UPSTREAM_TENANT}'}}]
- name: broken
  targets: [{base_url: '%s', name: broken, api_key: '${UPSTREAM_KEY}'}]
- name: refusing
  targets: [{base_url: '%s', name: refusing, api_key: '${UPSTREAM_KEY}'}]
"""


@pytest.fixture(scope="session")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    """A ready server; ``http`` has one of its keys."""
    folder = tmp_path_factory.mktemp("traced")
    upstream, collector = ChaosUpstream(), OtlpCollector()
    addresses = (upstream.url("ok"), upstream.url("status_500"), upstream.url("status_401"))
    (folder / "gateway.yaml").write_text(YAML % addresses)
    server = ServerProcess(folder, **planted_settings(collector.url))
    try:
        server.wait_ready()
        headers = {"authorization": f"Bearer {SECRETS['api key']}"}
        with httpx.Client(base_url=server.url, headers=headers, timeout=60) as http:
            yield Traced(server, collector, upstream, http)
    finally:
        server.kill()
        server.process.wait()
        collector.close()
        upstream.close()
