"""The formats by name, and the parser for a request.

Names are vLLM's (``--tool-call-parser``, ``--reasoning-parser``) where it has the format.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from gateway.chat.parsing import deepseek, harmony, hermes, jsonlist, llama, mistral, qwen_xml
from gateway.chat.parsing.base import (
    CallCounter,
    ContentDelta,
    Event,
    OutputParser,
    PlainParser,
    ToolSchemas,
    call_id,
    mistral_call_id,
)
from gateway.chat.parsing.pythonic import PythonicParser
from gateway.chat.parsing.reasoning import GRANITE, MISTRAL, THINK, ThinkFormat, ThinkParser

OFF: Final = "none"
_LLAMA4: Final = ("<|python_start|>", "<|python_end|>")
_LFM2: Final = ("<|tool_call_start|>", "<|tool_call_end|>")

_Build: TypeAlias = Callable[[CallCounter, ToolSchemas], OutputParser]


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """A way of writing tool calls.

    Attributes:
        build: makes a parser.
        markers: what opens calls.
        others: further markers. Where a model's tokenizer has any of these or those as
            special tokens, the engine must be told to keep them in the text: see ``spelled``.
    """

    build: _Build
    markers: tuple[str, ...]
    others: tuple[str, ...] = ()


def _qwen_xml(calls: CallCounter, tools: ToolSchemas) -> OutputParser:
    return qwen_xml.QwenXmlParser(calls, tools)


def _deepseek(calls: CallCounter, tools: ToolSchemas) -> OutputParser:
    return deepseek.DeepSeekParser(calls)


_HERMES: Final = ToolFormat(
    lambda calls, _: hermes.HermesParser(calls), (hermes.OPEN,), (hermes.CLOSE,)
)
_LLAMA: Final = ToolFormat(llama.LlamaJsonParser, (llama.TAG,))
_XML: Final = ToolFormat(_qwen_xml, (qwen_xml.OPEN,), (qwen_xml.CLOSE,))
_DEEPSEEK: Final = ToolFormat(
    _deepseek,
    (deepseek.ALL_OPEN, deepseek.CALL_OPEN),
    (deepseek.ALL_CLOSE, deepseek.CALL_CLOSE, deepseek.SEPARATOR),
)

TOOL_FORMATS: Final[dict[str, ToolFormat]] = {
    "hermes": _HERMES,
    "qwen3_json": _HERMES,
    "granite4": _HERMES,
    "qwen3_xml": _XML,
    "qwen3_coder": _XML,
    "llama3_json": _LLAMA,
    "llama4_json": _LLAMA,
    "mistral": ToolFormat(
        lambda calls, _: mistral.MistralParser(calls),
        (mistral.OPEN,),
        (mistral.ARGS, mistral.CALL_ID),
    ),
    "pythonic": ToolFormat(lambda calls, _: PythonicParser(calls), ()),
    "llama4_pythonic": ToolFormat(
        lambda calls, _: PythonicParser(calls, *_LLAMA4), _LLAMA4[:1], _LLAMA4[1:]
    ),
    "lfm2": ToolFormat(lambda calls, _: PythonicParser(calls, *_LFM2), _LFM2[:1], _LFM2[1:]),
    "phi4_mini_json": ToolFormat(
        lambda calls, _: jsonlist.phi4_parser(calls), jsonlist.PHI4_OPEN[1:], ("<|/tool_call|>",)
    ),
    "granite": ToolFormat(
        lambda calls, _: jsonlist.granite_parser(calls),
        jsonlist.GRANITE_OPEN,
        ("<|/tool_call|>", "</tool_call>"),
    ),
    "deepseek_v3": _DEEPSEEK,
    "deepseek_v31": _DEEPSEEK,
    "openai": ToolFormat(lambda calls, _: harmony.HarmonyParser(calls), (), harmony.MARKERS),
}

HARMONY_REASONING: Final = "openai_gptoss"
REASONING_FORMATS: Final[dict[str, ThinkFormat]] = {
    "deepseek_r1": THINK,
    "qwen3": THINK,
    "granite": GRANITE,
    "mistral": MISTRAL,
}


@dataclass(frozen=True, slots=True)
class Formats:
    """Names of the formats that a model writes; None where it has none."""

    tool: str | None = None
    reasoning: str | None = None

    def __post_init__(self) -> None:
        if self.tool is not None and self.tool not in TOOL_FORMATS:
            raise ValueError(_unknown("tool parser", self.tool, TOOL_FORMATS))
        if self.reasoning not in (None, HARMONY_REASONING, *REASONING_FORMATS):
            names = (*REASONING_FORMATS, HARMONY_REASONING)
            raise ValueError(_unknown("reasoning parser", self.reasoning, names))

    def overridden(self, tool: str = "", reasoning: str = "") -> Formats:
        """With the formats that settings name: empty keeps what there is, ``none`` clears."""
        return Formats(_override(self.tool, tool), _override(self.reasoning, reasoning))


def spelled(formats: Formats, *, tools: bool) -> frozenset[str]:
    """Markers that must stand in the text for a parser to see them.

    ``tools``: whether calls are to be read.
    """
    found: set[str] = set()
    if formats.tool == "openai" or formats.reasoning == HARMONY_REASONING:
        found.update(harmony.MARKERS)
    elif formats.reasoning is not None:
        form = REASONING_FORMATS[formats.reasoning]
        found.update(form.opens, form.closes)
    if tools and formats.tool is not None:
        tool = TOOL_FORMATS[formats.tool]
        found.update(tool.markers, tool.others)
    return frozenset(found)


def _override(found: str | None, setting: str) -> str | None:
    return found if not setting else None if setting == OFF else setting


def _unknown(what: str, name: str | None, names: object) -> str:
    known = ", ".join(sorted(names)) if isinstance(names, dict | tuple) else ""
    return f"unknown {what} {name!r}; known: {known}, {OFF}"


class Pipeline:
    """Reasoning split off first, tool calls read from the rest."""

    done = False

    def __init__(self, reasoning: ThinkParser, tools: OutputParser) -> None:
        self._reasoning = reasoning
        self._tools = tools

    @property
    def thinking(self) -> bool:
        """Whether the text so far ends inside the thinking."""
        return self._reasoning.thinking

    def feed(self, text: str) -> list[Event]:
        if self._reasoning.done:
            return self._tools.feed(text)
        return self._pass_on(self._reasoning.feed(text))

    def finish(self) -> list[Event]:
        return self._pass_on(self._reasoning.finish()) + self._tools.finish()

    def _pass_on(self, events: list[Event]) -> list[Event]:
        out: list[Event] = []
        for event in events:
            if isinstance(event, ContentDelta):
                out += self._tools.feed(event.text)
            else:
                out.append(event)
        return out


def make_parser(
    formats: Formats,
    *,
    tools: ToolSchemas | None,
    prompt: str,
    new_id: Callable[[], str] | None = None,
) -> OutputParser:
    """A parser for one choice of one request.

    Args:
        formats: what the model writes.
        tools: the tools that it may call; None reads no calls (no tools, or tool choice
            ``none``). An empty mapping reads calls whose schemas are not known.
        prompt: the rendered prompt, or its end: some templates open the thinking there.
        new_id: makes tool call ids.
    """
    calls = CallCounter(new_id or (mistral_call_id if formats.tool == "mistral" else call_id))
    if formats.tool == "openai" or formats.reasoning == HARMONY_REASONING:
        return harmony.HarmonyParser(calls)
    tool = TOOL_FORMATS[formats.tool] if formats.tool and tools is not None else None
    reader = tool.build(calls, tools or {}) if tool else PlainParser()
    if formats.reasoning is None:
        return reader
    form = REASONING_FORMATS[formats.reasoning]
    ends = tool.markers if tool else ()
    thinking = ThinkParser(form, started=form.left_open(prompt), calls=ends)
    return Pipeline(thinking, reader) if tool else thinking
