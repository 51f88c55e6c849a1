"""How much hardware a model and its traffic need: memory, roofline, queueing, money.

Everything here is arithmetic over a model's ``config.json`` and the headers of its weight
files; nothing loads weights and nothing needs a GPU. Sources of the formulas are named where
they stand, and every assumed factor is a field that a caller may set.
"""

from __future__ import annotations


class CapacityError(Exception):
    """The question cannot be answered as asked. The message says why and what would do."""


class DoesNotFit(CapacityError):
    """The memory is too small. The message says by how much, and what would fit."""
