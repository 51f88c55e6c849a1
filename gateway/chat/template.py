"""Renders chat templates the way transformers does, sandboxed and bounded.

The template comes with the model; clients fill in its variables only. It still runs in
Jinja's immutable sandbox, since models are downloaded, and within bounds of time and size,
since a template's work grows with what clients send (CVE-2025-61620, CVE-2025-62426).
"""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Mapping
from typing import Any, NoReturn

import jinja2
import jinja2.exceptions
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from gateway.errors import InvalidRequest, PromptTimeout
from gateway.protocol.messages import Message

RENDER_TIMEOUT_S = 10.0
MAX_RENDERED_CHARS = 64 * 1024 * 1024
MAX_SHOWN = 200

# What the server passes to a template; clients cannot replace it.
OWN_VARIABLES = frozenset(
    {"messages", "tools", "add_generation_prompt", "continue_final_message", "raise_exception"}
)


class TemplateRefusal(Exception):
    """The template itself refused the conversation, by ``raise_exception``."""


class ChatTemplate:
    """One model's compiled chat template. Thread-safe."""

    def __init__(self, source: str, constants: Mapping[str, str]) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[GenerationBlock, jinja2.ext.loopcontrols],
        )
        environment.filters["tojson"] = to_json
        environment.globals["raise_exception"] = refuse
        environment.globals["strftime_now"] = strftime_now
        self._template = environment.from_string(source)
        self._constants = dict(constants)
        self.knows_tools = "tools" in source
        self.knows_developer = "developer" in source
        self.knows_enable_thinking = "enable_thinking" in source

    def effort_variables(self, effort: str | None) -> dict[str, Any]:
        """What a reasoning effort is to this template: its name, and on or off where the
        template knows no more than that."""
        if effort is None:
            return {}
        variables: dict[str, Any] = {"reasoning_effort": effort}
        if self.knows_enable_thinking:
            variables["enable_thinking"] = effort != "none"
        return variables

    def render(
        self,
        messages: list[Message],
        *,
        tools: list[dict[str, Any]],
        add_generation_prompt: bool,
        continue_final_message: bool,
        variables: Mapping[str, Any],
    ) -> str:
        """The prompt text. Raises InvalidRequest or PromptTimeout."""
        for name in variables:
            if name in OWN_VARIABLES or name in self._constants:
                raise InvalidRequest(
                    f"Invalid 'chat_template_kwargs': '{name}' is set by the server.",
                    param="chat_template_kwargs",
                )
        if not self.knows_developer:
            messages = [
                {**message, "role": "system"} if message["role"] == "developer" else message
                for message in messages
            ]
        try:
            text = self._generate(
                {
                    **self._constants,
                    **variables,
                    "messages": messages,
                    "tools": tools or None,
                    "add_generation_prompt": add_generation_prompt,
                }
            )
        except TemplateRefusal as refusal:
            raise InvalidRequest(
                f"The model's chat template refused the messages: {str(refusal)[:MAX_SHOWN]}",
                param="messages",
            ) from None
        except (jinja2.exceptions.TemplateError, TypeError, ValueError, ArithmeticError):
            raise InvalidRequest(
                "The model's chat template cannot render these messages.", param="messages"
            ) from None
        if continue_final_message:
            return cut_after_final_message(text, messages[-1])
        return text

    def _generate(self, variables: dict[str, Any]) -> str:
        deadline = time.monotonic() + RENDER_TIMEOUT_S
        pieces: list[str] = []
        size = 0
        for piece in self._template.generate(variables):
            pieces.append(piece)
            size += len(piece)
            if size > MAX_RENDERED_CHARS:
                raise InvalidRequest("The messages render to too long a prompt.", param="messages")
            if time.monotonic() > deadline:
                raise PromptTimeout("Rendering the prompt took too long.")
        return "".join(pieces)


class GenerationBlock(jinja2.ext.Extension):
    """Accepts ``{% generation %}``, which marks training targets, and renders its body."""

    tags = {"generation"}  # noqa: RUF012 - Jinja declares it so

    def parse(self, parser: Any) -> Any:
        """The body of the block, as a block of its own scope."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.Scope(body).set_lineno(line)


def cut_after_final_message(text: str, message: Message) -> str:
    """The prompt up to the end of the last message's content, so that the model goes on there."""
    content = message["content"]
    if type(content) is list:
        content = "".join(part.get("text", "") for part in content)
    content = content.strip()
    at = text.rfind(content) if content else -1
    if at < 0:
        raise InvalidRequest(
            "Invalid 'continue_final_message': the chat template does not show the last "
            "message's content as it is.",
            param="continue_final_message",
        )
    return text[: at + len(content)]


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without HTML escaping, with transformers' defaults: templates were trained on it."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def refuse(message: str) -> NoReturn:
    """``raise_exception`` of chat templates."""
    raise TemplateRefusal(message)


def strftime_now(pattern: str) -> str:
    """The local time, for templates that tell the model the date."""
    return datetime.datetime.now().strftime(pattern)
