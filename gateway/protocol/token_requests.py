"""The bodies of vLLM's ``POST /tokenize`` and ``POST /detokenize``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from gateway.protocol.chat_parameters import CHAT
from gateway.protocol.completion_prompt import MAX_PROMPT_CHARS, TokenIds
from gateway.protocol.messages import Message
from gateway.protocol.parameters import Parameter, index, read_fields, refused
from gateway.protocol.values import Boolean, Text, missing, wrong_value

SHARED = (
    "model",
    "tools",
    "add_generation_prompt",
    "continue_final_message",
    "chat_template_kwargs",
    "chat_template",
    "mm_processor_kwargs",
)

TOKENIZE = index(
    (
        Parameter("prompt", "The text; this or messages.", Text(MAX_PROMPT_CHARS)),
        replace(CHAT["messages"], note="The conversation; this or prompt.", required=False),
        *(CHAT[name] for name in SHARED),
        Parameter(
            "add_special_tokens",
            "Add what the tokenizer puts around a text; absent: true for a prompt, false for "
            "messages, whose template does that.",
            Boolean(),
        ),
        Parameter(
            "return_token_strs", "Also return the tokens as the vocabulary spells them.", Boolean()
        ),
        refused("media_io_kwargs", "not offered to clients."),
    )
)

DETOKENIZE = index(
    (
        CHAT["model"],
        Parameter("tokens", "Token ids.", TokenIds(), required=True),
    )
)


@dataclass(frozen=True, slots=True)
class TokenizeRequest:
    """A checked request; ``prompt`` is None when there are messages instead."""

    model: str | None
    prompt: str | None
    messages: list[Message]
    tools: list[dict[str, Any]]
    add_generation_prompt: bool
    continue_final_message: bool
    template_variables: dict[str, Any]
    add_special_tokens: bool
    return_token_strs: bool


def read_tokenize_request(document: dict[str, Any], *, strict: bool = False) -> TokenizeRequest:
    """Check a decoded body. Raises InvalidRequest naming the field at fault."""
    fields = read_fields(document, TOKENIZE, strict=strict)
    prompt, messages = fields.get("prompt"), fields.get("messages")
    if prompt is None and messages is None:
        missing("prompt")
    if prompt is not None and messages is not None:
        wrong_value("messages", "it cannot be combined with 'prompt'")
    continues = fields.get("continue_final_message", False)
    opens = fields.get("add_generation_prompt", not continues)
    if continues and opens:
        wrong_value("continue_final_message", "it cannot be combined with 'add_generation_prompt'")
    return TokenizeRequest(
        model=fields.get("model"),
        prompt=prompt,
        messages=messages or [],
        tools=fields.get("tools", []),
        add_generation_prompt=opens,
        continue_final_message=continues,
        template_variables=fields.get("chat_template_kwargs", {}),
        add_special_tokens=fields.get("add_special_tokens", prompt is not None),
        return_token_strs=fields.get("return_token_strs", False),
    )


@dataclass(frozen=True, slots=True)
class DetokenizeRequest:
    """A checked request; the model's vocabulary bounds the ids later."""

    model: str | None
    tokens: list[int]


def read_detokenize_request(document: dict[str, Any], *, strict: bool = False) -> DetokenizeRequest:
    """Check a decoded body. Raises InvalidRequest naming the field at fault."""
    fields = read_fields(document, DETOKENIZE, strict=strict)
    return DetokenizeRequest(fields.get("model"), fields["tokens"])
