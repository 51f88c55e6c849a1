"""Model output to content, reasoning and tool calls: see ``base`` for what is guaranteed.

formats = detect(template, tool=settings.tool_parser, reasoning=settings.reasoning_parser)
parser = make_parser(formats, tools=schemas, prompt=prompt)
for delta in deltas:
    for event in parser.feed(delta.text): ...
for event in parser.finish(): ...
"""

from gateway.chat.parsing.base import (
    ContentDelta,
    Event,
    OutputParser,
    Parsed,
    ReasoningDelta,
    ToolCall,
    ToolCallArguments,
    ToolCallStart,
    ToolSchemas,
    collect,
)
from gateway.chat.parsing.detect import detect
from gateway.chat.parsing.registry import (
    REASONING_FORMATS,
    TOOL_FORMATS,
    Formats,
    make_parser,
    spelled,
)

__all__ = [
    "REASONING_FORMATS",
    "TOOL_FORMATS",
    "ContentDelta",
    "Event",
    "Formats",
    "OutputParser",
    "Parsed",
    "ReasoningDelta",
    "ToolCall",
    "ToolCallArguments",
    "ToolCallStart",
    "ToolSchemas",
    "collect",
    "detect",
    "make_parser",
    "spelled",
]
