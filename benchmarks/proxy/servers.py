"""The proxies, each on a core of its own, and the server that both stand in front of."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.environments import litellm_command
from benchmarks.frontend.servers import MODEL, Server, descendants, started
from benchmarks.served import ServerFault, free_port, resident_mb

GATEWAY, LITELLM = "gateway", "LiteLLM"
UPSTREAM_KEY = "upstream-" + "k" * 24
# High enough that none is ever in the way, so that every window is counted and none refuses.
PLENTY = 100_000_000
KEY_LIMITS = {
    "requests_per_second": PLENTY,
    "requests_per_minute": PLENTY,
    "tokens_per_minute": 10 * PLENTY,
    "tokens_per_day": 10_000 * PLENTY,
    "concurrent_requests": 100_000,
    "usd_per_day": 1_000_000,
}
PRICES = {
    "date": "2026-11-01",
    "source": "none: made for this benchmark",
    "models": {MODEL: {"input": 2.5, "output": 10.0}},
}
LITELLM_ENVIRONMENT = {
    "LITELLM_LOG": "ERROR",
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_TELEMETRY": "False",
}


@dataclass(frozen=True, slots=True)
class Cores:
    """Who runs where; None where there are not two to share out."""

    proxy: int | None
    load: int | None

    @classmethod
    def of_machine(cls) -> Cores:
        """The last core for the proxy, the first for everything else: interrupts tend to be
        served by the first."""
        usable = sorted(os.sched_getaffinity(0))
        return cls(usable[-1], usable[0]) if len(usable) > 1 else cls(None, None)


def pinned(argv: list[str], core: int | None) -> list[str]:
    """The command, bound to a core."""
    return argv if core is None else ["taskset", "--cpu-list", str(core), *argv]


def memory_mb(server: Server) -> float:
    """Resident memory of a server and all below it, in 10^6 bytes."""
    below = descendants(server.process.pid)
    return sum(resident_mb(pid) for pid in [server.process.pid, *below])


def upstream(pieces: int, gap_ms: float, cores: Cores, log: Path) -> AbstractContextManager[Server]:
    """The fake server."""
    port = free_port()
    module = ["-m", "benchmarks.proxy.upstream", str(port), str(pieces), str(gap_ms)]
    argv = pinned([sys.executable, *module], cores.load)
    return started("upstream", argv, {}, port, log, "/health")


@dataclass(frozen=True, slots=True)
class GatewaySetup:
    """A gateway with one remote model, keys, limits, prices and a ledger of its own.

    Attributes:
        folder: empty; for its configuration and its data.
    """

    folder: Path

    @property
    def settings(self) -> dict[str, str]:
        """Defaults but for these."""
        models = {MODEL: {"requests_per_minute": PLENTY, "tokens_per_minute": 10 * PLENTY}}
        return {
            "CONFIG_FILE": str(self.folder / "gateway.yaml"),
            "PRICES_FILE": str(self.folder / "prices.yaml"),
            "DATA_DIR": str(self.folder / "data"),
            "LIMITS": json.dumps({"models": models}),
            "MAX_QUEUE": "4096",
        }

    def prepare(self, upstream_port: int) -> str:
        """Write the configuration and make the key that clients use."""
        target = {
            "base_url": f"http://127.0.0.1:{upstream_port}/v1",
            "kind": "openai",
            "api_key": "${BENCH_UPSTREAM_KEY}",
            "most_requests": 1024,
        }
        document = {"models": [{"name": MODEL, "targets": [target]}]}
        (self.folder / "gateway.yaml").write_text(yaml.safe_dump(document))
        (self.folder / "prices.yaml").write_text(yaml.safe_dump(PRICES))
        options = [f"--limit={name}={value}" for name, value in KEY_LIMITS.items()]
        made = self._command("keys", "create", "--name", "bench", *options, "--json")
        return str(json.loads(made)["key"])

    def serve(
        self, cores: Cores, log: Path, profile: Path | None = None
    ) -> AbstractContextManager[Server]:
        """``llm-gateway serve``, under the sampling profiler where ``profile`` is named."""
        port = free_port()
        module = ["gateway", "serve"]
        settings = {"HOST": "127.0.0.1", "PORT": str(port), "BENCH_UPSTREAM_KEY": UPSTREAM_KEY}
        if profile is not None:
            module = ["benchmarks.frontend.profiled"]
            settings["PROFILE_OUT"] = str(profile)
        argv = pinned([sys.executable, "-m", *module], cores.proxy)
        return started(GATEWAY, argv, settings | self.settings, port, log, "/health/ready")

    def recorded(self) -> int:
        """Requests in the ledger, of a gateway that has ended."""
        rows = json.loads(self._command("usage", "--by", "", "--json"))["data"]
        return sum(int(row["requests"]) for row in rows)

    def _command(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "gateway", *arguments],
            env={**os.environ, **self.settings},
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode:
            raise ServerFault(f"llm-gateway {arguments[0]} failed: {done.stderr.strip()[-500:]}")
        return done.stdout


def litellm(
    folder: Path, upstream_port: int, cores: Cores, log: Path
) -> tuple[AbstractContextManager[Server], str]:
    """LiteLLM's proxy with one worker, and the key that it takes.

    Its key is the master key and it has no database, so it counts no budgets and keeps no
    ledger: less work than the gateway does. Raises PeerUnavailable.
    """
    command = litellm_command()
    key = "sk-" + secrets.token_hex(16)
    params = {
        "model": f"openai/{MODEL}",
        "api_base": f"http://127.0.0.1:{upstream_port}/v1",
        "api_key": UPSTREAM_KEY,
    }
    document = {
        "model_list": [{"model_name": MODEL, "litellm_params": params}],
        "litellm_settings": {"set_verbose": False, "telemetry": False, "request_timeout": 600},
        "general_settings": {"master_key": key},
    }
    config = folder / "litellm.yaml"
    config.write_text(yaml.safe_dump(document))
    port = free_port()
    options = ["--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    argv = pinned([command, *options, "--num_workers", "1"], cores.proxy)
    path = "/health/liveliness"
    return started(LITELLM, argv, LITELLM_ENVIRONMENT, port, log, path), key
