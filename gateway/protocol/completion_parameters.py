"""Every field of ``POST /v1/completions``: those of chat that apply, and its own."""

from __future__ import annotations

from gateway.protocol.chat_parameters import CHAT, MAX_CHOICES, MAX_LOGPROBS, MAX_TOKENS
from gateway.protocol.completion_prompt import MAX_PROMPT_CHARS, Prompts
from gateway.protocol.parameters import Parameter, index, refused
from gateway.protocol.values import Boolean, Integer, OneOf, Text

DEFAULT_MAX_TOKENS = 16
MAX_TOTAL_CHOICES = 2048
MAX_TOTAL_TOKENS = 2**21
MAX_TOTAL_LOGPROBS = 2**22

# Fields that mean the same as in chat; what chat ignores or refuses, this endpoint does too.
SHARED = (
    "model",
    "stream",
    "stream_options",
    "n",
    "prompt_logprobs",
    "min_tokens",
    "stop",
    "stop_token_ids",
    "include_stop_str_in_output",
    "ignore_eos",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "bad_words",
    "allowed_token_ids",
    "seed",
    "skip_special_tokens",
    "response_format",
    "structured_outputs",
    "cache_salt",
    "metadata",
    "store",
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "service_tier",
    "request_id",
    "spaces_between_special_tokens",
    "use_beam_search",
    "length_penalty",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "logits_processors",
    "kv_transfer_params",
    "vllm_xargs",
    "ec_transfer_params",
    "mm_payload",
    "return_mm_kwargs",
    "routed_experts_prompt_start",
    "watermarking",
    "repetition_detection",
    "thinking_token_budget",
    "return_token_offsets",
    "session_id",
    "stream_interval",
)

COMPLETION = index(
    (
        Parameter(
            "prompt",
            "What to continue: a string, an array of strings, an array of token ids, or an array "
            "of arrays of token ids.",
            Prompts(),
            required=True,
        ),
        *(CHAT[name] for name in SHARED if name in CHAT),
        Parameter(
            "suffix",
            "What comes after the completion; only for models with fill-in-the-middle tokens.",
            Text(MAX_PROMPT_CHARS),
        ),
        Parameter(
            "max_tokens",
            f"Most output tokens per choice; absent: {DEFAULT_MAX_TOKENS}. 0 only scores the "
            "prompt and needs echo or prompt_logprobs.",
            Integer(0, MAX_TOKENS),
        ),
        Parameter("echo", "Put the prompt before the completion.", Boolean()),
        Parameter(
            "logprobs",
            "Log-probabilities of the shown tokens, with this many alternatives each.",
            Integer(0, MAX_LOGPROBS),
        ),
        Parameter("best_of", "Only equal to n.", Integer(1, MAX_CHOICES)),
        Parameter(
            "add_special_tokens",
            "vLLM: false leaves out what the tokenizer puts around a text.",
            Boolean(),
        ),
        Parameter(
            "truncate_prompt_tokens",
            "vLLM: keep this many tokens of the prompt; -1: as many as fit.",
            Integer(-1, MAX_TOKENS),
        ),
        Parameter(
            "truncation_side",
            "vLLM: where truncate_prompt_tokens cuts; absent: left.",
            OneOf(("left", "right")),
        ),
        Parameter(
            "return_token_ids", "vLLM: token_ids and prompt_token_ids per choice.", Boolean()
        ),
        Parameter(
            "return_tokens_as_token_ids",
            "vLLM: tokens in logprobs are written token_id:N.",
            Boolean(),
        ),
        refused("prompt_embeds", "send text or token ids."),
        refused("priority", "the client's word does not set priority.", 0),
        refused("logprob_token_ids", "use logprobs.", []),
    )
)
