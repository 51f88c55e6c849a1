"""The Ray Serve application, for ``serve run`` and the ``import_path`` of a config:
``deploy.ray.app:app``. Its settings are environment variables of the replicas."""

from __future__ import annotations

from ray import serve

from deploy.ray.replica import Replica, read_settings


def new_replica() -> Replica:
    """Called once in the process of each replica, which then sends it ASGI's lifespan events."""
    return Replica()


class Gateway:
    """What Ray Serve runs, health-checks and ends.

    Attributes:
        app: what ``new_replica`` returned; Ray Serve's wrapper sets it.
    """

    app: Replica

    def __init__(self) -> None:
        # What is wrong with the settings is told here, since `serve status` shows an exception
        # of this method and nothing of one that startup tells.
        read_settings()

    async def check_health(self) -> None:
        """Three failures in a row, and Ray Serve replaces the replica. Raises EngineError."""
        await self.app.check_health()


app = serve.deployment(serve.ingress(new_replica)(Gateway)).bind()
