"""Structured output: grammars compiled with llguidance into masks over the vocabulary."""

from engine.structured.compiler import Grammar, GrammarCompiler
from engine.structured.constraint import Constraint, mask_logits
from engine.structured.limits import Limits

__all__ = ["Constraint", "Grammar", "GrammarCompiler", "Limits", "mask_logits"]
