"""For every test: assertions in shared helpers explain themselves as those in tests do."""

import pytest

pytest.register_assert_rewrite("engine_calls", "onnx_calls", "server_process", "vllm_helpers")
