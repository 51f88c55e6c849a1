"""A gateway in front of servers that misbehave; started once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from chaos_upstream import ChaosUpstream
from routing_calls import HTTP
from routing_files import chaos_config
from server_process import ServerProcess

Start = Callable[..., ServerProcess]


@pytest.fixture(scope="session")
def upstream() -> Iterator[ChaosUpstream]:
    """The misbehaving server."""
    running = ChaosUpstream()
    yield running
    running.close()


@pytest.fixture(scope="session")
def start(
    tmp_path_factory: pytest.TempPathFactory,
    upstream: ChaosUpstream,  # ends after the gateways that are connected to it
) -> Iterator[Start]:
    """Starts gateways with the text of a gateway.yaml; they end with the session."""
    started: list[ServerProcess] = []

    def run(text: str, **settings: str) -> ServerProcess:
        folder = tmp_path_factory.mktemp("gateway")
        (folder / "gateway.yaml").write_text(text)
        server = ServerProcess(folder, CONFIG_FILE="gateway.yaml", **settings)
        started.append(server)
        return server.wait_bound()

    yield run
    HTTP.close()
    for server in started:
        server.kill()


@pytest.fixture(scope="session")
def gateway(start: Start, upstream: ChaosUpstream) -> ServerProcess:
    """A gateway with one model per kind of trouble; see ``chaos_config``."""
    text = chaos_config(upstream)
    return start(text, UPSTREAM_KEY="sk-upstream-secret", SSE_PING_S="0").wait_ready()
