"""What request handlers share."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.control.auth import Keyring
from gateway.lifecycle import Lifecycle
from gateway.settings import Settings


@dataclass(frozen=True, slots=True)
class GatewayState:
    """Everything that lives as long as the application."""

    settings: Settings
    keyring: Keyring
    lifecycle: Lifecycle


def new_state(settings: Settings) -> GatewayState:
    """The state of a server that has not loaded its engine yet."""
    return GatewayState(
        settings=settings,
        keyring=Keyring(key.get_secret_value() for key in settings.api_keys),
        lifecycle=Lifecycle(),
    )
