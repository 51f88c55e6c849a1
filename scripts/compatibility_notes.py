"""What vLLM's own server does, where its request classes do not tell. Read from its source and
seen when running it; the version is the one in vllm_fields.json."""

from __future__ import annotations

TRUSTED = "needs `--trust-request-chat-template`"
MEDIA = "needs `--trust-request-mm-kwargs`"
PARSERS = "400 unless started with `--enable-auto-tool-choice` and `--tool-call-parser`"
STORE = "only with `VLLM_ENABLE_RESPONSES_API_STORE=1`"

SERVE_ROUTES = {
    "/v1/chat/completions": "there",
    "/v1/completions": "there",
    "/v1/responses": f"there; kept {STORE}, in memory, never evicted",
    "/v1/responses/{response_id}": f"GET, {STORE}; no DELETE",
    "/v1/responses/{response_id}/cancel": STORE,
    "/v1/messages": "there; takes `Authorization` only, not `x-api-key`",
    "/v1/messages/count_tokens": "there",
    "/v1/embeddings": "there, when the one model embeds",
    "/v1/models": "there",
    "/v1/batches": "not there (offline: `vllm run-batch`)",
    "/tokenize": "there, without a key",
    "/detokenize": "there, without a key",
    "/health": "there; does not turn on drain",
    "/metrics": "there, without a key",
    "/version": "there, without a key",
    "/predict": "not there (SageMaker's `/invocations`, without a key)",
}

# Beside "taken" and "ignored".
SERVE_VALUES = {
    ("/v1/chat/completions", "user"): "taken and ignored",
    ("/v1/chat/completions", "tools"): PARSERS,
    ("/v1/chat/completions", "tool_choice"): f"`auto`: {PARSERS}",
    ("/v1/chat/completions", "chat_template"): TRUSTED,
    ("/v1/chat/completions", "mm_processor_kwargs"): MEDIA,
    ("/v1/chat/completions", "media_io_kwargs"): MEDIA,
    ("/v1/chat/completions", "priority"): "needs `--scheduling-policy priority`",
    ("/v1/chat/completions", "guided_json"): "ignored, with a line in the log",
    ("/v1/chat/completions", "guided_regex"): "ignored, with a line in the log",
    ("/v1/chat/completions", "guided_choice"): "ignored, with a line in the log",
    ("/v1/chat/completions", "guided_grammar"): "ignored, with a line in the log",
    ("/v1/completions", "user"): "taken and ignored",
    ("/v1/completions", "suffix"): "400 unless the model has a renderer for it",
    ("/v1/completions", "prompt_embeds"): "needs `--enable-prompt-embeds`",
    ("/v1/completions", "priority"): "needs `--scheduling-policy priority`",
    ("/v1/responses", "store"): STORE,
    ("/v1/responses", "previous_response_id"): STORE,
    ("/v1/responses", "background"): f"400; {STORE}",
    ("/v1/responses", "prompt"): "refused",
    ("/v1/responses", "prompt_cache_key"): "taken and ignored",
    ("/v1/responses", "user"): "taken and ignored",
    ("/tokenize", "chat_template"): TRUSTED,
}

BEHAVIOUR = (
    (
        "Model not served",
        "404 `model_not_found`",
        "404, type `NotFoundError`, the number 404 as `code`",
    ),
    (
        "`code` of errors",
        "OpenAI's strings, such as `context_length_exceeded`",
        "the HTTP status as a number",
    ),
    (
        "No key or a wrong one",
        "401 with OpenAI's or Anthropic's body; every route but the probes and pages",
        '401 `{"error": "Unauthorized"}`; only below /v1, /v2, /inference, /cohere',
    ),
    (
        "Unknown route, wrong method",
        "404 and 405 in OpenAI's shape",
        '`{"detail": "Not Found"}`',
    ),
    ("Body that is not JSON by its type", "415", "400"),
    (
        "A fault that only the engine finds, with `stream`",
        "400 before the stream begins",
        "200, then an event with the error",
    ),
    (
        "Prompt and `max_tokens` beyond the context",
        "400 `context_length_exceeded`, as OpenAI",
        "cut down to what fits, silently",
    ),
    ("Queue full", "503 with `Retry-After`", "503 without"),
    (
        "Bad input to `/v1/messages`",
        "Anthropic's shape and type names",
        "OpenAI's shape for what validation finds",
    ),
    (
        "Which tool and reasoning format",
        "found from the chat template; `TOOL_PARSER` and `REASONING_PARSER` override",
        "named at the start, else none",
    ),
    (
        "Reasoning in the answer",
        "`reasoning` and, for older clients, `reasoning_content`",
        "`reasoning`",
    ),
    (
        "`system_fingerprint` in streams",
        "on every chunk",
        "on the last one",
    ),
    (
        "Request headers for retries and ids",
        "`x-request-id` always, `openai-processing-ms`, `Retry-After`",
        "`X-Request-Id` with `--enable-request-id-headers`",
    ),
    (
        "SIGTERM",
        "readiness turns 503, streams end, then exit",
        "running requests are aborted unless `--shutdown-timeout` is set; health stays 200",
    ),
)
