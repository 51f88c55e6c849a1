"""Constraints on the output: from request fields, and grammars that force tool calls.

Everything here is pure: the engine compiles and enforces.

    structured = read_response_format(body.get("response_format"))
    choice = read_tool_choice(body.get("tool_choice"), tools)
    forced = tool_constraint(formats.tool, tools, choice, parallel=..., token_id=...)
"""

from gateway.chat.constraints.fields import (
    LENIENT,
    ToolChoice,
    read_response_format,
    read_structured_outputs,
    read_tool_choice,
    schema_text,
)
from gateway.chat.constraints.lark import Thinking, TokenId, after_thinking
from gateway.chat.constraints.tools import MAX_CALLS, tool_constraint

__all__ = [
    "LENIENT",
    "MAX_CALLS",
    "Thinking",
    "TokenId",
    "ToolChoice",
    "after_thinking",
    "read_response_format",
    "read_structured_outputs",
    "read_tool_choice",
    "schema_text",
    "tool_constraint",
]
