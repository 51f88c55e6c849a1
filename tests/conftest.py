"""For every test: assertions in shared helpers explain themselves as those in tests do."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Importing vLLM would otherwise switch off every logger that exists by then.
os.environ["VLLM_CONFIGURE_LOGGING"] = "0"

# Helpers of these folders serve others as well.
sys.path += [
    str(Path(__file__).parent / name)
    for name in ("..", "engine", "gateway", "routing", "vllm", "autoscaling")
]

pytest.register_assert_rewrite("engine_calls", "onnx_calls", "server_process", "vllm_helpers")

# A busy machine is slow, not wrong. The suite tries the same examples in every run, so that it says
# something of the change it runs on; HYPOTHESIS_PROFILE=explore tries new ones.
settings.register_profile(
    "suite",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    max_examples=60,
    derandomize=True,
    database=None,
)
settings.register_profile("explore", settings.get_profile("suite"), derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))
