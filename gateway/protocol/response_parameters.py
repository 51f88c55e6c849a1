"""Every field of ``POST /v1/responses``: OpenAI's, and vLLM's extensions."""

from __future__ import annotations

from gateway.protocol.chat_parameters import CHAT, MAX_LOGPROBS, MAX_TOKENS
from gateway.protocol.messages import MAX_TOOLS
from gateway.protocol.parameters import Parameter, ignored, index, refused
from gateway.protocol.response_items import ID, LONG, ResponseInput
from gateway.protocol.response_tools import TextConfig, ToolChoice, Tools
from gateway.protocol.values import Boolean, Integer, ListOf, Mapping, Number, OneOf, Record, Text

LOGPROBS_INCLUDED = "message.output_text.logprobs"
# Beside logprobs these concern hosted tools, which there are none of, so nothing is left out.
INCLUDABLE = (
    LOGPROBS_INCLUDED,
    "reasoning.encrypted_content",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "code_interpreter_call.outputs",
)
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
SUMMARIES = ("auto", "concise", "detailed")

# Fields of chat completions that mean the same here; vLLM takes them too.
AS_IN_CHAT = (
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
    "stop",
    "stop_token_ids",
    "include_stop_str_in_output",
    "ignore_eos",
    "min_tokens",
    "logit_bias",
    "bad_words",
    "allowed_token_ids",
    "skip_special_tokens",
    "structured_outputs",
    "include_reasoning",
    "truncate_prompt_tokens",
    "chat_template_kwargs",
    "cache_salt",
    "priority",
    "mm_processor_kwargs",
    "kv_transfer_params",
    "vllm_xargs",
    "ec_transfer_params",
    "media_io_kwargs",
    "mm_payload",
    "return_mm_kwargs",
    "watermarking",
)

RESPONSES = index(
    (
        Parameter("model", "Name of the model; absent: the served one.", Text(256, 1)),
        Parameter(
            "input",
            "A text, or items: messages, function calls and their outputs, reasoning, references.",
            ResponseInput(),
            required=True,
        ),
        Parameter("instructions", "System message; not kept for the next response.", LONG),
        Parameter(
            "previous_response_id",
            "Go on from a stored response; its whole conversation is put before the input.",
            ID,
        ),
        Parameter("store", "Keep the response for later; the default.", Boolean()),
        Parameter("background", "Answer at once and work on; needs store.", Boolean()),
        Parameter("stream", "Send the answer as server-sent events.", Boolean()),
        Parameter(
            "stream_options",
            "Taken and without effect: events are not obfuscated.",
            Record({"include_obfuscation": Boolean(), "include_usage": Boolean()}),
        ),
        Parameter(
            "include",
            "message.output_text.logprobs adds log-probabilities; what concerns hosted tools or "
            "encrypted reasoning adds nothing.",
            ListOf(OneOf(INCLUDABLE), 16),
        ),
        Parameter("metadata", "Kept and returned.", Mapping(Text(512), 16, 64)),
        # How to answer.
        Parameter(
            "max_output_tokens",
            "Most output tokens, reasoning included; absent: what the context leaves.",
            Integer(1, MAX_TOKENS),
        ),
        Parameter("temperature", "0 is greedy.", Number(0, 2)),
        Parameter("top_p", "Nucleus sampling.", Number(0, 1)),
        Parameter(
            "top_logprobs",
            "Alternatives per output token; shown when include asks for logprobs.",
            Integer(0, MAX_LOGPROBS),
        ),
        Parameter("text", "Form of the answer: format and verbosity.", TextConfig()),
        Parameter(
            "reasoning",
            "effort is passed to the model; reasoning is shown in full, never summarised.",
            Record(
                {
                    "effort": OneOf(EFFORTS),
                    "summary": OneOf(SUMMARIES),
                    "generate_summary": OneOf(SUMMARIES),
                }
            ),
        ),
        Parameter(
            "truncation",
            "auto drops the oldest messages when the context is too short; disabled refuses.",
            OneOf(("auto", "disabled")),
        ),
        Parameter("tools", "Functions the model may call.", Tools(MAX_TOOLS)),
        Parameter(
            "tool_choice", "'auto', 'none', 'required', a function, or allowed tools.", ToolChoice()
        ),
        Parameter("parallel_tool_calls", "false allows one call only.", Boolean()),
        *(CHAT[name] for name in AS_IN_CHAT if name in CHAT),
        CHAT["service_tier"],
        # Accepted and ignored: they change nothing in the answer.
        ignored("user", "Use the key to tell users apart."),
        ignored("safety_identifier", "Use the key to tell users apart."),
        ignored("prompt_cache_key", "Prefixes are found by content."),
        ignored("prompt_cache_retention", "Prefixes are kept while memory lasts."),
        ignored("prompt_cache_options", "Prefixes are kept while memory lasts."),
        ignored("max_tool_calls", "It bounds hosted tools, which there are none of."),
        ignored("request_id", "Send the x-request-id header instead."),
        ignored("session_id", "Prefixes are found by content."),
        # Refused: ignoring them would mislead.
        refused("conversation", "use previous_response_id."),
        refused("prompt", "there are no stored prompts; send the text."),
        refused("context_management", "use truncation.", []),
        refused("moderation", "this server does not moderate."),
        refused("background_options", "background work starts at once."),
        refused("previous_input_messages", "use input."),
        refused("enable_response_messages", "not offered to clients.", False),
    )
)
