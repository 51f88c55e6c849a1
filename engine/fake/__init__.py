"""A scripted engine for tests and front-end benchmarks: tokens, delays and faults to order."""

from engine.fake.engine import FakeEngine
from engine.fake.script import FakeScript

__all__ = ["FakeEngine", "FakeScript"]
