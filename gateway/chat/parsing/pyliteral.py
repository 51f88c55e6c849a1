"""Reading one Python call with literal keyword arguments.

``ast`` is not used on model output: deeply nested or chained source can exhaust the
interpreter's C stack. This reader takes single tokens, its nesting is bounded, and it knows
no names but the literals.
"""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Any, Final

from gateway.chat.parsing.base import dump_json

_DEPTH: Final = 48
_LITERALS: Final = {
    "True": True,
    "true": True,
    "False": False,
    "false": False,
    "None": None,
    "null": None,
}
_TOKEN: Final = re.compile(
    r"""(?P<string>(?:[rRuU](?=["']))?(?:"""
    r""""{3}[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*"{3}"""
    r"""|'{3}[^'\\]*(?:(?:\\.|'(?!''))[^'\\]*)*'{3}"""
    r"""|"[^"\\]*(?:\\.[^"\\]*)*"|'[^'\\]*(?:\\.[^'\\]*)*'))"""
    r"""|(?P<name>[A-Za-z_]\w*)"""
    r"""|(?P<number>0[xXoObB]\w+|(?:\d[\d_]*(?:\.[\d_]*)?|\.\d[\d_]*)(?:[eE][-+]?\d+)?)"""
    r"""|(?P<mark>[()\[\]{},:=+.-])|\s+""",
    re.DOTALL,
)
_ESCAPE: Final = re.compile(
    r"\\(\n|[0-7]{1,3}|x[\da-fA-F]{2}|u[\da-fA-F]{4}|U[\da-fA-F]{8}|N\{[^}]{1,64}\}|.)", re.DOTALL
)
_SIMPLE: Final = dict(zip("\nabfnrtv\\'\"", ["", *"\a\b\f\n\r\t\v\\'\""], strict=True))


def read_call(text: str) -> tuple[str, str] | None:
    """Name and JSON arguments of ``f(a=1, b="x")``; None when it is not such a call."""
    try:
        return _Reader(text).call()
    except (ValueError, IndexError):
        return None


class _Reader:
    """Recursive descent over the tokens; raises ValueError or IndexError."""

    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        pos = 0
        while pos < len(text):
            match = _TOKEN.match(text, pos)
            if match is None:
                raise ValueError
            if match.lastgroup:
                self._tokens.append((match.lastgroup, match.group()))
            pos = match.end()
        self._next = 0

    def _take(self, kind: str = "") -> str:
        found, text = self._tokens[self._next]
        if kind and found != kind:
            raise ValueError
        self._next += 1
        return text

    def _skip(self, mark: str) -> bool:
        if self._tokens[self._next] == ("mark", mark):
            self._next += 1
            return True
        return False

    def _expect(self, mark: str) -> None:
        if not self._skip(mark):
            raise ValueError

    def call(self) -> tuple[str, str]:
        """Name and JSON arguments."""
        name = self._take("name")
        while self._skip("."):
            name += "." + self._take("name")
        self._expect("(")
        arguments: dict[str, Any] = {}
        while not self._skip(")"):
            key = self._take("name")
            self._expect("=")
            if key in arguments:
                raise ValueError
            arguments[key] = self._value(_DEPTH)
            if not self._skip(","):
                self._expect(")")
                break
        if self._next != len(self._tokens):
            raise ValueError
        return name, dump_json(arguments)

    def _value(self, depth: int) -> Any:
        if not depth:
            raise ValueError
        kind, text = self._tokens[self._next]
        self._next += 1
        if kind == "string":
            parts = [_string(text)]
            while self._tokens[self._next][0] == "string":
                parts.append(_string(self._take()))
            return "".join(parts)
        if kind == "number":
            return _number(text)
        if kind == "name":
            if text not in _LITERALS:
                raise ValueError
            return _LITERALS[text]
        if text in "+-":
            number = _number(self._take("number"))
            return -number if text == "-" else number
        if text in "[(":
            return self._sequence("]" if text == "[" else ")", depth)
        if text == "{":
            return self._braces(depth)
        raise ValueError

    def _sequence(self, closing: str, depth: int) -> Any:
        values: list[Any] = []
        while not self._skip(closing):
            values.append(self._value(depth - 1))
            if not self._skip(","):
                self._expect(closing)
                # Parentheses around one value without a comma are no tuple.
                return values[0] if closing == ")" and len(values) == 1 else values
        return values

    def _braces(self, depth: int) -> Any:
        pairs: dict[Any, Any] = {}
        members: list[Any] = []
        while not self._skip("}"):
            key = self._value(depth - 1)
            if self._skip(":"):
                if isinstance(key, list | dict):
                    raise ValueError
                pairs[key] = self._value(depth - 1)
            else:
                members.append(key)
            if not self._skip(","):
                self._expect("}")
                break
        if pairs and members:
            raise ValueError
        return members or pairs


def _number(text: str) -> int | float:
    digits = text.replace("_", "")
    if digits[:2].lower() in ("0x", "0o", "0b") or digits.isdigit():
        return int(digits, 0)
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError
    return value


def _string(token: str) -> str:
    raw = token[0] in "rR"
    body = token.lstrip("rRuU")
    width = 3 if body[:3] in ('"""', "'''") and len(body) >= 6 else 1
    body = body[width:-width]
    # A line break inside plain quotes is no Python, but what the model means is clear.
    return body if raw else _ESCAPE.sub(_unescape, body)


def _unescape(match: re.Match[str]) -> str:
    code: str = match.group(1)
    if code in _SIMPLE:
        return str(_SIMPLE[code])
    if code[0] in "01234567":
        return chr(int(code, 8))
    if code[0] in "xuU" and len(code) > 1:
        return chr(int(code[1:], 16))
    if code[0] == "N" and len(code) > 1:
        try:
            return unicodedata.lookup(code[2:-1])
        except KeyError:
            raise ValueError from None
    return f"\\{code}"
