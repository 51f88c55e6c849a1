"""Every field of ``POST /v1/chat/completions``: OpenAI's, and vLLM's extensions."""

from __future__ import annotations

from gateway.protocol.constraint_schemas import (
    GUIDED_CHOICE,
    GUIDED_JSON,
    GUIDED_TEXT,
    RESPONSE_FORMAT,
    STRUCTURED_OUTPUTS,
    TOOL_CHOICE,
)
from gateway.protocol.messages import MAX_TOOLS, TOOL, Messages
from gateway.protocol.parameters import Parameter, ignored, index, refused
from gateway.protocol.values import (
    Boolean,
    Integer,
    ListOf,
    Mapping,
    Number,
    OneOf,
    OneOrMany,
    Record,
    Text,
)

MAX_CHOICES = 16
MAX_STOPS = 16
MAX_STOP_LENGTH = 256
MAX_TOKENS = 10_000_000
MAX_TOKEN_ID = 2**31 - 1
MAX_BIASES = 1024
MAX_LOGPROBS = 20
# Logits are divided by it; much smaller ones would leave the range of float32.
MIN_REPETITION = 0.01
TIERS = ("auto", "default", "flex", "scale", "priority", "fast")
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")

TOKEN_ID = Integer(0, MAX_TOKEN_ID)
TEMPLATE_OWNED = "the server's template decides; clients cannot bring their own."

