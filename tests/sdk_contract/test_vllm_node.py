"""OpenAI's SDK for Node against vLLM; errors and aborts are the gateway's own, in tests/node."""

from __future__ import annotations

import pytest
from server_process import ServerProcess
from test_node_sdk import KEY, node, run_node  # noqa: F401


@pytest.mark.parametrize("name", ["chat.test.mjs", "surface.test.mjs"])
def test_the_sdk_notices_no_difference(node: str, on_vllm: ServerProcess, name: str) -> None:  # noqa: F811
    slow = {"SLOW_GATEWAY_URL": on_vllm.url, "GATEWAY_KEY": KEY}
    run_node(node, {"GATEWAY_URL": on_vllm.url, **slow}, name)
