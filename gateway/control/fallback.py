"""FALLBACK_POLICY: for whom the fallback model may answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FallbackPolicy:
    """``on``, ``off``, or a list of ``model:NAME`` and ``key:ID``.

    With models listed only those fall back; with keys listed only their requests do.

    Attributes:
        off: nobody falls back.
        models, keys: empty means all.
    """

    off: bool = False
    models: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, text: str) -> FallbackPolicy:
        """Raises ValueError with the fix."""
        text = text.strip()
        if text in ("on", "off"):
            return cls(off=text == "off")
        kinds: dict[str, set[str]] = {"model": set(), "key": set()}
        for part in text.split(","):
            kind, _, value = part.strip().partition(":")
            if kind not in kinds or not value:
                raise ValueError(
                    f"'{part.strip()}' is not understood: use on, off, or a comma-separated "
                    "list of model:NAME and key:ID"
                )
            kinds[kind].add(value)
        return cls(models=frozenset(kinds["model"]), keys=frozenset(kinds["key"]))

    def allows(self, model_names: Sequence[str], key_id: str) -> bool:
        """Whether the fallback may answer this key's request for this model."""
        if self.off:
            return False
        if self.models and self.models.isdisjoint(model_names):
            return False
        return not self.keys or key_id in self.keys
