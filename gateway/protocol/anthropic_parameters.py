"""Every field of ``POST /v1/messages`` and ``POST /v1/messages/count_tokens``."""

from __future__ import annotations

from gateway.protocol.anthropic_blocks import TEXT, Blocks, Tool, Turns, thinking, tool_choice
from gateway.protocol.chat_parameters import CHAT, MAX_STOP_LENGTH, MAX_STOPS, MAX_TOKENS
from gateway.protocol.messages import MAX_TOOLS
from gateway.protocol.parameters import Parameter, ignored, index, refused
from gateway.protocol.values import Boolean, Integer, ListOf, Mapping, Number, OneOf, Record
from gateway.protocol.values import Text as TextOf

JSON_FORMAT = Record(
    {"type": OneOf(("json_schema",)), "schema": Mapping(None, 256)}, ("type", "schema")
)
# Extensions of vLLM that chat completions refuse as well.
AS_IN_CHAT = (
    "kv_transfer_params",
    "vllm_xargs",
    "ec_transfer_params",
    "mm_payload",
    "return_mm_kwargs",
    "watermarking",
)
EFFORTS = ("low", "medium", "high", "xhigh", "max")

_PROMPT = (
    Parameter("model", "Name of the model.", TextOf(256, 1), required=True),
    Parameter("messages", "The conversation so far.", Turns(), required=True),
    Parameter("system", "The system prompt: a string or text blocks.", Blocks({"text": TEXT})),
    Parameter("tools", "Tools the client runs.", ListOf(Tool(), MAX_TOOLS)),
    Parameter("tool_choice", "auto, any, tool or none.", tool_choice()),
    Parameter(
        "thinking",
        "enabled, adaptive or disabled; absent: disabled. The budget is checked, not enforced.",
        thinking(MAX_TOKENS),
    ),
    Parameter(
        "output_config",
        "format: a JSON Schema that the answer follows; effort: how much to think.",
        Record({"effort": OneOf(EFFORTS), "format": JSON_FORMAT}),
    ),
    Parameter("output_format", "Older name of output_config.format.", JSON_FORMAT),
    Parameter(
        "chat_template_kwargs", "vLLM: variables for the chat template.", Mapping(None, 64, 64)
    ),
    ignored("cache_control", "Prefixes are found by content, without marks."),
    ignored("speed", "There is one speed."),
    refused("mcp_servers", "this server calls no other servers.", []),
    refused("context_management", "send the messages that are to count.", {}),
)

COUNT_TOKENS = index(_PROMPT)

MESSAGES = index(
    (
        *_PROMPT,
        Parameter("max_tokens", "Most output tokens.", Integer(1, MAX_TOKENS), required=True),
        Parameter("stream", "Send the answer as server-sent events.", Boolean()),
        Parameter(
            "stop_sequences",
            "Strings that end the answer.",
            ListOf(TextOf(MAX_STOP_LENGTH, 1), MAX_STOPS),
        ),
        Parameter("temperature", "0 is greedy.", Number(0, 1)),
        Parameter("top_p", "Nucleus sampling.", Number(0, 1)),
        Parameter("top_k", "0 turns it off.", Integer(0, 1_000_000)),
        Parameter(
            "cache_salt", "vLLM: separates cached prefixes further within a key.", TextOf(256, 1)
        ),
        ignored("metadata", "Use the key to tell users apart."),
        ignored("service_tier", "Send the x-priority header instead."),
        ignored("inference_geo", "The server is where it is."),
        ignored("diagnostics", "Nothing is stored to compare with."),
        refused("container", "this server runs no code."),
        *(CHAT[name] for name in AS_IN_CHAT),
    )
)
