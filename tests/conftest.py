"""For every test: assertions in shared helpers explain themselves as those in tests do."""

import os

import pytest

# Importing vLLM would otherwise switch off every logger that exists by then.
os.environ["VLLM_CONFIGURE_LOGGING"] = "0"

pytest.register_assert_rewrite("engine_calls", "onnx_calls", "server_process", "vllm_helpers")
