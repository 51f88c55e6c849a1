"""Secrets that must not be seen again anywhere, and the settings that hold them."""

from __future__ import annotations

import socket

SECRETS = {
    "api key": "planted-api-key-7b1d93e04c",
    "admin key": "planted-admin-key-55f0a2c19d",
    "upstream key": "planted-upstream-key-8d21ff",
    "upstream header": "planted-tenant-header-31ce",
    "database password": "planted-database-word-a4",
    "redis password": "planted-redis-word-9e77",
    "collector header": "planted-collector-token-62",
    "prompt": "planted prompt of a stranger",
}


def planted_settings(collector_url: str) -> dict[str, str]:
    """Nothing listens where the database and Redis should be, so that errors are told, too."""
    port = closed_port()
    return {
        "CONFIG_FILE": "gateway.yaml",
        "API_KEYS": SECRETS["api key"],
        "ADMIN_KEYS": SECRETS["admin key"],
        "UPSTREAM_KEY": SECRETS["upstream key"],
        "UPSTREAM_TENANT": SECRETS["upstream header"],
        "USAGE_DATABASE_URL": f"postgresql://u:{SECRETS['database password']}@127.0.0.1:{port}/d",
        "REDIS_URL": f"redis://u:{SECRETS['redis password']}@127.0.0.1:{port}/0",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector_url,
        "OTEL_EXPORTER_OTLP_HEADERS": f"Authorization=Bearer%20{SECRETS['collector header']}",
        "OTEL_SERVICE_NAME": "traced-gateway",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "LOG_LEVEL": "debug",
    }


def closed_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
