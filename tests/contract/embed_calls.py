"""How the embedding contract asks engines."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from engine.base import Embedder, EmbedRequest

_numbers = itertools.count()


def embed_request(prompts: list[list[int]], **fields: Any) -> EmbedRequest:
    return EmbedRequest(f"embed-{next(_numbers)}", prompts, **fields)


async def vectors(engine: Embedder, prompts: list[list[int]], **fields: Any) -> np.ndarray:
    return (await engine.embed(embed_request(prompts, **fields))).vectors
