"""Gateways to which everything happens that the metrics can show, and the Prometheus that watches
them with the shipped configuration and rules."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from alert_cases import RULES
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from prometheus_process import Prometheus
from server_process import MESSAGES, ServerProcess

from gateway.control.auth import principal_of

KEY, LIMITED = "key-of-everybody-0123456789", "key-with-a-limit-0123456789"
CHAT = "/v1/chat/completions"
ADMIN_PORT = re.compile(r"^admin +http://127\.0\.0\.1:(\d+)", re.MULTILINE)

MODELS = """
models:
- name: own
  targets: [{{engine: fake, engine_options: {{text: "From here.", ttft_s: 0.01}}, model_name: own}}]
- name: slow
  targets: [{{engine: fake, engine_options: {{itl_s: 3600}}, model_name: slow, max_num_seqs: 1}}]
- name: frail
  targets: [{{engine: fake, engine_options: {{die_after_tokens: 12}}, model_name: frail}}]
- name: gone
  targets: [{{base_url: "http://127.0.0.1:{closed}/v1", name: gone}}]
  fallbacks: {{down: [own]}}
- name: tried
  targets: [{{base_url: "{back}/v1", name: tried, model: tiny-chat, api_key: "${{BACK_KEY}}"}}]
- name: near
  targets:
  - base_urls: ["{back}/v1", "{alias}/v1"]
    name: near
    model: tiny-chat
    api_key: "${{BACK_KEY}}"
  hedge: {{after: 0.001}}
  shadow: {{to: tried}}
