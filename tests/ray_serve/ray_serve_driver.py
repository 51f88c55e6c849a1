"""Runs in the environment ``ray``: a Ray of its own and, in it, what ``serve run CONFIG`` does.

    python ray_serve_driver.py CONFIG TEMP_DIR

SIGUSR1 deploys CONFIG again, as it is then. What Ray Serve understands of CONFIG is written beside
it, with the suffix .json: it passes over fields that it does not know.
"""

import json
import signal
import sys
from pathlib import Path

import ray
import yaml
from ray.serve.schema import ServeDeploySchema
from ray.serve.scripts import cli

config, temp = sys.argv[1:]
understood = ServeDeploySchema.model_validate(yaml.safe_load(Path(config).read_text()))
Path(config).with_suffix(".json").write_text(
    json.dumps(understood.model_dump(mode="json", exclude_unset=True))
)
ray.init(
    address="local",
    num_cpus=2,
    num_gpus=0,
    include_dashboard=False,
    object_store_memory=80_000_000,
    _node_ip_address="127.0.0.1",
    _temp_dir=temp,
)
again = ["run", "--non-blocking", config]
signal.signal(signal.SIGUSR1, lambda *_: cli(again, standalone_mode=False))
cli(["run", config])
