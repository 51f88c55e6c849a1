"""A fresh emulated cloud per test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cloudrun_emulator import CloudRunEmulator


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[CloudRunEmulator]:
    with CloudRunEmulator() as emulator:
        monkeypatch.setenv("CLOUDRUN_API_ENDPOINT", emulator.url)
        yield emulator
