"""Vertex AI's side of the container contract: what it sets, and how it probes.

From custom-container-requirements, version 1.0.0: a TCP connection is tried four times, ten
seconds apart, and then the container is restarted; a health request that is not answered with 200
within ten seconds is a failure, and four of them on end stop the routing without a restart.
"""

from __future__ import annotations

import http.client
import socket
import time
from pathlib import Path
from typing import Any

from server_process import PATIENCE_S, ServerProcess

ADMIN_KEY = "admin-key-0123456789"
ATTEMPTS = 4
HEALTH_TIMEOUT_S = 10.0
UNHEALTHY_AFTER = 4
HEALTH_ROUTE = "/v1/endpoints/77/deployedModels/501"
PREDICT_ROUTE = "/v1/endpoints/77/deployedModels/501:predict"


def free_port() -> int:
    """Vertex names a port instead of taking what is free."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def aip_environment(
    port: int, health_route: str = HEALTH_ROUTE, predict_route: str = PREDICT_ROUTE
) -> dict[str, str]:
    """Everything that Vertex AI sets in a serving container."""
    return {
        "AIP_ACCELERATOR_TYPE": "NVIDIA_L4",
        "AIP_DEPLOYED_MODEL_ID": "501",
        "AIP_ENDPOINT_ID": "77",
        "AIP_FRAMEWORK": "CUSTOM_CONTAINER",
        "AIP_HEALTH_ROUTE": health_route,
        "AIP_HTTP_PORT": str(port),
        "AIP_MACHINE_TYPE": "g2-standard-12",
        "AIP_MODE": "PREDICTION",
        "AIP_MODE_VERSION": "1.0.0",
        "AIP_MODEL_NAME": "77",
        "AIP_PREDICT_ROUTE": predict_route,
        "AIP_PROJECT_NUMBER": "1234",
        "AIP_STORAGE_URI": "",
        "AIP_VERSION_NAME": "1",
    }


def start_container(
    folder: Path,
    *,
    options: dict[str, Any] | None = None,
    health_route: str = HEALTH_ROUTE,
    predict_route: str = PREDICT_ROUTE,
    **settings: str,
) -> ServerProcess:
    """The gateway in the environment of a Vertex container; not waited for."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    environment = aip_environment(port, health_route, predict_route)
    server = ServerProcess(
        folder, options=options, HOST="0.0.0.0", **{"VERTEX_AUTH": "iam", **environment, **settings}
    )
    server.port = port
    return server


class ContainerProber:
    """Probes one container as Vertex AI does.

    Attributes:
        routed: whether requests are sent to it.
        failures: failed health requests on end.
        answers: status of every health request, 0 where none came.
    """

    def __init__(self, server: ServerProcess, health_route: str = HEALTH_ROUTE) -> None:
        self._server = server
        self._route = health_route
        self.routed = False
        self.failures = 0
        self.answers: list[int] = []

    def first_connection(self) -> None:
        """Wait until the port is bound. Vertex allows 30 seconds; a busy machine gets more."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                self.connect()
            except OSError:
                if time.monotonic() > deadline:
                    raise AssertionError(f"no port: {self._server.logs()}") from None
                time.sleep(0.05)
            else:
                return

    def connect(self) -> None:
        """One attempt of the liveness probe. Raises OSError."""
        with socket.create_connection(("127.0.0.1", self._server.port), HEALTH_TIMEOUT_S):
            pass

    def check_health(self) -> bool:
        """One health request, and what follows from it for ``routed``."""
        status = self._ask()
        self.answers.append(status)
        self.failures = 0 if status == 200 else self.failures + 1
        if status == 200:
            self.routed = True
        elif self.failures >= UNHEALTHY_AFTER:
            self.routed = False
        return self.routed

    def wait_routed(self) -> None:
        """Probe until the container gets requests."""
        self._server.wait_for(self.check_health, "the container to be healthy")

    def _ask(self) -> int:
        connection = http.client.HTTPConnection(
            "127.0.0.1", self._server.port, timeout=HEALTH_TIMEOUT_S
        )
        try:
            connection.request("GET", self._route)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()
