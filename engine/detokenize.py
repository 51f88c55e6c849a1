"""Token ids to text, one token at a time, and the search for stop strings in it."""

from __future__ import annotations

import codecs
import contextlib
import json
from collections.abc import Collection
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class TokenDecoder(Protocol):
    """Turns the tokens of one output into text as they come."""

    def push(self, token_id: int) -> str:
        """The text that this token completes; empty while a character is open."""

    def flush(self) -> str:
        """What is still open, with U+FFFD for an unfinished character."""


class Detokenizer:
    """Makes decoders for one tokenizer; built once, shared by all outputs."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self._special = frozenset(i for i, token in added.items() if token.special)
        self._bytes = TokenBytes(tokenizer) if _decodes_byte_level(tokenizer) else None

    def decoder(self, *, skip_special_tokens: bool, shown: Collection[int] = ()) -> TokenDecoder:
        """A decoder for one output; special tokens in ``shown`` are never skipped."""
        skipped = self._special if skip_special_tokens else frozenset()
        if shown:
            skipped = skipped.difference(shown)
        if self._bytes is not None:
            return ByteLevelDecoder(self._bytes, skipped)
        return WindowDecoder(self._tokenizer, skipped)


class TokenBytes(dict[int, bytes]):
    """Bytes of each token of a byte-level vocabulary, looked up on first use.

    Attributes:
        whole: text of the tokens seen so far that are whole characters.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.whole: dict[int, str] = {}
        self._tokenizer = tokenizer
        self._byte_of = {char: byte for byte, char in enumerate(byte_level_alphabet())}

    def __missing__(self, token_id: int) -> bytes:
        token = self._tokenizer.id_to_token(token_id)
        if token is None:  # models often have more logits than the tokenizer has tokens
            value = b""
        elif all(char in self._byte_of for char in token):
            value = bytes(self._byte_of[char] for char in token)
        else:
            value = token.encode()
        self[token_id] = value
        with contextlib.suppress(UnicodeDecodeError):
            self.whole[token_id] = value.decode()
        return value


class ByteLevelDecoder:
    """Joins the bytes of tokens; exact for the ByteLevel decoder of ``tokenizers``."""

    def __init__(self, table: TokenBytes, skipped: frozenset[int]) -> None:
        self._table = table
        self._whole = table.whole
        self._skipped = skipped
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._open = False

    def push(self, token_id: int) -> str:
        if token_id in self._skipped:
            return ""
        # Nearly every token; the decoder costs four times as much.
        if not self._open and (text := self._whole.get(token_id)) is not None:
            return text
        text = self._utf8.decode(self._table[token_id])
        self._open = bool(self._utf8.getstate()[0])
        return text

    def flush(self) -> str:
        self._open = False
        return self._utf8.decode(b"", final=True)


class WindowDecoder:
    """Decodes a short window of tokens twice and takes the difference; any tokenizer.

    Text is given out once it no longer ends in U+FFFD, which is how an unfinished
    character decodes.
    """

    # Byte-fallback tokenizers spell a character in up to four tokens; a window that stays
    # open for longer holds bytes that are no UTF-8 and would otherwise grow for ever.
    _LONGEST_OPEN = 8

    def __init__(self, tokenizer: Tokenizer, skipped: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._skipped = skipped
        self._window: list[int] = []
        self._given = 0
        self._given_text = ""

    def push(self, token_id: int) -> str:
        if token_id in self._skipped:
            return ""
        self._window.append(token_id)
        text = self._decode(self._window)
        open_tokens = len(self._window) - self._given
        if text.endswith("\ufffd") and open_tokens < self._LONGEST_OPEN:
            return ""
        return self._give(text)

    def flush(self) -> str:
        return self._give(self._decode(self._window))

    def _give(self, text: str) -> str:
        new = text[len(self._given_text) :]
        # The tokens just given stay as context, since decoders treat a first token apart.
        self._window = self._window[self._given :]
        self._given = len(self._window)
        self._given_text = self._decode(self._window)
        return new

    def _decode(self, token_ids: list[int]) -> str:
        return str(self._tokenizer.decode(token_ids, skip_special_tokens=False))


class StopMatcher:
    """Finds the stop string that is completed first and holds back what may become one."""

    def __init__(self, stops: tuple[str, ...], *, include: bool) -> None:
        self._stops = stops
        self._include = include
        self._held = ""

    def push(self, text: str, *, armed: bool = True) -> tuple[str, str | None]:
        """Take new text.

        Args:
            armed: when False, a stop string that ends in ``text`` does not count.

        Returns:
            Text that is safe to show, and the stop string that ended it, if any.
        """
        held = self._held
        buffer = held + text
        if armed and text:
            found = self._first_completed(buffer, len(held))
            if found is not None:
                start, stop = found
                self._held = ""
                return buffer[: start + len(stop) if self._include else start], stop
        keep = self._open_suffix(buffer)
        self._held = buffer[keep:]
        return buffer[:keep], None

    def flush(self) -> str:
        """Text still held, once the output has ended otherwise."""
        held, self._held = self._held, ""
        return held

    def _first_completed(self, buffer: str, old: int) -> tuple[int, str] | None:
        best: tuple[int, int, str] | None = None
        for stop in self._stops:
            start = buffer.find(stop, max(0, old - len(stop) + 1))
            if start >= 0:
                candidate = (start + len(stop), start, stop)
                best = candidate if best is None else min(best, candidate)
        return None if best is None else best[1:]

    def _open_suffix(self, buffer: str) -> int:
        """Where the longest suffix begins that a stop string may start with."""
        first = end = len(buffer)
        for stop in self._stops:
            start = buffer.find(stop[0], max(0, end - len(stop) + 1), first)
            while start >= 0:
                if stop.startswith(buffer[start:]):
                    first = start
                    break
                start = buffer.find(stop[0], start + 1, first)
        return first


class OutputText:
    """Text of one output: a decoder with a stop matcher behind it.

    Attributes:
        stopped_by: the stop string that ended the text, if one did.
    """

    __slots__ = ("_decoder", "_matcher", "stopped_by")

    def __init__(self, decoder: TokenDecoder, stops: tuple[str, ...], *, include: bool) -> None:
        self._decoder = decoder
        self._matcher = StopMatcher(stops, include=include) if stops else None
        self.stopped_by: str | None = None

    def push(self, token_id: int, *, armed: bool = True) -> str:
        """Text that is safe to show after this token; may set ``stopped_by``."""
        text = self._decoder.push(token_id)
        if self._matcher is None:
            return text
        shown, self.stopped_by = self._matcher.push(text, armed=armed)
        return shown

    def flush(self) -> str:
        """Everything held back, once the output has ended for another reason."""
        rest = self._decoder.flush()
        if self._matcher is None:
            return rest
        shown, self.stopped_by = self._matcher.push(rest)
        return shown if self.stopped_by is not None else shown + self._matcher.flush()


def byte_level_alphabet() -> list[str]:
    """The printable character that stands for each byte in byte-level BPE (GPT-2)."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(0x100, 0x200))
    return [chr(byte if byte in visible else next(spare)) for byte in range(0x100)]


def _decodes_byte_level(tokenizer: Tokenizer) -> bool:
    if tokenizer.decoder is None:
        return False
    decoder = json.loads(tokenizer.decoder.__getstate__())
    parts = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    return [part["type"] for part in parts] == ["ByteLevel"]
