"""The HTTP front: protocols, keys, limits, routing. Engines live in ``engine``."""

__version__ = "0.1.0"
