"""What single tokens stand for: their bytes and text, as logprobs show them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from engine.base import TokenLogprob

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer


def encoded(tokenizer: Tokenizer, text: str, *, special: bool = False) -> Encoding:
    """The encoding of a text, with special tokens around it if asked for.

    ``encode`` would hold the GIL, and with it every stream of the server, for as long as it
    takes (a second for a megabyte); ``encode_batch`` does not (tokenizers 0.23).
    """
    return tokenizer.encode_batch([text], add_special_tokens=special)[0]


def bad_word_ids(tokenizer: Tokenizer, words: Iterable[str]) -> tuple[tuple[int, ...], ...]:
    """Token sequences of each word, at the start of a text and after a space, as in vLLM."""
    sequences: list[tuple[int, ...]] = []
    for word in words:
        bare = tuple(encoded(tokenizer, word.lstrip()).ids)
        spaced = tuple(encoded(tokenizer, " " + word.lstrip()).ids)
        if bare:
            sequences.append(bare)
        if spaced and len(spaced) == len(bare) and spaced[0] != bare[0]:
            sequences.append(spaced)
    return tuple(sequences)


@lru_cache(maxsize=1)
def byte_of_character() -> dict[str, int]:
    """GPT-2's map from the printable characters of byte-level BPE back to bytes."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if byte not in set(printable)]
    table.update({chr(256 + offset): byte for offset, byte in enumerate(others)})
    return table


class TokenTexts:
    """Bytes of token ids, for byte-level BPE and for SentencePiece with byte fallback."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._byte_level = "ByteLevel" in repr(tokenizer.decoder)
        self._special = set(tokenizer.get_added_tokens_decoder())
        self._cache: dict[int, bytes] = {}

    def bytes_of(self, token_id: int) -> bytes:
        """The bytes that a token adds to the text."""
        known = self._cache.get(token_id)
        if known is None:
            known = self._cache[token_id] = self._look_up(token_id)
        return known

    def text_of(self, token_id: int) -> str:
        """The token as text; bytes that are no complete character show as U+FFFD."""
        return self.bytes_of(token_id).decode("utf-8", errors="replace")

    def _look_up(self, token_id: int) -> bytes:
        token: str | None = self._tokenizer.id_to_token(token_id)
        if token is None:
            return b""
        if token_id in self._special:
            return token.encode()
        if self._byte_level:
            table = byte_of_character()
            if all(character in table for character in token):
                return bytes(table[character] for character in token)
            return token.encode()
        if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            return bytes([int(token[3:5], 16)])
        return token.replace("\u2581", " ").encode()

    def openai(self, entries: list[TokenLogprob], *, as_ids: bool = False) -> list[dict[str, Any]]:
        """Logprobs of output tokens as chat completions show them.

        ``as_ids`` spells each token as ``token_id:N``, as vLLM does on demand.
        """
        return [
            {
                **self._entry(entry.token_id, entry.logprob, as_ids),
                "top_logprobs": [self._entry(*other, as_ids) for other in entry.top],
            }
            for entry in entries
        ]

    def vllm(self, entries: list[TokenLogprob | None]) -> list[dict[str, Any] | None]:
        """Logprobs of prompt tokens as vLLM shows them: by token id, with rank."""
        shown: list[dict[str, Any] | None] = []
        for entry in entries:
            if entry is None:
                shown.append(None)
                continue
            ranks = {token_id: rank for rank, (token_id, _) in enumerate(entry.top, start=1)}
            values = {entry.token_id: entry.logprob, **dict(entry.top)}
            shown.append(
                {
                    str(token_id): {
                        "logprob": finite(logprob),
                        "rank": ranks.get(token_id),
                        "decoded_token": self.text_of(token_id),
                    }
                    for token_id, logprob in values.items()
                }
            )
        return shown

    def _entry(self, token_id: int, logprob: float, as_ids: bool) -> dict[str, Any]:
        data = self.bytes_of(token_id)
        return {
            "token": f"token_id:{token_id}" if as_ids else data.decode("utf-8", errors="replace"),
            "logprob": finite(logprob),
            "bytes": list(data),
        }


def finite(logprob: float) -> float:
    """JSON has no -Infinity; OpenAI writes -9999 for a token that cannot occur."""
    return max(logprob, -9999.0)
