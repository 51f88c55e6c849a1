"""Plain conversations for measuring any model: user and assistant in turn, which every chat
template takes."""

from __future__ import annotations

import random
from typing import Any

from engine.models.bundled.corpus.mix import TRAIN_BANK, conversation
from engine.models.bundled.corpus.source import Source
from engine.models.bundled.heldout import HELDOUT_BANK

SEED = 20_260_102


def plain_conversations(count: int, *, heldout: bool) -> list[list[dict[str, Any]]]:
    """The messages of ``count`` conversations, always the same ones.

    Args:
        heldout: in phrasings and with values that the bundled model was not trained on.
    """
    bank = HELDOUT_BANK if heldout else TRAIN_BANK
    source = Source(random.Random(SEED), bank, heldout=heldout)  # noqa: S311
    found: list[list[dict[str, Any]]] = []
    while len(found) < count:
        made = conversation(source)
        roles = [message["role"] for message in made.messages]
        if not made.tools and roles == ["user", "assistant"] * (len(roles) // 2):
            found.append(made.messages)
    return found
