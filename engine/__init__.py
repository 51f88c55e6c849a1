"""Engines: prompt token ids in, deltas out. Nothing here knows about HTTP or the gateway."""