CHAT = index(
    (
        Parameter("model", "Name of the model; absent: the served one.", Text(256, 1)),
        Parameter("messages", "The conversation so far.", Messages(), required=True),
        # How to answer.
        Parameter("stream", "Send the answer as server-sent events.", Boolean()),
        Parameter(
            "stream_options",
            "include_usage adds a last event with the usage; with vLLM's "
            "continuous_usage_stats every event carries it; include_obfuscation is ignored.",
            Record(
                {
                    "include_usage": Boolean(),
                    "continuous_usage_stats": Boolean(),
                    "include_obfuscation": Boolean(),
                }
            ),
        ),
        Parameter("n", "Number of choices.", Integer(1, MAX_CHOICES)),
        Parameter("logprobs", "Return log-probabilities of output tokens.", Boolean()),
        Parameter(
            "top_logprobs",
            "Alternatives per output token; needs logprobs.",
            Integer(0, MAX_LOGPROBS),
        ),
        Parameter(
            "prompt_logprobs",
            "vLLM: log-probabilities of prompt tokens; not with stream.",
            Integer(0, MAX_LOGPROBS),
        ),
        Parameter("echo", "vLLM: put the last message before the answer.", Boolean()),
        Parameter(
            "return_token_ids", "vLLM: return token ids of the prompt and the answer.", Boolean()
        ),
        Parameter(
            "return_tokens_as_token_ids", "vLLM: logprobs spell tokens as token_id:N.", Boolean()
        ),
        # Length.
        Parameter(
            "max_completion_tokens",
            "Most output tokens per choice; absent: what the context leaves.",
            Integer(1, MAX_TOKENS),
        ),
        Parameter("max_tokens", "Older name of max_completion_tokens.", Integer(1, MAX_TOKENS)),
        Parameter("min_tokens", "vLLM: fewest output tokens.", Integer(0, MAX_TOKENS)),
        Parameter(
            "stop",
            "Strings that end the output.",
            OneOrMany(Text(MAX_STOP_LENGTH, 1), MAX_STOPS),
        ),
        Parameter("stop_token_ids", "vLLM: token ids that end the output.", ListOf(TOKEN_ID, 128)),
        Parameter("include_stop_str_in_output", "vLLM: keep the stop string.", Boolean()),
        Parameter("ignore_eos", "vLLM: go on after the end token.", Boolean()),
        # Sampling.
        Parameter("temperature", "0 is greedy.", Number(0, 2)),
        Parameter("top_p", "Nucleus sampling.", Number(0, 1)),
        Parameter("top_k", "vLLM: 0 or -1 turns it off.", Integer(-1, 1_000_000)),
        Parameter("min_p", "vLLM: 0 turns it off.", Number(0, 1)),
        Parameter("presence_penalty", "Counts output tokens.", Number(-2, 2)),
        Parameter("frequency_penalty", "Counts output tokens.", Number(-2, 2)),
        Parameter(
            "repetition_penalty",
            "vLLM: counts prompt and output tokens; 1 turns it off.",
            Number(MIN_REPETITION, 10),
        ),
        Parameter(
            "logit_bias",
            "Token id to bias.",
            Mapping(Number(-100, 100), MAX_BIASES, longest_key=10),
        ),
        Parameter(
            "bad_words", "vLLM: strings not to generate.", ListOf(Text(MAX_STOP_LENGTH, 1), 128)
        ),
        Parameter(
            "allowed_token_ids", "vLLM: the only ids to choose from.", ListOf(TOKEN_ID, 4096, 1)
        ),
        Parameter("seed", "Same seed and prompt, same answer.", Integer(-(2**63), 2**63 - 1)),
        Parameter("skip_special_tokens", "vLLM: leave special tokens out.", Boolean()),
        # Order.
        Parameter(
            "service_tier",
            "priority, default or flex: who goes first when the server is busy, as far as the key "
            "allows; auto: as if it were not sent. The x-priority header comes before it.",
            OneOf(TIERS),
        ),
        # Prompt.
        Parameter("tools", "Functions the model may call.", ListOf(TOOL, MAX_TOOLS, 1)),
        Parameter("tool_choice", "none, auto, required or a named function.", TOOL_CHOICE),
        Parameter("parallel_tool_calls", "false: at most one call.", Boolean()),
        Parameter(
            "response_format", "text, json_object or json_schema; enforced.", RESPONSE_FORMAT
        ),
        Parameter(
            "structured_outputs",
            "vLLM: one of json, json_object, regex, choice, grammar; enforced.",
            STRUCTURED_OUTPUTS,
        ),
        Parameter("guided_json", "Older name of structured_outputs.json.", GUIDED_JSON),
        Parameter("guided_regex", "Older name of structured_outputs.regex.", GUIDED_TEXT),
        Parameter("guided_choice", "Older name of structured_outputs.choice.", GUIDED_CHOICE),
        Parameter("guided_grammar", "Older name of structured_outputs.grammar.", GUIDED_TEXT),
        Parameter(
            "reasoning_effort",
            "Given to the chat template; none turns thinking off where the template can.",
            OneOf(EFFORTS),
        ),
        Parameter(
            "include_reasoning", "vLLM: false leaves the reasoning out of the answer.", Boolean()
        ),
        Parameter("add_generation_prompt", "vLLM: open the assistant's turn.", Boolean()),
        Parameter("continue_final_message", "vLLM: go on with the last message.", Boolean()),
        Parameter(
            "chat_template_kwargs", "vLLM: variables for the chat template.", Mapping(None, 64, 64)
        ),
        Parameter(
            "cache_salt", "vLLM: separates cached prefixes further within a key.", Text(256, 1)
        ),
        # Accepted and ignored: they change nothing in the answer.
        ignored("metadata", "Nothing is stored."),
        ignored("store", "Nothing is stored."),
        ignored("user", "Use the key to tell users apart."),
        ignored("safety_identifier", "Use the key to tell users apart."),
        ignored("prompt_cache_key", "Prefixes are found by content."),
        ignored("prompt_cache_retention", "Prefixes are kept while memory lasts."),
        ignored("prediction", "A hint for speed only."),
        ignored("verbosity", "A hint; ask for brevity in the prompt."),
        ignored("request_id", "Send the x-request-id header instead."),
        ignored("session_id", "Prefixes are found by content."),
        ignored("stream_interval", "Every step's tokens are sent as they come."),
        ignored("spaces_between_special_tokens", "Decoding follows the tokenizer."),
        # Refused: ignoring them would mislead.
        refused("audio", "this server answers in text only."),
        refused("modalities", "this server answers in text only.", ["text"]),
        refused("web_search_options", "this server does not search the web."),
        refused("functions", "deprecated by OpenAI; use tools.", []),
        refused("function_call", "deprecated by OpenAI; use tool_choice.", "none"),
        refused("best_of", "use n.", 1),
        refused("use_beam_search", "beam search is not offered.", False),
        refused("length_penalty", "beam search is not offered.", 1, 1.0),
        refused("priority", "the client's word does not set priority.", 0),
        refused("truncate_prompt_tokens", "shorten the messages instead."),
        refused("logits_processors", "code is not taken from clients.", []),
        refused("chat_template", TEMPLATE_OWNED),
        refused("documents", "put the documents in a message.", []),
        refused("add_special_tokens", TEMPLATE_OWNED, False),
        refused("mm_processor_kwargs", "the operator decides how images are prepared."),
        refused("kv_transfer_params", "not offered to clients."),
        refused("vllm_xargs", "not offered to clients."),
        refused("ec_transfer_params", "not offered to clients."),
        refused("media_io_kwargs", "not offered to clients."),
        refused("mm_payload", "not offered to clients."),
        refused("return_mm_kwargs", "not offered to clients.", False),
        refused("routed_experts_prompt_start", "not offered to clients."),
        refused("watermarking", "answers carry no watermark."),
        refused("repetition_detection", "use repetition_penalty or stop."),
        refused("thinking_token_budget", "use reasoning_effort, or bound the whole answer."),
        refused("logprob_token_ids", "use top_logprobs.", []),
        refused("return_prompt_text", "use return_token_ids.", False),
        refused("return_token_offsets", "logprobs spell every token.", False),
        refused("truncation_side", "shorten the messages instead."),
    )
)
