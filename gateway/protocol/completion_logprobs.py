"""Log-probabilities in the form of OpenAI's legacy completions.

Four parallel arrays: ``tokens``, ``token_logprobs``, ``top_logprobs`` (an object per token,
text to log-probability, always with the token itself) and ``text_offset`` (where the token
begins in the choice's text, in characters).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from engine.base import TokenLogprob
from engine.detokenize import TokenDecoder
from gateway.chat.tokens import TokenTexts, finite

FIELDS = ("tokens", "token_logprobs", "top_logprobs", "text_offset")


class LegacyLogprobs:
    """Writes the log-probabilities of one choice, piece by piece.

    Args:
        alternatives: how many of the likeliest tokens to show.
        as_ids: write tokens as ``token_id:N``.
        decoder: decodes the choice's tokens as the engine does, so that offsets are those of
            its text, also where several tokens make one character.
    """

    def __init__(
        self, texts: TokenTexts, decoder: TokenDecoder, *, alternatives: int, as_ids: bool
    ) -> None:
        self._texts = texts
        self._decoder = decoder
        self._alternatives = alternatives
        self._as_ids = as_ids
        self._end = 0

    def prompt(
        self,
        ids: Sequence[int],
        entries: Sequence[TokenLogprob | None],
        offsets: Sequence[int],
        text: str,
    ) -> dict[str, list[Any]]:
        """The arrays of an echoed prompt; its first token has no log-probability."""
        self._end = len(text)
        return self._arrays(zip(ids, entries, offsets, strict=True))

    def output(self, entries: Iterable[TokenLogprob]) -> dict[str, list[Any]]:
        """The arrays of new output tokens."""
        return self._arrays(
            (entry.token_id, entry, self._advance(entry.token_id)) for entry in entries
        )

    def _advance(self, token_id: int) -> int:
        begin = self._end
        self._end += len(self._decoder.push(token_id))
        return begin

    def _arrays(self, rows: Iterable[tuple[int, TokenLogprob | None, int]]) -> dict[str, list[Any]]:
        arrays: dict[str, list[Any]] = {name: [] for name in FIELDS}
        for token_id, entry, offset in rows:
            arrays["tokens"].append(self._label(token_id))
            arrays["token_logprobs"].append(None if entry is None else finite(entry.logprob))
            arrays["top_logprobs"].append(None if entry is None else self._top(entry))
            arrays["text_offset"].append(offset)
        return arrays

    def _top(self, entry: TokenLogprob) -> dict[str, float]:
        shown = dict(entry.top[: self._alternatives])
        shown.setdefault(entry.token_id, entry.logprob)
        return {self._label(token_id): finite(value) for token_id, value in shown.items()}

    def _label(self, token_id: int) -> str:
        """A token as text; OpenAI writes the bytes of one that is no text by itself."""
        if self._as_ids:
            return f"token_id:{token_id}"
        data = self._texts.bytes_of(token_id)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def join(parts: Iterable[dict[str, list[Any]]]) -> dict[str, list[Any]]:
    """Several pieces of one choice as one."""
    whole: dict[str, list[Any]] = {name: [] for name in FIELDS}
    for part in parts:
        for name in FIELDS:
            whole[name] += part[name]
    return whole


def trimmed(entries: Sequence[TokenLogprob | None], alternatives: int) -> list[TokenLogprob | None]:
    """The same entries with at most this many alternatives each."""
    return [
        entry and TokenLogprob(entry.token_id, entry.logprob, entry.top[:alternatives])
        for entry in entries
    ]
