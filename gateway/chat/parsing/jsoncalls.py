"""Reading calls written as JSON objects, as the text arrives.

The argument object is passed on character by character as the model wrote it: nothing is
parsed and printed again, so numbers keep their digits and keys their order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from enum import Enum, auto
from typing import Final

from gateway.chat.parsing.base import (
    HELD_LIMIT,
    CallCounter,
    Event,
    ToolCallArguments,
    sendable,
)
from gateway.chat.parsing.jsonvalue import JsonValue, Status
from gateway.chat.parsing.markers import skip_space

_SCALAR: Final = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|true|false|null")

ARGUMENT_KEYS: Final = frozenset(("arguments", "parameters"))
CALL_KEYS: Final = ARGUMENT_KEYS | {"name", "type", "id"}


class _Phase(Enum):
    OPEN = auto()
    FIRST_KEY = auto()
    KEY = auto()
    COLON = auto()
    VALUE = auto()
    IN_TOKEN = auto()
    ARGUMENTS = auto()
    AFTER_VALUE = auto()


class CallObject:
    """One ``{"name": ..., "arguments": {...}}``, its keys in any order.

    The call starts when its name is known and its arguments begin. Keys other than the name
    and the arguments are dropped. Arguments written as a string that holds a JSON object are
    unpacked; ``null`` or absent ones are ``{}``.
    """

    def __init__(
        self,
        calls: CallCounter,
        *,
        bare: bool = False,
        accept: Callable[[str], bool] | None = None,
    ) -> None:
        """``bare``: no marker vouches for it, so it must look like nothing but a call.
        ``accept`` says whether a name may be called."""
        self._calls = calls
        self._bare = bare
        self._accept = accept
        self._phase = _Phase.OPEN
        self._held: list[str] = []
        self._held_size = 0
        self._token: list[str] = []
        self._scanner = JsonValue("{")
        self._key: str | None = None
        self._name: str | None = None
        self._arguments: str | None = None
        self._index: int | None = None

    @property
    def held(self) -> str:
        """Text that was read but has not become an event."""
        return "".join(self._held)

    def read(self, text: str, pos: int, out: list[Event]) -> tuple[int, Status]:
        """Read on from ``pos``: how far, and how it stands."""
        while True:
            if self._phase is _Phase.ARGUMENTS:
                end, done = self._scanner.scan(text, pos, len(text))
                if end > pos and self._index is not None:
                    out.append(ToolCallArguments(self._index, text[pos:end]))
                pos = end
                if not done:
                    return pos, Status.MORE
                self._phase = _Phase.AFTER_VALUE
                continue
            # The bound is on a count of characters, not on pieces, or cuts would matter.
            stop = min(len(text), pos + HELD_LIMIT - self._held_size)
            end, status = self._advance(text, pos, stop, out)
            self._held.append(text[pos:end])
            self._held_size += end - pos
            pos = end
            if status is Status._TURN:
                self._held.clear()
                self._held_size = 0
            elif status is Status.MORE and self._held_size >= HELD_LIMIT:
                return pos, Status.FAILED
            else:
                return pos, status

    def _advance(self, text: str, pos: int, stop: int, out: list[Event]) -> tuple[int, Status]:
        while True:
            if self._phase is _Phase.IN_TOKEN:
                end, done = self._scanner.scan(text, pos, stop)
                self._token.append(text[pos:end])
                pos = end
                if not done:
                    return pos, Status.MORE
                if not self._token_read():
                    return pos, Status.FAILED
                if self._start_if_known(out):
                    return pos, Status._TURN
                continue
            pos = skip_space(text, pos, stop)
            if pos == stop:
                return pos, Status.MORE
            char = text[pos]
            if self._phase is _Phase.VALUE:
                if self._key in ARGUMENT_KEYS and char == "{" and self._may_start():
                    self._index = self._calls.start(out, self._name or "")
                    self._arguments = ""
                    self._scanner = JsonValue(char)
                    self._phase = _Phase.ARGUMENTS
                    return pos, Status._TURN
                self._open_token(char)
            elif char == '"' and self._phase in (_Phase.FIRST_KEY, _Phase.KEY):
                self._key = None
                self._open_token(char)
            elif char == "{" and self._phase is _Phase.OPEN:
                self._phase = _Phase.FIRST_KEY
                pos += 1
            elif char == ":" and self._phase is _Phase.COLON:
                self._phase = _Phase.VALUE
                pos += 1
            elif char == "," and self._phase is _Phase.AFTER_VALUE:
                self._phase = _Phase.KEY
                pos += 1
            elif char == "}" and self._phase in (_Phase.FIRST_KEY, _Phase.AFTER_VALUE):
                return self._end(pos, out)
            else:
                return pos, Status.FAILED

    def _open_token(self, char: str) -> None:
        self._scanner = JsonValue(char)
        self._token.clear()
        self._phase = _Phase.IN_TOKEN

    def _token_read(self) -> bool:
        """Take in a complete key or value; False when it is malformed."""
        raw = "".join(self._token)
        if self._key is None:
            key = _decode_string(raw)
            if key is None or (self._bare and key not in CALL_KEYS):
                return False
            self._key = key
            self._phase = _Phase.COLON
            return True
        self._phase = _Phase.AFTER_VALUE
        if not raw.startswith(('"', "{", "[")) and not _SCALAR.fullmatch(raw):
            return False
        if self._key == "name" and self._name is None:
            self._name = _decode_string(raw)
            return bool(self._name) and (self._accept is None or self._accept(self._name or ""))
        if self._key in ARGUMENT_KEYS and self._arguments is None:
            self._arguments = _plain_arguments(raw)
        return True

    def _may_start(self) -> bool:
        return self._index is None and self._name is not None and self._arguments is None

    def _start_if_known(self, out: list[Event]) -> bool:
        """Emit the call when its name came after its arguments, or they were no object."""
        if self._index is not None or self._name is None or self._arguments is None:
            return False
        self._index = self._calls.start(out, self._name)
        out.append(ToolCallArguments(self._index, self._arguments))
        return True

    def _end(self, pos: int, out: list[Event]) -> tuple[int, Status]:
        if self._index is None:
            if self._name is None or self._bare:
                return pos, Status.FAILED
            self._arguments = "{}"
            self._start_if_known(out)
        return pos + 1, Status.DONE


def _decode_string(raw: str) -> str | None:
    try:
        value = json.loads(raw, strict=False) if raw.startswith('"') else None
    except ValueError:
        return None
    return value if isinstance(value, str) and sendable(value) else None


def _plain_arguments(raw: str) -> str:
    if raw == "null":
        return "{}"
    inner = _decode_string(raw)
    if inner is None:
        return raw
    try:
        return inner if isinstance(json.loads(inner), dict) else raw
    except (ValueError, RecursionError):
        return raw
