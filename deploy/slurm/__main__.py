"""``python -m deploy.slurm``: what serve.sbatch runs on the node."""

from __future__ import annotations

import functools
import os
import signal
import sys
from pathlib import Path

from deploy.slurm.job import JobError, JobProcess, keys_of, reachable_host, relay, scratch
from deploy.slurm.servers import Servers, ServersError
from engine.base import ModelInfo
from engine.registry import build_engine, choose
from gateway.banner import Banner
from gateway.routing.load import ConfigError, routing_config
from gateway.server import BindError, bind, run
from gateway.settings import SettingsError, load_settings


def serve(job: str) -> int:
    """Serve until a signal; the exit code. Raises what ``main`` tells."""
    keys = keys_of(Path(os.environ["KEY_FILE"]).expanduser())
    os.environ["SERVERS_KEY"] = keys[0]
    given = {"api_keys": ",".join(keys)}
    settings = load_settings(**given)
    routing_config(settings)
    servers = Servers(Path(os.environ["SERVERS_DIR"]).expanduser(), job)
    listener = bind(settings.host, settings.port)
    port = listener.getsockname()[1]
    url = f"http://{reachable_host(os.environ)}:{port}/v1"
    banner = Banner(settings, port)
    banner.starting(*choose(settings.engine_config()))

    def on_ready(infos: list[ModelInfo], seconds: float) -> None:
        banner.ready(infos, seconds)
        try:
            servers.publish(url)
        except OSError as error:
            sys.stderr.write(f"llm-gateway: not in the list of servers yet: {error}\n")

    new_process = functools.partial(JobProcess, servers=servers)
    try:
        return run(settings, listener, build_engine, on_ready, given=given, new_process=new_process)
    finally:
        servers.withdraw()


def main() -> int:
    """Raises nothing that an operator can cause."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        sys.stderr.write("llm-gateway: this runs as a job of Slurm: sbatch serve.sbatch\n")
        return 1
    try:
        # Until the server has a handler of its own; without one nothing would be cleared away.
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        with scratch(os.environ, job), relay():
            return serve(job)
    except (JobError, ServersError, SettingsError, ConfigError, BindError) as error:
        sys.stderr.write(f"llm-gateway: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
