"""What an evaluation found, and what each variant's smaller size and time cost in quality."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.models.evaluate import EvalTable


@dataclass(frozen=True, slots=True)
class TextQuality:
    """A variant on the text.

    Attributes:
        perplexity: ``exp`` of the mean negative log-likelihood per token, in nats.
        agreement: share of tokens at which the reference's greedy token is the same.
        kl: mean of KL(reference || variant), in nats per token.
        added_nll, added_nll_error: negative log-likelihood above the reference's, in nats per
            token, and its standard error.
        prompt_ms: milliseconds per token of the runs over the text.
    """

    perplexity: float
    prompt_ms: float
    agreement: float | None = None
    kl: float | None = None
    added_nll: float | None = None
    added_nll_error: float | None = None


@dataclass(frozen=True, slots=True)
class VariantResult:
    """One variant.

    Attributes:
        megabytes: graph and weights on disk, in 10^6 bytes.
        token_ms: milliseconds per generated token, one sequence.
        tasks: None where no tasks were given.
    """

    name: str
    megabytes: float
    token_ms: float
    text: TextQuality | None = None
    tasks: EvalTable | None = None


@dataclass(frozen=True, slots=True)
class Loss:
    """Quality that a variant lacks of the reference, whole and per unit saved.

    Attributes:
        error: standard error of ``amount``; None where it is not known.
        per_mb, per_ms: None where nothing is saved.
    """

    measure: str
    amount: float
    error: float | None
    per_mb: float | None
    per_ms: float | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All variants of one model, the reference first where there is one.

    Attributes:
        text, tasks: what they were measured on, for people; empty where not.
        threads: CPU threads of the timings.
        settings: numbers that the figures depend on (context, stride, tokens).
    """

    model: str
    reference: str | None
    variants: Sequence[VariantResult]
    text: str = ""
    tasks: str = ""
    threads: int = 1
    settings: dict[str, int] = field(default_factory=dict)

    def losses(self, variant: VariantResult) -> list[Loss]:
        """What ``variant`` loses to the reference, per measure; empty for the reference."""
        base = next((one for one in self.variants if one.name == self.reference), None)
        if base is None or variant is base:
            return []
        amounts: dict[str, tuple[float, float | None]] = {}
        if base.text is not None and variant.text is not None:
            text = variant.text
            spread = text.added_nll_error
            error = None if spread is None else spread * text.perplexity  # d exp(x) = exp(x) dx
            amounts["perplexity"] = text.perplexity - base.text.perplexity, error
            if text.kl is not None:
                amounts["kl"] = text.kl, None
        if base.tasks is not None and variant.tasks is not None:
            amounts["accuracy"] = base.tasks.overall - variant.tasks.overall, None
        mb = base.megabytes - variant.megabytes
        ms = base.token_ms - variant.token_ms
        return [
            Loss(
                measure=name,
                amount=amount,
                error=error,
                per_mb=amount / mb if mb > 0 else None,
                per_ms=amount / ms if ms > 0 else None,
            )
            for name, (amount, error) in amounts.items()
        ]

    def to_json(self) -> dict[str, Any]:
        """Everything, for a file."""
        return {
            "model": self.model,
            "reference": self.reference,
            "text": self.text or None,
            "tasks": self.tasks or None,
            "threads": self.threads,
            "settings": self.settings,
            "variants": [self._variant_json(variant) for variant in self.variants],
        }

    def _variant_json(self, variant: VariantResult) -> dict[str, Any]:
        tasks = variant.tasks
        return {
            "name": variant.name,
            "megabytes": variant.megabytes,
            "token_ms": variant.token_ms,
            "text": dataclasses.asdict(variant.text) if variant.text else None,
            "accuracy": tasks.overall if tasks else None,
            "skills": {
                score.skill: {"correct": score.correct, "total": score.total}
                for score in (tasks.scores if tasks else ())
            },
            "losses": {
                loss.measure: {
                    "amount": loss.amount,
                    "standard_error": loss.error,
                    "per_megabyte_saved": loss.per_mb,
                    "per_millisecond_saved": loss.per_ms,
                }
                for loss in self.losses(variant)
            },
        }