"""


@dataclass(frozen=True)
class Samples:
    """One scrape."""

    samples: list[Sample]

    def total(self, name: str, **labels: str) -> float:
        """Sum of a metric over all series with these labels."""
        wanted = labels.items()
        return sum(s.value for s in self.samples if s.name == name and wanted <= s.labels.items())


class Watched:
    """Two gateways and a Prometheus. ``close`` ends them.

    Attributes:
        front: where requests go: it has models of its own, and others that it relays.
        back: where it relays them to; its metrics are on a port of their own.
    """

    def __init__(self, folder: Path) -> None:
        self._ends = contextlib.ExitStack()
        self._folder = folder
        try:
            self._start(folder)
        except BaseException:
            self.close()
            raise

    def _start(self, folder: Path) -> None:
        data = folder / "data"
        self.metrics_key = new_metrics_key(data)
        self.back = self._server(
            "back",
            options={"output_tokens": 12, "ttft_s": 0.02},
            ADMIN_PORT="0",
            DATA_DIR=str(data),
            API_KEYS=KEY,
        )
        config = MODELS.format(
            closed=self._closed_port(),
            back=self.back.url,
            alias=self.back.url.replace("127.0.0.1", "localhost"),
        )
        (folder / "gateway.yaml").write_text(config)
        (folder / "prices.yaml").write_text(
            'date: 2026-11-01\nsource: a test\nmodels: {"*": {input: 1, output: 2}}\n'
        )
        limited = principal_of(hashlib.sha256(LIMITED.encode()).digest()).id
        nowhere = f"127.0.0.1:{self._closed_port()}"
        self.front = self._server(
            "front",
            CONFIG_FILE=str(folder / "gateway.yaml"),
            DATA_DIR=str(data),
            API_KEYS=f"{KEY},{LIMITED}",
            BACK_KEY=KEY,
            LIMITS=json.dumps({"keys": {limited: {"tokens_per_minute": 1}}}),
            PRICES_FILE=str(folder / "prices.yaml"),
            HOOKS="failing_hook:Failing",
            RESTART_DELAY_S="3600",
            DRAIN_TIMEOUT_S="600",
            REDIS_URL=f"redis://{nowhere}/0",
            USAGE_DATABASE_URL=f"postgresql://nobody:nothing@{nowhere}/none",
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{nowhere}",
        )
        self._http = self._ends.enter_context(
            httpx.Client(
                base_url=self.front.url, timeout=60, headers={"authorization": f"Bearer {KEY}"}
            )
        )
        self.prometheus = Prometheus(folder / "prometheus", self._scrape_config())
        self._ends.enter_context(self.prometheus).wait_ready()

    def _server(self, name: str, **settings: Any) -> ServerProcess:
        (self._folder / name).mkdir()
        server = ServerProcess(self._folder / name, **settings)
        self._ends.callback(server.kill)
        return server.wait_ready()

    def _closed_port(self) -> int:
        """A port that nothing listens on, kept from everybody else."""
        kept = self._ends.enter_context(socket.socket())
        kept.bind(("127.0.0.1", 0))
        return int(kept.getsockname()[1])

    def _scrape_config(self) -> str:
        """The shipped file with other addresses and a shorter interval."""
        config = yaml.safe_load((RULES.parent / "prometheus.yml").read_text())
        for name in ("scrape_interval", "scrape_timeout", "evaluation_interval"):
            config["global"][name] = "500ms"
        config["rule_files"] = [str(RULES / "*.yaml")]
        (job,) = [one for one in config["scrape_configs"] if one["job_name"] == "gateway"]
        key_file = self._folder / "metrics_key"
        key_file.write_text(f"{self.metrics_key}\n")
        job["authorization"]["credentials_file"] = str(key_file)
        found = ADMIN_PORT.search(self.back.out.read_text())
        assert found is not None, self.back.logs()
        ports = [self.front.port, int(found[1]), self._closed_port()]
        job["static_configs"] = [{"targets": [f"127.0.0.1:{port}" for port in ports]}]
        config["scrape_configs"] = [job]
        return yaml.safe_dump(config)

    def close(self) -> None:
        self._ends.close()

    def samples(self) -> Samples:
        """What the front shows at this moment."""
        families = text_string_to_metric_families(self._http.get("/metrics").text)
        return Samples([sample for family in families for sample in family.samples])

    def ask(self, model: str, key: str = KEY, **fields: Any) -> httpx.Response:
        """A chat completion from the front."""
        body = {"model": model, "messages": MESSAGES, "max_tokens": 8, **fields}
        headers = {"authorization": f"Bearer {key}", "x-gateway-cache": "on"}
        return self._http.post(CHAT, json=body, headers=headers)

    def live_a_little(self) -> None:
        """A bit of everything: answers, streams, faults of callers, of servers and of engines."""
        assert self.ask("own").status_code == 200
        assert self.ask("own", stream=True, seed=1).status_code == 200
        assert self.ask("near", stream=True).status_code == 200
        assert self.ask("gone").headers["x-gateway-model"] == "own"
        assert self.ask("own", messages=[]).status_code == 400
        assert self.ask("own", key="wrong").status_code == 401
        assert self.ask("own", key=self.metrics_key).status_code == 403
        assert self.ask("own", messages=[{"role": "user", "content": "break the hook"}]).is_error
        assert self.ask("own", key=LIMITED).status_code == 429
        # Its engine dies within the first answer, and stays dead.
        self.ask("frail", max_tokens=100, stream=True)

    def run_a_batch(self) -> None:
        """Have a line answered in the background."""
        body = {"model": "own", "messages": MESSAGES, "max_tokens": 4}
        line = {"custom_id": "1", "method": "POST", "url": CHAT, "body": body}
        file = ("lines.jsonl", json.dumps(line).encode())
        sent = self._http.post("/v1/files", data={"purpose": "batch"}, files={"file": file})
        batch = {
            "input_file_id": sent.json()["id"],
            "endpoint": CHAT,
            "completion_window": "24h",
        }
        assert self._http.post("/v1/batches", json=batch).status_code == 200

    def queue_up(self) -> None:
        """One request that is being answered for an hour, and one that waits for it."""

        def wait() -> None:
            with contextlib.suppress(httpx.HTTPError):
                self.ask("slow", stream=True, messages=[{"role": "user", "content": "An hour"}])

        for _ in range(2):
            thread = threading.Thread(target=wait, daemon=True)
            thread.start()
            self._ends.callback(thread.join)
        self._ends.callback(self.front.kill)  # which ends both

    def spoil_the_configuration(self) -> None:
        """A reload that fails."""
        config = self._folder / "gateway.yaml"
        config.write_text(config.read_text() + "nonsense: true\n")
        self.front.signal(signal.SIGHUP)


def new_metrics_key(data_dir: Path) -> str:
    """A key for scraping, made as docs/deploy/monitoring.md says."""
    options = ["--name", "prometheus", "--endpoint", "metrics", "--data-dir", str(data_dir)]
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "keys", "create", "--json", *options],
        cwd=data_dir.parent,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return str(json.loads(done.stdout)["key"])
