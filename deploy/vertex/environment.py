"""A container's environment, checked with the gateway's own settings before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping

from deploy.container_settings import check_known, settings_from
from gateway.settings import Settings

# What a container on Vertex AI needs. How long it grants a container after SIGTERM is not
# documented: ten seconds is the least that its kin give.
DEFAULTS = {"HOST": "0.0.0.0", "VERTEX_AUTH": "iam", "DRAIN_TIMEOUT_S": "9"}  # noqa: S104


def full_environment(own: Mapping[str, str]) -> dict[str, str]:
    """What the container gets: the needed settings, and ``own`` on top."""
    return {**DEFAULTS, **own}


def check_environment(own: Mapping[str, str], port: int) -> Settings:
    """The settings that a gateway with this environment has on Vertex AI.

    Raises ValueError with a line for every fault.
    """
    for name in own:
        _check_name(name)
    if own.get("HOST") not in (None, DEFAULTS["HOST"]):
        raise ValueError("HOST: Vertex AI reaches the container at 0.0.0.0: remove it")
    environment = {**full_environment(own), "AIP_HTTP_PORT": str(port)}
    return settings_from(environment)


def _check_name(name: str) -> None:
    if name.startswith("AIP_"):
        raise ValueError(f"{name}: Vertex AI sets AIP_* itself: remove it")
    if name == "PORT":
        raise ValueError("PORT: Vertex AI goes by AIP_HTTP_PORT: set the deployment's port instead")
    check_known(name)
