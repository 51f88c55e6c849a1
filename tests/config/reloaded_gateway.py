"""A server process whose .env and gateway.yaml the test writes, and its admin API."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from server_process import ServerProcess

ADMIN = "admin-key-of-the-tests-0001"
USER = "user-key-of-the-tests-00001"
OTHER = "user-key-of-the-tests-00002"
ROUTE = "/v1/chat/completions"
_ADMIN_URL = re.compile(r"admin +(http://127\.0\.0\.1:\d+)")


class ReloadedGateway:
    """Started at once, ready when this returns."""

    def __init__(self, folder: Path, env: str, yaml: str | None, **settings: str) -> None:
        self.env_file = folder / ".env"
        self.yaml_file = folder / "gateway.yaml"
        self.env_file.write_text(env)
        if yaml is not None:
            self.yaml_file.write_text(yaml)
            settings = {"CONFIG_FILE": "gateway.yaml", **settings}
        settings = {"ADMIN_KEYS": ADMIN, "SSE_PING_S": "0", **settings}
        self.process = ServerProcess(folder, **settings).wait_ready()
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self.http = httpx.Client(base_url=self.process.url, timeout=60, limits=limits)
        found = _ADMIN_URL.search(self.process.out.read_text())
        self.admin_url = found[1] if found is not None else self.process.url

    def admin(self, method: str, path: str) -> httpx.Response:
        """Where operators ask."""
        served_beside = path.startswith(("/admin/", "/metrics"))
        return self.on_admin_port(method, path) if served_beside else self.public(method, path)

    def on_admin_port(self, method: str, path: str, key: str = ADMIN) -> httpx.Response:
        return self.http.request(method, f"{self.admin_url}{path}", headers=headers_of(key))

    def public(self, method: str, path: str, key: str = ADMIN) -> httpx.Response:
        return self.http.request(method, path, headers=headers_of(key))

    def reload(self) -> dict[str, Any]:
        """By the admin API, which has to succeed."""
        reply = self.admin("POST", "/admin/config/reload")
        assert reply.status_code == 200, reply.text
        found: dict[str, Any] = reply.json()
        return found

    def hang_up(self) -> None:
        """By the signal; returns once it has been dealt with."""
        before = self.reloads()
        self.process.signal(signal.SIGHUP)
        self.process.wait_for(lambda: self.reloads() > before, "the reload")

    def reloads(self, *outcomes: str) -> float:
        names = outcomes or ("applied", "unchanged", "failed")
        found = self.metrics()
        return sum(found[f'gateway_config_reloads_total{{outcome="{name}"}}'] for name in names)

    def metrics(self) -> dict[str, float]:
        lines = self.admin("GET", "/metrics").text.splitlines()
        pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in pairs}

    def hash(self) -> str:
        found: str = self.admin("GET", "/version").json()["config"]
        return found

    def ask(self, model: str, key: str = ADMIN, **more: Any) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}]} | more
        return self.http.post(ROUTE, json=body, headers={"x-api-key": key})

    def close(self) -> None:
        self.http.close()
        self.process.kill()


NewGateway = Callable[..., ReloadedGateway]


def headers_of(key: str) -> dict[str, str]:
    return {"x-api-key": key} if key else {}
