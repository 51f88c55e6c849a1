"""One choice's output as tokens come: its text, and whether a token ends it."""

from __future__ import annotations

from dataclasses import dataclass

from engine.base import FinishReason, SamplingParams
from engine.detokenize import Detokenizer, OutputText


@dataclass(slots=True)
class Advance:
    """New text, and why the output ends here, if it does."""

    text: str
    finish: FinishReason | None = None
    stop_reason: int | str | None = None


class OutputTracker:
    """Text and end of one output.

    Attributes:
        stop_ids: tokens that end the output once ``min_tokens`` are there.
    """

    __slots__ = ("_eos_token_ids", "_sampling", "_text", "stop_ids")

    def __init__(
        self, sampling: SamplingParams, detokenizer: Detokenizer, eos_token_ids: frozenset[int]
    ) -> None:
        self._sampling = sampling
        self._eos_token_ids = frozenset() if sampling.ignore_eos else eos_token_ids
        self._text = OutputText(
            detokenizer.decoder(
                skip_special_tokens=sampling.skip_special_tokens,
                shown=sampling.shown_special_ids,
            ),
            sampling.stop,
            include=sampling.include_stop_str_in_output,
        )
        self.stop_ids = self._eos_token_ids | frozenset(sampling.stop_token_ids)

    def take(self, token: int, output_len: int) -> Advance:
        """Take the newest token, the ``output_len``-th of the output.

        Whoever chooses tokens keeps ``stop_ids`` out of the first ``min_tokens``.
        """
        sampling, text = self._sampling, self._text
        if token in self.stop_ids:
            shown = text.push(token) if sampling.include_stop_str_in_output else ""
            stop_reason = None if token in self._eos_token_ids else token
            return Advance(shown + text.flush(), "stop", stop_reason)
        shown = text.push(token, armed=output_len >= sampling.min_tokens)
        is_full = output_len >= sampling.max_tokens
        if is_full and text.stopped_by is None:
            shown += text.flush()
        if text.stopped_by is not None:
            return Advance(shown, "stop", text.stopped_by)
        return Advance(shown, "length" if is_full else None)

    def flush(self) -> str:
        """Text that is still held back, when the output ends from outside."""
        return self._text.flush()
