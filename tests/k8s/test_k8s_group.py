"""One model on several machines: leader and workers say the same, and vLLM knows all of it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest
from k8s_manifests import Workload, rendered
from k8s_mutations import GROUP
from k8s_settings import GROUP as GIVEN
from k8s_settings import engine_args, value_of, values_of

# The leader's settings, and the workers' flags that have to be the same.
SAME = {
    "MODEL_NAME": "model_tag",
    "TENSOR_PARALLEL_SIZE": "tensor_parallel_size",
    "PIPELINE_PARALLEL_SIZE": "pipeline_parallel_size",
    "MAX_MODEL_LEN": "max_model_len",
    "MAX_NUM_SEQS": "max_num_seqs",
    "MAX_NUM_BATCHED_TOKENS": "max_num_batched_tokens",
    "GPU_MEMORY_UTILIZATION": "gpu_memory_utilization",
}
# Settings that vLLM does not see, or that workers have from elsewhere.
OF_THE_GATEWAY = {"ENGINE", "ENGINE_ARGS"}

ASK_VLLM = """
import json, sys
from engine.vllm.arguments import checked, known_fields
from vllm.entrypoints.cli.serve import ServeSubcommand
from vllm.utils.argparse_utils import FlexibleArgumentParser
flags, extra = json.loads(sys.argv[1])
known = known_fields()
for name, value in extra.items():
    checked(name, value, known)
parser = FlexibleArgumentParser()
ServeSubcommand().subparser_init(parser.add_subparsers())
found = vars(parser.parse_args(flags))
print(json.dumps({k: v for k, v in found.items() if isinstance(v, str | int | float)}))
"""


def sides() -> tuple[Workload, Workload]:
    leader, worker = rendered(GROUP).workloads()
    return leader, worker


def args_of(worker: Workload) -> list[str]:
    return [value_of({"value": arg}, GIVEN, worker) for arg in worker.container["args"]]


@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_vllm_takes_the_flags_of_workers_and_they_are_the_leaders() -> None:
    leader, worker = sides()
    assert worker.container["command"] == ["vllm"]
    extra = engine_args(rendered(GROUP), leader)
    done = subprocess.run(
        [sys.executable, "-c", ASK_VLLM, json.dumps([args_of(worker), extra])],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "VLLM_NO_USAGE_STATS": "1"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    settings = values_of(rendered(GROUP), leader)
    for name, flag in SAME.items():
        assert str(found[flag]) == settings[name], name
    assert found["headless"] is True
    assert found["scheduling_policy"] == "priority"  # as engine/vllm/arguments.py has it
    for name in ("nnodes", "master_addr", "master_port", "distributed_executor_backend"):
        assert found[name] == extra[name], name
    assert (extra["node_rank"], found["node_rank"]) == (0, 1)


def test_the_group_has_the_gpus_that_it_divides_the_model_by() -> None:
    leader, worker = sides()
    spec = rendered(GROUP).get("LeaderWorkerSet", "llm-gateway")["spec"]["leaderWorkerTemplate"]
    values = values_of(rendered(GROUP), leader)
    parts = int(values["TENSOR_PARALLEL_SIZE"]) * int(values["PIPELINE_PARALLEL_SIZE"])
    assert leader.gpus == worker.gpus
    assert leader.gpus * spec["size"] == parts
    assert engine_args(rendered(GROUP), leader)["nnodes"] == spec["size"]
    assert leader.container["image"] == worker.container["image"]


def test_no_setting_of_vllm_is_left_out_on_workers() -> None:
    from gateway.settings_vllm import VllmSettings

    values = values_of(rendered(GROUP), sides()[0])
    own = {name.upper() for name in VllmSettings.model_fields} | {"MAX_MODEL_LEN", "MAX_NUM_SEQS"}
    assert own & set(values) - OF_THE_GATEWAY <= set(SAME)


def test_stores_weights_and_the_admin_api_are_the_groups_too() -> None:
    leader, worker = sides()
    values = values_of(rendered(GROUP), leader)
    assert values["REDIS_URL"].startswith("redis://")
    assert values["USAGE_DATABASE_URL"].startswith("postgresql://")
    assert values["ADMIN_KEYS"]
    assert not {"REDIS_URL", "API_KEYS", "ADMIN_KEYS"} & {
        item["name"] for item in worker.container["env"]
    }
    for side in (leader, worker):
        (models,) = (each for each in side.pod["volumes"] if each["name"] == "models")
        assert models["persistentVolumeClaim"] == {"claimName": "llm-gateway-models"}
