"""Which settings a reload takes, and which need a restart."""

from __future__ import annotations

# Read for every request, or held by something that can be given another value.
RELOADABLE = frozenset(
    {
        "admin_keys",
        "admission_overcommit",
        "api_keys",
        "body_timeout_s",
        "carry_on_wait_s",
        "drain_timeout_s",
        "fallback_policy",
        "limits",
        "log_level",
        "max_body_bytes",
        "max_queue_batch",
        "max_queue_default",
        "max_queue_interactive",
        "prices_file",
        "queue_promote_s",
        "queue_timeout_batch_s",
        "queue_timeout_default_s",
        "queue_timeout_interactive_s",
        "response_cache",
        "response_cache_max_age_s",
        "response_cache_max_bytes",
        "response_cache_max_entries",
        "share_batch",
        "share_default",
        "share_interactive",
        "sse_ping_s",
        "strict_parameters",
        "trusted_proxies",
    }
)
# What is served: taken together, where no engine of this process would have to change.
ROUTED = frozenset(
    {"config_file", "model_name", "models", "revision", "routing_policy", "served_model_name"}
)


def takes(name: str, *, engines_stay: bool) -> bool:
    """Whether a reload takes the setting with this field name."""
    return name in RELOADABLE or (engines_stay and name in ROUTED)
